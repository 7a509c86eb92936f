"""Audits one promise of a log: the entry must be at the signed index, or in the tree after the due time.

Two signatures of the log that contradict each other are proof at once. An entry that is merely not shown may be due to
a cache or a lagging replica, so it first counts as `NotShown` only. `PromiseRounds` counts: each round holds waiting
promises to the tree that was just followed, and an overdue promise whose entry is not shown for the third time counts
as broken. A decision is stored before the next promise is checked, so a crash only repeats a question.
"""

import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import Final

from msgspec import Struct, field

from alerts.alert import Alert, counted, rfc3339
from monitor.model.errors import Evidence, FetchFailed, Lagging, LogMisbehaved, MalformedEntries, NotShown
from monitor.model.inclusion_promise import BadPromise, InclusionPromise, read_promise
from monitor.model.log_source import LogIdentity, PromiseAnswer, PromisingSource, SignedHead
from monitor.proof.evidence import BROKEN_PROMISE, conclude, event_id
from monitor.raising.log_alerts import alert_of_evidence
from monitor.store.promises import UNASKED, KeptPromise, Promises


class PromiseStatus(StrEnum):
    """State of a promise."""

    KEPT = "kept"
    WAITING = "not-yet-due"
    NOT_SHOWN = "not-shown"
    BROKEN = "broken"


class PromiseResult(Struct, frozen=True):
    """State of a promise, and the reason. `evidence` is against the log; for a broken promise it is a proof."""

    status: PromiseStatus
    detail: str
    evidence: Evidence | None = None


def is_of(promise: InclusionPromise, source: PromisingSource, head: SignedHead) -> bool:
    """True if this tree has to keep the promise. A log of several trees promises an index over all its trees."""
    if promise.kind is not source.identity.api.promise:
        # One key may sign for two logs, so the key alone is not enough.
        return False
    start, stop = source.promised_range(head)
    index = promise.index
    return index is None or (start <= index and (stop is None or index < stop))


def hold(
    promise: InclusionPromise, source: PromisingSource, head: SignedHead, due: datetime, signed_at: datetime | None
) -> PromiseResult:
    """Ask the log for the promised entry, below a head it signed. The promise must be this tree's (`is_of`).

    `signed_at` is the earliest time of the head: a missing entry counts against the log only below a head signed after
    `due`. Raises `FetchFailed` when it could not be asked, and `LogMisbehaved` when its answer forks the log.
    """
    start = source.promised_range(head).start
    is_late = signed_at is not None and signed_at > due
    if promise.index is not None and promise.index - start >= head.size:
        detail = f"its tree of {counted(head.size, 'entry')} does not reach the promised index {promise.index}"
        return _absent(promise, source.identity, head, detail, is_late=is_late)
    try:
        place = source.place_of(promise, head)
    except MalformedEntries:
        # A file of the wrong length is no statement about the log's entries.
        raise
    except NotShown as unshown:
        _check_not_behind(source, head.size if promise.index is None else promise.index - start + 1)
        # No delay is allowed here: the signed tree is larger than the promised index, so an entry is there.
        is_late = is_late or promise.index is not None
        return _absent(promise, source.identity, head, unshown.evidence.detail, is_late=is_late)
    if place.leaf == promise.leaf:
        return PromiseResult(PromiseStatus.KEPT, f"the entry is in the log, at index {place.index} of its tree")
    return _another(promise, source.identity, place)


def _check_not_behind(source: PromisingSource, size: int) -> None:
    """Check that the answering server's tree has at least `size` entries. Raises `Lagging`."""
    shown = source.latest().size
    if shown < size:
        raise Lagging(
            f"{source.identity.log}: the answering server has a tree of {counted(shown, 'entry')}, {size} are needed"
        )


def _absent(
    promise: InclusionPromise, identity: LogIdentity, head: SignedHead, detail: str, *, is_late: bool
) -> PromiseResult:
    if not is_late:
        return PromiseResult(PromiseStatus.WAITING, f"not in the log yet, and not overdue: {detail}")
    told = f"the log does not show the entry it promised on {rfc3339(promise.at)}: {detail}"
    return PromiseResult(PromiseStatus.NOT_SHOWN, told, _evidence(promise, identity, head, told))


def _another(promise: InclusionPromise, identity: LogIdentity, place: PromiseAnswer) -> PromiseResult:
    """Result for a promised index at which another leaf is proven to be."""
    told = f"index {promise.index} was promised to one entry on {rfc3339(promise.at)}, and another one stands there"
    evidence = _evidence(promise, identity, place.head, told, place=place, second=_second(promise, place))
    is_proof = conclude(evidence).transferable
    return PromiseResult(PromiseStatus.BROKEN if is_proof else PromiseStatus.NOT_SHOWN, told, evidence)


