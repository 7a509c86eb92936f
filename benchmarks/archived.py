"""The archive: how fast entries become rows, how large they are, and how fast ten million rows are searched.

The rows of the search are made up, with the skew of the public log: a few repositories sign most entries, most sign a
few, one entry in ten is a person's, and every digest and fingerprint occurs once.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import accumulate
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Final

import pyarrow as pa

from benchmarks.corpus import authority, read_corpus
from benchmarks.examining import RULES, make_workload
from benchmarks.measure import peak_memory, relative_rate
from benchmarks.product import make_scanner
from benchmarks.watched import make_watches
from monitor.archive.candidates import CandidateSearch
from monitor.archive.files import ArchiveFiles
from monitor.archive.map_building import block_lines, write_map
from monitor.archive.map_files import KeptMap
from monitor.archive.query import MatchMode, Query
from monitor.archive.ranges import RANGE, ArchivedRange, ArchivedRun, ArchiveManifest, to_json
from monitor.archive.rows import MADE_SCHEMA, SCHEMA, RowTrust, decoded, rows_of
from monitor.archive.search import Archive
from monitor.archive.search_index import index_of
from monitor.archive.writing import Sink, index_sink, manifest_name, read_manifests, rows_sink, write_range
from monitor.model.log_source import LogApi, LogEntry, LogIdentity, SignedHead, hashes_of
from rules.matching.matcher import compile_rules
from sigstore_entries.signing import EntryRef
from sigstore_entries.trust import CertificateAuthority
from tlog.merkle import Frontier, RootHash

WIDTH: Final = 1 << 20  # rows of a compacted range
RANGES: Final = 10
_REPOSITORIES: Final = 400_000
_PEOPLE: Final = 120_000
_BEGIN: Final = datetime(2026, 1, 1, tzinfo=UTC)
_MICROSECONDS: Final = 400_000  # between two entries
_GITHUB: Final = "https://token.actions.githubusercontent.com"
_GOOGLE: Final = "https://accounts.google.com"
IDENTITY: Final = LogIdentity("bench", LogApi.REKOR_V2, "log.example", "log.example", b"key")
_LOOK_UPS: Final = 20
_BATCH: Final = 2048


def measure_archiving(corpus: Path) -> dict[str, float]:
    """Figures `archive_over_examine` and `archive_bytes_per_entry`, and where the time goes."""
    bodies = read_corpus(corpus, "v2")
    entries = [LogEntry(body) for body in bodies]
    scanned = make_workload("v2", bodies, make_scanner([each.rule for each in make_watches(RULES)]))
    trust = RowTrust("benchmark", (CertificateAuthority("benchmark", authority().chain),))
    seconds = {"rows": 0.0, "files": 0.0}
    with tempfile.TemporaryDirectory() as folder:
        files = ArchiveFiles(folder)
        written: list[ArchivedRange] = []

        def made_rows(trust: RowTrust | None) -> list[pa.RecordBatch]:
            return [
                rows_of(entries[at : at + _BATCH], at, "bench", LogApi.REKOR_V2, trust)
                for at in range(0, len(entries), _BATCH)
            ]

        def archive() -> int:
            began = time.process_time()
            batches = made_rows(trust)
            made = time.process_time()
            written[:] = [write_range(files, IDENTITY, pa.Table.from_batches(batches, MADE_SCHEMA))]
            seconds["rows"] += made - began
            seconds["files"] += time.process_time() - made
            return len(entries)

        ratio = relative_rate(archive, scanned.examine, rounds=3)
        checked = relative_rate(
            lambda: sum(map(len, made_rows(trust))), lambda: sum(map(len, made_rows(None))), rounds=3
        )
        (each,) = written
        end = each.extend(Frontier())
        run = ArchivedRun(Frontier(), (each,), SignedHead("bench", end.size, RootHash(end.root()), b"", _BEGIN))
        files.write(manifest_name("bench"), to_json(ArchiveManifest(IDENTITY, (run,))))
        search = CandidateSearch(compile_rules([each.rule for each in make_watches(RULES)]), "bench")
        past = relative_rate(lambda: _candidates(files, search, len(entries)), scanned.examine, rounds=3)
        rows = pa.Table.from_batches(made_rows(None), MADE_SCHEMA)
        index = index_of(rows, 0)
        mapped = write_map(files, "bench", (RANGE.bit_length() - 1, 0), block_lines(index, 0))
        parts = _parts(entries, trust, rows)
    return {
        "archive_over_examine": ratio,
        **{f"archive_{name}_us": each / len(entries) * 1e6 for name, each in parts.items()},
        "archive_checked_over_unchecked": checked,
        "archive_rows_share": seconds["rows"] / (seconds["rows"] + seconds["files"]),
        "candidates_over_examine": past,
        "archive_bytes_per_entry": each.rows.size / len(entries),
        "archive_index_bytes_per_entry": each.index.size / len(entries),
        "archive_map_bytes_per_entry": map_bytes([mapped]) / len(entries),
    }


def _candidates(files: ArchiveFiles, search: CandidateSearch, count: int) -> int:
    """Search all rows for candidates, with nothing cached; returns the number of rows."""
    searched = 0
    for _, rows in Archive(files).rows("bench", 0, count, search.columns, search.fingerprints):
        search.find(rows)
        searched += len(rows)
    return searched


def _parts(entries: Sequence[LogEntry], trust: RowTrust, rows: pa.Table) -> dict[str, float]:
    """Processor seconds of the parts of archiving these entries, whose rows are `rows`."""

    def row_batches(trust: RowTrust | None) -> None:
        for at in range(0, len(entries), _BATCH):
            rows_of(entries[at : at + _BATCH], at, "bench", LogApi.REKOR_V2, trust)

    def decode() -> None:
        for at, entry in enumerate(entries):
            decoded(entry, EntryRef("bench", at), LogApi.REKOR_V2)

    def written(sink: Sink, part: pa.Table) -> None:
        with sink:
            sink.write(part)
            sink.content()

    index = index_of(rows, 0)
    made: dict[str, Callable[[], object]] = {
        "hash": lambda: hashes_of(entries),
        "decode": decode,
        "unchecked": lambda: row_batches(None),
        "checked": lambda: row_batches(trust),
        "rows_file": lambda: written(rows_sink({}), rows.select(SCHEMA.names)),
        "index": lambda: index_of(rows, 0),
        "index_file": lambda: written(index_sink({}), index),
    }
    took = {name: min(_processor_seconds(run) for _ in range(2)) for name, run in made.items()}
    return {
        "hash": took["hash"],
        "decode": took["decode"],
        "columns": took["unchecked"] - took["decode"] - took["hash"],
        "chain": took["checked"] - took["unchecked"],
        "rows_file": took["rows_file"],
        "index": took["index"],
        "index_file": took["index_file"],
    }


def _processor_seconds(run: Callable[[], object]) -> float:
    began = time.process_time()
    run()
    return time.process_time() - began


def map_bytes(maps: Iterable[KeptMap]) -> int:
    """Bytes of all files of search maps."""
    return sum(part.lines.size + part.entries.size for each in maps for part in each.parts)


def measure_search(corpus: Path) -> dict[str, float]:
    """Figures of searching ten million rows: milliseconds cold and warm, over a scan of as many entries, and memory.

    The archive takes long to make, and is kept beside the corpus.
    """
    folder = corpus / "archive"
    if not (folder / manifest_name("bench")).exists():
        make_archive(folder, RANGES)
    (run,) = read_manifests(ArchiveFiles(str(folder)))["bench"].runs
    figures = _search(folder)
    peak = peak_memory()  # before the entries of the scan are in memory
    scanned = make_workload("v2", read_corpus(corpus, "v2"), make_scanner([each.rule for each in make_watches(RULES)]))
    rates = []
    for _ in range(3):
        began = time.perf_counter()
        rates.append(scanned.examine() / (time.perf_counter() - began))
    # `signwatch scan` on all cores at best: entries at hand, and no time for anything but examining them.
    scan = RANGES * WIDTH / (max(rates) * (os.cpu_count() or 1))
    return figures | {
        "search_over_scan": figures["search_exact_ms"] / 1000 / scan,
        "search_peak_mb": peak / 1e6,
        "archive_10m_bytes_per_entry": sum(each.rows.size for each in run.ranges) / (RANGES * WIDTH),
        "archive_10m_index_bytes_per_entry": sum(each.index.size for each in run.ranges) / (RANGES * WIDTH),
    }


def _search(folder: Path) -> dict[str, float]:
    random = Random(7)
    repositories = [int(each) for each in Skew().repositories(random, _LOOK_UPS)]
    people = [f"person{each}@mail{each % 997}.example" for each in Skew().people(random, _LOOK_UPS)]
    exact = [Query(text) for text in people]
    prefix = [Query(f"https://github.com/org{each % 40_000}/", match=MatchMode.PREFIX) for each in repositories]
    globs = [Query(f"*/project{each}/*release.yml@*", match=MatchMode.GLOB) for each in repositories[:3]]
    taken = {
        "search_exact": _cold(folder, exact),
        "search_exact_warm": _warm(folder, exact),
        "search_prefix": _cold(folder, prefix),
        "search_glob": _cold(folder, globs),
    }
    wall = {f"{name}_ms": each[0] for name, each in taken.items()}
    return wall | {f"{name}_cpu_ms": each[1] for name, each in taken.items()}


def _cold(folder: Path, queries: list[Query]) -> tuple[float, float]:
    """Medians of first searches: nothing is remembered, and no page of a file is in memory."""
    taken = []
    for query in queries:
        _drop_pages(folder)
        archive = Archive(ArchiveFiles(str(folder)))
        taken.append(_milliseconds(lambda: archive.search(query)))  # noqa: B023  called at once
    return _medians(taken)


def _warm(folder: Path, queries: list[Query]) -> tuple[float, float]:
    """Medians of searches that were made once before: every footer and page they need is in memory."""
    archive = Archive(ArchiveFiles(str(folder)))
    for query in queries:
        archive.search(query)
    return _medians([_milliseconds(partial(archive.search, query)) for query in queries])


def _medians(taken: list[tuple[float, float]]) -> tuple[float, float]:
    return statistics.median(wall for wall, _ in taken), statistics.median(used for _, used in taken)


def _milliseconds(run: Callable[[], object]) -> tuple[float, float]:
    """Wall clock and processor time of this process."""
    began, used = time.perf_counter(), time.process_time()
    run()
    return (time.perf_counter() - began) * 1000, (time.process_time() - used) * 1000


def _drop_pages(folder: Path) -> None:
    for path in folder.rglob("*.parquet"):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def make_archive(folder: Path, ranges: int) -> None:
    """Write an archive of `ranges` times a million rows, joined."""
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        _write_manifest(folder, list(pool.map(_make_range, [str(folder)] * ranges, range(ranges))))


def make_parts(folder: Path, ranges: int) -> None:
    """Write an archive of `ranges` times 65,536 rows, not joined."""
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        _write_manifest(folder, list(pool.map(_make_part, [str(folder)] * ranges, range(ranges))))


def _write_manifest(folder: Path, made: Sequence[ArchivedRange]) -> None:
    end = Frontier()
    for each in made:
        end = each.extend(end)
    head = SignedHead("bench", end.size, RootHash(end.root()), b"", _BEGIN)
    manifest = ArchiveManifest(IDENTITY, (ArchivedRun(Frontier(), tuple(made), head),))
    ArchiveFiles(str(folder)).write(manifest_name("bench"), to_json(manifest))


def _make_range(folder: str, number: int) -> ArchivedRange:
    rows = pa.concat_tables(
        [made_up_rows(number * WIDTH + at, RANGE, seed=number * 1000 + at) for at in range(0, WIDTH, RANGE)]
    )
    return write_range(ArchiveFiles(folder), IDENTITY, rows.combine_chunks())


def _make_part(folder: str, number: int) -> ArchivedRange:
    return write_range(ArchiveFiles(folder), IDENTITY, made_up_rows(number * RANGE, RANGE, seed=number))


@dataclass(frozen=True, slots=True)
class Skew:
    """Distribution of signings: the n-th repository or person in proportion to 1/n."""

    @staticmethod
    def repositories(random: Random, count: int) -> list[int]:
        """Numbers of repositories."""
        return random.choices(range(_REPOSITORIES), cum_weights=_WEIGHTS[:_REPOSITORIES], k=count)

    @staticmethod
    def people(random: Random, count: int) -> list[int]:
        """Numbers of people."""
        return random.choices(range(_PEOPLE), cum_weights=_WEIGHTS[:_PEOPLE], k=count)


_WEIGHTS: Final = list(accumulate(1 / number for number in range(1, _REPOSITORIES + 1)))


def made_up_rows(first: int, count: int, seed: int) -> pa.Table:
    """Rows of entries that were never signed."""
    random = Random(seed)
    repositories, people = Skew.repositories(random, count), Skew.people(random, count)
    columns: dict[str, list[object]] = {
        name: [] for name in MADE_SCHEMA.names if not name.endswith(("prints", "ests", "hash", "keys"))
    }
    for offset in range(count):
        index = first + offset
        is_person = index % 10 == 9
        each = repositories[offset]
        repository = f"https://github.com/org{each % 40_000}/project{each}"
        ref = f"refs/tags/v{each % 9}.{random.randrange(20)}.{random.randrange(4)}"
        workflow = f"{repository}/.github/workflows/release.yml@{ref}"
        person = f"person{people[offset]}@mail{people[offset] % 997}.example"
        row = {
            "log": "bench",
            "index": index,
            "time": int(_BEGIN.timestamp()) * 1_000_000 + index * _MICROSECONDS + random.randrange(_MICROSECONDS),
            "time_source": "certificate-not-before",
            "not_before": int(_BEGIN.timestamp()) * 1_000_000 + index * _MICROSECONDS,
            "kind": "dsse" if index % 5 == 0 else "hashedrekord",
            "identities": [person if is_person else workflow],
            "issuers": [_GOOGLE if is_person else _GITHUB],
            "repositories": [] if is_person else [repository],
            "workflows": [],
            "refs": [] if is_person else [ref],
            "triggers": [] if is_person else ["push"],
            "repository_ids": [] if is_person else [str(10_000_000 + 7 * each)],
            "owner_ids": [] if is_person else [str(1_000_000 + each % 40_000)],
            "runners": [] if is_person else ["github-hosted"],
            "chains": ["trusted"],
            "signers": None,
            "trust_root": None,
            "defect": None,
        }
        for name, column in columns.items():
            column.append(row[name])
    digests, prints = _hashes(random, count), _hashes(random, 2 * count)
    hashes = {
        "digests": _each_in_a_list(digests),
        # Of each certificate its own fingerprint and its key's, in turns.
        "fingerprints": _each_in_a_list(prints[::2]),
        "keys": _each_in_a_list(prints[1::2]),
        "leaf_hash": pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(32), count, [None, pa.py_buffer(random.randbytes(32 * count))]
        ),
    }
    made = {name: pa.array(column, MADE_SCHEMA.field(name).type) for name, column in columns.items()}
    return pa.table([(made | hashes)[name] for name in MADE_SCHEMA.names], schema=MADE_SCHEMA)


def _hashes(random: Random, count: int) -> list[bytes]:
    return [random.randbytes(32) for _ in range(count)]


def _each_in_a_list(values: Sequence[bytes]) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(range(len(values) + 1), pa.int32()), pa.array(values, pa.binary()))
