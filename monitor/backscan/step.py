"""Offers rules the entries that they lack: one small step beside following, or a whole gap at once."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from msgspec import Struct
from msgspec.structs import replace
from typing_extensions import override

from alerts.alert import Alert, Severity
from monitor.backscan.progress import PassingProgress, Recording, ScanState, SomeRules
from monitor.backscan.range import ScanEnvironment, begin_range, scan_range
from monitor.following.follower import Timing, Unkept
from monitor.following.workers import ScanPool
from monitor.judging.judge import Judge
from monitor.model.log_source import LogSource
from monitor.model.state import Batch, Finding, Hit
from monitor.store.coverage import Gap
from monitor.store.reading import Reading
from monitor.store.store import Store
from rules.expectations.within import CertificateLogWithinExpectation, LogEntryWithinExpectation
from rules.matching.matcher import Matcher
from rules.rule import Outcome, Verdict

_HOUR: Final = timedelta(hours=1)
_MANY: Final = 1_000  # with this many rules, writing their ranges takes as long as reading a batch
_LONGEST: Final = 100
_ABSENCES: Final = frozenset({CertificateLogWithinExpectation.id, LogEntryWithinExpectation.id})


class BackscanStep(Struct, frozen=True):
    """Result of one step: entries `[first, last)` were offered to `rules`, and gave findings by outcome.

    `dropped` counts matches left out because more rules select an entry than are judged. `fetched` counts the entries
    fetched from the log, if the archive answered for the others.
    """

    log: str
    first: int
    last: int
    rules: frozenset[str]
    findings: Mapping[str, int]
    dropped: int = 0
    fetched: int | None = None

    @property
    def asked(self) -> int:
        """Number of entries fetched from the log."""
        return self.last - self.first if self.fetched is None else self.fetched


def backscan_step(
    source: LogSource,
    store: Store,
    matcher: Matcher,
    rules: Mapping[str, str],
    judge: Judge,
    *,
    gap: Gap,
    timing: Timing,
    entries: int = 4096,
    unkept: Unkept | None = None,
) -> BackscanStep:
    """Offer the first `entries` entries of a gap of one tree to the rules that were never offered them.

    `rules` are the active ones (id to selection), compiled in `matcher`. Findings, their alerts and the covered
    range are committed together, so a crash at any point is harmless. Where many rules lack the same entries, a step
    is longer and writes their ranges once, at its end: after a crash the same entries are offered again, and known
    findings do not count twice. The caller bounds the rate, and gives a `source` of its own, so that its requests do
    not share a queue with following. `unkept` counts broken promises over several steps.

    Raises `FetchFailed`, `LogMisbehaved` with its evidence kept, `OwnFault`.
    """
    # Cut at multiples, so that a step's batch is one aligned subtree.
    more = min(len(gap.rules) // _MANY, _LONGEST)
    last = min(gap.last, (gap.first // entries + 1 + more) * entries)
    found: Counter[str] = Counter()
    dropped = 0

    def count(batch: Batch) -> None:
        nonlocal dropped
        dropped += batch.matches_dropped
        found.update(finding.verdict.outcome.value for finding in batch.findings)

    world = ScanEnvironment(timing, ahead=1, patience=(), pauses=(1.0,), batch_entries=entries)
    state = ScanState(PassingProgress(), store, recording=recording_of(gap.rules, rules, timing.clock), on_batch=count)
    pool = ScanPool(matcher, 1)
    reached = offer_gap(
        source, store, replace(gap, last=last), rules, state=state, judge=judge, pool=pool, world=world, unkept=unkept
    )
    return BackscanStep(source.identity.log, gap.first, reached, gap.rules, found, dropped)


def recording_of(offered: Collection[str], rules: Mapping[str, str], clock: Callable[[], datetime]) -> Recording:
    """Recording for a gap of these rules: ranges of few rules after each batch, of many rules once at the end."""
    kept = {} if len(offered) >= _MANY else {rule: rules[rule] for rule in offered}
    return Recording(kept, due=lambda: next_full_hour(clock()))


def offer_gap(
    source: LogSource,
    store: Store,
    gap: Gap,
    rules: Mapping[str, str],
    *,
    state: ScanState,
    judge: Judge,
    pool: ScanPool,
    world: ScanEnvironment,
    unkept: Unkept | None = None,
) -> int:
    """Offer every entry of `gap` to its rules (id to selection); returns the entry reached.

    Findings, alerts and covered ranges are committed batch by batch through `state`. Raises `FetchFailed`,
    `LogMisbehaved` with its evidence kept, `OwnFault`.
    """
    log = source.identity.log
    known = store.position(log)
    trusted = known.head if known is not None else None
    position, last = begin_range(source, trusted, gap.first, gap.last, state=state, world=world)
    state.baseline(position, "back-scan")
    looking_back = LookingBack(SomeRules(judge, gap.rules))
    reached = position.frontier.size
    try:
        scan_range(source, state, looking_back, pool, last=last, world=world, unkept=unkept)
    finally:
        reached = (state.position(log) or position).frontier.size
        if len(gap.rules) >= _MANY:
            store.coverage.offered(log, {rule: rules[rule] for rule in gap.rules}, gap.first, reached)
    return reached


def next_full_hour(now: datetime) -> datetime:
    """Time at which alerts about old entries are due: those of one hour can then become one message."""
    return now + _HOUR - (now - datetime.fromtimestamp(0, UTC)) % _HOUR


class LookingBack(Judge):
    """A judge of entries that were logged before their rules began.

    Alerts about old entries have the severity `warn` at most, and are marked as looking back. A missing entry in
    another log does not count against an old one: the rule may never have been offered that log's older entries.
    """

    def __init__(self, judge: Judge) -> None:
        self._judge = judge

    @override
    def judge(self, hits: Sequence[Hit], now: datetime) -> Sequence[Finding]:
        return [_without_absences(finding) for finding in self._judge.judge(hits, now)]

    @override
    def alerts(self, findings: Sequence[Finding], now: datetime) -> Sequence[Alert]:
        return [_of_the_past(alert) for alert in self._judge.alerts(findings, now)]


def _without_absences(finding: Finding) -> Finding:
    verdict = finding.verdict
    reasons = tuple(reason for reason in verdict.reasons if reason.id not in _ABSENCES)
    outcome = Outcome.EXPECTED if verdict.outcome is Outcome.UNEXPECTED and not reasons else verdict.outcome
    return replace(finding, verdict=Verdict(outcome, reasons), recheck=None)


def _of_the_past(alert: Alert) -> Alert:
    severity = Severity.WARN if alert.severity is Severity.PAGE else alert.severity
    told = ("Found", "looking back: it was logged before the rule came")
    return replace(alert, severity=severity, title=f"Looking back: {alert.title}", facts=(*alert.facts, told))


def missing_ranges(store: Store, log: str, rules: Mapping[str, str], first: int | None = None) -> list[Gap]:
    """Ranges below the verified position that some of `rules` (id to selection) were not offered, in order.

    They begin at `first`, by default the log's baseline: the first entry ever followed. Empty for a log that is not
    followed, because no trusted head exists to verify its entries against.
    """
    followed = Reading(store.database).followed().get(log)
    if followed is None:
        return []
    start = followed.baseline_size if first is None else first
    return store.coverage.gaps(log, rules, start, followed.position.frontier.size)
