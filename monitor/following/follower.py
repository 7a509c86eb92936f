"""One pass over one log: newest head, proof, entries fetched ahead, judgement, one commit per batch.

The stored position is proven after every step: after a kill anywhere, the next pass ends with the same findings.
Clock, waiting and threads are parameters.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final, Literal

from msgspec import Struct
from msgspec.structs import replace
from typing_extensions import override

from alerts.alert import counted
from monitor.following.scan_batch import MAX_MATCHES, BatchScan, Fetched, ScannedBatch, Scanner, size_of, timed_entries
from monitor.judging.judge import Judge, without_times
from monitor.model.errors import (
    Evidence,
    FetchFailed,
    Lagging,
    LogMisbehaved,
    MalformedEntries,
    NotShown,
    OwnFault,
    PastMoved,
    PromiseStatement,
    StateConflict,
)
from monitor.model.inclusion_promise import BadPromise, unpack_timestamp
from monitor.model.log_source import LogApi, LogEntry, LogIdentity, LogSource, Position, SignedHead, TimedEntry
from monitor.model.state import Batch, Finding, State
from monitor.proof.evidence import WRONG_SIGNATURE as WRONG_SIGNATURE_KIND
from monitor.proof.trusted_head import (
    RetryPolicy,
    advance,
    check,
    check_frontier_in_head,
    check_frontier_undamaged,
    check_undamaged,
    compare_sightings,
    is_wrong_entries,
)
from monitor.raising.entry_alerts import (
    alerts_of_dropped,
    alerts_of_unreadable,
    clock_alert_of_head,
    clock_alerts_of_entries,
    clock_alerts_of_findings,
    disordered,
)
from monitor.raising.log_alerts import alert_of_evidence, key_expired_alert
from rules.judge import WRONG_SIGNATURE
from tlog.merkle import Frontier


class Timing(Struct, frozen=True):
    """Time for long-running work: a clock, a way to wait, and a signal to stop.

    `passed` and `worked` are seconds since any moment: of the wall clock, and of this thread's processor time.
    """

    clock: Callable[[], datetime]
    pause: Callable[[float], object]
    stop: Callable[[], bool] = lambda: False
    passed: Callable[[], float] = time.monotonic
    worked: Callable[[], float] = time.thread_time


Read = Callable[[range], Fetched]
"""Reads entries from the beginning of a range on, perhaps not up to its end."""


class Waiting:
    """Measures if reads of one log wait for it for most of their time.

    Only then further batches are worth reading at the same time. Reads that mostly work take the interpreter from each
    other and from the thread that commits, and gain nothing.
    """

    def __init__(self, timing: Timing) -> None:
        self._passed, self._worked = timing.passed, timing.worked
        self._mostly = False

    def prevails(self) -> bool:
        """True if the last read waited for most of its time."""
        return self._mostly

    def of(self, read: Read) -> Read:
        """The same reads, measured."""

        def measured(part: range) -> Fetched:
            passed, worked = self._passed(), self._worked()
            fetched = read(part)
            self._mostly = self._worked() - worked < (self._passed() - passed) / 2
            return fetched

        return measured


def read_ahead(
    read: Read,
    wanted: range,
    *,
    batch_entries: int,
    ahead: int,
    executor: Executor | None,
    worth: Callable[[], bool] = lambda: True,
) -> Iterator[Fetched]:
    """Yield the entries of `wanted` in order, in batches cut at multiples of `batch_entries`.

    At most `ahead` batches are read ahead; without an executor none, and while it is not `worth` it, only the batch
    that is waited for is read. Raises an error of `read` in place of the batch that caused it.
    """
    planned: deque[tuple[range, Future[Fetched]]] = deque()
    position = start = wanted.start
    try:
        while position < wanted.stop:
            while executor is not None and start < wanted.stop and len(planned) < (ahead if worth() else 1):
                part = _cut(start, wanted.stop, batch_entries)
                planned.append((part, executor.submit(read, part)))
                start = part.stop
            if planned:
                part, future = planned.popleft()
                fetched = future.result()
            else:
                part = _cut(position, wanted.stop, batch_entries)
                fetched = read(part)
            yield fetched
            position = fetched.end
            if position < part.stop:
                # The batch ended early at its limit of bytes, so the batches read ahead do not follow it.
                _drop(planned)
                start = position
    finally:
        _drop(planned)


def fetch(source: LogSource, head: SignedHead, part: range, batch_bytes: int) -> Fetched:
    """Fetch entries; a batch ends early when it has `batch_bytes`. Raises what the source raises."""
    entries: list[LogEntry] = []
    for piece in _pieces(source, head, part, batch_bytes):
        entries += piece
    return Fetched(part.start, tuple(entries))


def fetch_and_scan(source: LogSource, head: SignedHead, part: range, batch_bytes: int, scanner: Scanner) -> Fetched:
    """Fetch entries, hash and read each piece as it comes, and forget its bytes: a new piece takes its memory.

    A batch also ends where it has `MAX_MATCHES`.
    """
    identity = source.identity
    scan = BatchScan(part.start, identity.log, identity.api, scanner, MAX_MATCHES)
    timed: list[TimedEntry] = []
    first: LogEntry | None = None
    start = part.start
    for piece in _pieces(source, head, part, batch_bytes):
        taken = scan.add(piece)
        timed += timed_entries(piece[:taken], start)
        start += taken
        first = first or piece[0]
        if taken < len(piece) or scan.is_full:
            break
        del piece
    scanned = scan.done()
    kept = (first,) if first is not None and start == part.start + 1 else ()
    return Fetched(part.start, kept, scanned, tuple(timed))


def _cut(start: int, stop: int, batch_entries: int) -> range:
    return range(start, min(stop, (start // batch_entries + 1) * batch_entries))


def _drop(planned: deque[tuple[range, Future[Fetched]]]) -> None:
    for _, future in planned:
        future.cancel()
    planned.clear()


def _pieces(source: LogSource, head: SignedHead, part: range, batch_bytes: int) -> Iterator[Sequence[LogEntry]]:
    """Pieces of a part as the source serves them: one or more, none empty; at most one beyond `batch_bytes`."""
    start, size = part.start, 0
    while start < part.stop and size < batch_bytes:
        try:
            more = source.entries(start, part.stop, head)
        except FetchFailed:
            # Entries before the failure are committed; the next batch begins at the failing entry and fails there.
            if start > part.start:
                break
            raise
        if not 1 <= len(more) <= part.stop - start:
            raise FetchFailed(
                f"{head.log}: {counted(len(more), 'entry')} served where 1 to {part.stop - start} were asked for"
            )
        start += len(more)
        size += size_of(more)
        yield more
        del more


_NARROWING: Final = 16
_CONFLICTS: Final = 3
# A larger batch takes fewer commits. A batch is smaller where entries' bytes are held until the commit, and for
# Rekor v1 with its ten entries an answer.
_BATCH: Final = 16_384
_SMALLER_BATCH: Final = 2048

# A replica or a cache may lag behind the requested head, so an absence counts against a log only after several
# passes in a row. Wrong bytes and failing proofs count at once.
_PASSES_BEFORE_BLAME: Final = {"log-entry-missing": 3, "log-shard-vanished": 3}
# A file of the wrong length counts as a bad cache until it has lasted for this time.
_MALFORMED_LASTS: Final = timedelta(minutes=5)

Unkept = dict[tuple[str, str], tuple[int, datetime]]
"""Broken promises by kind and event: the number of passes in a row with one, and the time of the first."""


class FollowLimits(Struct, frozen=True):
    """Entries and bytes a batch may have, batches fetched ahead, tries before a broken promise is blamed on the log.

    Without `batch_entries` the log's protocol decides. `pauses` are the seconds between the tries.
    `entries_per_pass` ends a pass early; the next pass continues. Entries from `end` on are not read.
    """

    batch_entries: int | None = None
    batch_bytes: int = 64 * 1024 * 1024
    ahead: int = 2
    pauses: tuple[float, ...] = (1.0, 4.0)
    entries_per_pass: int | None = None
    end: int | None = None


class WantedEntries(Iterator[Fetched]):
    """Entries from the position up to `end`, in batches that are fetched on iteration.

    A reader that lets other machines fetch does not iterate. `narrowed` means that a wrong batch is split to find
    the wrong entry.
    """

    def __init__(self, position: Position, end: int, batches: Iterator[Fetched], *, narrowed: bool) -> None:
        self.position, self.end, self.narrowed = position, end, narrowed
        self._batches = batches

    @override
    def __next__(self) -> Fetched:
        return next(self._batches)


BatchScanner = Callable[[Iterator[Fetched]], Iterator[tuple[Fetched, ScannedBatch]]]
"""Scans batches in order; may read ahead. An error of fetching is raised in place of its batch."""


class PassReport(Struct, frozen=True):
    """Result of one pass.

    `head` is the head that the log showed; `lagging` is true if it is older than the trusted one.
    """

    head: SignedHead
    position: Position
    entries: int
    findings: int
    unreadable: int
    lagging: bool

    @property
    def backlog(self) -> int:
        """Entries below the trusted head that were not read yet."""
        return self.position.head.head.size - self.position.frontier.size


def baseline(source: LogSource, state: State, start: int | Literal["head"]) -> Position:
    """Record the first position of a log: its present head, or an index; an explicit act, done once.

    The shown head becomes the baseline without a proof; all later entries are verified. Raises `FetchFailed`,
    `NotShown`, `OwnFault`, `StateConflict`.
    """
    head = source.latest()
    state.record_head(head)
    size = head.size if start == "head" else start
    if not 0 <= size <= head.size:
        raise OwnFault(f"{head.log}: cannot start at entry {size}, the log has {head.size}")
    position = Position(head.log, source.frontier(size, head), advance(None, head, (), source.identity))
    state.baseline(position, how=f"{'head' if start == 'head' else 'index'} {size} of {head.size}")
    return position


class LogFollower:
    """Follows one log. Safe to kill at any point; two at once are harmless and wasteful."""

    def __init__(
        self,
        source: LogSource,
        state: State,
        scanner: Scanner,
        judge: Judge,
        timing: Timing,
        *,
        limits: FollowLimits | None = None,
        executor: Executor | None = None,
        batch_scanner: BatchScanner | None = None,
        unkept: Unkept | None = None,
    ) -> None:
        """Entries are hashed and read where they are fetched, unless an `batch_scanner` does that.

        `unkept` counts broken promises by kind and event; the caller keeps it for the next follower.
        """
        self._source, self._state, self._scanner = source, state, scanner
        self._clock, self._stop, self._limits = timing.clock, timing.stop, limits or FollowLimits()
        self._waiting = Waiting(timing)
        self._retry = RetryPolicy(self._limits.pauses, timing.pause)
        self._committer = BatchCommitter(source, state, judge, timing.clock)
        self._executor, self._examiner = executor, batch_scanner
        self._identity = source.identity
        self._unkept = unkept if unkept is not None else {}

    def run_pass(self) -> PassReport:
        """Follow the log to the head it shows now, or to a limit.

        Raises `FetchFailed` (try later), `LogMisbehaved` (after storing its evidence and enqueueing its alert) and
        `OwnFault`.
        """
        try:
            for _ in range(_CONFLICTS - 1):
                try:
                    return self._pass()
                except StateConflict:
                    # Another daemon moved the position with a proven commit. Read the position and continue.
                    continue
            return self._pass()
        except NotShown as unkept:
            self._blame(unkept)
            raise
        except LogMisbehaved as misbehaved:
            self._keep(misbehaved.evidence)
            raise

    def _pass(self) -> PassReport:
        position = self._state.position(self._identity.log)
        if position is None:
            raise OwnFault(
                f"{self._identity.log}: there is no position to follow from, and a missing position is never taken "
                "for a first run. Run `signwatch init`, or restore the database."
            )
        check_undamaged(position, self._identity)
        offered = self._retry.call(self._source.latest)
        # Every head that the log signs is recorded before it is compared: evidence first.
        self._state.record_head(offered)
        trusted = check(self._source, position.head, offered, self._retry)
        known = position.head.head
        if _statement(trusted.head) != _statement(known):
            # The newer head is stored before its entries are read, so that consistency is checked at once even in a
            # long pass.
            ahead, here = replace(position, head=trusted), position.frontier.size
            self._state.advance(position, ahead, Batch(position.log, here, here), ())
            position = ahead
        self._check_times(position.head.head, grew=trusted.head.size > known.size)
        first = position.frontier.size
        position, findings, unreadable = self._catch_up(position)
        compare_sightings(self._source, self._state, position.head, self._retry)
        self._unkept.clear()
        lagging = offered.size < position.head.head.size
        return PassReport(offered, position, position.frontier.size - first, findings, unreadable, lagging)

    def _check_times(self, head: SignedHead, *, grew: bool) -> None:
        """Report contradictory times. Following continues, because hashes prove entries, not clocks."""
        now, until = self._clock(), self._identity.valid_until
        self._state.enqueue(clock_alert_of_head(head, now))
        if grew and until is not None and (head.timestamp or now) > until:
            self._state.enqueue([key_expired_alert(head.log, until, head, now)])

    def _catch_up(self, position: Position) -> tuple[Position, int, int]:
        """Read, prove and commit batch after batch up to the trusted head."""
        first, size = position.frontier.size, self._limits.batch_entries or self._usual_batch()
        end = position.head.head.size
        if self._limits.entries_per_pass is not None:
            end = min(end, first + self._limits.entries_per_pass)
        if self._limits.end is not None:
            end = min(end, self._limits.end)
        findings = unreadable = tries = 0
        while position.frontier.size < end and not self._stop():
            try:
                for fetched, scanned in self._batches(position, end, size):
                    position, batch = self._committer.commit(position, fetched, scanned)
                    findings, unreadable = findings + len(batch.findings), unreadable + len(batch.unreadable)
                    tries = 0
                    if self._stop():
                        break
            except (NotShown, Lagging) as unkept:
                # One wrong entry makes its batch fail: commit the good entries before it, and name exactly the
                # failing one.
                if is_wrong_entries(unkept) and size > 1:
                    size = max(1, size // _NARROWING)
                    continue
                if tries == len(self._limits.pauses):
                    if is_wrong_entries(unkept):
                        check_frontier_undamaged(position, self._source)
                    raise
                self._retry.pause(self._limits.pauses[tries])
                tries += 1
        return position, findings, unreadable

    def _batches(self, position: Position, end: int, size: int) -> Iterator[tuple[Fetched, ScannedBatch]]:
        head, most = position.head.head, self._limits.batch_bytes
        wanted = range(position.frontier.size, end)

        def ahead(read: Read, worth: Callable[[], bool]) -> Iterator[Fetched]:
            most_ahead, threads = self._limits.ahead, self._executor
            return read_ahead(read, wanted, batch_entries=size, ahead=most_ahead, executor=threads, worth=worth)

        if self._examiner is not None:
            batches = ahead(lambda part: fetch(self._source, head, part, most), lambda: True)
            narrowed = size < (self._limits.batch_entries or self._usual_batch())
            yield from self._examiner(WantedEntries(position, end, batches, narrowed=narrowed))
            return
        read = self._waiting.of(lambda part: fetch_and_scan(self._source, head, part, most, self._scanner))
        for fetched in ahead(read, self._waiting.prevails):
            if fetched.scanned is not None:
                yield fetched, fetched.scanned

    def _usual_batch(self) -> int:
        held = self._examiner is not None or self._identity.api is LogApi.REKOR_V1
        return _SMALLER_BATCH if held else _BATCH

    def _blame(self, unkept: NotShown) -> None:
        """Raise `LogMisbehaved` when the log failed in enough passes; otherwise count the failure and return."""
        evidence = unkept.evidence
        key, now = (evidence.kind, evidence.event), self._clock()
        passes, since = self._unkept.get(key, (0, now))
        self._unkept[key] = passes + 1, since
        lasts = _MALFORMED_LASTS if isinstance(unkept, MalformedEntries) else timedelta(0)
        if passes + 1 >= _PASSES_BEFORE_BLAME.get(evidence.kind, 1) and now - since >= lasts:
            self._keep(evidence)
            raise LogMisbehaved(evidence) from unkept

    def _keep(self, evidence: Evidence) -> None:
        self._state.keep_evidence(evidence, [alert_of_evidence(evidence, self._clock())])


def _statement(head: SignedHead) -> tuple[int, bytes, bool, datetime | None]:
    # Logs sign the same head anew for every request, so heads are compared without signatures. Their time is
    # compared: an unchanged time shows a frozen log.
    return head.size, head.root, head.final, head.timestamp


# Each try fails only if another log's pass committed signings under the same rules meanwhile.
_JUDGEMENTS: Final = 8


class BatchCommitter(Struct, frozen=True):
    """Proves, judges and commits batches of one log, in this order: nothing unproven is committed.

    `source` gives the proofs, `state` keeps the results.
    """

    source: LogSource
    state: State
    judge: Judge
    clock: Callable[[], datetime]

    def commit(self, position: Position, fetched: Fetched, scanned: ScannedBatch) -> tuple[Position, Batch]:
        """Prove, judge and commit one hashed batch; returns the new position, and the committed batch.

        Raises `NotShown` when the log did not sign these entries: the evidence of a batch of one names the entry.

        Raises:
        `StateConflict`, `FetchFailed`, `OwnFault`.
        """
        frontier = scanned.extend(position.frontier)
        self._prove(frontier, position.head.head, fetched)
        timed = fetched.timed
        moved = replace(position, frontier=frontier, last_timed=timed[-1] if timed else position.last_timed)
        for _ in range(_JUDGEMENTS - 1):
            with suppress(PastMoved):
                return moved, self._commit(position, moved, fetched, scanned)
        return moved, self._commit(position, moved, fetched, scanned)

    def _commit(self, position: Position, moved: Position, fetched: Fetched, scanned: ScannedBatch) -> Batch:
        """Judge a batch by the present past, and commit it; `PastMoved` when the past grew meanwhile."""
        log, scan, now = self.source.identity.log, scanned.scan, self.clock()
        before = position.last_timed
        timed = [*([before] if before is not None else ()), *fetched.timed]
        hits = without_times(scan.hits, disordered(timed))
        findings = tuple(self.judge.judge(hits, now))
        batch = Batch(log, scanned.start, scanned.end, findings, scan.unreadable, scan.kinds, scan.dropped)
        alerts = [
            *self.judge.alerts(findings, now),
            *alerts_of_unreadable(log, scan.unreadable, now),
            *alerts_of_dropped(log, scan.dropped, now),
            *clock_alerts_of_entries(log, timed, now),
            *clock_alerts_of_findings(log, findings, now),
        ]
        if (evidence := wrong_signature(self.source.identity, findings, position.head.head)) is not None:
            self.state.keep_evidence(evidence, ())
        # After a crash before this commit the batch is read again; after the commit it is never read again.
        self.state.advance(position, moved, batch, alerts)
        return batch

    def _prove(self, frontier: Frontier, head: SignedHead, fetched: Fetched) -> None:
        behind = frontier.size < head.size
        proof = self.source.consistency_proof(frontier.size, head.size) if behind else ()
        try:
            check_frontier_in_head(frontier, head, proof, self.source.identity, event=f"entry {fetched.start}")
        except NotShown as unproven:
            if fetched.end - fetched.start > 1:
                raise
            (entry,) = fetched.entries
            leaves = () if entry.unread else ((fetched.start, entry.leaf),)
            raise NotShown(replace(unproven.evidence, leaves=leaves, promises=self._promised(entry))) from unproven

    def _promised(self, entry: LogEntry) -> tuple[PromiseStatement, ...]:
        """The log's signed promises of an entry that its tree does not hold."""
        try:
            return (unpack_timestamp(entry.timestamp, entry.leaf, self.source.identity.spki).signed,)
        except BadPromise:
            return ()


def wrong_signature(identity: LogIdentity, findings: Sequence[Finding], head: SignedHead) -> Evidence | None:
    """Evidence of the first entry of a batch with a wrong signature; stored before its alert.

    `head` is a head whose tree is proven to hold the entry.
    """
    wrong = next((each for each in findings if WRONG_SIGNATURE in each.verdict.reasons), None)
    if wrong is None:
        return None
    index = wrong.selected.signing.where.index
    return identity.evidence(
        WRONG_SIGNATURE_KIND,
        f"The log took entry {index}, whose signature was not made by the key in it.",
        event=f"wrong signature in entry {index}",
        heads=(head.raw,),
        sizes=(head.size,),
        leaves=((index, wrong.leaf),),
    )
