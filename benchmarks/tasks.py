"""Every figure by name, what it means, and what it should be. Names are what `bench.json` holds."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import (
    archive_memory,
    archived,
    clustered,
    examining,
    following,
    hits,
    latency,
    noise,
    private_sigstore,
    rule_count,
    start_up,
    subscriptions,
)
from benchmarks.private_sigstore import CLIENTS


@dataclass(frozen=True, slots=True)
class Figure:
    """One number. `at_least` and `at_most` are the target; `meaning` says what is divided by what."""

    name: str
    meaning: str
    at_least: float | None = None
    at_most: float | None = None

    def met(self, value: float) -> bool:
        """True if the target is met."""
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)

    @property
    def target(self) -> str:
        """The target as people read it."""
        if self.at_least is None and self.at_most is None:
            return ""
        if self.at_least is not None and self.at_least == self.at_most:
            return f"{self.at_least:g}"
        return f"≥ {self.at_least:g}" if self.at_least is not None else f"≤ {self.at_most:g}"


@dataclass(frozen=True, slots=True)
class Task:
    """Figures that are taken together, in a process of their own. `run` gets the corpus folder."""

    figures: tuple[Figure, ...]
    run: Callable[[Path], dict[str, float]]


def _examine(version: str) -> Task:
    return Task(
        (
            Figure(
                f"examine_{version}_over_naive",
                f"entries/s of examine (hash, decode, match; {version} bodies, one core, 1,000 rules) over those of "
                "the obvious pipeline in benchmarks/naive.py",
                at_least=20,
            ),
            Figure(
                f"examine_{version}_over_sha256",
                f"entries/s of examine ({version} bodies, one core, 1,000 rules) over those of a loop that calls "
                "hashlib.sha256(body).digest() for the same bodies and does nothing else: no tree, no decoding",
                at_least=0.25,
            ),
        ),
        lambda corpus: examining.measure_examine(corpus, version),
    )


def _load(many: str, one: str, what: str, clients: tuple[int, ...]) -> Iterator[Figure]:
    for count in clients:
        yield Figure(f"{many}_per_s_{count}", f"{what} a second, {count} clients at once (wall clock)")
        yield Figure(f"{one}_p50_ms_{count}", f"milliseconds of one of them, median, {count} clients")
        yield Figure(f"{one}_p99_ms_{count}", f"milliseconds of one of them, 99 of 100 are faster, {count} clients")
        yield Figure(f"{one}_cpu_ms_{count}", f"processor milliseconds of the server for one, {count} clients")


_PRIVATE_SIGSTORE: Final = Task(
    (
        Figure("p256_signatures_per_s", "a limit: ECDSA P-256 signatures a second on one core"),
        Figure("fsyncs_per_s", "a limit: 4 KiB appends a second, each with fsync"),
        *_load("certificates", "certificate", "certificates of ca-lite, entered into log-lite's CT log", CLIENTS),
        *_load("appends", "append", "entries appended to log-lite's Rekor v2 log", CLIENTS),
        *_load("reads", "read", "reads of an entry tile from log-lite", (16,)),
        Figure("certificates_of_limit", "three signatures for each of the most certificates a second, over the limit"),
        Figure("appends_over_fsyncs", "appends a second of 64 clients over fsyncs: they share commits", at_least=1),
    ),
    private_sigstore.measure,
)

# How often `python -c pass` goes into the aims, which were set in seconds where that takes 0.023 s.
_STARTS: Final = {
    "version": 0.2 / 0.023,
    "help": 0.2 / 0.023,
    "lint": 0.4 / 0.023,
    "verify": 0.4 / 0.023,
    "status": 1.0 / 0.023,
    "audit": 1.0 / 0.023,
    "run_once": None,
    "scan": None,
}


def _start_up() -> Task:
    figures = [Figure("startup_python_s", "processor seconds of `python -c pass`, what the others are divided by")]
    for name, aim in _STARTS.items():
        words = " ".join(start_up.COMMANDS[name][:2])
        figures.append(Figure(f"startup_{name}_s", f"processor seconds of `signwatch {words}`, idle logs on loopback"))
        figures.append(
            Figure(f"startup_{name}_over_python", "that over `python -c pass`", at_most=aim and round(aim, 1))
        )
    figures += (
        Figure("startup_audit_to_request_s", "processor seconds of `signwatch audit` until it asks a log"),
        Figure(
            "startup_audit_to_request_over_python",
            "that over `python -c pass`",
            at_most=round(_STARTS["audit"] or 0, 1),
        ),
    )
    return Task(tuple(figures), start_up.measure_start_up)


_IDLE: Final = Task(
    (
        Figure("idle_daemon_mb", "resident MiB of `signwatch run` on three logs that show nothing new", at_most=110),
        Figure("idle_daemon_pss_mb", "the same with a page that several processes share counted by its part"),
    ),
    start_up.measure_idle,
)


def _at_two_sizes(name: str, what: str) -> Iterator[Figure]:
    yield Figure(f"{name}_growth_mb", f"peak MiB of {what}, of 1,048,576 made-up rows less of 131,072", at_most=100)
    yield Figure(f"{name}_1m_mb", f"peak MiB of {what}, of 1,048,576 made-up rows")
    yield Figure(f"{name}_100k_mb", "the same of 131,072")


TASKS: Final[tuple[Task, ...]] = (
    _start_up(),
    _IDLE,
    Task(
        (
            Figure(
                "follow_1m_all_processes_mb",
                "peak MiB of all processes of `signwatch run --once` over 1,000,000 entries with 1,000 rules",
                at_most=150,
            ),
        ),
        start_up.measure_following,
    ),
    _PRIVATE_SIGSTORE,
    _examine("v1"),
    _examine("v2"),
    Task(
        (Figure("two_processes_over_one", "wall-clock entries/s of two examining processes over one", at_least=1.85),),
        examining.measure_two_processes,
    ),
    Task(
        (
            Figure(
                "dask_two_over_one",
                "wall-clock entries/s of two workers of a Dask cluster over one, entries at hand, scheduler and client "
                "on the same cores",
                at_least=1.75,
            ),
            Figure(
                "dask_over_processes", "that over two_processes_over_one, taken again in the same run", at_least=0.95
            ),
        ),
        clustered.measure_dask,
    ),
    Task(
        (
            Figure(
                "follow_over_examine",
                "entries a processor second of following a Rekor v2 log over HTTP (fetch, hash, prove, match, judge, "
                "commit to SQLite; 1,000 rules; the log's server left out) over those of examine alone",
                at_least=0.6,
            ),
            Figure(
                "follow_serial_share",
                "part of following's processor time in the one thread that proves, judges and commits: what more "
                "threads, processes or cores do not share",
                at_most=0.25,
            ),
        ),
        following.measure_speed,
    ),
    Task(
        (
            Figure(
                "follow_memory_growth_mb",
                "peak MiB of following a backlog of 1,000,000 entries less that of 10,000",
                at_most=20,
            ),
            Figure("follow_1m_mb", "peak MiB of following 1,000,000 entries with 1,000 rules", at_most=150),
        ),
        following.measure_memory,
    ),
    Task(
        (
            Figure(
                "hit_over_ecdsa",
                "processor time of following one of 50,000 self-made certificates in a watched name, from the bundle "
                "it came in to its committed finding, over that of one ECDSA P-256 verification",
                at_most=10,
            ),
            Figure(
                "hits_over_examine",
                "entries/s of following those certificates, every one a hit, over those of examine alone",
                at_least=0.4,
            ),
        ),
        lambda _: hits.measure_hits(),
    ),
    Task(
        (Figure("rules_100k_over_1", "entries/s of examine with 100,000 rules over one rule", at_least=0.75),),
        lambda corpus: rule_count.measure_count(corpus, 100_000, "rules_100k_over_1"),
    ),
    Task(
        (Figure("rules_1m_over_1", "entries/s of examine with 1,000,000 rules over one rule", at_least=0.6),),
        lambda corpus: rule_count.measure_count(corpus, 1_000_000, "rules_1m_over_1"),
    ),
    Task(
        (
            Figure("rules_1m_build_s", "processor seconds to compile 1,000,000 rules", at_most=20),
            Figure("rules_1m_build_gb", "peak GiB of a process that makes and compiles 1,000,000 rules", at_most=1.5),
        ),
        lambda _: rule_count.measure_build(),
    ),
    Task(
        (
            Figure("subscriptions_1m_load_s", "seconds to put 1,000,000 subscriptions in force at a start", at_most=60),
            Figure("subscriptions_1m_gb", "peak GiB of the process that then holds them", at_most=3),
            Figure(
                "subscription_in_force_s",
                "seconds from confirming one more to its being matched, the daemon's interval of 1 s included",
                at_most=5,
            ),
            Figure("subscription_change_cpu_ms", "processor milliseconds of one change among them", at_most=50),
        ),
        lambda _: subscriptions.measure_subscriptions(),
    ),
    Task(
        (
            Figure(
                "fan_out_10k_s",
                "seconds from one committed finding to 10,000 accepted webhooks at many loopback addresses",
                at_most=30,
            ),
            Figure(
                "fan_out_hold_ms",
                "longest milliseconds that a pass over a log waits meanwhile until it can commit",
                at_most=1_000,
            ),
        ),
        lambda _: subscriptions.measure_fan_out(),
    ),
    Task(
        (
            Figure(
                "own_past_ms",
                "processor milliseconds for each of 10,000 subscribers of one name, each judged by a past of their "
                "own, of matching, judging and committing one of its entries with an alert for each",
                at_most=0.5,
            ),
        ),
        lambda _: subscriptions.measure_own_past(),
    ),
    Task(
        (
            Figure(
                "alert_latency_ms",
                "median milliseconds from an entry that the log integrated to its alert's webhook, less the poll "
                "interval of 1 s (below 0 where the next poll came sooner)",
                at_most=500,
            ),
        ),
        lambda _: latency.measure_latency(),
    ),
    Task(
        (
            Figure(
                "mail_latency_ms",
                "median milliseconds from an entry that the log integrated to the SMTP server taking its subscriber's "
                "mail, with 100,000 subscribers, less the poll interval of 1 s",
                at_most=1_000,
            ),
        ),
        lambda _: latency.measure_mail_latency(),
    ),
    Task(
        (
            Figure(
                "page_cpu_ms",
                "processor milliseconds of the dearest of front page, a name's page, a subscription's page and the "
                "list of them, with 1,000,000 findings (100,000 of that name) and 1,000,000 subscriptions",
                at_most=50,
            ),
        ),
        lambda _: subscriptions.measure_pages(),
    ),
    Task(
        (
            Figure(
                "noise_attacks_found",
                "of the 20 attacks in a simulated year (benchmarks/year.py), paged with exactly the right reasons",
                at_least=20,
            ),
            Figure("noise_false_pages", "pages of that year that were about no attack", at_most=0),
        ),
        lambda _: noise.measure_noise(),
    ),
    Task(
        (
            Figure(
                "archive_over_examine",
                "entries/s archived (all decoded, rows and index written and synced) over those of examine with "
                "1,000 rules, on one core",
                at_least=0.025,
            ),
            Figure(
                "archive_checked_over_unchecked",
                "rows/s with each certificate's issuer verified over those without; one P-256 verification alone "
                "would leave 0.77",
                at_least=0.6,
            ),
            Figure(
                "candidates_over_examine",
                "rows/s searched for candidates of 1,000 rules over examining their entries in memory",
                at_least=3,
            ),
            Figure(
                "archive_rows_share",
                "part of that time that goes into decoding entries into rows and into their chains, not into files",
                at_least=0.9,
            ),
            Figure("archive_hash_us", "of it, processor microseconds for an entry: leaf hashes"),
            Figure("archive_decode_us", "decoding all of an entry"),
            Figure("archive_columns_us", "columns of the decoded values"),
            Figure("archive_chain_us", "the certificate's chain"),
            Figure("archive_rows_file_us", "the file of rows, zstd included"),
            Figure("archive_index_us", "sorting keys into an index"),
            Figure("archive_index_file_us", "the index's file, zstd included"),
            Figure("archive_bytes_per_entry", "bytes of a row file for each entry of the corpus", at_most=150),
            Figure("archive_index_bytes_per_entry", "bytes of the index beside it for each entry", at_most=200),
            Figure(
                "archive_map_bytes_per_entry",
                "bytes of the sorted Merkle map over the keys of these entries, for each entry",
            ),
        ),
        archived.measure_archiving,
    ),
    Task(
        (
            Figure(
                "archive_build_growth_mb",
                "peak MiB of all processes of `signwatch archive build` over 1,048,576 entries less that over 131,072",
                at_most=50,
            ),
            Figure("archive_build_1m_mb", "the former", at_most=700),
            Figure("archive_build_100k_mb", "the latter"),
        ),
        archive_memory.measure_build,
    ),
    Task(
        (
            *_at_two_sizes("archive_maps", "building the search maps"),
            *_at_two_sizes("search", "searching for a person, an organisation, a glob and everything"),
            *_at_two_sizes("search_export", "handing every row on as a JSON line"),
            Figure("archive_compact_1m_mb", "peak MiB of joining sixteen ranges of 65,536 rows"),
            Figure("search_joined_1m_mb", "peak MiB of the same searches when these are one range"),
            Figure("search_export_joined_1m_mb", "peak MiB of handing every row on when these are one range"),
            Figure("archive_1m_map_bytes_per_entry", "bytes of the search maps of 1,048,576 of these rows, for each"),
        ),
        lambda _: archive_memory.measure_steps(),
    ),
    Task(
        (
            Figure("search_exact_ms", "median of exact look-ups in 10.5 million rows, cold", at_most=250),
            Figure("search_exact_warm_ms", "the same again, with footers and pages in memory", at_most=50),
            Figure("search_prefix_ms", "median of looking an organisation up there, no page in memory", at_most=500),
            Figure("search_exact_cpu_ms", "processor time of the same, which other work disturbs less", at_most=250),
            Figure("search_exact_warm_cpu_ms", "processor time of exact look-ups, warm", at_most=50),
            Figure("search_prefix_cpu_ms", "processor time of looking an organisation up", at_most=500),
            Figure("search_glob_cpu_ms", "processor time of those globs", at_most=60_000),
            Figure("search_glob_ms", "median of globs without a fixed beginning there", at_most=60_000),
            Figure(
                "search_over_scan",
                "time of such a cold look-up over the least that scanning as many entries on all cores takes",
                at_most=0.005,
            ),
            Figure("search_peak_mb", "peak memory of the process that searched", at_most=1_000),
            Figure("archive_10m_bytes_per_entry", "bytes of its rows for each entry", at_most=150),
            Figure("archive_10m_index_bytes_per_entry", "bytes of its index for each entry", at_most=200),
        ),
        archived.measure_search,
    ),
)


def task_of(figure: str) -> Task:
    """The task that takes a figure. Raises `KeyError`."""
    for task in TASKS:
        if any(each.name == figure for each in task.figures):
            return task
    raise KeyError(figure)
