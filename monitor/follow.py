"""One pass over one log: newest head, proof, entries, judgement, one commit per batch.

What is stored after any step is a position that was proven: kill the process anywhere and the next pass ends with the
same findings. Nothing here sleeps, reads a clock or starts a thread unless it was handed one.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Literal, Protocol, TypeVar

from alerts.alert import Alert
from monitor.alerting import (
    alert_of_evidence,
    alerts_of_unreadable,
    key_expired_alert,
    log_clock_alert,
)
from monitor.coverage_alerts import alerts_of_dropped
from monitor.errors import (
    Evidence,
    FetchFailed,
    Lagging,
    LogMisbehaved,
    NotShown,
    OwnFault,
    SignedPromise,
    StateConflict,
)
from monitor.evidence import read_head
from monitor.examine import Examined, Hit, Scanner, examine
from monitor.fetch_ahead import Fetched, fetch_batches
from monitor.heads import Position, SignedHead, TrustedHead
from monitor.promises import BadPromise, unpack_timestamp
from monitor.source import LogEntry, LogIdentity, LogSource
from monitor.state import Batch, Finding, State
from monitor.verify import advance, check_frontier_in_head, contradicting_prefix, sizes_to_prove
from tlog.frontier import Frontier

_T = TypeVar("_T")
_NARROWING: Final = 16
_CONFLICTS: Final = 3
_CLOCK_SKEW: Final = timedelta(minutes=10)

# A replica or a cache may lag behind the head it is asked about, so an absence is held against a log only when several
# passes in a row met it. Wrong bytes and failing proofs need no such patience.
_PASSES_BEFORE_BLAME: Final = {"log-entry-missing": 3, "log-shard-vanished": 3}


@dataclass(frozen=True, slots=True)
class Limits:
    """Entries and bytes a batch may have, batches fetched ahead, tries before a broken promise is blamed on the log.

    `pauses` are the seconds between those tries. `entries_per_pass` ends a pass early; the next one goes on. No entry
    from `end` on is read.
    """

    batch_entries: int = 2048
    batch_bytes: int = 64 * 1024 * 1024
    ahead: int = 2
    pauses: tuple[float, ...] = (1.0, 4.0)
    entries_per_pass: int | None = None
    end: int | None = None


Examiner = Callable[[Iterator[Fetched]], Iterator[tuple[Fetched, Examined]]]
"""Examines batches in order; may read ahead of what it yields. What fetching raises, it raises in the same place."""


class Judge(Protocol):
    """Says of each hit what its rules make of it: chain of trust first, then the expectations."""

    def judge(self, hits: Sequence[Hit], now: datetime) -> Sequence[Finding]:
        """One finding per hit and rule. Each judgement knows of the ones before it, as if they were stored already."""

    def alerts(self, findings: Sequence[Finding], now: datetime) -> Sequence[Alert]:
        """Alerts that these findings call for; expected ones call for none."""


@dataclass(frozen=True, slots=True)
class PassReport:
    """What one pass did. `head` is the one the log showed, `lagging` says that it was older than the trusted one."""

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
    """Record where following a log begins: at its present head, or at an index; an explicit act, done once.

    The head is taken as it is shown: what the log did before is not known. Everything after it is verified. Raises
    `FetchFailed`, `NotShown`, `OwnFault`, `StateConflict`.
    """
    head = source.latest()
    state.record_head(head)
    size = head.size if start == "head" else start
    if not 0 <= size <= head.size:
        raise OwnFault(f"{head.log}: cannot start at entry {size}, the log has {head.size}")
    position = Position(head.log, source.frontier(size, head), advance(None, head, (), source.identity))
    state.baseline(position, how=f"{'head' if start == 'head' else 'index'} {size} of {head.size}")
    return position


class Follower:
    """Follows one log. Safe to kill at any point; two at once are harmless and wasteful."""

    def __init__(
        self,
        source: LogSource,
        state: State,
        scanner: Scanner,
        judge: Judge,
        *,
        clock: Callable[[], datetime],
        pause: Callable[[float], object],
        limits: Limits | None = None,
        executor: Executor | None = None,
        examiner: Examiner | None = None,
        stop: Callable[[], bool] = lambda: False,
        unkept: dict[tuple[str, str], int] | None = None,
    ) -> None:
        """`unkept` counts broken promises by kind and event; handed on, the count outlives this follower."""
        self._source, self._state, self._scanner, self._judge = source, state, scanner, judge
        self._clock, self._pause, self._limits = clock, pause, limits or Limits()
        self._executor, self._examiner, self._stop = executor, examiner or self._examine, stop
        self._identity = source.identity
        self._unkept = unkept if unkept is not None else {}

    def run_pass(self) -> PassReport:
        """Follow the log to the head it shows now, or to a limit.

        Raises `FetchFailed` (try later), `LogMisbehaved` (its evidence is stored and its alert enqueued before it is
        raised) and `OwnFault`.
        """
        try:
            for _ in range(_CONFLICTS - 1):
                try:
                    return self._pass()
                except StateConflict:
                    # Another daemon moved the position; what it committed is as good as ours. Read it and go on.
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
                f"{self._identity.log}: nothing is known about where to follow from; a missing position is never taken "
                "for a first run. Run `signwatch init`, or restore the database."
            )
        self._check_undamaged(position)
        offered = self._insist(self._source.latest)
        # Everything the log signs is history, whether or not it turns out consistent: evidence first.
        self._state.record_head(offered)
        trusted = self._consistent(position.head, offered)
        known = position.head.head
        if _statement(trusted.head) != _statement(known):
            # The newer head is kept before its entries are read: consistency is checked at once, however long the rest
            # takes.
            ahead, here = replace(position, head=trusted), position.frontier.size
            self._state.advance(position, ahead, Batch(position.log, here, here), ())
            position = ahead
        self._check_times(position.head.head, grew=trusted.head.size > known.size)
        first = position.frontier.size
        position, findings, unreadable = self._catch_up(position)
        self._compare_sightings(position.head)
        self._unkept.clear()
        lagging = offered.size < position.head.head.size
        return PassReport(offered, position, position.frontier.size - first, findings, unreadable, lagging)

    def _check_undamaged(self, position: Position) -> None:
        """Check that what was stored is what the log signed: our own damage must not be blamed on the log."""
        head, frontier, identity = position.head.head, position.frontier, self._identity
        try:
            signed = read_head(head.raw, identity.api, identity.key_name, identity.spki)
        except ValueError as error:
            raise _damaged(
                identity, f"the stored head is not signed by the key now pinned to the log: {error}"
            ) from error
        if (signed.size, signed.root) != (head.size, head.root):
            raise _damaged(identity, f"the stored head of size {head.size} is not what its own signed note says")
        if frontier.size > head.size or (frontier.size == head.size and frontier.root() != head.root):
            raise _damaged(identity, f"the stored frontier of size {frontier.size} does not belong to the stored head")

    def _check_frontier_undamaged(self, position: Position) -> None:
        """Before entries are blamed: what they were appended to must itself still be a prefix of the signed tree."""
        frontier, head = position.frontier, position.head.head
        if not 0 < frontier.size < head.size:
            return
        proof = self._source.consistency_proof(frontier.size, head.size)
        try:
            check_frontier_in_head(frontier, head, proof, self._identity, event="")
        except NotShown as error:
            if _is_wrong_entries(error):
                reason = f"the stored frontier of size {frontier.size} is no prefix of the tree the log signed"
                raise _damaged(self._identity, reason) from error

    def _consistent(self, trusted: TrustedHead, offered: SignedHead) -> TrustedHead:
        sizes = sizes_to_prove(trusted, offered)

        def proven() -> TrustedHead:
            proof = self._source.consistency_proof(*sizes) if sizes else ()
            return advance(trusted, offered, proof, self._identity)

        try:
            return self._insist(proven)
        except Lagging:
            if offered.size < trusted.head.size:
                # SPEC rekor tlog.go: a replica that lags refuses a proof up to a size it has not reached. The head is
                # on record; there is nothing to hold against anybody, and nothing to stop for.
                return trusted
            raise
        except NotShown:
            contradiction = self._contradiction(trusted.head, offered)
            if contradiction is not None:
                raise contradiction from None
            raise

    def _check_times(self, head: SignedHead, *, grew: bool) -> None:
        """Tell of times that do not fit. They stop nothing: what was signed is proven by hashes, not by clocks."""
        now, until = self._clock(), self._identity.valid_until
        if head.timestamp is not None and head.timestamp > now + _CLOCK_SKEW:
            self._state.enqueue([log_clock_alert(head.log, head.timestamp, now)])
        if grew and until is not None and (head.timestamp or now) > until:
            self._state.enqueue([key_expired_alert(head.log, until, head, now)])

    def _compare_sightings(self, trusted: TrustedHead) -> None:
        """Hold heads that came with entries against the trusted one: whoever answered may have another view.

        Each costs at most one proof. One that cannot be had now is no loss: the head is on record.
        """
        for head in self._source.sightings():
            self._state.record_head(head)
            try:
                self._consistent(trusted, head)
            except Lagging:
                continue

    def _contradiction(self, known: SignedHead, offered: SignedHead) -> LogMisbehaved | None:
        """Look for what the failing proof could not show: what the larger tree holds in place of the smaller one."""
        smaller, larger = sorted((known, offered), key=lambda head: head.size)
        try:
            frontier = self._source.frontier(smaller.size, larger)
            proof = self._source.consistency_proof(smaller.size, larger.size)
        except FetchFailed:
            return None
        return contradicting_prefix(smaller, larger, frontier, proof, self._identity)

    def _catch_up(self, position: Position) -> tuple[Position, int, int]:
        """Read, prove and commit batch after batch up to the trusted head."""
        first, size = position.frontier.size, self._limits.batch_entries
        end = position.head.head.size
        if self._limits.entries_per_pass is not None:
            end = min(end, first + self._limits.entries_per_pass)
        if self._limits.end is not None:
            end = min(end, self._limits.end)
        findings = unreadable = tries = 0
        while position.frontier.size < end and not self._stop():
            try:
                for fetched, examined in self._examiner(self._fetch(position, end, size)):
                    position, batch = self._take(position, fetched, examined)
                    findings, unreadable = findings + len(batch.findings), unreadable + len(batch.unreadable)
                    tries = 0
                    if self._stop():
                        break
            except (NotShown, Lagging) as unkept:
                # One wrong entry spoils its batch: commit the good ones before it, and name exactly the one that fails.
                if _is_wrong_entries(unkept) and size > 1:
                    size = max(1, size // _NARROWING)
                    continue
                if tries == len(self._limits.pauses):
                    if _is_wrong_entries(unkept):
                        self._check_frontier_undamaged(position)
                    raise
                self._pause(self._limits.pauses[tries])
                tries += 1
        return position, findings, unreadable

    def _fetch(self, position: Position, end: int, batch_entries: int) -> Iterator[Fetched]:
        return fetch_batches(
            self._source,
            position.head.head,
            range(position.frontier.size, end),
            batch_entries=batch_entries,
            batch_bytes=self._limits.batch_bytes,
            ahead=self._limits.ahead,
            executor=self._executor,
        )

    def _examine(self, batches: Iterator[Fetched]) -> Iterator[tuple[Fetched, Examined]]:
        for fetched in batches:
            yield (
                fetched,
                examine(fetched.entries, fetched.start, self._identity.log, self._identity.api, self._scanner),
            )

    def _take(self, position: Position, fetched: Fetched, examined: Examined) -> tuple[Position, Batch]:
        """Prove, judge and commit one hashed batch; the order is the promise: nothing unproven is committed."""
        log = self._identity.log
        frontier = examined.extend(position.frontier)
        self._prove(frontier, position.head.head, fetched)
        scan, now = examined.scan, self._clock()
        findings = tuple(self._judge.judge(scan.hits, now))
        batch = Batch(log, examined.start, examined.end, findings, scan.unreadable, scan.kinds, scan.dropped)
        alerts = [
            *self._judge.alerts(findings, now),
            *alerts_of_unreadable(log, scan.unreadable, now),
            *alerts_of_dropped(log, scan.dropped, now),
        ]
        moved = replace(position, frontier=frontier)
        # A crash before this commit reads the batch again; after it, the batch is never looked at again.
        self._state.advance(position, moved, batch, alerts)
        return moved, batch

    def _prove(self, frontier: Frontier, head: SignedHead, fetched: Fetched) -> None:
        behind = frontier.size < head.size
        proof = self._source.consistency_proof(frontier.size, head.size) if behind else ()
        try:
            check_frontier_in_head(frontier, head, proof, self._identity, event=f"entry {fetched.start}")
        except NotShown as unproven:
            if len(fetched.entries) > 1:
                raise
            (entry,) = fetched.entries
            leaves = ((fetched.start, entry.leaf),)
            raise NotShown(replace(unproven.evidence, leaves=leaves, promises=self._promised(entry))) from unproven

    def _promised(self, entry: LogEntry) -> tuple[SignedPromise, ...]:
        """What the log signed about an entry that its tree does not hold."""
        try:
            return (unpack_timestamp(entry.timestamp, entry.leaf, self._identity.spki).signed,)
        except BadPromise:
            return ()

    def _insist(self, ask: Callable[[], _T]) -> _T:
        """Ask until the log keeps its promise or the tries are used up; other failures are not worth insisting on."""
        for seconds in self._limits.pauses:
            try:
                return ask()
            except (NotShown, Lagging):
                self._pause(seconds)
        return ask()

    def _blame(self, unkept: NotShown) -> None:
        """Raise `LogMisbehaved` when this promise was broken in enough passes; otherwise remember and return."""
        evidence = unkept.evidence
        key = (evidence.kind, evidence.event)
        self._unkept[key] = self._unkept.get(key, 0) + 1
        if self._unkept[key] >= _PASSES_BEFORE_BLAME.get(evidence.kind, 1):
            self._keep(evidence)
            raise LogMisbehaved(evidence) from unkept

    def _keep(self, evidence: Evidence) -> None:
        self._state.keep_evidence(evidence, [alert_of_evidence(evidence, self._clock())])


def _is_wrong_entries(error: FetchFailed) -> bool:
    return isinstance(error, NotShown) and error.evidence.kind == "log-entries-not-in-tree"


def _damaged(identity: LogIdentity, reason: str) -> OwnFault:
    return OwnFault(
        f"{identity.log}: the stored position is damaged: {reason}. Nothing is being checked and nothing was changed. "
        "Restore the database from a backup: an older one is followed forward again."
    )


def _statement(head: SignedHead) -> tuple[int, bytes, bool, datetime | None]:
    # Logs sign the same head anew for every request: what they say is compared, not how it is signed. The time they
    # say is part of it: a head that never gets any younger is how a frozen log shows.
    return head.size, head.root, head.final, head.timestamp
