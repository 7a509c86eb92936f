"""Reads ranges of a log on workers, in order, and proves each range here before its results are used.

A range is proven when its leaf hashes, appended to the proven ones, lead to the head that the log signed. Rows and
matches are not in the log's tree: they are compared between two workers, or in a sample with this process's own
reading. If a worker dies or returns a wrong result, another worker reads the range again.
"""

import queue
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any, Final, Protocol

import pyarrow as pa
from distributed import Future
from msgspec import Struct, field
from typing_extensions import override

from alerts.alert import counted
from monitor.archive.rows import MADE_SCHEMA, RowTrust, rows_of
from monitor.cluster.worker import CouldNotAsk, Reply, read_range
from monitor.cluster.workers import ResultCheck, SharedRun
from monitor.following.follower import BatchScanner, WantedEntries, fetch, read_ahead
from monitor.following.scan_batch import BatchMatches, Fetched, RuleScanner, ScannedBatch
from monitor.model.errors import FetchFailed, NotShown, OwnFault
from monitor.model.log_source import LogApi, LogEntry, LogSource, hashes_of
from monitor.proof.trusted_head import check_frontier_in_head
from rules.matching.matcher import Matcher, compile_rules
from tlog.merkle import HASH_SIZE, Frontier, LeafHash, MalformedFrontier, aligned_subtrees, leaf_hash

PART: Final = 16_384  # entries of one task, some seconds of work; a multiple of the entries in one file of a tile log
_PART: Final = {LogApi.REKOR_V1: 256}
_TRIES: Final = 4  # to read one range
_MOST_AHEAD: Final = 1024  # tasks between the range that comes next and the last range begun
_SAMPLE: Final = 256  # entries of one sample: as many as in one file of a tile log
STALLED: Final = 1800.0  # seconds after which another worker begins a task too
_NO_WORKER: Final = 60.0  # seconds to wait for a worker
_TICK: Final = 1.0
_PIECE_BYTES: Final = 64 * 1024 * 1024


class WrongReply(Exception):
    """A worker's reply is wrong; the message is the reason. `certain` if only the worker can be the cause."""

    def __init__(self, message: str, *, certain: bool = False) -> None:
        super().__init__(message)
        self.certain = certain


class ReadRange(Struct, frozen=True):
    """Entries of one range as read: the batches for following, leaf hashes, and rows where rows are made."""

    fetched: Fetched
    scanned: ScannedBatch
    hashes: Sequence[bytes]
    rows: pa.RecordBatch | None

    def differs(self, other: "ReadRange") -> str | None:
        """Name of the first difference between two readings of the same entries; `None` if they agree."""
        if self.hashes != other.hashes:
            return "leaf hashes"
        if list(self.fetched.timed) != list(other.fetched.timed):
            return "times"
        if self.rows is not None and not self.rows.equals(other.rows):
            return "rows"
        return "matches" if self.scanned.scan != other.scanned.scan else None


class ReadingProduct(Protocol):
    """Product of reading entries: rows, or the entries that rules select."""

    def opened(self, reply: Reply, hashes: Sequence[bytes]) -> tuple[pa.RecordBatch | None, BatchMatches]:
        """A worker's reply, checked as far as it can be without the entries. Raises `WrongReply`."""

    def made(self, entries: Sequence[LogEntry], start: int) -> tuple[pa.RecordBatch | None, BatchMatches]:
        """Rows or matches of entries, made in this process."""

    def agrees(self, part: ReadRange, entries: Sequence[LogEntry], start: int) -> bool:
        """True if a part agrees with this process's own reading of some of its entries."""


