"""Rows of a log's entries made on all cores, while `Follower` proves that these are the entries the log signed.

`RowMaker` reads batches in place of the rules' scanner. `ArchiveProgress` holds the position of a scan, and hands every
proven batch to the archive's writer.
"""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Final, Protocol

import pyarrow as pa

from alerts.alert import Alert
from monitor.archive.rows import RowTrust, rows_of
from monitor.following.follower import BatchScanner
from monitor.following.processes import begin_worker
from monitor.following.scan_batch import BatchMatches, Fetched, ScannedBatch
from monitor.following.workers import AHEAD_PER_JOB, in_order
from monitor.model.errors import OwnFault
from monitor.model.log_source import LogApi, Position
from monitor.model.state import Batch
from rules.matching.matcher import Matcher, compile_rules
from tlog.merkle import Frontier, aligned_subtrees

_AHEAD_BYTES: Final = 128 * 1024 * 1024


class RowMaker:
    """Makes rows of batches, in `jobs` processes, or in this one. `take` hands over the rows of a batch once.

    Processes are spawned when the first batch comes: pyarrow has threads of its own, which a fork would not copy.
    """

    def __init__(self, jobs: int, trust: Callable[[], RowTrust | None]) -> None:
        """`trust` returns the authorities that are trusted now; it is called for each batch."""
        self.matcher: Matcher = compile_rules(())
        self._jobs, self._trust = jobs, trust
        self._pool: ProcessPoolExecutor | None = None
        self._made: dict[int, pa.RecordBatch] = {}

    def batch_scanner(self, log: str, api: LogApi) -> BatchScanner:
        """Reader of one tree's batches."""

        def run(batches: Iterator[Fetched]) -> Iterator[tuple[Fetched, ScannedBatch]]:
            # Rows that an earlier pass left were never proven.
            self._made.clear()
            made = self._inline(batches, log, api) if self._jobs <= 1 else self._parallel(batches, log, api)
            for fetched, rows in made:
                self._made = {fetched.start: rows}
                subtrees = aligned_subtrees(fetched.start, rows["leaf_hash"].to_pylist())
                yield fetched, ScannedBatch(fetched.start, fetched.end, subtrees, BatchMatches())

        return run

    def take(self, start: int) -> pa.RecordBatch:
        """Rows of the batch that begins at `start` and was yielded last."""
        return self._made.pop(start)

    def close(self) -> None:
        """End the processes. Further batches start new ones."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(cancel_futures=True)

    def _inline(self, batches: Iterator[Fetched], log: str, api: LogApi) -> Iterator[tuple[Fetched, pa.RecordBatch]]:
        for fetched in batches:
            yield fetched, rows_of(fetched.entries, fetched.start, log, api, self._trust())

    def _parallel(self, batches: Iterator[Fetched], log: str, api: LogApi) -> Iterator[tuple[Fetched, pa.RecordBatch]]:
        pool = self._pool = self._pool or _spawned(self._jobs)

        def submit(fetched: Fetched) -> Future[pa.RecordBatch]:
            return pool.submit(rows_of, fetched.entries, fetched.start, log, api, self._trust())

        try:
            yield from in_order(batches, submit, self._jobs * AHEAD_PER_JOB, _AHEAD_BYTES)
        except BrokenProcessPool as error:
            self._pool = None
            raise OwnFault(
                f"{log}: a process that reads entries was killed, perhaps for lack of memory. What was archived is "
                "kept: start again, with fewer --jobs if it happens again."
            ) from error


class RowReader(Protocol):
    """Reads batches into rows: in processes of this machine (`RowMaker`), or on workers of a cluster."""

    matcher: Matcher

    def batch_scanner(self, log: str, api: LogApi) -> BatchScanner:
        """Reader of one tree's batches."""

    def take(self, start: int) -> pa.RecordBatch:
        """Rows of the batch that begins at `start` and was yielded last."""


class RowSink(Protocol):
    """Takes the rows between two proven positions."""

    def add(self, rows: pa.RecordBatch, before: Frontier, after: Position) -> None:
        """Take rows that were proven."""


class CollectedRows:
    """Proven rows of one range, kept in memory."""

    def __init__(self) -> None:
        self.batches: list[pa.RecordBatch] = []

    def add(self, rows: pa.RecordBatch, before: Frontier, after: Position) -> None:  # noqa: ARG002
        """Keep the rows of one proven batch."""
        self.batches.append(rows)


class ArchiveProgress:
    """`monitor.backscan.progress.Progress` of a scan whose proven batches are archived."""

    def __init__(self, writer: RowSink, rows: Callable[[int], pa.RecordBatch]) -> None:
        self._writer, self._rows = writer, rows
        self._position: Position | None = None

    def position(self, log: str) -> Position | None:
        """Position of the scan."""
        return self._position if self._position is not None and self._position.log == log else None

    def baseline(self, position: Position, how: str) -> None:  # noqa: ARG002  never asked for
        """Set the first position of the scan."""
        self._position = position

    def advance(self, old: Position, new: Position, batch: Batch, alerts: Sequence[Alert]) -> None:  # noqa: ARG002
        """Advance the scan's position, and archive the rows of the batch."""
        self._position = new
        if batch.start < batch.end:
            self._writer.add(self._rows(batch.start), old.frontier, new)


def _spawned(jobs: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"), initializer=begin_worker)
