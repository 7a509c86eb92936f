"""Measurements that the other packages report. Nothing here knows of Prometheus."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final, Protocol

from alerts.alert import Owner
from alerts.outbox import Backlog
from monitor.model.state import Batch
from monitor.store.promises import Tally

NOTICES: Final = "notices"
"""Label of messages to subscribers among deliveries to channels."""


class FetchMeter(Protocol):
    """Counts requests to logs. Never raises, never blocks."""

    def fetched(self, log: str, result: str, seconds: float) -> None:
        """A request to a log ended; `result` is `ok` or a `FetchFailed.reason`."""


class LogMeter(Protocol):
    """Counts what following one log comes to. Never raises, never blocks."""

    def add_log(self, log: str) -> None:
        """A log is followed: every series of it exists from now on."""

    def trees_left_out(self, log: str, count: int) -> None:
        """A log, by its configured name, names so many trees that are not followed."""

    def passed(self, log: str, at: datetime, owner: Owner | None) -> None:
        """A pass ended: well, or with trouble of this owner."""

    def misbehaved(self, log: str, kind: str) -> None:
        """New evidence against a log was stored."""

    def position(self, log: str, verified: int, head: int, head_at: datetime | None) -> None:
        """Position of a log: entries verified, size of the trusted head, and the time it was signed or first seen."""

    def batch(self, batch: Batch) -> None:
        """A batch was committed."""


class BackscanMeter(Protocol):
    """Counts what is offered to rules that came late. Never raises, never blocks."""

    def looked_back(self, log: str, entries: int, findings: Mapping[str, int], dropped: int) -> None:
        """Entries were offered to rules that came late: findings by outcome, and matches left out."""

    def back_scan(self, log: str, remaining: int) -> None:
        """Number of entries still to be offered to rules that came late."""


class ArchiveMeter(Protocol):
    """Counts what is archived. Never raises, never blocks."""

    def archived(self, log: str, reached: int, behind: int) -> None:
        """The archive reaches to this entry; so many that were followed are not in it yet."""


class DeliveryMeter(Protocol):
    """Counts what waits in the outbox, and how deliveries ended. Never raises, never blocks."""

    def delivered(self, channel: str, *, delivered: int, failed: int, given_up: int) -> None:
        """A delivery pass over a channel ended."""

    def outbox(self, backlog: Mapping[str, Backlog], now: datetime) -> None:
        """Deliveries that wait in the outbox, for each channel that has any."""

    def open_alerts(self, counts: Mapping[tuple[str, str], int]) -> None:
        """Number of open alerts by severity and owner."""

    def subscribers(self, stats: Mapping[str, int]) -> None:
        """Number of times that subscriptions reached each stage, and number of subscriptions now."""


class CanaryMeter(Protocol):
    """Counts runs of the canary. Never raises, never blocks."""

    def canary_ended(self, result: str) -> None:
        """A run ended: `seen`, `late`, `missed` or `not-signed`."""

    def canary_seen(self, at: datetime, seconds: float) -> None:
        """The newest alert of a canary arrived at this time, so long after the log had taken the entry."""

    def canary_failing(self, *, failing: bool) -> None:
        """Whether the newest run that ended was not seen in time."""


class TrustMeter(Protocol):
    """Counts refreshes of the trust root. Never raises, never blocks."""

    def trust_root(self, refreshed_at: datetime, expires: datetime | None) -> None:
        """The trust root was refreshed; `expires` where its metadata says so."""

    def trust_refreshed(self, *, well: bool) -> None:
        """A refresh of the trust root was tried."""

    def not_followed(self, logs: int) -> None:
        """Number of logs of the trust root that cannot be followed."""


class StateMeter(Protocol):
    """Counts what the database holds. Never raises, never blocks."""

    def rules(self, rules: int, unindexed: int) -> None:
        """Rules were put in force; so many of them are asked about every entry."""

    def coverage(self, log: str, rules: int, entries: int) -> None:
        """Number of active rules that were not offered all followed entries, and of entries that one rule lacks."""

    def promises(self, tally: Tally) -> None:
        """Number of promises of logs that wait to be seen kept, and of the others by how they ended."""

    def open_evidence(self, counts: Mapping[str, int]) -> None:
        """Number of pieces of evidence against each log that no operator has closed."""


class Meter(
    FetchMeter, LogMeter, BackscanMeter, ArchiveMeter, DeliveryMeter, CanaryMeter, TrustMeter, StateMeter, Protocol
):
    """Receives every number of the daemon."""