class RowWork(ReadingProduct):
    """Rows of the archive."""

    def __init__(self, log: str, api: LogApi, trust: RowTrust | None) -> None:
        self._log, self._api, self._trust = log, api, trust

    @override
    def opened(self, reply: Reply, hashes: Sequence[bytes]) -> tuple[pa.RecordBatch | None, BatchMatches]:
        if not isinstance(reply.rows, bytes):
            raise WrongReply("it returned no rows", certain=True)
        try:
            with pa.ipc.open_stream(reply.rows) as stream:
                table = stream.read_all()
            table.validate(full=True)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise WrongReply(f"its rows cannot be read: {str(error)[:200]}", certain=True) from error
        if not table.schema.equals(MADE_SCHEMA):
            raise WrongReply("its rows have other columns", certain=True)
        batches = table.combine_chunks().to_batches()
        if len(batches) != 1:
            raise WrongReply("it returned no rows", certain=True)
        (rows,) = batches
        if rows["leaf_hash"].to_pylist() != list(hashes):
            raise WrongReply("its rows are of other entries than its hashes", certain=True)
        if rows["index"].to_pylist() != list(range(reply.start, reply.stop)):
            raise WrongReply("its rows have other numbers than were asked for", certain=True)
        if rows["log"].unique().to_pylist() != [self._log]:
            raise WrongReply("its rows are of another log", certain=True)
        return rows, BatchMatches()

    @override
    def made(self, entries: Sequence[LogEntry], start: int) -> tuple[pa.RecordBatch | None, BatchMatches]:
        return rows_of(entries, start, self._log, self._api, self._trust), BatchMatches()

    @override
    def agrees(self, part: ReadRange, entries: Sequence[LogEntry], start: int) -> bool:
        mine = rows_of(entries, start, self._log, self._api, self._trust)
        return part.rows is not None and bool(part.rows.slice(start - part.fetched.start, len(entries)).equals(mine))


class MatchWork(ReadingProduct):
    """Entries that rules select."""

    def __init__(self, log: str, api: LogApi, matcher: Matcher) -> None:
        self._log, self._api, self._matcher = log, api, matcher

    @override
    def opened(self, reply: Reply, hashes: Sequence[bytes]) -> tuple[pa.RecordBatch | None, BatchMatches]:
        scan = reply.scan
        if not isinstance(scan, BatchMatches):
            raise WrongReply("it returned no matches", certain=True)
        times = {each.entry: each.at for each in reply.timed}
        # A worker may have invented a match: each must be an entry of the tree, and match again here.
        for hit in scan.hits:
            index = hit.signing.where.index
            if not reply.start <= index < reply.stop or leaf_hash(hit.leaf) != hashes[index - reply.start]:
                raise WrongReply(f"its match of entry {index} differs from the log's entry there", certain=True)
            entry = LogEntry(hit.leaf, hit.extra, times.get(index))
            again = RuleScanner(self._matcher).scan([entry], index, self._log, self._api)
            if again.hits != (hit,):
                raise WrongReply(f"its match of entry {index} is none", certain=True)
        return None, scan

    @override
    def made(self, entries: Sequence[LogEntry], start: int) -> tuple[pa.RecordBatch | None, BatchMatches]:
        return None, RuleScanner(self._matcher).scan(entries, start, self._log, self._api)

    @override
    def agrees(self, part: ReadRange, entries: Sequence[LogEntry], start: int) -> bool:
        end, theirs = start + len(entries), part.scanned.scan
        mine = RuleScanner(self._matcher).scan(entries, start, self._log, self._api)
        return (
            mine.hits == tuple(hit for hit in theirs.hits if start <= hit.signing.where.index < end)
            and mine.unreadable
            == tuple(each for each in theirs.unreadable if start <= each.unreadable.where.index < end)
            and mine.dropped == tuple(each for each in theirs.dropped if start <= each.index < end)
        )


class _Copy(Struct):
    """One worker's reading of a range."""

    worker: str
    future: "Future[Reply]"
    begun: float


class _Task(Struct):
    """A range, the workers that read it, and the workers that failed."""

    start: int
    stop: int
    copies: list[_Copy] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    avoid: set[str] = field(default_factory=set)

    @property
    def complete(self) -> bool:
        """True if every copy's result has arrived."""
        return all(copy.future.status == "finished" for copy in self.copies)


class ReadingCost(Struct):
    """Cost of reading on the cluster: requests to the log, ranges read again, ranges by worker."""

    requests: int = 0
    retries: int = 0
    by_worker: Counter[str] = field(default_factory=Counter)


class ClusterParts(Struct, frozen=True):
    """Parts that read one tree: the enlisted workers, the source that proves, the product, and the check of it."""

    shared: SharedRun
    source: LogSource
    work: ReadingProduct
    check: ResultCheck
    tally: ReadingCost = field(default_factory=ReadingCost)


