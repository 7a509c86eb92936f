"""A `State` in memory that keeps every guarantee of the contract, and can die at any chosen step."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from alerts.alert import Alert
from monitor.model.errors import Evidence, StateConflict
from monitor.model.log_source import Position, SignedHead
from monitor.model.state import Batch, Finding, UnreadableEntry
from monitor.proof.evidence import event_id


class Died(BaseException):
    """The process was killed here: nothing may catch it."""


@dataclass
class Steps:
    """Counts steps and dies at one of them. Step numbers start at 1; 0 never dies."""

    die_at: int = 0
    taken: int = 0

    def step(self) -> None:
        self.taken += 1
        if self.taken == self.die_at:
            raise Died


@dataclass
class MemoryState:
    """See `monitor.model.state.State`. Each write has a step before it (nothing happened) and one after (it did)."""

    steps: Steps = field(default_factory=Steps)
    positions: dict[str, Position] = field(default_factory=dict)
    baselines: dict[str, str] = field(default_factory=dict)
    findings: dict[tuple[str, int, str], Finding] = field(default_factory=dict)
    unreadable: dict[tuple[str, int], UnreadableEntry] = field(default_factory=dict)
    kinds: dict[str, int] = field(default_factory=dict)
    heads: list[SignedHead] = field(default_factory=list)
    evidence: dict[str, Evidence] = field(default_factory=dict)
    outbox: dict[str, Alert] = field(default_factory=dict)
    batches: list[Batch] = field(default_factory=list)

    def position(self, log: str) -> Position | None:
        return self.positions.get(log)

    def baseline(self, position: Position, how: str) -> None:
        if position.log in self.positions:
            raise StateConflict(f"{position.log} already has a position")
        self.steps.step()
        self.positions[position.log] = position
        self.baselines[position.log] = how
        self.steps.step()

    def advance(self, old: Position, new: Position, batch: Batch, alerts: Sequence[Alert]) -> None:
        self.steps.step()
        if self.positions.get(old.log) != old:
            raise StateConflict(f"{old.log} is no longer where it was")
        assert (batch.start, batch.end) == (old.frontier.size, new.frontier.size)
        assert new.frontier.size <= new.head.head.size
        self.positions[old.log] = new
        self.batches.append(batch)
        known = set(self.findings)
        for finding in batch.findings:
            self.findings.setdefault(_key(finding), finding)
        for entry in batch.unreadable:
            self.unreadable[entry.unreadable.where.log, entry.unreadable.where.index] = entry
        for kind, count in batch.kinds.items():
            self.kinds[kind] = self.kinds.get(kind, 0) + count
        self._enqueue(
            [a for a in alerts if a.rule is None or a.index is None or (str(a.log), a.index, a.rule) not in known]
        )
        self.steps.step()

    def record_head(self, head: SignedHead) -> None:
        self.steps.step()
        if all((h.log, h.size, h.root) != (head.log, head.size, head.root) for h in self.heads):
            self.heads.append(head)
        self.steps.step()

    def keep_evidence(self, evidence: Evidence, alerts: Sequence[Alert]) -> bool:
        self.steps.step()
        known = event_id(evidence) in self.evidence
        if not known:
            self.evidence[event_id(evidence)] = evidence
            self._enqueue(alerts)
        self.steps.step()
        return not known

    def enqueue(self, alerts: Sequence[Alert]) -> None:
        self.steps.step()
        self._enqueue(alerts)
        self.steps.step()

    def _enqueue(self, alerts: Sequence[Alert]) -> None:
        for alert in alerts:
            self.outbox.setdefault(alert.id, alert)


def _key(finding: Finding) -> tuple[str, int, str]:
    return finding.selected.signing.where.log, finding.selected.signing.where.index, finding.rule
