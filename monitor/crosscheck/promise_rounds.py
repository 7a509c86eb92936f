"""One round over the promises that wait: each is held to the tree that was just followed, and settled when it can be.

A promise that the log owes and does not show to be kept is asked for again in the next rounds; the third time it is
held against the log. What was decided is stored before the next one is looked at: a crash repeats a question.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final

from alerts.alert import Alert
from monitor.crosscheck.promise_audit import PromiseResult, PromiseStatus, hold, kind_of
from monitor.model.errors import Evidence, FetchFailed, LogMisbehaved
from monitor.model.log_source import PromisingSource, SignedHead
from monitor.proof.evidence import event_id
from monitor.raising.log_alerts import alert_of_evidence
from monitor.store.promises import UNASKED, KeptPromise, Promises

_LOG: Final = logging.getLogger(__name__)
# As for an entry that is missing: a replica may lag behind the head it is asked about.
ROUNDS_BEFORE_BLAME: Final = 3
_ASK_AGAIN: Final = timedelta(minutes=1)
_AT_MOST: Final = timedelta(hours=1)

KeepEvidence = Callable[[Evidence, Sequence[Alert]], bool]


@dataclass(slots=True)
class Round:
    """What a round came to: how many were kept, evidence of broken ones, and what was owed and not shown yet.

    `unasked` says why the log could not be asked for all of them; `Promises.unasked` tells of those that are overdue.
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
        """Hold the log to what waits, below a head that was verified and is at least as young as `signed_at`.

        Never raises `FetchFailed`: what could not be asked is asked later. Raises `OwnFault`.
        """
        done, identity = Round(), self._source.identity
        log_id, kind = sha256(identity.spki).hexdigest(), kind_of(identity)
        self._promises.give_up(now)
        try:
            places = self._source.promised_range(head)
            for waiting in self._promises.waiting(log_id, kind, places, head.size, now):
                self._settle(waiting, self._ask(waiting, head, signed_at, now), done, now)
        except LogMisbehaved as misbehaved:
            # Looking for a promised entry showed something worse.
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
        if found.standing is PromiseStatus.KEPT:
            self._promises.kept(waiting.promise)
            done.kept += 1
        elif found.evidence is None:
            self._promises.look_again(waiting, _next_look(waiting, now), found.detail)
        elif found.standing is PromiseStatus.BROKEN or waiting.tries + 1 >= ROUNDS_BEFORE_BLAME:
            # Evidence first: a crash in between finds the promise pending, and comes to the same event again.
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
    """Later and later, but at once when it is due."""
    later = now + min(max(now - waiting.seen_at, _ASK_AGAIN), _AT_MOST)
    return min(later, max(waiting.due, now + _ASK_AGAIN))
