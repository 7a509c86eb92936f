"""Measurements that the other packages report, independent of Prometheus.

A method does nothing here: a meter overrides those whose numbers it keeps.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from alerts.alert import Owner
from alerts.outbox import Backlog
from monitor.model.state import Batch
from monitor.store.promises import PromiseTally

NOTICES: Final = "notices"
"""Value of the channel label for messages to subscribers."""


class FetchMeter:
    """Counts requests to logs. Never raises, never blocks."""

    def fetched(self, log: str, result: str, seconds: float) -> None:
        """A request to a log ended; `result` is `ok` or a `FetchFailed.reason`."""


class LogMeter:
    """Counts the results of following one log. Never raises, never blocks."""

    def add_log(self, log: str) -> None:
        """A log is followed: every series of it exists from now on."""

    def trees_left_out(self, log: str, count: int) -> None:
        """`count` trees that a log (by its configured name) lists are not followed."""

    def passed(self, log: str, at: datetime, owner: Owner | None) -> None:
        """A pass ended: well if `owner` is `None`, else with trouble of this owner."""

    def misbehaved(self, log: str, kind: str) -> None:
        """New evidence against a log was stored."""

    def position(self, log: str, verified: int, head: int, head_at: datetime | None) -> None:
        """Position of a log: entries verified, size of the trusted head, and the time it was signed or first seen."""

    def batch(self, batch: Batch) -> None:
        """A batch was committed."""


class BackscanMeter:
    """Counts entries offered to rules newer than the entries. Never raises, never blocks."""

    def looked_back(self, log: str, entries: int, findings: Mapping[str, int], dropped: int) -> None:
        """Older entries were offered to newer rules: findings by outcome, and the number of matches left out."""

    def back_scan(self, log: str, remaining: int) -> None:
        """Number of older entries still to be offered to newer rules."""


class ArchiveMeter:
    """Counts archived entries. Never raises, never blocks."""

    def archived(self, log: str, reached: int, behind: int) -> None:
        """The archive ends before entry `reached`; it lacks `behind` followed entries."""


class DeliveryMeter:
    """Counts waiting and finished deliveries of the outbox. Never raises, never blocks."""

    def delivered(self, channel: str, *, delivered: int, failed: int, given_up: int) -> None:
        """A delivery pass over a channel ended."""

    def outbox(self, backlog: Mapping[str, Backlog], now: datetime) -> None:
        """Waiting deliveries of the outbox, for each channel with at least one."""

    def open_alerts(self, counts: Mapping[tuple[str, str], int]) -> None:
        """Number of open alerts by severity and owner."""

    def subscribers(self, stats: Mapping[str, int]) -> None:
        """Number of times that subscriptions reached each stage, and number of subscriptions now."""


class CanaryMeter:
    """Counts runs of the canary. Never raises, never blocks."""

    def canary_ended(self, result: str) -> None:
        """A run ended: `seen`, `late`, `missed` or `not-signed`."""

    def canary_seen(self, at: datetime, seconds: float) -> None:
        """The newest alert of a canary arrived at `at`, `seconds` after the log had accepted the entry."""

    def canary_failing(self, *, failing: bool) -> None:
        """`failing` is true while the newest finished run was not seen in time."""


class TrustMeter:
    """Counts refreshes of the trust root. Never raises, never blocks."""

    def trust_root(self, refreshed_at: datetime, expires: datetime | None) -> None:
        """The trust root was refreshed; `expires` is the expiry of its metadata, if it has one."""

    def trust_refreshed(self, *, well: bool) -> None:
        """A refresh of the trust root ended; `well` is true for success."""

    def not_followed(self, logs: int) -> None:
        """Number of logs of the trust root that cannot be followed."""


class StateMeter:
    """Counts rules, promises and evidence in the database. Never raises, never blocks."""

    def rules(self, rules: int, unindexed: int) -> None:
        """`rules` are in force; `unindexed` of them are evaluated for every entry."""

    def coverage(self, log: str, rules: int, entries: int) -> None:
        """Number of active rules that were not offered all followed entries, and of entries that one rule lacks."""

    def promises(self, tally: PromiseTally) -> None:
        """Number of promises of logs: waiting, overdue, and settled by result."""

    def open_evidence(self, counts: Mapping[str, int]) -> None:
        """Number of pieces of evidence against each log that no operator has closed."""


class Meter(FetchMeter, LogMeter, BackscanMeter, ArchiveMeter, DeliveryMeter, CanaryMeter, TrustMeter, StateMeter):
    """Receives every number of the daemon. This one keeps none, for a command that serves no metrics."""
