"""Proven batches between following and the archive: following never waits, and a batch without room is dropped.

A batch that was dropped, or was waiting when the process ended, is read from the log again.
"""

import threading
from collections import deque
from collections.abc import Iterator
from typing import Final, Protocol

from msgspec import Struct

from monitor.following.follower import BatchScanner
from monitor.following.scan_batch import Fetched, ScannedBatch
from monitor.model.log_source import LogEntry, Position
from monitor.model.state import Batch

_MOST_BYTES: Final = 32 * 1024 * 1024


class Archiver(Protocol):
    """Archives one configured log beside following. Kept apart from its implementation, which imports pyarrow."""

    @property
    def name(self) -> str:
        """Name of the log."""

    def step(self) -> bool:
        """Archive some waiting entries; true if more can be archived at once. Raises `OwnFault`, `FetchFailed`."""

    def finish(self) -> None:
        """Archive all waiting entries. Raises `OwnFault`, `FetchFailed`."""

    def forget_sources(self) -> None:
        """Open the log anew before its next request: its keys may have changed."""

    def close(self) -> None:
        """Write the waiting batches as far as possible, and release all resources."""


class ProvenBatch(Struct, frozen=True):
    """Entries between two positions that following proved and committed."""

    before: Position
    after: Position
    entries: tuple[LogEntry, ...]


class Handover:
    """Proven batches of one tree. Following adds, the archive removes; at most `most` bytes wait."""

    def __init__(self, most: int = _MOST_BYTES) -> None:
        self._most, self._bytes = most, 0
        self._lock = threading.Lock()
        self._waiting: deque[tuple[ProvenBatch, int]] = deque()
        self._fetched: Fetched | None = None
        self._open = True

    def watching(self, batch_scanner: BatchScanner) -> BatchScanner:
        """The same batch_scanner; the last batch it yields is kept until it is committed or the next batch comes."""

        def run(batches: Iterator[Fetched]) -> Iterator[tuple[Fetched, ScannedBatch]]:
            for fetched, scanned in batch_scanner(batches):
                self._fetched = fetched
                yield fetched, scanned

        return run

    def committed(self, before: Position, after: Position, batch: Batch) -> None:
        """Following committed a batch: its entries may be archived. Never waits, never raises."""
        fetched, self._fetched = self._fetched, None
        if fetched is None or (fetched.start, fetched.end) != (batch.start, batch.end):
            return
        size = fetched.size
        with self._lock:
            if self._open and self._bytes + size <= self._most:
                self._waiting.append((ProvenBatch(before, after, fetched.entries), size))
                self._bytes += size

    def first(self) -> ProvenBatch | None:
        """The batch that has waited longest."""
        with self._lock:
            return self._waiting[0][0] if self._waiting else None

    def remove(self) -> None:
        """Remove the batch that has waited longest."""
        with self._lock:
            if self._waiting:
                self._bytes -= self._waiting.popleft()[1]

    def close(self) -> None:
        """Drop all waiting batches, and every later batch until `reopen`."""
        with self._lock:
            self._open, self._bytes = False, 0
            self._waiting.clear()

    def reopen(self) -> None:
        """Accept batches again after `close`."""
        with self._lock:
            self._open = True


class Handovers:
    """The handover of each tree that is followed, by log id."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of: dict[str, Handover] = {}

    def of(self, log: str) -> Handover:
        """The tree's handover; the first call makes it."""
        with self._lock:
            return self._of.setdefault(log, Handover())

    def trees(self, name: str) -> list[str]:
        """Trees of one configured log that are followed."""
        with self._lock:
            return [log for log in self._of if log.partition("/")[0] == name]
