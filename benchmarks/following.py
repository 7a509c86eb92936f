"""Following end to end: fetch over HTTP, hash, prove, match, judge, commit to a database file; speed and memory."""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

from alerts.alert import Alert
from benchmarks.corpus import authority, read_corpus
from benchmarks.examining import RULES, make_workload
from benchmarks.measure import peak_memory, relative_rate
from benchmarks.product import BenchScanner, make_scanner
from benchmarks.tile_log import ORIGIN, ServedLog, served
from benchmarks.watched import make_rules
from monitor.following.follower import BatchScanner, FollowLimits, LogFollower, PassReport, Timing, baseline
from monitor.http_fetcher import HttpFetcher
from monitor.judging.judge import RuleJudge
from monitor.logs.rekor_v2 import RekorV2Source
from monitor.model.log_source import LogApi, LogIdentity
from monitor.store.database import create
from monitor.store.store import Store
from sigstore_entries.trust import CertificateAuthorities, CertificateAuthority
from tlog.note import tile_log_key

_SPEED_ENTRIES: Final = 40_960
_BEGUN: Final = 1_024
_BACKLOGS: Final = (10_000, 1_000_000)
_ROUNDS: Final = 9
_MIB: Final = 1 << 20
_TIMEOUT: Final = 800


class Following:
    """A follower as the daemon makes it, at entry 0 of a log, over a new database file in `folder`.

    The daemon hands a backlog to a pool of processes where it may use several; else it is scanned here.
    """

    def __init__(
        self,
        log: ServedLog,
        folder: Path,
        scanner: BenchScanner,
        limits: FollowLimits | None = None,
        batch_scanner: BatchScanner | None = None,
    ) -> None:
        self._log = log
        identity = LogIdentity(ORIGIN, LogApi.REKOR_V2, ORIGIN, ORIGIN, log.spki)
        trusted = CertificateAuthorities([CertificateAuthority("benchmark", authority().chain)])
        self._store = Store(create(str(folder / "state.db"), _clock(), "benchmark"), clock=_clock, route=_everything)
        self._fetcher = HttpFetcher(log.url)
        self._ahead = ThreadPoolExecutor(2)
        source = RekorV2Source(identity, self._fetcher, tile_log_key(ORIGIN, log.spki))
        baseline(source, self._store, 0)
        self._make = partial(
            LogFollower,
            source,
            self._store,
            scanner,
            RuleJudge(scanner.matcher, self._store.facts, lambda: (trusted, ())),
            Timing(_clock, time.sleep),
            executor=self._ahead,
            batch_scanner=batch_scanner,
        )
        self._follower = self._make(limits=limits)
        self._followed = 0

    def run_pass(self) -> PassReport:
        """Follow the log up to the limit."""
        return self._follower.run_pass()

    def begin(self, entries: int) -> None:
        """Follow the first entries, some of them hits, as any daemon has: connections stand, SQL is worked out."""
        report = self._make(limits=FollowLimits(entries_per_pass=entries)).run_pass()
        if report.entries != entries or not report.findings:
            raise RuntimeError(f"the first entries were not followed, or found nothing: {report}")
        self._followed = entries

    def run(self) -> int:
        """Follow the log to its end; returns how many entries that were."""
        report = self.run_pass()
        if (
            report.backlog
            or report.entries != self._log.size - self._followed
            or not report.findings
            or report.unreadable
        ):
            raise RuntimeError(f"following did not read everything, or found nothing: {report}")
        return report.entries

    def close(self) -> None:
        """Release the connections, the database and the threads."""
        self._ahead.shutdown()
        self._fetcher.close()
        self._store.close()


def measure_speed(corpus: Path) -> dict[str, float]:
    """Figures `follow_over_examine` and `follow_serial_share`.

    The first is entries a processor second of following over those of examining the same entries. Following is put
    together as the daemon does by default. The processor time of all its threads counts, that of the log's server,
    which is another process, does not. The first entries are followed before the clock starts: SQL statements and other
    things that are made once in the life of a daemon are left out. The second is the part of that time that the thread
    takes which proves, judges and commits: there is one for each log, while any number fetch, hash and examine.
    """
    scanner = make_scanner(make_rules(RULES))
    workload = make_workload("v2", read_corpus(corpus, "v2", _SPEED_ENTRIES), scanner)
    with ExitStack() as stack:
        log = stack.enter_context(served(corpus, _SPEED_ENTRIES))
        runs = []
        for _ in range(_ROUNDS + 1):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            runs.append(stack.enter_context(closing(Following(log, folder, scanner))))
            runs[-1].begin(_BEGUN)
        waiting = iter(runs)
        shares = []

        def follow() -> int:
            alone, together = time.thread_time(), time.process_time()
            entries = next(waiting).run()
            shares.append((time.thread_time() - alone) / (time.process_time() - together))
            return entries

        ratio = relative_rate(follow, workload.examine, rounds=_ROUNDS)
    return {"follow_over_examine": ratio, "follow_serial_share": statistics.median(shares)}


def measure_memory(corpus: Path) -> dict[str, float]:
    """Figures `follow_1m_mb` and `follow_memory_growth_mb`: MiB of a million entries, and how much more than of 10,000.

    The peak resident size of a process that does nothing but follow, for each backlog in a process of its own.
    """
    small, large = (_peak_following(corpus, size) for size in _BACKLOGS)
    return {"follow_memory_growth_mb": (large - small) / _MIB, "follow_1m_mb": large / _MIB}


def _peak_following(corpus: Path, size: int) -> int:
    with served(corpus, size) as log:
        told = json.dumps({"url": log.url, "spki": log.spki.hex(), "size": size})
        command = [sys.executable, "-m", "benchmarks.following", told]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=_TIMEOUT, check=True)
    return int(done.stdout)


def _clock() -> datetime:
    return datetime.now(UTC)


def _everything(_: Alert) -> list[str]:
    return ["channel"]


def _main() -> None:
    told = json.loads(sys.argv[1])
    log = ServedLog(told["url"], bytes.fromhex(told["spki"]), told["size"])
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(Following(log, Path(folder), make_scanner(make_rules(RULES)))) as following,
    ):
        following.run()
    print(peak_memory())


if __name__ == "__main__":
    _main()