class ClusterScanWorkers:
    """Reads the batches of one tree on workers; otherwise like `monitor.following.pool.ScanPool`.

    With rules it finds the entries that they select, without rules it makes rows: `take` returns each batch's rows
    once.
    """

    def __init__(
        self, shared: SharedRun, source: LogSource, check: ResultCheck, matcher: Matcher | None = None
    ) -> None:
        log, api = source.identity.log, source.identity.api
        self._work: ReadingProduct = (
            RowWork(log, api, shared.run.trust) if matcher is None else MatchWork(log, api, matcher)
        )
        self._means = ClusterParts(shared, source, self._work, check)
        self.matcher = matcher if matcher is not None else compile_rules(())
        self._rows: dict[int, pa.RecordBatch] = {}

    def batch_scanner(self, log: str, api: LogApi) -> BatchScanner:
        """Reader of the tree's batches."""
        told = self._means.source.identity
        if (log, api) != (told.log, told.api):
            raise OwnFault(f"{log}: the workers were told of {told.log}")
        return self._run

    def take(self, start: int) -> pa.RecordBatch:
        """Rows of the batch that begins at `start` and was yielded last."""
        return self._rows.pop(start)

    def document(self) -> dict[str, Any]:
        """The workers' work in plain JSON types."""
        tally = self._means.tally
        return {
            "check": self._means.check.value,
            "requests": tally.requests,
            "retries": tally.retries,
            "ranges": dict(tally.by_worker),
            "not_used": dict(self._means.shared.workers.refused),
        }

    def _run(self, batches: Iterator[Fetched]) -> Iterator[tuple[Fetched, ScannedBatch]]:
        if not isinstance(batches, WantedEntries):
            raise OwnFault("workers read ranges, not batches that were fetched already")
        if batches.narrowed:
            # The log's own bytes do not lead to its head: this process looks for the wrong entry.
            parts: Iterator[ReadRange] = (part_of(self._work, fetched) for fetched in batches)
        else:
            parts = _Pipeline(self._means, batches).parts()
        for part in parts:
            self._rows = {} if part.rows is None else {part.fetched.start: part.rows}
            yield part.fetched, part.scanned


def part_of(work: ReadingProduct, fetched: Fetched) -> ReadRange:
    """Part made of entries that this process read."""
    hashes = hashes_of(fetched.entries)
    rows, scan = work.made(fetched.entries, fetched.start)
    subtrees = aligned_subtrees(fetched.start, hashes)
    return ReadRange(fetched, ScannedBatch(fetched.start, fetched.end, subtrees, scan), hashes, rows)


