"""Speed of `monitor.following.scan_batch`: against the obvious pipeline, against bare SHA-256, and on two processes."""

import gc
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, ProcessPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from benchmarks.corpus import read_corpus
from benchmarks.measure import relative_best, relative_rate, wait_for_quiet
from benchmarks.naive import NaivePipeline
from benchmarks.product import make_scanner
from benchmarks.watched import make_rules, make_watches
from monitor.following.scan_batch import ScannedBatch, Scanner, scan_batch
from monitor.model.log_source import LogApi, LogEntry

RULES: Final = 1_000
BATCH: Final = 2_048  # the follower's own batch
_NAIVE_ENTRIES: Final = 2_560
_NAIVE_BATCH: Final = 256
_API: Final = {"v1": LogApi.REKOR_V1, "v2": LogApi.REKOR_V2}


@dataclass(frozen=True, slots=True)
class Workload:
    """Entries of one API version, cut into batches as the follower cuts them, and a scanner."""

    api: LogApi
    batches: tuple[tuple[LogEntry, ...], ...]
    scanner: Scanner

    def examine(self) -> int:
        """Examine everything once; returns how many entries that were."""
        start = 0
        for batch in self.batches:
            scan_batch(batch, start, "bench", self.api, self.scanner)
            start += len(batch)
        return start

    def hits(self) -> int:
        """Number of (entry, rule) pairs that examining finds."""
        scans = (scan_batch(batch, 0, "bench", self.api, self.scanner).scan for batch in self.batches)
        return sum(len(hit.rules) for scan in scans for hit in scan.hits)


def make_workload(version: str, bodies: Sequence[bytes], scanner: Scanner) -> Workload:
    """Cut bodies into batches, the last one as short as it comes."""
    entries = [LogEntry(body) for body in bodies]
    batches = tuple(tuple(entries[start : start + BATCH]) for start in range(0, len(entries), BATCH))
    return Workload(_API[version], batches, scanner)


def measure_examine(corpus: Path, version: str) -> dict[str, float]:
    """Figures `examine_*_over_naive` and `examine_*_over_sha256` for one version of the bodies."""
    bodies = read_corpus(corpus, version)
    watches = make_watches(RULES)
    scanner = make_scanner([each.rule for each in watches])
    whole = make_workload(version, bodies, scanner)
    naive = NaivePipeline(watches)
    some = bodies[:_NAIVE_ENTRIES]

    def run_naive() -> int:
        for start in range(0, len(some), _NAIVE_BATCH):
            naive.examine(some[start : start + _NAIVE_BATCH])
        return len(some)

    found = sum(
        len(naive.examine(some[start : start + _NAIVE_BATCH])[1]) for start in range(0, len(some), _NAIVE_BATCH)
    )
    if make_workload(version, some, scanner).hits() != found:
        raise RuntimeError("the two pipelines do not find the same signings")

    def run_sha256() -> int:
        # Every entry is a message of its own, so the minimum is one hash for each: C, called from a loop.
        for body in bodies:
            sha256(body).digest()
        return len(bodies)

    return {
        f"examine_{version}_over_naive": relative_rate(whole.examine, run_naive, rounds=5),
        f"examine_{version}_over_sha256": relative_rate(whole.examine, run_sha256, rounds=9),
    }


_shared: Workload | None = None


def measure_two_processes(corpus: Path) -> dict[str, float]:
    """Figure `two_processes_over_one`: wall-clock rate of two worker processes over that of one.

    Every worker holds all entries and rules from the start, so what is compared is examining and the way back of its
    results. The rates are the best of several runs, one and two processes in turn, each begun when the cores are idle.
    """
    global _shared  # noqa: PLW0603  what a forked worker inherits has to be reachable from the module
    _shared = make_workload("v2", read_corpus(corpus, "v2"), make_scanner(make_rules(RULES)))
    gc.freeze()
    context = multiprocessing.get_context("fork")
    with ExitStack() as parts:
        workers = [parts.enter_context(ProcessPoolExecutor(1, mp_context=context)) for _ in range(2)]
        for worker in workers:
            # Counting references writes to the pages a worker shares with us, and its first write to each copies it.
            _spread([worker])
        ratio = relative_best(lambda: _spread(workers), lambda: _spread(workers[:1]), rounds=7, begin=wait_for_quiet)
    return {"two_processes_over_one": ratio}


def _spread(workers: Sequence[Executor]) -> int:
    """Hand every batch to whichever worker is free next; returns how many entries that were."""
    assert _shared is not None
    numbers = iter(range(len(_shared.batches)))
    # One batch waits behind the one that is being scanned, so that no worker waits for us.
    waiting = {
        worker.submit(_examine_shared, number): worker
        for _ in range(2)
        for worker in workers
        if (number := next(numbers, None)) is not None
    }
    done = 0
    while waiting:
        finished, _ = wait(waiting, return_when=FIRST_COMPLETED)
        for future in finished:
            worker = waiting.pop(future)
            # Each batch comes back as it would on its way to being stitched: subtree hashes and findings, pickled.
            scanned = future.result()
            done += scanned.end - scanned.start
            if (number := next(numbers, None)) is not None:
                waiting[worker.submit(_examine_shared, number)] = worker
    return done


def _examine_shared(number: int) -> ScannedBatch:
    assert _shared is not None
    return scan_batch(_shared.batches[number], number * BATCH, "bench", _shared.api, _shared.scanner)
