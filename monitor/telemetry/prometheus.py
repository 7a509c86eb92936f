"""`monitor.telemetry.hooks.Meter` on a Prometheus registry. Every series exists at 0 before anything happens.

Labels are log ids, channel names and fixed words, never an identity, a rule or a value of a log entry: such labels
would be unbounded and private. docs/metrics.md describes each metric.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final

from msgspec.structs import asdict
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from typing_extensions import override

from alerts.alert import Owner
from alerts.outbox import Backlog
from monitor.http_fetcher import FETCHED
from monitor.model.state import Batch
from monitor.raising.log_alerts import ALERT_KINDS
from monitor.store.canaries import RESULTS
from monitor.store.promises import PromiseTally
from monitor.store.stages import STAGES
from monitor.telemetry.hooks import Meter
from rules.rule import CT_KINDS, Outcome

PREFIX: Final = "signwatch_"
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_NOT_MISBEHAVIOUR: Final = frozenset(
    {"log-appeared", "log-ended", "log-promise-unasked", "log-rewound", "log-stale", "log-unreachable"}
)
MISBEHAVIOURS: Final = tuple(kind for kind in ALERT_KINDS if kind.startswith("log-") and kind not in _NOT_MISBEHAVIOUR)
VERIFICATIONS: Final = ("consistent", *(owner.value for owner in Owner if owner is not Owner.SIGNING))
DELIVERIES: Final = ("delivered", "failed", "given-up")
REFRESHES: Final = ("ok", "failed")
FETCHES: Final = (
    FETCHED,
    "lagging",
    "malformed",
    "not-found",
    "not-shown",
    "refused",
    "server-failed",
    "throttled",
    "timeout",
    "too-large",
    "unreachable",
    "wrong-content",
)
ENTRY_KINDS: Final = (*CT_KINDS, "dsse", "hashedrekord", "intoto", "unreadable")
UNREADABLE_CODES: Final = (
    "beyond-cap",
    "decoder-failed",
    "unreadable-signer",
    "malformed-body",
    "malformed-certificate",
    "malformed-json",
    "malformed-key",
    "repeated-key",
    "too-large",
    "unsupported-kind",
)
_SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class PrometheusMeter(Meter):
    """Prometheus metrics on a registry of their own. Safe to use from several threads."""

    def __init__(self, version: str, channels: Iterable[str] = ()) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        gauge, counter = self._gauge, self._counter
        self._size = gauge("checkpoint_size", "Size of the newest tree head proven consistent.", "log")
        self._signed_at = gauge("checkpoint_timestamp_seconds", "When that head was signed or first seen.", "log")
        self._verifications = counter("checkpoint_verifications", "Passes by how they ended.", "log", "result")
        self._inconsistencies = counter("inconsistencies", "Broken promises with evidence stored.", "log", "kind")
        self._alerts = gauge("alerts_open", "Alerts that are open and not silenced.", "severity", "owner")
        self._evidence = gauge("evidence_open", "Evidence against the log that no operator has closed.", "log")
        self._evidence_against: set[str] = set()
        self._verified = gauge("verified_size", "Entries hashed into a signed root and offered to the rules.", "log")
        self._gap = gauge("gap_entries", "Entries below the newest head that were not read yet.", "log")
        self._entries = counter("entries_processed", "Entries read, by kind.", "log", "kind")
        self._unreadable = counter("entries_unreadable", "Entries that could not be decoded, by reason.", "log", "code")
        self._findings = counter("findings", "Entries a rule selected, by verdict.", "outcome")
        self._rules = gauge("rules", "Rules in force.")
        self._unindexed = gauge("rules_unindexed", "Rules that are asked about every entry.")
        self._dropped = counter(
            "matches_dropped", "Matches left out: more rules selected an entry than are judged.", "log"
        )
        self._uncovered_rules = gauge("rules_uncovered", "Rules not offered everything that was followed.", "log")
        self._uncovered = gauge("uncovered_entries", "Entries followed that some rule was not offered.", "log")
        self._owed = gauge(
            "backscan_pending_entries", "Older entries still to be offered to rules that came late.", "log"
        )
        self._archived = gauge("archived_size", "Entry that the archive of the log reaches to.", "log")
        self._unarchived = gauge("archive_pending_entries", "Entries followed that are not in the archive yet.", "log")
        self._looked_back = counter("backscan_entries", "Older entries offered to rules that came late.", "log")
        self._found_back = counter("backscan_findings", "Older entries such a rule selected, by verdict.", "outcome")
        self._pending = gauge("outbox_pending", "Deliveries that wait.", "channel")
        self._oldest = gauge("outbox_oldest_age_seconds", "Age of the oldest delivery that waits.", "channel")
        self._deliveries = counter("deliveries", "Deliveries by how they ended.", "channel", "result")
        self._fetches = counter("fetch_requests", "Requests to logs, by how they ended.", "log", "result")
        self._seconds = Histogram(
            PREFIX + "fetch_duration_seconds",
            "Duration of requests to logs.",
            ["log"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._promises = gauge("promises", "Promises of logs to include an entry, by their state.", "state")
        for state in asdict(PromiseTally()):
            self._promises.labels(state)
        self._stages = gauge("subscription_stages", "How often subscriptions reached a stage.", "stage")
        self._accounts = gauge("subscribers", "Accounts, subscriptions and destinations now.", "what")
        for name in STAGES:
            self._stages.labels(name)
        self._left_out = gauge("trees_left_out", "Trees that a log names and that are not followed.", "log")
        self._not_followed = gauge("trust_root_logs_not_followed", "Logs of the trust root that cannot be followed.")
        self._refreshed = gauge("trust_root_refresh_timestamp_seconds", "When the trust root was last refreshed.")
        self._refreshes = counter("trust_root_refreshes", "Refreshes of the trust root, by how they ended.", "result")
        for result in REFRESHES:
            self._refreshes.labels(result)
        self._expiry = gauge("trust_root_expiry_seconds", "When the trust root's metadata expires; 0 when it does not.")
        self._last_pass = gauge("last_pass_timestamp_seconds", "When a pass over the log last ended.", "log")
        self._last_success = gauge("last_success_timestamp_seconds", "When a pass last ended without trouble.", "log")
        self._add_canary()
        gauge("build_info", "Always 1; the label says which version runs.", "version").labels(version).set(1)
        for outcome in Outcome:
            self._findings.labels(outcome.value)
            self._found_back.labels(outcome.value)
        self._channels: set[str] = set()
        for channel in channels:
            self._add_channel(channel)

    def expose(self) -> bytes:
        """All series in the text format."""
        return generate_latest(self.registry)

    @override
    def add_log(self, log: str) -> None:
        plain = (self._size, self._signed_at, self._verified, self._gap, self._seconds, self._last_pass)
        coverage = (self._dropped, self._uncovered_rules, self._uncovered, self._owed, self._looked_back)
        for metric in (*plain, self._last_success, self._evidence, *coverage):
            metric.labels(log)
        for counter, words in (
            (self._verifications, VERIFICATIONS),
            (self._inconsistencies, MISBEHAVIOURS),
            (self._entries, ENTRY_KINDS),
            (self._unreadable, UNREADABLE_CODES),
            (self._fetches, FETCHES),
        ):
            for word in words:
                counter.labels(log, word)

    @override
    def trees_left_out(self, log: str, count: int) -> None:
        self._left_out.labels(log).set(count)

    @override
    def passed(self, log: str, at: datetime, owner: Owner | None) -> None:
        self._verifications.labels(log, VERIFICATIONS[0] if owner is None else owner.value).inc()
        self._last_pass.labels(log).set(at.timestamp())
        if owner is None:
            self._last_success.labels(log).set(at.timestamp())

    @override
    def misbehaved(self, log: str, kind: str) -> None:
        self._inconsistencies.labels(log, kind).inc()

    @override
    def position(self, log: str, verified: int, head: int, head_at: datetime | None) -> None:
        self._verified.labels(log).set(verified)
        self._size.labels(log).set(head)
        self._gap.labels(log).set(head - verified)
        if head_at is not None:
            self._signed_at.labels(log).set(head_at.timestamp())

    @override
    def batch(self, batch: Batch) -> None:
        for kind, count in batch.kinds.items():
            self._entries.labels(batch.log, kind).inc(count)
        for entry in batch.unreadable:
            self._unreadable.labels(batch.log, entry.unreadable.code).inc()
        for finding in batch.findings:
            self._findings.labels(finding.verdict.outcome.value).inc()
        self._dropped.labels(batch.log).inc(batch.matches_dropped)

    @override
    def looked_back(self, log: str, entries: int, findings: Mapping[str, int], dropped: int) -> None:
        self._looked_back.labels(log).inc(entries)
        self._dropped.labels(log).inc(dropped)
        for outcome, count in findings.items():
            self._found_back.labels(outcome).inc(count)

    @override
    def archived(self, log: str, reached: int, behind: int) -> None:
        self._archived.labels(log).set(reached)
        self._unarchived.labels(log).set(behind)

    @override
    def back_scan(self, log: str, remaining: int) -> None:
        self._owed.labels(log).set(remaining)

    @override
    def rules(self, rules: int, unindexed: int) -> None:
        self._rules.set(rules)
        self._unindexed.set(unindexed)

    @override
    def coverage(self, log: str, rules: int, entries: int) -> None:
        self._uncovered_rules.labels(log).set(rules)
        self._uncovered.labels(log).set(entries)

    @override
    def fetched(self, log: str, result: str, seconds: float) -> None:
        self._fetches.labels(log, result).inc()
        self._seconds.labels(log).observe(seconds)

    @override
    def delivered(self, channel: str, *, delivered: int, failed: int, given_up: int) -> None:
        self._add_channel(channel)
        for result, count in zip(DELIVERIES, (delivered, failed, given_up), strict=True):
            self._deliveries.labels(channel, result).inc(count)

    @override
    def outbox(self, backlog: Mapping[str, Backlog], now: datetime) -> None:
        for channel in backlog:
            self._add_channel(channel)
        for channel in self._channels:
            waiting = backlog.get(channel)
            self._pending.labels(channel).set(waiting.pending if waiting else 0)
            self._oldest.labels(channel).set(max(0.0, (now - waiting.oldest).total_seconds()) if waiting else 0)

    @override
    def open_alerts(self, counts: Mapping[tuple[str, str], int]) -> None:
        for (severity, owner), count in counts.items():
            self._alerts.labels(severity, owner).set(count)

    @override
    def open_evidence(self, counts: Mapping[str, int]) -> None:
        for log in self._evidence_against - set(counts):
            self._evidence.labels(log).set(0)
        self._evidence_against |= set(counts)
        for log, count in counts.items():
            self._evidence.labels(log).set(count)

    @override
    def subscribers(self, stats: Mapping[str, int]) -> None:
        for name, value in stats.items():
            (self._stages if name in STAGES else self._accounts).labels(name).set(value)

    @override
    def canary_ended(self, result: str) -> None:
        self._canary_runs.labels(result).inc()

    @override
    def canary_seen(self, at: datetime, seconds: float) -> None:
        self._canary_at.set(at.timestamp())
        self._canary_took.set(seconds)

    @override
    def canary_failing(self, *, failing: bool) -> None:
        self._canary_fails.set(1 if failing else 0)

    @override
    def promises(self, tally: PromiseTally) -> None:
        for state, count in asdict(tally).items():
            self._promises.labels(state).set(count)

    @override
    def not_followed(self, logs: int) -> None:
        self._not_followed.set(logs)

    @override
    def trust_root(self, refreshed_at: datetime, expires: datetime | None) -> None:
        self._refreshed.set(refreshed_at.timestamp())
        self._expiry.set(expires.timestamp() if expires else 0)

    @override
    def trust_refreshed(self, *, well: bool) -> None:
        self._refreshes.labels(REFRESHES[0] if well else REFRESHES[1]).inc()

    def _add_canary(self) -> None:
        self._canary_runs = self._counter("canary_runs", "Runs of the canary by how they ended.", "result")
        for result in RESULTS:
            self._canary_runs.labels(result)
        self._canary_at = self._gauge("canary_last_seen_timestamp_seconds", "When the last alert of a canary arrived.")
        self._canary_took = self._gauge("canary_latency_seconds", "From the log's answer to that alert.")
        self._canary_fails = self._gauge("canary_failing", "1 while the newest run of the canary was not seen in time.")

    def _add_channel(self, channel: str) -> None:
        if channel in self._channels:
            return
        self._channels.add(channel)
        self._pending.labels(channel)
        self._oldest.labels(channel)
        for result in DELIVERIES:
            self._deliveries.labels(channel, result)

    def _gauge(self, name: str, help_text: str, *labels: str) -> Gauge:
        return Gauge(PREFIX + name, help_text, labels, registry=self.registry)

    def _counter(self, name: str, help_text: str, *labels: str) -> Counter:
        return Counter(PREFIX + name, help_text, labels, registry=self.registry)
