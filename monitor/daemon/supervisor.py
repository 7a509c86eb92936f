"""One configured log, pass by pass: opened when it answers, every tree followed, all trouble recorded.

Every result of a pass becomes a value, so that a log that lies or does not answer does not stop the passes over other
logs.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final, Literal

from msgspec import Struct
from typing_extensions import override

from alerts.alert import Alert, Owner, counted, lasting, rfc3339
from alerts.inert import inert_line
from monitor.archive.handover import Handover, Handovers
from monitor.backscan.planner import Services
from monitor.crosscheck.promise_audit import PromiseRounds
from monitor.daemon.pass_result import PassResult
from monitor.following.follower import FollowLimits, LogFollower, PassReport, Unkept, baseline
from monitor.following.scan_batch import RuleScanner
from monitor.following.workers import ScanWorkers
from monitor.judging.judge import RuleJudge
from monitor.logs.opening import LogTrees, OpenTrees
from monitor.model.errors import Evidence, FetchFailed, Lagging, LogMisbehaved, NotShown, OwnFault
from monitor.model.inclusion_promise import Overdue
from monitor.model.log_source import Freshness, LogSource, Position, PromisingSource, SignedHead
from monitor.model.state import Batch, State
from monitor.model.witness_policy import WitnessPolicy, WitnessReport, follow_up, judge
from monitor.proof.evidence import event_id
from monitor.raising.log_alerts import (
    could_not_ask_alert,
    new_shard_alert,
    own_fault_alert,
    promises_given_up_alert,
    promises_unasked_alert,
    rewound_head_alert,
    stale_head_alert,
    trees_left_out_alert,
    witness_alerts,
)
from monitor.store.asks import Asks
from monitor.store.health import LogCondition
from monitor.store.history import Pass
from monitor.store.store import Store
from monitor.telemetry.hooks import LogMeter

_LOG: Final = logging.getLogger(__name__)
_ILL_AFTER: Final = timedelta(minutes=5)
_MAX_LINE: Final = 1_000
# Told by an alert while the log is read on. That a key is past its time says the trust root, not the log.
_DOUBTS: Final = frozenset({"log-clock", "entry-signature-wrong"})


class ObservedState(State):
    """The store, with everything that is committed reported to the meter, the archive and the result of the pass."""

    def __init__(self, store: Store, meter: LogMeter, outcome: PassResult, archive: Handover | None = None) -> None:
        self._store, self._meter, self.outcome, self._archive = store, meter, outcome, archive

    @override
    def position(self, log: str) -> Position | None:
        return self._store.position(log)

    @override
    def baseline(self, position: Position, how: str) -> None:
        self._store.baseline(position, how)

    @override
    def advance(self, old: Position, new: Position, batch: Batch, alerts: Sequence[Alert]) -> None:
        self._store.advance(old, new, batch, alerts)
        self._note(alerts)
        if self._archive is not None:
            self._archive.committed(old, new, batch)
        self._meter.batch(batch)
        self._meter.position(new.log, new.frontier.size, new.head.head.size, new.head.head.timestamp)
        for finding in batch.findings:
            name = finding.verdict.outcome.value
            self.outcome.findings[name] = self.outcome.findings.get(name, 0) + 1
        self.outcome.unreadable += len(batch.unreadable)
        self.outcome.dropped += batch.matches_dropped

    @override
    def record_head(self, head: SignedHead) -> None:
        self.outcome.answered = True
        self._store.record_head(head)

    @override
    def keep_evidence(self, evidence: Evidence, alerts: Sequence[Alert]) -> bool:
        is_new = self._store.keep_evidence(evidence, alerts)
        self.outcome.evidence.append(event_id(evidence))
        if is_new:
            self._meter.misbehaved(evidence.log, evidence.kind)
        return is_new

    @override
    def enqueue(self, alerts: Sequence[Alert]) -> None:
        self._store.enqueue(alerts)
        self._note(alerts)

    def _note(self, alerts: Sequence[Alert]) -> None:
        """Record the most serious alert about the log from a pass that continues."""
        for alert in alerts:
            if alert.kind in _DOUBTS:
                known = self.outcome.told
                self.outcome.told = alert if known is None else min(known, alert, key=_misbehaviour_first)


def _misbehaviour_first(alert: Alert) -> bool:
    return alert.owner is not Owner.LOG_MISBEHAVED


class _FollowedTree(Struct):
    """One tree being followed, with the rules it is followed with."""

    source: LogSource
    state: ObservedState
    follower: LogFollower
    generation: int
    change: int


class WatchSettings(Struct, frozen=True):
    """Settings for one log: its freshness, the limits of a pass, and the required witnesses.

    `appeared` means that a later trust root added the log, which is then followed from its first entry.
    """

    freshness: Freshness
    limits: FollowLimits | None = None
    witnesses: WitnessPolicy | None = None
    appeared: bool = False


class PassHelpers(Struct, frozen=True):
    """Helpers of a pass: `executor` fetches ahead, `scan_workers` scan large backlogs.

    `archive` gets committed batches.
    """

    executor: Executor | None = None
    scan_workers: ScanWorkers | None = None
    archive: Handovers | None = None


class LogSupervisor:
    """Watches one configured log; `run_pass` is called by one thread at a time."""

    def __init__(
        self,
        name: str,
        open_trees: OpenTrees,
        services: Services,
        watching: WatchSettings,
        workers: PassHelpers | None = None,
    ) -> None:
        self.name = name
        self._store, self._rules, self._trust = services.store, services.rules, services.trust
        self._meter: LogMeter = services.meter
        self._timing = services.timing
        self._watching, self._workers = watching, workers or PassHelpers()
        self._freshness, self._stale_after = watching.freshness, watching.freshness.stale_after
        self._log_trees = LogTrees(open_trees, services.timing.clock)
        self._unkept: dict[str, Unkept] = {}
        self._trees: dict[str, _FollowedTree] = {}
        self._throttle = LogThrottle(services.timing.clock)

    def run_pass(self) -> list[PassResult]:
        """One pass over every tree of the log.

        Faults of a log, the network or the database are results, not exceptions.
        """
        try:
            self._list_trees()
        except Exception as error:  # noqa: BLE001  see `_trouble`
            if not self._log_trees.sources:
                return self._not_opened(error)
            # The known trees are asked too, and have trouble of their own.
            _LOG.warning("trees_not_listed log=%s detail=%s", self.name, error)
        # The newest tree first, so that present entries do not wait for old trees.
        results = [self._follow(source) for source in reversed(self._log_trees.sources) if not self._timing.stop()]
        if results and self._log_trees.left_out:
            told = f"not followed: {counted(self._log_trees.left_out, 'tree')} that the log names"
            results[0].note = f"{results[0].note}; {told}".removeprefix("; ")
        return results

    def _not_opened(self, error: Exception) -> list[PassResult]:
        """Trouble of a log that could not be opened, under the names of its followed trees if there are any.

        Trouble under the log's own name would stay after later passes over the trees.
        """
        try:
            trees = [f"{self.name}/{tree}" for tree in self._store.trees_of(self.name)]
        except OwnFault:
            trees = []
        found = [PassResult(name) for name in trees or [self.name]]
        for opening in found:
            self._settle(opening, error)
        return found

    def baseline(self, start: int | Literal["head"]) -> list[str]:
        """Baseline every tree without a position; one sentence for each. Raises the errors of following."""
        told = []
        self._list_trees()
        for source in self._log_trees.sources:
            log = source.identity.log
            if self._store.position(log) is None:
                position = baseline(source, self._store, start)
                told.append(f"{log}: followed from entry {position.frontier.size} of {position.head.head.size} on")
            else:
                told.append(f"{log}: already followed, left as it is")
        return told

    def forget_sources(self) -> None:
        """Open the log again at the next pass, because its keys may have changed."""
        self._log_trees.forget()

    def _list_trees(self) -> None:
        known = {source.identity.log for source in self._log_trees.sources}
        if not self._log_trees.refresh():
            return
        self._trees.clear()
        sources, left_out = self._log_trees.sources, self._log_trees.left_out
        self._meter.trees_left_out(self.name, left_out)
        if left_out:
            self._store.enqueue([trees_left_out_alert(self.name, left_out, self._timing.clock())])
        if self.name not in {source.identity.log for source in sources}:
            self._store.health.forget(self.name)
        for source in sources:
            if source.identity.log not in known:
                if self._watching.witnesses is None:
                    # If witnesses are required again later, the delay begins anew.
                    self._store.witnesses.forget(source.identity.log)
                self._meter.add_log(source.identity.log)
                self._tell_position(source.identity.log)

    def _tell_position(self, log: str) -> None:
        position = self._store.position(log)
        if position is not None:
            head = position.head.head
            self._meter.position(log, position.frontier.size, head.size, head.timestamp)

    def _follow(self, source: LogSource) -> PassResult:
        log = source.identity.log
        outcome = PassResult(log)
        try:
            before = self._store.position(log) or self._new_tree(source)
            tree = self._tree(source)
            tree.state.outcome = outcome
            outcome.first = outcome.last = before.frontier.size
            outcome.began = self._timing.clock()
            report = tree.follower.run_pass()
            self._went_well(outcome, before, report, source.identity.valid_until)
            self._hold_to_promises(outcome, source, report.position.head.head, tree.state)
            _take_what_was_told(outcome)
        except Exception as error:  # noqa: BLE001  see `_trouble`
            self._settle(outcome, error)
        return outcome

    def _new_tree(self, source: LogSource) -> Position:
        """A tree without a baseline: followed from its first entry when the log or tree is new, refused otherwise."""
        if self._watching.appeared:
            # The change of the trust root had its alert when it was recorded.
            return baseline(source, self._store, 0)
        siblings = [each.identity.log for each in self._log_trees.sources if each.identity.log != source.identity.log]
        if not any(self._store.position(log) for log in siblings):
            raise OwnFault(
                f"{source.identity.log}: this log has no baseline, so it is not followed. "
                "Run `signwatch init` once; it does not change the positions of followed logs."
            )
        position = baseline(source, self._store, 0)
        identity = source.identity
        alert = new_shard_alert(identity.log, identity.origin, "the log's own list of trees", self._timing.clock())
        self._store.enqueue([alert])
        return position

    def _tree(self, source: LogSource) -> _FollowedTree:
        log, held = source.identity.log, self._rules.held
        tree = self._trees.get(log)
        # Read first: a later request is already matched in this pass, and counts from the next pass on.
        change = self._rules.asked.change if self._rules.asked is not None else 0
        if tree is not None and tree.generation == held.generation and tree.change == change:
            return tree
        # No batch is running between two passes, so from here on every entry is offered to exactly these rules.
        if tree is None or tree.generation != held.generation:
            self._store.coverage.activate(log, held.selections)
            self._store.rule_load.put_in_force(len(held.matcher.rules), held.unindexed, self._timing.clock())
        if change:
            Asks(self._store.database).offered_from(log, change, self._timing.clock())
        workers = self._workers
        handover = workers.archive.of(log) if workers.archive is not None else None
        state = ObservedState(self._store, self._meter, PassResult(log), handover)
        batch_scanner, scan_workers = None, workers.scan_workers
        if scan_workers is not None and (handover is not None or scan_workers.is_parallel):
            batch_scanner = scan_workers.batch_scanner(held, log, source.identity.api)
            batch_scanner = batch_scanner if handover is None else handover.watching(batch_scanner)
        follower = LogFollower(
            source,
            state,
            RuleScanner(held.everything),
            RuleJudge(held.everything, self._store.facts, self._trust.authorities),
            self._timing,
            limits=self._watching.limits,
            executor=workers.executor,
            batch_scanner=batch_scanner,
            # Trees may be listed again between two polls, so unkept promises are counted across listings.
            unkept=self._unkept.setdefault(log, {}),
        )
        tree = self._trees[log] = _FollowedTree(source, state, follower, held.generation, change)
        return tree

    def _went_well(
        self, outcome: PassResult, before: Position, report: PassReport, valid_until: datetime | None
    ) -> None:
        now, log = self._timing.clock(), outcome.log
        outcome.last, outcome.head = report.position.frontier.size, report.head
        known, shown = before.head.head, report.head
        if shown.final and not known.final:
            # A tree that ends has a successor in the log's list, so the list is read at once.
            self._log_trees.forget()
        # An older head is not new, even with a new signature.
        moved = shown.size > known.size or (shown.size == known.size and _later(shown.timestamp, known.timestamp))
        # If the head has a signed time, its age counts from that time.
        signed_at = min(shown.timestamp, now) if shown.timestamp is not None else now
        whole = outcome.began is not None and not report.lagging and report.backlog == 0
        read = (outcome.last, outcome.began) if whole and outcome.began is not None else None
        size = report.position.frontier.size
        progress = Pass(size, report.position.head.head.size - size, self._freshness.longest_pause)
        fresh_at = signed_at if moved else None
        condition = self._store.health.went_well(
            log, now, fresh_at, read=read, progress=progress, behind=report.lagging
        )
        self._throttle.reset(log)
        head = report.position.head.head
        self._meter.position(log, report.position.frontier.size, head.size, head.timestamp or condition.fresh_at)
        self._meter.passed(log, now, None)
        fresh = condition.fresh_at or now
        # A log that ended by the trust root and was read to its end need not show a newer head.
        ended = valid_until is not None and valid_until < now and report.backlog == 0
        is_over = head.final or ended
        if not is_over and self._freshness.is_silent(fresh, now):
            self._tell_silence(outcome, report, condition, now)
        if self._watching.witnesses is not None:
            fresh_for = None if is_over else self._stale_after
            outcome.witnessed = self._ask_witnesses(self._watching.witnesses, shown, now, fresh_for)

    def _tell_silence(self, outcome: PassResult, report: PassReport, condition: LogCondition, now: datetime) -> None:
        """Handle a log without a new head: it went back, is frozen or quiet, or an old answer is replayed."""
        log, head, fresh = outcome.log, report.position.head.head, condition.fresh_at or now
        if report.lagging:
            behind = condition.behind_since or now
            if not self._freshness.is_silent(behind, now):
                # One lagging replica has the same effect, independent of the log's past.
                outcome.owner, outcome.reason = Owner.COULD_NOT_ASK, Lagging.reason
                outcome.detail = (
                    f"{log} shows size {report.head.size}, older than size {head.size} that it signed: a lagging "
                    f"replica, unless this lasts for {lasting(self._stale_after)}"
                )
                return
            alert = rewound_head_alert(head, report.head, behind, now)
        elif self._freshness.is_unusual(
            fresh, now, lambda: self._store.health.growth(log), signs_time=head.timestamp is not None
        ):
            alert = stale_head_alert(log, head, fresh, now)
        else:
            outcome.note = f"no new head for {lasting(now - fresh)}, which may be usual for this log"
            return
        outcome.owner, outcome.reason, outcome.detail = alert.owner, alert.kind, alert.summary
        self._store.enqueue([alert])

    def _ask_witnesses(
        self, policy: WitnessPolicy, shown: SignedHead, now: datetime, fresh_for: timedelta | None
    ) -> WitnessReport:
        """Compare the newest head with the policy; the beginning of a failure is stored for a restart."""
        before = self._store.witnesses.status(shown.log)
        cosigning = judge(policy, shown, now, fresh_for)
        status = follow_up(policy, before, cosigning, now)
        if status != before:
            self._store.witnesses.keep(shown.log, status)
        witnessed = WitnessReport(policy.required, cosigning, status)
        self._store.enqueue(witness_alerts(policy, witnessed, shown, now, self._stale_after))
        return witnessed

    def _hold_to_promises(self, outcome: PassResult, source: LogSource, head: SignedHead, state: ObservedState) -> None:
        """Look for entries that the log promised to others in the tree of a head that was just proven."""
        if not isinstance(source, PromisingSource):
            return
        signed_at = head.timestamp or self._store.health.of(outcome.log).fresh_at
        now, log_id = self._timing.clock(), sha256(source.identity.spki).hexdigest()
        promises = self._store.promises
        # The alert comes before the deletion: a crash in between repeats the alert under the same id.
        forgotten = promises.to_give_up(now)
        self._store.enqueue(
            [promises_given_up_alert(_promiser(outcome.log, log_id, each), each, now) for each in forgotten]
        )
        done = PromiseRounds(promises, source, state.keep_evidence).run(head, signed_at, now)
        overdue = next((each for each in promises.unasked(now) if each.log_id == log_id), None)
        if overdue is not None and now - overdue.since > self._freshness.stale_after:
            state.enqueue([promises_unasked_alert(outcome.log, overdue, now)])
        if done.broken:
            worst = done.broken[0]
            outcome.owner, outcome.reason, outcome.detail = Owner.LOG_MISBEHAVED, worst.kind, worst.detail
        elif done.unshown and outcome.owner is None:
            # A further pass may decide it: a caller that has to decide now runs one (`monitor.commands.audit`).
            outcome.owner, outcome.reason, outcome.detail = Owner.COULD_NOT_ASK, NotShown.reason, done.unshown[0]
        elif overdue is not None and outcome.owner is None:
            # There may be other passes between two tries: the trouble lasts until a try succeeds.
            outcome.owner, outcome.reason = Owner.COULD_NOT_ASK, "promise-unasked"
            outcome.detail = (
                f"{counted(overdue.promises, 'promise')} overdue since {rfc3339(overdue.since)}: {overdue.why}"
            )

    def _settle(self, outcome: PassResult, error: Exception) -> None:
        """Record trouble. If that fails, the database has a fault, and only the log line remains."""
        outcome.owner, outcome.reason, outcome.detail = _trouble(error)
        now = self._timing.clock()
        self._meter.add_log(outcome.log)
        self._meter.passed(outcome.log, now, outcome.owner)
        try:
            position = self._store.position(outcome.log)
            if position is not None:
                outcome.last = position.frontier.size
            before = self._store.health.of(outcome.log).trouble
            condition = self._store.health.went_wrong(outcome.log, now, outcome.owner, outcome.reason, outcome.detail)
            if before is None or (before.owner, before.reason) != (outcome.owner, outcome.reason):
                # Once for each trouble, so that a log that stays down does not fill the disk with lines.
                _LOG.warning("trouble %s", _line(outcome))
            self._store.enqueue(self._alerts(condition, now, answered=outcome.answered))
            self._throttle.reset(outcome.log)
        except OwnFault as fault:
            outcome.unrecorded = True
            if self._throttle.admits(outcome.log):
                _LOG.error("state_failed %s also=%s", _line(outcome), fault)

    def _alerts(self, condition: LogCondition, now: datetime, *, answered: bool) -> list[Alert]:
        trouble = condition.trouble
        if trouble is None:
            return []
        lasting = now - trouble.since
        if trouble.owner is Owner.COULD_NOT_ASK and lasting > self._stale_after:
            since = trouble.since
            return [could_not_ask_alert(condition.log, trouble.reason, trouble.detail, since, now, answered=answered)]
        if trouble.owner is Owner.OURSELVES and lasting > _ILL_AFTER:
            return [own_fault_alert(f"following {condition.log}", trouble.detail, trouble.since, now)]
        return []


def _take_what_was_told(outcome: PassResult) -> None:
    """Make an alert about the log the trouble of its pass, so that the exit code is not 0 beside such an alert."""
    told = outcome.told
    if told is None or outcome.owner is Owner.LOG_MISBEHAVED:
        return
    if outcome.owner is None or told.owner is Owner.LOG_MISBEHAVED:
        outcome.owner, outcome.reason, outcome.detail = told.owner, told.kind, told.summary


def _promiser(log: str, log_id: str, overdue: Overdue) -> str:
    """Name of the log with these promises; its key id if the log is not followed now."""
    return log if overdue.log_id == log_id else f"the log with key id {overdue.log_id}"


def _line(outcome: PassResult) -> str:
    detail = inert_line(outcome.detail, _MAX_LINE)
    return f"log={outcome.log} owner={outcome.owner} reason={outcome.reason} detail={detail}"


def _later(shown: datetime | None, known: datetime | None) -> bool:
    return shown is not None and (known is None or shown > known)


def _trouble(error: Exception) -> tuple[Owner, str, str]:
    match error:
        case LogMisbehaved():
            return Owner.LOG_MISBEHAVED, error.kind, str(error)
        case FetchFailed():
            return Owner.COULD_NOT_ASK, error.reason, str(error)
        case OwnFault():
            return Owner.OURSELVES, "own-fault", str(error)
        case _:
            # A defect of Signwatch must not stop the passes over other logs, and is not blamed on this log.
            _LOG.error("defect", exc_info=error)
            return Owner.OURSELVES, "defect", f"{type(error).__name__}: {error}"


_AGAIN_AFTER: Final = timedelta(hours=1)


class LogThrottle:
    """Rate-limits log lines about repeated trouble.

    Safe to use from several threads; in memory, so a restart logs again.
    """

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._said: dict[str, datetime] = {}

    def admits(self, what: str) -> bool:
        """True if this trouble should be logged now; it then counts as logged."""
        with self._lock:
            now, last = self._clock(), self._said.get(what)
            if last is not None and now - last < _AGAIN_AFTER:
                return False
            self._said[what] = now
            return True

    def reset(self, what: str) -> None:
        """Reset a trouble, so that it is logged at once when it returns."""
        with self._lock:
            self._said.pop(what, None)