def _second(promise: InclusionPromise, place: PromiseAnswer) -> InclusionPromise | None:
    """The log's promise of the other entry, if the log made one for the same index."""
    try:
        second = read_promise(place.promised, promise.spki) if place.promised is not None else None
    except BadPromise:
        return None
    return second if second is not None and (second.index, second.leaf) == (promise.index, place.leaf) else None


def _evidence(
    promise: InclusionPromise,
    identity: LogIdentity,
    head: SignedHead,
    detail: str,
    *,
    place: PromiseAnswer | None = None,
    second: InclusionPromise | None = None,
) -> Evidence:
    return identity.evidence(
        BROKEN_PROMISE,
        detail,
        event=promise.id,
        heads=(head.raw,),
        sizes=(head.size,),
        proof=place.proof if place is not None else (),
        leaves=((place.index, place.leaf),) if place is not None else (),
        promises=(promise.signed, *((second.signed,) if second is not None else ())),
    )


_LOG: Final = logging.getLogger(__name__)
# As for a missing entry: a replica may lag behind the requested head.
ROUNDS_BEFORE_BLAME: Final = 3
_ASK_AGAIN: Final = timedelta(minutes=1)
_AT_MOST: Final = timedelta(hours=1)

KeepEvidence = Callable[[Evidence, Sequence[Alert]], bool]


class Round(Struct):
    """Result of a round: number of kept promises, evidence of broken ones, and overdue promises that are not shown yet.

    `unasked` says why the log could not be asked for all of them; `Promises.unasked` returns the overdue ones.
    """

    kept: int = 0
    broken: list[Evidence] = field(default_factory=list)
    unshown: list[str] = field(default_factory=list)
    unasked: str = ""


class PromiseRounds:
    """Rounds over the promises one tree has to keep. `keep_evidence` is that of `monitor.model.state.State`."""

    def __init__(self, promises: Promises, source: PromisingSource, keep_evidence: KeepEvidence) -> None:
        self._promises, self._source, self._keep_evidence = promises, source, keep_evidence

    def run(self, head: SignedHead, signed_at: datetime | None, now: datetime) -> Round:
        """Hold the log to waiting promises, below a head that was verified and is at least as young as `signed_at`.

        Never raises `FetchFailed`: a failed question is repeated later. Raises `OwnFault`.
        """
        done, identity = Round(), self._source.identity
        log_id, kind = sha256(identity.spki).hexdigest(), identity.api.promise
        self._promises.give_up(now)
        if kind is None:
            return done
        try:
            places = self._source.promised_range(head)
            for waiting in self._promises.waiting(log_id, kind, places, head.size, now):
                self._settle(waiting, self._ask(waiting, head, signed_at, now), done, now)
        except LogMisbehaved as misbehaved:
            # The search for a promised entry showed other misbehaviour.
            self._keep(misbehaved.evidence, done, now)
        except FetchFailed as error:
            done.unasked = str(error)
        return done

    def _ask(self, waiting: KeptPromise, head: SignedHead, signed_at: datetime | None, now: datetime) -> PromiseResult:
        try:
            return hold(waiting.promise, self._source, head, waiting.due, signed_at)
        except FetchFailed as error:
            self._promises.look_again(waiting, now + _ASK_AGAIN, f"{UNASKED}{error}")
            raise

    def _settle(self, waiting: KeptPromise, found: PromiseResult, done: Round, now: datetime) -> None:
        if found.status is PromiseStatus.KEPT:
            self._promises.kept(waiting.promise)
            done.kept += 1
        elif found.evidence is None:
            self._promises.look_again(waiting, _next_look(waiting, now), found.detail)
        elif found.status is PromiseStatus.BROKEN or waiting.tries + 1 >= ROUNDS_BEFORE_BLAME:
            # Evidence first: after a crash in between, the promise is still pending, and the next round makes the same
            # event.
            self._keep(found.evidence, done, now)
            self._promises.broken(waiting.promise, event_id(found.evidence))
            _LOG.warning("promise_broken log=%s promise=%s", self._source.identity.log, waiting.promise.id)
        else:
            self._promises.look_again(waiting, now, found.detail, unshown=True)
            done.unshown.append(found.detail)

    def _keep(self, evidence: Evidence, done: Round, now: datetime) -> None:
        self._keep_evidence(evidence, [alert_of_evidence(evidence, now)])
        done.broken.append(evidence)


def _next_look(waiting: KeptPromise, now: datetime) -> datetime:
    """Time of the next check: at growing intervals, but no later than when the promise falls due."""
    later = now + min(max(now - waiting.seen_at, _ASK_AGAIN), _AT_MOST)
    return min(later, max(waiting.due, now + _ASK_AGAIN))
