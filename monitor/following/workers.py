"""Large backlogs examined on all cores while following: small batches stay in this process, where they are quickest.

The processes are spawned, not forked: by the time a backlog shows there are threads and locks that a fork would copy.
Each compiles the rules itself; they end with this process, however it ends.
"""

import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from monitor.following.fetch_ahead import Fetched
from monitor.following.follower import BatchScanner
from monitor.following.pool import ScanPool
from monitor.following.rule_matcher import RuleScanner
from monitor.following.scan_batch import ScannedBatch, scan_batch, together
from monitor.judging.active_rules import HeldRules
from monitor.model.errors import OwnFault
from monitor.model.log_source import LogApi

_LOG: Final = logging.getLogger(__name__)
_INLINE_BATCHES: Final = 2


@dataclass(slots=True)
class _Running:
    """Processes with the rules of one generation, and how many passes use them now."""

    generation: int
    pool: ScanPool
    users: int = 0


class ScanWorkers:
    """Makes what examines the batches of each tree. Safe to use from several threads.

    `processes` is how many to use at most; with one or none everything is examined here. A pass examines its first two
    batches here, so processes are only started for a backlog of thousands of entries.
    """

    def __init__(self, processes: int) -> None:
        self._processes = processes
        self._lock = threading.Lock()
        self._running: _Running | None = None
        self._closed = False

    @property
    def running(self) -> bool:
        """Whether processes were started and not ended."""
        return self._running is not None

    def examiner(self, held: HeldRules, log: str, api: LogApi) -> BatchScanner:
        """Examine one tree's batches with these rules."""
        scanner = RuleScanner(held.everything)

        def run(batches: Iterator[Fetched]) -> Iterator[tuple[Fetched, ScannedBatch]]:
            for count, fetched in enumerate(batches, 1):
                yield fetched, scan_batch(fetched.entries, fetched.start, log, api, scanner)
                if count == _INLINE_BATCHES and self._processes > 1 and not self._closed:
                    break
            # Nothing is left here unless the loop was broken off.
            yield from self._parallel(held, batches, log, api)

        return run

    def close(self) -> None:
        """End the processes; nothing is examined in parallel any more."""
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
                yield fetched, scan_batch(fetched.entries, fetched.start, log, api, RuleScanner(held.everything))
            return
        broken = False
        try:
            examined = running.pool.examiner(log, api)(_again(first, batches))
            yield from _with_asked(examined, held, log, api)
        except OwnFault:
            broken = True
            raise
        finally:
            self._leave(running, broken=broken)

    def _join(self, held: HeldRules) -> _Running | None:
        """Processes with exactly these rules, counted as in use; `None` where there can be none."""
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
    examined: Iterator[tuple[Fetched, ScannedBatch]], held: HeldRules, log: str, api: LogApi
) -> Iterator[tuple[Fetched, ScannedBatch]]:
    """Add what subscribed rules select. They are matched here: the processes hold the rules of the file alone."""
    scanner: RuleScanner | None = None
    for fetched, each in examined:
        if not held.everything.asks.size:
            yield fetched, each
            continue
        scanner = scanner or RuleScanner(held.everything.asks_alone())
        asked = scanner.scan(fetched.entries, fetched.start, log, api)
        yield fetched, replace(each, scan=together(each.scan, asked))
