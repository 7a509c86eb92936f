"""Present state of every log, finding and delivery, and the reasons why it is not green.

Green needs a recent new head of each log, a backlog within the objective, deliveries without delay, and a fresh trust
root. Each failed condition is a sentence with the part and the time.
"""

import shutil
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from msgspec import Struct, field
from msgspec.structs import asdict

from alerts.alert import Owner, Severity, counted, rfc3339
from alerts.outbox import Backlog
from monitor.config import Config
from monitor.daemon.followed_logs import not_followed
from monitor.judging.coverage import LogCoverage, coverage_document, read_coverage
from monitor.model.log_source import CLOCK_SKEW, Freshness
from monitor.raising.entry_alerts import DROPPED
from monitor.store.canaries import CanaryRun
from monitor.store.coverage import BackScan
from monitor.store.events import Event, Events
from monitor.store.health import DroppedCount, InForce, LogCondition, LogTrouble
from monitor.store.reading import Followed, OpenEvidence, Reading
from monitor.store.store import Store
from monitor.trust.trust_root import read_trust_root

_LEAST_FREE: Final = 1 << 20
_RECENT: Final = 20
_OPEN: Final = 20
_RULES: Final = 50
_STATES: Final = (
    (Owner.LOG_MISBEHAVED, "lied"),
    (Owner.OURSELVES, "ill"),
    (Owner.COULD_NOT_ASK, "outage"),
)


class LogStatus(Struct, frozen=True):
    """One followed tree. `lag` are entries below the newest head not read yet.

    `quiet`: the log shows no new head, which is usual for it.
    """

    name: str
    followed: Followed | None
    condition: LogCondition
    stale_after: timedelta
    longest_pause: timedelta
    unreadable: int = 0
    entries: int = 0
    coverage: LogCoverage | None = None
    back_scan: BackScan | None = None
    dropped: DroppedCount | None = None
    dropped_open: int = 0
    evidence: int = 0
    quiet: bool = False

    @property
    def misbehaved(self) -> bool:
        """True if evidence against this log is open, or its last pass showed misbehaviour."""
        trouble = self.condition.trouble
        return self.evidence > 0 or (trouble is not None and trouble.owner is Owner.LOG_MISBEHAVED)

    def state(self, now: datetime) -> str:
        """`lied`, `outage` (could not ask), `ill` (ourselves), `warn` or `good`: the lamp of this log."""
        if self.misbehaved:
            return "lied"
        troubles = [each.trouble for each in (self.condition, self.back_scan) if each is not None]
        owners = {each.owner for each in troubles if each is not None}
        for owner, state in _STATES:
            if owner in owners:
                return state
        is_whole = self.followed is not None and not self.lag and not self.is_stale(now)
        return "good" if is_whole else "warn"

    @property
    def lag(self) -> int:
        """Entries below the trusted head that were not read yet."""
        if self.followed is None:
            return 0
        return self.followed.position.head.head.size - self.followed.position.frontier.size

    def reasons(self, now: datetime, gap_entries: int) -> list[str]:
        """Reasons why this log is not green; empty when it is."""
        trouble, told = self.condition.trouble, []
        if self.followed is None:
            told.append(f"{self.name}: not followed: run `signwatch init`")
        if trouble is not None:
            told.append(f"{self.name}: {trouble.owner.value} since {_time(trouble.since)}: {trouble.detail}")
        last = self.condition.last_success_at
        if last is None:
            told.append(f"{self.name}: no pass has succeeded yet")
        elif now - last > max(self.longest_pause, self.stale_after) and trouble is None:
            told.append(f"{self.name}: the last pass that succeeded was at {_time(last)}")
        if (ahead := self._ahead(now)) is not None:
            told.append(
                f"{self.name}: ourselves: the database holds the time {_time(ahead)} of a pass, and this machine's "
                "clock says that it is earlier. Set the clock; where it was ahead, the next passes put the time right."
            )
        if self.is_stale(now):
            told.append(f"{self.name}: no newer tree head since {_time(self.condition.fresh_at)}")
        if self.lag > gap_entries:
            told.append(f"{self.name}: {counted(self.lag, 'entry')} not read yet, more than {gap_entries}")
        if self.dropped is not None and self.dropped_open:
            told.append(
                f"{self.name}: {counted(self.dropped.matches, 'match')} left out, of entry {self.dropped.index} last: "
                "more rules may select it than are judged; until its alerts (rules-dropped) are acknowledged"
            )
        behind = self.back_scan.trouble if self.back_scan is not None else None
        if behind is not None and (behind.owner is Owner.LOG_MISBEHAVED or now - behind.since > self.stale_after):
            told.append(f"{self.name}: looking back: {behind.owner.value} since {_time(behind.since)}: {behind.detail}")
        return told

    def _ahead(self, now: datetime) -> datetime | None:
        """Newest time of a pass if it is in the future: this machine's clock was ahead then, or is behind now."""
        times = (self.condition.last_pass_at, self.condition.last_success_at)
        newest = max((each for each in times if each is not None), default=now)
        return newest if newest > now + CLOCK_SKEW else None

    def is_stale(self, now: datetime) -> bool:
        """True if a log that may grow has shown no new head for too long."""
        fresh, followed = self.condition.fresh_at, self.followed
        is_final = followed is not None and followed.position.head.head.final
        return fresh is not None and not is_final and not self.quiet and now - fresh > self.stale_after