class _Pipeline:
    """One pass over a range, with as many tasks in progress as the workers have threads."""

    def __init__(self, means: ClusterParts, wanted: WantedEntries) -> None:
        self._shared, self._source, self._work = means.shared, means.source, means.work
        self._tally, self._check = means.tally, means.check
        self._copies = 2 if means.check is ResultCheck.TWICE else 1
        self._head = wanted.position.head.head
        self._proven: Frontier = wanted.position.frontier
        self._next, self._end = self._proven.size, wanted.end
        self._part = min(PART, _PART.get(self._source.identity.api, PART))
        self._tasks: deque[_Task] = deque()
        self._events: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._random = Random()  # noqa: S311  a worker cannot observe the random numbers
        self._usable: dict[str, int] = {}
        self._looked_at = self._had_workers = time.monotonic()

    def parts(self) -> Iterator[ReadRange]:
        """Every part in order, proven. Raises `FetchFailed`, `OwnFault`."""
        try:
            while self._tasks or self._next < self._end:
                self._look()
                self._begin_tasks()
                if not self._tasks or len(self._tasks[0].copies) < self._copies or not self._tasks[0].complete:
                    self._wait()
                    continue
                part = self._settled(self._tasks[0])
                if part is not None:
                    self._tasks.popleft()
                    self._proven = part.scanned.extend(self._proven)
                    yield part
        finally:
            for task in self._tasks:
                self._drop(task.copies)

    def _look(self) -> None:
        """Update the list of workers; other workers begin the ranges of a worker that left."""
        now = time.monotonic()
        if self._usable and now - self._looked_at < _TICK:
            return
        self._usable, self._looked_at = self._shared.usable(), now
        if len(self._usable) >= self._copies:
            self._had_workers = now
        elif now - self._had_workers > _NO_WORKER or self._shared.workers.refused.keys() >= self._shared.workers.there:
            raise self._shared.workers.too_few(len(self._usable), self._copies)
        for task in self._tasks:
            for copy in list(task.copies):
                if copy.future.status in {"finished", "error"}:
                    continue
                if copy.worker not in self._usable:
                    self._fail(task, copy, "it left, or died")
                elif now - copy.begun > STALLED:
                    self._fail(task, copy, f"it did not answer within {STALLED:.0f} seconds")

    def _begin_tasks(self) -> None:
        free = dict(self._usable)
        free = {worker: threads + 1 for worker, threads in free.items()}
        for task in self._tasks:
            for copy in task.copies:
                if copy.worker in free and copy.future.status == "pending":
                    free[copy.worker] -= 1
        for task in self._tasks:
            self._give(task, free)
        most = min(2 * sum(self._usable.values()) + 2, _MOST_AHEAD)
        while self._next < self._end and len(self._tasks) < most and any(left > 0 for left in free.values()):
            stop = min(self._end, (self._next // self._part + 1) * self._part)
            task = _Task(self._next, stop)
            self._tasks.append(task)
            self._next = stop
            self._give(task, free)

    def _give(self, task: _Task, free: dict[str, int]) -> None:
        """Give a range to as many workers with a free thread as the check requires."""
        for copy in [copy for copy in task.copies if copy.future.status in {"error", "cancelled", "lost"}]:
            self._failed(task, copy)
        while len(task.copies) < self._copies:
            holders = {copy.worker for copy in task.copies}
            able = [worker for worker, left in free.items() if left > 0 and worker not in holders]
            # A worker that failed is asked again only if there is no other worker.
            others = [worker for worker in able if worker not in task.avoid]
            if not others and any(worker not in task.avoid | holders for worker in self._usable):
                return
            if not (chosen := others or able):
                return
            worker = max(chosen, key=lambda each: free[each])
            free[worker] -= 1
            future = self._shared.workers.client.submit(
                read_range,
                self._shared.run.id,
                task.start,
                task.stop,
                self._head,
                workers=[worker],
                allow_other_workers=False,
                pure=False,
                retries=0,
                key=f"signwatch-{self._shared.run.id}-{task.start}-{self._random.getrandbits(64):016x}",
            )
            future.add_done_callback(lambda _: self._events.put(None))
            task.copies.append(_Copy(worker, future, time.monotonic()))

    def _wait(self) -> None:
        try:
            self._events.get(timeout=_TICK)
        except queue.Empty:
            return

    def _failed(self, task: _Task, copy: _Copy) -> None:
        """Record that a task ended with an error."""
        try:
            error: Any = copy.future.exception(timeout=_TICK) if copy.future.status == "error" else None
        except (OSError, TimeoutError) as unknown:
            error = unknown
        if isinstance(error, CouldNotAsk):
            self._fail(task, copy, f"could not ask: {error}", asked=True)
            return
        why = "its result is lost" if error is None else f"{type(error).__name__}: {str(error)[:300]}"
        self._fail(task, copy, why)

    def _fail(self, task: _Task, copy: _Copy, why: str, *, asked: bool = False, certain: bool = False) -> None:
        """Count a failure, so that another worker reads the range.

        Raises `FetchFailed`, `OwnFault` after the last try.
        """
        task.copies.remove(copy)
        self._drop([copy])
        task.avoid.add(copy.worker)
        task.failures.append(f"{copy.worker}: {why}")
        self._tally.retries += 1
        if not asked:
            self._shared.workers.blame(copy.worker, why, certain=certain)
            self._usable = {}
        if len(task.failures) < _TRIES:
            return
        told = "; ".join(task.failures)[:2_000]
        log = self._source.identity.log
        if asked:
            raise FetchFailed(f"{log}: entries {task.start} to {task.stop - 1} could not be read by workers: {told}")
        self._blamed_on_log(task)
        raise OwnFault(
            f"{log}: entries {task.start} to {task.stop - 1} were read wrongly {_TRIES} times: {told}. What was proven "
            "before is kept. Look after these workers, or run this without --dask."
        )

    def _blamed_on_log(self, task: _Task) -> None:
        """Read a range here, which raises the log's own fault where there is one: `FetchFailed`, `NotShown`."""
        if task.start == self._proven.size:
            self._prove(self._read_here(task))

    def _settled(self, task: _Task) -> ReadRange | None:
        """The proven part on which a range's copies agree; `None` if a copy has to be read again."""
        found: list[tuple[_Copy, ReadRange]] = []
        for copy in list(task.copies):
            try:
                part = self._opened(task, copy)
                self._prove(part)
                found.append((copy, part))
            except (WrongReply, NotShown, MalformedFrontier) as wrong:
                self._fail(task, copy, str(wrong)[:500], certain=isinstance(wrong, WrongReply) and wrong.certain)
            except (OSError, TimeoutError) as lost:
                self._fail(task, copy, f"its result could not be fetched: {type(lost).__name__}")
        if len(found) < self._copies:
            return None
        part = found[0][1]
        if self._check is ResultCheck.TWICE:
            part = self._agreed(task, found)
        elif not self._sampled(part):
            self._fail(task, found[0][0], "its rows or matches differ from the entries", certain=True)
            self._warn(found[0][0].worker)
            return None
        for copy, _ in found:
            self._tally.by_worker[copy.worker] += 1
        self._drop(task.copies)
        return part

    def _opened(self, task: _Task, copy: _Copy) -> ReadRange:
        reply = copy.future.result(timeout=60)
        if not isinstance(reply, Reply) or (reply.start, reply.stop) != (task.start, task.stop):
            raise WrongReply("it returned another range than was asked for", certain=True)
        count = task.stop - task.start
        if not isinstance(reply.hashes, bytes) or len(reply.hashes) != count * HASH_SIZE:
            raise WrongReply("it returned too few or too many leaf hashes", certain=True)
        indexes = [each.entry for each in reply.timed]
        if indexes != sorted(set(indexes)) or not set(indexes) <= set(range(task.start, task.stop)):
            raise WrongReply("it returned times of other entries", certain=True)
        self._tally.requests += reply.requests
        hashes = [LeafHash(reply.hashes[at : at + HASH_SIZE]) for at in range(0, len(reply.hashes), HASH_SIZE)]
        rows, scan = self._work.opened(reply, hashes)
        scanned = ScannedBatch(task.start, task.stop, aligned_subtrees(task.start, hashes), scan)
        return ReadRange(Fetched(task.start, (), scanned, reply.timed), scanned, hashes, rows)

    def _prove(self, part: ReadRange) -> None:
        """Prove that a part's leaves follow the proven ones in the tree. Raises `NotShown`, `FetchFailed`."""
        frontier = part.scanned.extend(self._proven)
        proof = (
            self._source.consistency_proof(frontier.size, self._head.size) if frontier.size < self._head.size else ()
        )
        check_frontier_in_head(frontier, self._head, proof, self._source.identity, event=f"entry {part.fetched.start}")

    def _agreed(self, task: _Task, found: Sequence[tuple[_Copy, ReadRange]]) -> ReadRange:
        (_, first), (_, second) = found
        if first.differs(second) is None:
            return first
        # Both have the right entries but different results, so this process reads the entries.
        mine = self._read_here(task)
        self._prove(mine)
        for copy, part in found:
            if wrong := part.differs(mine):
                self._tally.retries += 1
                self._shared.workers.blame(copy.worker, f"its {wrong} differ from the entries", certain=True)
        self._usable = {}
        return mine

    def _sampled(self, part: ReadRange) -> bool:
        """Read a sample of a part's entries in this process; True if the part agrees with them."""
        start = self._random.randrange(part.fetched.start, part.fetched.end) // _SAMPLE * _SAMPLE
        start, stop = max(start, part.fetched.start), min(start + _SAMPLE, part.fetched.end)
        entries: list[LogEntry] = list(self._source.entries(start, stop, self._head))
        first = start - part.fetched.start
        if hashes_of(entries) != list(part.hashes[first : first + len(entries)]):
            raise FetchFailed(f"{self._source.identity.log}: entry {start} is shown differently now; it is asked again")
        self._tally.requests += 1
        return self._work.agrees(part, entries, start)

    def _warn(self, worker: str) -> None:
        if count := self._tally.by_worker[worker]:
            self._shared.workers.warn(
                f"checked in samples alone: {counted(count, 'range')} that worker {worker} read before. `signwatch "
                "archive verify --all` reads archived rows again; a scan should be repeated"
            )

    def _read_here(self, task: _Task) -> ReadRange:
        entries: list[LogEntry] = []
        wanted = range(task.start, task.stop)
        for fetched in read_ahead(
            lambda part: fetch(self._source, self._head, part, _PIECE_BYTES),
            wanted,
            batch_entries=self._part,
            ahead=1,
            executor=None,
        ):
            entries += fetched.entries
        return part_of(self._work, Fetched(task.start, tuple(entries)))

    def _drop(self, copies: Sequence[_Copy]) -> None:
        futures = [copy.future for copy in copies]
        if futures:
            self._shared.workers.client.cancel(futures, force=True)
