"""Promises that users' bundles hold, compared with the state here and with the log.

A bundle's signed timestamps are its verifier's reason to believe that the signing was logged. A promise that the log's
own signatures contradict is reported at once. A promise whose entry the log does not show is stored, if the log is
followed, and checked again.
"""

from collections.abc import Callable, Sequence
from datetime import datetime

from monitor.crosscheck.bundle_check import BundleRelation, BundleVerdict
from monitor.crosscheck.bundles import BundlePromise
from monitor.crosscheck.promise_audit import PromiseResult, PromiseStatus, hold, is_of
from monitor.model.errors import Evidence, FetchFailed, LogMisbehaved
from monitor.model.inclusion_promise import InclusionPromise
from monitor.model.log_source import PromisingSource
from monitor.proof.evidence import BROKEN_PROMISE, event_id
from monitor.raising.log_alerts import alert_of_evidence
from monitor.store.store import Store

FindTrees = Callable[[BundlePromise], Sequence[PromisingSource]]
"""Finds the trees of the promising log among the logs that can be asked. Raises `FetchFailed`, `OwnFault`."""


class PromiseCheck:
    """Checks promises one after the other. `find_trees` is `None` when offline."""

    def __init__(self, store: Store, clock: Callable[[], datetime], find_trees: FindTrees | None = None) -> None:
        self._store, self._clock, self._find_trees = store, clock, find_trees

    def check(self, promised: BundlePromise) -> BundleVerdict:
        """Compare one promise with everything known, and ask the log. Raises `OwnFault`."""
        promise, now = promised.promise, self._clock()
        if others := self._store.promises.of_index(promise):
            return self._broken(promise, _two_promises(promised, others[0]))
        try:
            found = self._ask(promised, now)
        except LogMisbehaved as misbehaved:
            return self._accuse(misbehaved.evidence)
        except FetchFailed as error:
            return self._open(promise, f"the log was not asked: {error}", now, unfinished=True)
        return self._told(promise, found, now)

    def _told(self, promise: InclusionPromise, found: PromiseResult | None, now: datetime) -> BundleVerdict:
        if found is None:
            return self._open(promise, "the log was not asked", now, unfinished=False)
        if found.status is PromiseStatus.KEPT:
            self._store.promises.kept(promise)
            return BundleVerdict(BundleRelation.CONSISTENT, f"the promise was kept: {found.detail}")
        if found.status is PromiseStatus.BROKEN and found.evidence is not None:
            return self._broken(promise, found.evidence)
        return self._open(promise, found.detail, now, unfinished=found.status is PromiseStatus.NOT_SHOWN)

    def _ask(self, promised: BundlePromise, now: datetime) -> PromiseResult | None:
        """Ask the tree that has to keep the promise; `None` if there is no such tree."""
        if self._find_trees is None:
            return None
        for tree in self._find_trees(promised):
            position = self._store.position(tree.identity.log)
            head = position.head.head if position is not None else tree.latest()
            if is_of(promised.promise, tree, head):
                signed_at = head.timestamp or self._store.health.of(tree.identity.log).fresh_at
                return hold(promised.promise, tree, head, promised.promise.due(now), signed_at)
        return None

    def _open(self, promise: InclusionPromise, detail: str, now: datetime, *, unfinished: bool) -> BundleVerdict:
        self._store.promises.remember([promise], now)
        is_remembered = self._store.promises.is_pending(promise)
        then = "remembered, and looked for as the log is followed" if is_remembered else "this log is not followed here"
        return BundleVerdict(BundleRelation.NOT_COVERED, f"{detail}; {then}", unfinished=unfinished)

    def _broken(self, promise: InclusionPromise, evidence: Evidence) -> BundleVerdict:
        verdict = self._accuse(evidence)
        # A broken promise stays stored, if the log is followed.
        self._store.promises.remember([promise], self._clock())
        self._store.promises.broken(promise, event_id(evidence))
        return verdict

    def _accuse(self, evidence: Evidence) -> BundleVerdict:
        self._store.keep_evidence(evidence, [alert_of_evidence(evidence, self._clock())])
        return BundleVerdict(BundleRelation.CONTRADICTION, evidence.detail, evidence=evidence)


def _two_promises(promised: BundlePromise, other: InclusionPromise) -> Evidence:
    promise = promised.promise
    detail = f"index {promise.index} was promised to two entries, by two signatures of the log"
    return promised.identity.evidence(BROKEN_PROMISE, detail, event=promise.id, promises=(promise.signed, other.signed))
