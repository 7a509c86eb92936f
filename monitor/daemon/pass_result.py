"""Result of one pass over one tree, and the state that notes it while the pass commits."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from typing_extensions import override

from alerts.alert import Alert, Owner
from monitor.archive.handover import Handover
from monitor.model.errors import Evidence
from monitor.model.log_source import Position, SignedHead
from monitor.model.state import Batch, State
from monitor.model.witness_policy import Witnessed
from monitor.proof.evidence import event_id
from monitor.store.store import Store
from monitor.telemetry.hooks import LogMeter

# Told by an alert while the log is read on. That a key is past its time says the trust root, not the log.
_DOUBTS: Final = frozenset({"log-clock", "entry-signature-wrong"})


@dataclass(slots=True)
class PassResult:
    """Result of one pass over one tree. `owner` is the owner of its trouble, `None` when there was none.

    `answered` says that the log showed a signed head, consistent or not. `first` and `last` bound the entries that
    were read and judged; `findings` counts them by verdict, `dropped` the matches left out of them. `witnessed` is
    there where witnesses are wanted. `note` is a sentence for people about what is no trouble. `unrecorded` says that
    the trouble could not even be written down. `told` is the alert about the log itself that the pass enqueued although
    it read everything.
    """

    log: str
    owner: Owner | None = None
    reason: str = ""
    detail: str = ""
    began: datetime | None = None
    first: int | None = None
    last: int | None = None
    head: SignedHead | None = None
    findings: dict[str, int] = field(default_factory=dict)
    unreadable: int = 0
    dropped: int = 0
    evidence: list[str] = field(default_factory=list)
    witnessed: Witnessed | None = None
    answered: bool = False
    note: str = ""
    unrecorded: bool = False
    told: Alert | None = None

    @property
    def cosigned(self) -> bool:
        """False when fewer witnesses than wanted have cosigned the newest head."""
        return self.witnessed is None or self.witnessed.cosigning.enough


class ObservedState(State):
    """The store, with everything that is committed reported to the meter and to the outcome of the pass."""

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
        if batch.dropped:
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
        """Remember the worst that the pass tells of the log although it goes on."""
        for alert in alerts:
            if alert.kind in _DOUBTS:
                known = self.outcome.told
                self.outcome.told = alert if known is None else min(known, alert, key=_misbehaviour_first)


def _misbehaviour_first(alert: Alert) -> bool:
    return alert.owner is not Owner.LOG_MISBEHAVED


def take_what_was_told(outcome: PassResult) -> None:
    """Make an alert about the log the trouble of its pass: an exit code must not call "honest" what an alert doubts."""
    told = outcome.told
    if told is None or outcome.owner is Owner.LOG_MISBEHAVED:
        return
    if outcome.owner is None or told.owner is Owner.LOG_MISBEHAVED:
        outcome.owner, outcome.reason, outcome.detail = told.owner, told.kind, told.summary
