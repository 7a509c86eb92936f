"""Batches scanned on all cores, handed back in order, with a bound on how many are under way and on their bytes.

`ScanPool` forks before any thread is started, so that compiled rules are shared memory. `ScanWorkers` serve the daemon:
small batches stay in its process, where they are fastest; for a backlog it spawns processes, each of which compiles
the rules, and which end with the daemon even after a kill.
"""

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Future
from typing import TYPE_CHECKING, Final, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from monitor.following.follower import BatchScanner
from monitor.following.scan_batch import (
    MAX_MATCHES,
    Fetched,
    RuleScanner,
    ScannedBatch,
    scan_batch,
    scan_in_parts,
    together,
)
from monitor.judging.active_rules import HeldRules
from monitor.model.errors import OwnFault
from monitor.model.log_source import LogApi, LogEntry
from rules.matching.matcher import Matcher
from rules.rule import RuleSet

if TYPE_CHECKING:
    from concurrent.futures import ProcessPoolExecutor

ResultT = TypeVar("ResultT")
AHEAD_PER_JOB: Final = 2
_AHEAD_BYTES: Final = 256 * 1024 * 1024


class ScanPool:
    """Scans with one compiled set of rules.

    Make it before any thread is started: its processes are forked at once. With one job nothing is forked. If there
    are threads already, `spawn_with` are the rules of `matcher`: processes are then spawned with the first batch,
    and each compiles the rules. No batch begins while the running ones hold `ahead_bytes`.
    """

    def __init__(
        self, matcher: Matcher, jobs: int, *, spawn_with: RuleSet | None = None, ahead_bytes: int = _AHEAD_BYTES
    ) -> None:
        self.matcher = matcher
        self._ahead, self._ahead_bytes = jobs * AHEAD_PER_JOB, ahead_bytes
        self._pool: ProcessPoolExecutor | None = None
        if jobs > 1:
            from monitor.following import processes  # noqa: PLC0415  with `multiprocessing`, which one job leaves out

            self._work = processes.work
            self._pool = processes.forked(matcher, jobs) if spawn_with is None else processes.spawned(spawn_with, jobs)

    def batch_scanner(self, log: str, api: LogApi) -> BatchScanner:
        """The function that scans the batches of one tree."""
        if self._pool is None:
            return lambda batches: self._inline(batches, log, api)
        pool = self._pool
        return lambda batches: self._parallel(pool, batches, log, api)

    def close(self) -> None:
        """End the processes; batches under way are thrown away."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def retire(self) -> None:
        """Let the processes end once batches under way are done; does not wait."""
        if self._pool is not None:
            self._pool.shutdown(wait=False)

    def _inline(self, batches: Iterator[Fetched], log: str, api: LogApi) -> Iterator[tuple[Fetched, ScannedBatch]]:
        for fetched in batches:
            yield fetched, _examined(self.matcher, fetched.entries, fetched.start, log, api)

    def _parallel(
        self, pool: "ProcessPoolExecutor", batches: Iterator[Fetched], log: str, api: LogApi
    ) -> Iterator[tuple[Fetched, ScannedBatch]]:
        def submit(fetched: Fetched) -> Future[ScannedBatch]:
            return pool.submit(self._work, fetched.entries, fetched.start, log, api)

        try:
            yield from in_order(batches, submit, self._ahead, self._ahead_bytes)
        except BrokenExecutor as error:
            raise OwnFault(
                f"{log}: a process that examines entries was killed, perhaps for lack of memory. The proven entries "
                "are kept; the next pass continues from there, a scan with --resume. Use fewer processes if it "
                "happens again."
            ) from error


def in_order(
    batches: Iterator[Fetched], submit: Callable[[Fetched], Future[ResultT]], ahead: int, ahead_bytes: int
) -> Iterator[tuple[Fetched, ResultT]]:
    """Submit batches, and yield each with its result, in their order.

    No batch begins while `ahead` batches or `ahead_bytes` are running. An error of `batches` is raised after the
    batches before it.
    """
    under_way: deque[tuple[Fetched, Future[ResultT]]] = deque()
    failure: Exception | None = None
    more, size = True, 0
    try:
        while more or under_way:
            while more and len(under_way) < ahead and size < ahead_bytes:
                try:
                    fetched = next(batches)
                except StopIteration:
                    more = False
                except Exception as error:  # noqa: BLE001  raised below, after the batches that came before it
                    more, failure = False, error
                else:
                    under_way.append((fetched, submit(fetched)))
                    size += fetched.size
            if under_way:
                fetched, future = under_way.popleft()
                size -= fetched.size
                yield fetched, future.result()
    finally:
        for _, future in under_way:
            future.cancel()
    if failure is not None:
        raise failure


def usable_jobs(wanted: int | None) -> int:
    """Number of processes to use: as wanted, or one per core of this process; one on a system without fork."""
    if not hasattr(os, "fork"):
        return 1
    return wanted if wanted is not None else len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


def _examined(matcher: Matcher, entries: tuple[LogEntry, ...], start: int, log: str, api: LogApi) -> ScannedBatch:
    return scan_batch(entries, start, log, api, RuleScanner(matcher))


_LOG: Final = logging.getLogger(__name__)
_INLINE_BATCHES: Final = 2


class _Running(Struct):
    """Processes with the rules of one generation, and the number of passes that use them."""

    generation: int
    pool: ScanPool
    users: int = 0


class ScanWorkers:
    """Makes scanners of each tree's batches. Safe to use from several threads.

    `processes` is the greatest number to use; with one or none this process scans all batches. It also scans
    the first two batches of a pass, so that processes start only for a backlog of thousands of entries.
    """

    def __init__(self, processes: int) -> None:
        self._processes = processes
        self._lock = threading.Lock()
        self._running: _Running | None = None
        self._closed = False

    @property
    def is_parallel(self) -> bool:
        """True if a backlog may be scanned in several processes."""
        return self._processes > 1

    @property
    def running(self) -> bool:
        """True while processes are running."""
        return self._running is not None

    def batch_scanner(self, held: HeldRules, log: str, api: LogApi) -> BatchScanner:
        """Scan one tree's batches with these rules."""
        scanner = RuleScanner(held.everything)

        def run(batches: Iterator[Fetched]) -> Iterator[tuple[Fetched, ScannedBatch]]:
            for count, fetched in enumerate(batches, 1):
                yield from scan_in_parts(fetched, log, api, scanner)
                if count == _INLINE_BATCHES and self._processes > 1 and not self._closed:
                    break
            # Batches are left here only after the loop was broken off.
            yield from self._parallel(held, batches, log, api)

        return run

    def close(self) -> None:
        """End the processes; nothing is scanned in parallel any more."""
        with self._lock:
            self._closed = True
            running, self._running = self._running, None
        if running is not None:
            running.pool.close()

    def _parallel(
        self, held: HeldRules, batches: Iterator[Fetched], log: str, api: LogApi
    ) -> Iterator[tuple[Fetched, ScannedBatch]]:
        first = next(batches, None)
        if first is None:
            return
        running = self._join(held)
        if running is None:
            for fetched in _again(first, batches):
                yield from scan_in_parts(fetched, log, api, RuleScanner(held.everything))
            return
        broken = False
        try:
            scanned = running.pool.batch_scanner(log, api)(_again(first, batches))
            yield from _with_asked(scanned, held, log, api)
        except OwnFault:
            broken = True
            raise
        finally:
            self._leave(running, broken=broken)

    def _join(self, held: HeldRules) -> _Running | None:
        """Processes with exactly these rules, counted as in use; `None` without processes."""
        with self._lock:
            if self._closed or self._processes <= 1:
                return None
            now = self._running
            if now is not None and now.generation < held.generation:
                # Passes under way keep the rules they began with: the last one to leave ends their processes.
                self._running = None
                if now.users == 0:
                    now.pool.retire()
            if self._running is None:
                _LOG.info("examining_in_processes processes=%d generation=%d", self._processes, held.generation)
                pool = ScanPool(held.matcher, self._processes, spawn_with=held.rules)
                self._running = _Running(held.generation, pool)
            if self._running.generation != held.generation:
                return None
            self._running.users += 1
            return self._running

    def _leave(self, running: _Running, *, broken: bool) -> None:
        with self._lock:
            running.users -= 1
            if broken and self._running is running:
                self._running = None
            if self._running is not running and running.users == 0:
                running.pool.retire()


def _again(first: Fetched, rest: Iterator[Fetched]) -> Iterator[Fetched]:
    yield first
    yield from rest


def _with_asked(
    scanned: Iterator[tuple[Fetched, ScannedBatch]], held: HeldRules, log: str, api: LogApi
) -> Iterator[tuple[Fetched, ScannedBatch]]:
    """Add the matches of subscribed rules. These are matched here: the processes hold the rules of the file alone."""
    scanner: RuleScanner | None = None
    for fetched, each in scanned:
        if not held.everything.asks.size:
            yield fetched, each
            continue
        scanner = scanner or RuleScanner(held.everything.asks_alone())
        asked = scanner.scan(fetched.entries, fetched.start, log, api)
        both = together(each.scan, asked)
        if sum(len(hit.rules) for hit in both.hits) > MAX_MATCHES:
            yield from scan_in_parts(fetched, log, api, RuleScanner(held.everything))
        else:
            yield fetched, replace(each, scan=both)