class CanaryStatus(Struct, frozen=True):
    """The newest run of the canary, and the newest one whose alert arrived; `every` is the interval of runs."""

    every: timedelta
    within: timedelta
    newest: CanaryRun | None
    seen: CanaryRun | None

    def document(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {
            "every_seconds": int(self.every.total_seconds()),
            "within_seconds": int(self.within.total_seconds()),
            "newest": None if self.newest is None else run_document(self.newest),
            "last_seen": None if self.seen is None else run_document(self.seen),
        }


def run_document(run: CanaryRun) -> dict[str, Any]:
    """One run as plain JSON types."""
    return {
        "number": run.number,
        "log": run.log,
        "result": run.result,
        "detail": run.detail,
        "began": _time(run.began_at),
        "signed": _time(run.signed_at),
        "seen": _time(run.seen_at),
        "has_bundle": run.has_bundle,
        "latency_seconds": None if run.latency is None else round(run.latency.total_seconds(), 3),
    }


class Status(Struct, frozen=True):
    """The whole status. `reasons` are the reasons why it is not green.

    `not_followed` are logs of the trust root that cannot be followed. `further` are reasons that only the running
    daemon knows. `evidence` is the newest open evidence, `evidence_open` its number; `alerts_open` counts open alerts
    by severity. `events` are the newest events, `event_counts` counts all by verdict.
    """

    at: datetime
    logs: Sequence[LogStatus]
    backlog: Mapping[str, Backlog]
    given_up: Mapping[str, int]
    outcomes: Mapping[str, int]
    reasons: Sequence[str]
    in_force: InForce | None = None
    evidence: Sequence[OpenEvidence] = ()
    evidence_open: int = 0
    alerts_open: Mapping[str, int] = field(default_factory=dict)
    further: Sequence[str] = ()
    not_followed: Sequence[str] = ()
    events: Sequence[Event] = ()
    event_counts: Mapping[str, int] = field(default_factory=dict)
    canary: CanaryStatus | None = None

    @property
    def misbehaved(self) -> bool:
        """True if evidence against a log is open or a log misbehaves now."""
        return self.evidence_open > 0 or any(log.misbehaved for log in self.logs)

    @property
    def ready(self) -> bool:
        """True if it is green."""
        return not self.reasons


def read_status(config: Config, store: Store, now: datetime, further: Sequence[str] = ()) -> Status:
    """Read the whole status. `further` are reasons that only the running daemon knows."""
    reading = Reading(store.database)
    followed, conditions = reading.followed(), store.health.all()
    unreadable, kinds = reading.unreadable(), reading.kinds()
    coverage, back_scans = read_coverage(store, followed, _RULES), store.back_scans.all()
    dropped, against = store.rule_load.dropped(), reading.open_evidence_counts()
    dropped_open = reading.open_alerts_of(DROPPED)
    by_name = {log.name: log for log in config.logs or ()}
    logs = []
    # Trouble under a log's own name is outdated once its trees are followed.
    trees = {name.partition("/")[0] for name in followed if "/" in name}
    conditions = {name: each for name, each in conditions.items() if name in followed or name not in trees}
    for name in sorted({*followed, *conditions, *_expected(config, followed, conditions)}):
        log = by_name.get(name.partition("/")[0])
        freshness = config.freshness(log)
        condition = conditions.get(name, LogCondition(name))
        logs.append(
            LogStatus(
                name=name,
                followed=followed.get(name),
                condition=condition,
                stale_after=freshness.stale_after,
                quiet=_is_quiet(store, freshness, condition, followed.get(name), now),
                longest_pause=freshness.longest_pause,
                unreadable=sum(count for (each, _), count in unreadable.items() if each == name),
                entries=sum(count for (each, _), count in kinds.items() if each == name),
                coverage=coverage.get(name),
                back_scan=back_scans.get(name),
                dropped=dropped.get(name),
                dropped_open=dropped_open.get(name, 0),
                # Misbehaviour of a log counts against each of its trees.
                evidence=sum(against.get(each, 0) for each in {name, name.partition("/")[0]}),
            )
        )
    backlog, given_up = store.outbox.backlog(), reading.given_up()
    reasons = [reason for log in logs for reason in log.reasons(now, config.objectives.gap_entries)]
    if not logs:
        reasons.append("no log is followed: run `signwatch init`")
    reasons += _disk_reasons(store)
    for overdue in store.promises.unasked(now):
        if now - overdue.since > timedelta(seconds=config.objectives.stale_after_seconds):
            reasons.append(
                f"{counted(overdue.promises, 'promise')} of the log with key id {overdue.log_id[:16]}… overdue since "
                f"{_time(overdue.since)}: could-not-ask: {overdue.why}"
            )
    for channel, waiting in sorted(backlog.items()):
        if now - waiting.oldest > config.objectives.delivery_age:
            alerts = counted(waiting.pending, "alert")
            reasons.append(f"channel {channel}: {alerts} waiting, the oldest since {_time(waiting.oldest)}")
    unusable = _not_followed(config, store)
    evidence, count = reading.open_evidence(_OPEN), sum(against.values())
    events = Events(store.database)
    told = [each.sentence for each in evidence]
    if count > len(evidence):
        told.append(f"and more open evidence: {count - len(evidence)}, see `signwatch evidence list --open`")
    return Status(
        at=now,
        logs=logs,
        backlog=backlog,
        given_up=given_up,
        outcomes=reading.outcomes(),
        reasons=[*told, *further, *unusable, *reasons],
        in_force=store.rule_load.in_force(),
        evidence=evidence,
        evidence_open=count,
        alerts_open=reading.open_alerts(),
        further=further,
        not_followed=unusable,
        events=events.newest(_RECENT),
        event_counts=events.count(),
        canary=_canary(config, store),
    )


def _canary(config: Config, store: Store) -> CanaryStatus | None:
    if config.canary is None:
        return None
    newest = store.canaries.newest(1)
    return CanaryStatus(
        config.canary.every, config.canary.within, newest[0] if newest else None, store.canaries.last_seen()
    )


def _is_quiet(
    store: Store, freshness: Freshness, condition: LogCondition, followed: Followed | None, now: datetime
) -> bool:
    """True if the log is silent, and its silence is usual."""
    if condition.fresh_at is None or followed is None or not freshness.is_silent(condition.fresh_at, now):
        return False
    signs_time = followed.position.head.head.timestamp is not None
    growth = partial(store.health.growth, condition.log)
    return not freshness.is_unusual(condition.fresh_at, now, growth, signs_time=signs_time)


def _not_followed(config: Config, store: Store) -> tuple[str, ...]:
    """Logs of the newest recorded trust root that cannot be followed."""
    roots = store.trust_roots()
    return not_followed(config, read_trust_root(roots[-1].document)) if roots else ()


def _disk_reasons(store: Store) -> list[str]:
    """Reason why no more data can be stored: the disk of the database file is full."""
    path = store.database.path
    free = _LEAST_FREE if path is None else shutil.disk_usage(path.parent).free
    if free >= _LEAST_FREE:
        return []
    return [f"ourselves: the disk of {path} is full ({free // 1024} KiB left): no more data can be stored; make room"]


def _expected(config: Config, followed: Mapping[str, Any], conditions: Mapping[str, Any]) -> list[str]:
    """Configured logs without any state, which the status must list as missing."""
    known = {name.partition("/")[0] for name in (*followed, *conditions)}
    return [log.name for log in config.logs or () if log.name not in known]


def status_document(status: Status, store: Store) -> dict[str, Any]:
    """Plain JSON types for scripts: the same as the page shows."""
    reading = Reading(store.database)
    channels = sorted({*status.backlog, *status.given_up})
    return {
        "at": _time(status.at),
        "ready": status.ready,
        "reasons": list(status.reasons),
        "logs": [_log_document(log, status.at) for log in status.logs],
        "findings": {
            "by_outcome": dict(status.outcomes),
            "events_by_outcome": dict(status.event_counts),
            "recent": [
                {
                    "log": found.log,
                    "index": found.index,
                    "rule": found.rule,
                    "outcome": found.outcome,
                    "reasons": list(found.reasons),
                    "signing": found.signing,
                    "found_at": _time(found.found_at),
                }
                for found in reading.findings(_RECENT)
            ],
        },
        "open_alerts": [
            {
                "id": kept.alert.id,
                "at": _time(kept.alert.created_at),
                "severity": kept.alert.severity.value,
                "kind": kept.alert.kind,
                "owner": kept.alert.owner.value,
                "log": kept.alert.log,
                "title": kept.alert.title,
            }
            for kept in reading.alerts(_OPEN, open_only=True)
        ],
        "alerts_open": {severity.value: status.alerts_open.get(severity.value, 0) for severity in Severity},
        "evidence_open": status.evidence_open,
        "evidence": [each.document() for each in status.evidence],
        "deliveries": [
            {
                "channel": channel,
                "pending": status.backlog[channel].pending if channel in status.backlog else 0,
                "oldest": _time(status.backlog[channel].oldest) if channel in status.backlog else None,
                "given_up": status.given_up.get(channel, 0),
            }
            for channel in channels
        ],
        "promises": asdict(store.promises.tally(status.at)),
        "not_looked_at": {
            "logs_not_followed": list(status.not_followed),
            "unread_entries": {log.name: log.lag for log in status.logs if log.lag},
            "unreadable_entries": {log.name: log.unreadable for log in status.logs if log.unreadable},
            "before_baseline": {
                log.name: log.followed.baseline_size
                for log in status.logs
                if log.followed and log.followed.baseline_size
            },
            "rules_not_covered": {
                log.name: log.coverage.uncovered for log in status.logs if log.coverage and log.coverage.uncovered
            },
            "matches_dropped": {log.name: log.dropped.matches for log in status.logs if log.dropped},
        },
        "rules": _rules_document(status.in_force),
        "canary": None if status.canary is None else status.canary.document(),
    }


def _rules_document(in_force: InForce | None) -> dict[str, Any] | None:
    if in_force is None:
        return None
    return {
        "in_force": in_force.rules,
        "since": _time(in_force.at),
        "unindexed": in_force.unindexed,
        "unindexed_rules": list(in_force.names),
    }


def _back_scan_document(scan: BackScan | None) -> dict[str, Any] | None:
    if scan is None:
        return None
    return {
        "entries_left": scan.remaining,
        "entries_per_second": scan.rate,
        "at": _time(scan.at),
        "trouble": _trouble_document(scan.trouble),
    }


def _trouble_document(trouble: LogTrouble | None) -> dict[str, Any] | None:
    if trouble is None:
        return None
    return {
        "owner": trouble.owner.value,
        "reason": trouble.reason,
        "detail": trouble.detail,
        "since": _time(trouble.since),
    }


def _log_document(log: LogStatus, now: datetime) -> dict[str, Any]:
    followed, condition = log.followed, log.condition
    document: dict[str, Any] = {"name": log.name, "state": log.state(now), "followed": followed is not None}
    document |= {
        "verified_size": followed.position.frontier.size if followed else None,
        "head_size": followed.position.head.head.size if followed else None,
        "head_root": followed.position.head.head.root.hex() if followed else None,
        "head_timestamp": _time(followed.position.head.head.timestamp) if followed else None,
        "final": followed.position.head.head.final if followed else None,
        "lag_entries": log.lag,
        "baseline": {
            "size": followed.baseline_size,
            "how": followed.baseline_how,
            "at": _time(followed.baseline_at),
        }
        if followed
        else None,
    }
    document |= {
        "last_pass": _time(condition.last_pass_at),
        "last_success": _time(condition.last_success_at),
        "newest_head_since": _time(condition.fresh_at),
        "stale": log.is_stale(now),
        "evidence_open": log.evidence,
        "unreadable_entries": log.unreadable,
        "trouble": _trouble_document(condition.trouble),
        "coverage": coverage_document(log.coverage) if log.coverage else None,
        "back_scan": _back_scan_document(log.back_scan),
    }
    return document


def _time(at: datetime | None) -> str | None:
    return None if at is None else rfc3339(at)
