"""State of a scan: its own position and findings, and optionally records in the monitor's database."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final, Protocol

from msgspec import Struct
from typing_extensions import override

from alerts.alert import Alert
from monitor.judging.judge import Judge
from monitor.model.errors import Evidence
from monitor.model.log_source import Position, SignedHead
from monitor.model.state import Batch, Finding, Hit, State
from monitor.proof.evidence import WRONG_SIGNATURE
from monitor.raising.entry_alerts import DROPPED
from monitor.store.store import Store

_OF_SELECTED: Final = frozenset({DROPPED, WRONG_SIGNATURE})


class Progress(Protocol):
    """Progress of a scan. A method that returned has made its effect as lasting as this progress is."""

    def position(self, log: str) -> Position | None:
        """Position of the scan."""

    def baseline(self, position: Position, how: str) -> None:
        """Set the first position of the scan."""

    def advance(self, old: Position, new: Position, batch: Batch, alerts: Sequence[Alert]) -> None:
        """Advance, and keep the batch's findings. Raises `StateConflict` when the scan is not at `old`."""


class PassingProgress(Progress):
    """Progress that ends with the process: for scans whose findings and covered ranges are kept elsewhere."""

    def __init__(self) -> None:
        self._position: Position | None = None

    @override
    def position(self, log: str) -> Position | None:
        return self._position if self._position is not None and self._position.log == log else None

    @override
    def baseline(self, position: Position, how: str) -> None:
        self._position = position

    @override
    def advance(self, old: Position, new: Position, batch: Batch, alerts: Sequence[Alert]) -> None:
        self._position = new


class Recording(Struct, frozen=True):
    """Keep findings in the monitor's database, as offered to these rules (id to selection).

    `due` gives the earliest time of delivery for alerts about unexpected findings; `None` for at once.
    """

    rules: Mapping[str, str]
    due: Callable[[], datetime | None] = lambda: None


class ScanState(State):
    """`monitor.model.state.State` for one scan. Heads and evidence go to `store`, the monitor's database.

    `on_batch` receives every batch once it is kept.
    """

    def __init__(
        self,
        progress: Progress,
        store: Store | None,
        *,
        recording: Recording | None = None,
        on_evidence: Callable[[Evidence], None] = lambda _: None,
        on_batch: Callable[[Batch], None] = lambda _: None,
    ) -> None:
        self._progress, self._store, self._recording = progress, store, recording
        self._on_evidence, self._on_batch = on_evidence, on_batch

    @override
    def position(self, log: str) -> Position | None:
        """Position of the scan."""
        return self._progress.position(log)

    @override
    def baseline(self, position: Position, how: str) -> None:
        self._progress.baseline(position, how)

    @override
    def advance(self, old: Position, new: Position, batch: Batch, alerts: Sequence[Alert]) -> None:
        if self._store is not None and self._recording is not None and batch.start < batch.end:
            told = told_looking_back(alerts)
            self._store.record_scan(batch, self._recording.rules, told, not_before=self._recording.due())
        # After a crash between the two writes, the batch is read again; its findings are then known and ignored.
        self._progress.advance(old, new, batch, ())
        self._on_batch(batch)

    @override
    def record_head(self, head: SignedHead) -> None:
        if self._store is not None:
            self._store.record_head(head)

    @override
    def keep_evidence(self, evidence: Evidence, alerts: Sequence[Alert]) -> bool:
        """Evidence from a scan counts like any other: the monitor's store keeps it."""
        is_new = self._store.keep_evidence(evidence, alerts) if self._store is not None else True
        self._on_evidence(evidence)
        return is_new

    @override
    def enqueue(self, alerts: Sequence[Alert]) -> None:
        """Ignored: a scan alerts about findings and evidence only, and following about all else."""


def told_looking_back(alerts: Iterable[Alert]) -> list[Alert]:
    """Alerts about rules and selected entries; following already sent those about the entries themselves."""
    return [alert for alert in alerts if alert.rule is not None or alert.kind in _OF_SELECTED]


class SomeRules(Judge):
    """A judge for these rules only; all other rules were offered the entries earlier."""

    def __init__(self, judge: Judge, rules: frozenset[str]) -> None:
        self._judge, self._rules = judge, rules

    @override
    def judge(self, hits: Sequence[Hit], now: datetime) -> Sequence[Finding]:
        wanted = [(hit, tuple(rule for rule in hit.rules if rule in self._rules)) for hit in hits]
        return self._judge.judge([Hit(hit.signing, rules, hit.leaf, hit.extra) for hit, rules in wanted if rules], now)

    @override
    def alerts(self, findings: Sequence[Finding], now: datetime) -> Sequence[Alert]:
        return self._judge.alerts(findings, now)
