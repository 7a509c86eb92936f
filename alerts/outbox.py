"""Guarantees that delivery needs of an outbox. `monitor` keeps it in its database."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from alerts.alert import Alert, AlertChange, Severity


@dataclass(frozen=True, slots=True)
class Delivery:
    """One alert on its way to one channel.

    `id` is the outbox's own name for it. `attempts` is the number that the last `failed` stored, 0 before. `digest` is
    set once the delivery was put into a digest message, for ever. `lease` names the claim: the outbox ignores the
    outcome of a claim that has been taken over. `change` is set where not the alert itself is told but what became of
    it.
    """

    id: str
    alert: Alert
    channel: str
    enqueued_at: datetime
    attempts: int = 0
    digest: str | None = None
    lease: str = ""
    change: AlertChange | None = None

    @property
    def urgent(self) -> bool:
        """True if it pages a person."""
        return self.alert.severity is Severity.PAGE


@dataclass(frozen=True, slots=True)
class Traffic:
    """Messages a channel was sent: single deliveries, plus one for each digest; and when the newest digest was."""

    messages: int = 0
    last_digest: datetime | None = None


@dataclass(frozen=True, slots=True)
class Backlog:
    """Deliveries of a channel not yet delivered or given up, and when the oldest was put in."""

    pending: int
    oldest: datetime


class Outbox(Protocol):
    """Durable deliveries, safe to use from several threads and processes. A method that returned is durable.

    A delivery is pending, delivered or given up. Given-up ones are kept and stay visible until they are replayed.
    """

    def claim(self, channel: str, now: datetime, lease: timedelta, limit: int) -> Sequence[Delivery]:
        """Lease due deliveries of `channel`: pending, retry time reached, no live lease.

        No other process gets them until `now + lease`; after a crash they are due again then.

        Returns either all members of one digest, beyond the limit if need be, or up to `limit` deliveries that are in
        none. A due digest comes first. A change of an alert is not due before all that was told of it earlier
        to this channel is delivered or given up. Otherwise fewest attempts first, then pages before the rest, then
        oldest first: an alert that always fails never stands before one that was not tried.
        """

    def bundle(self, deliveries: Sequence[Delivery], digest: str) -> None:
        """Put claimed deliveries into one message before it is sent: after a crash they are sent together again.

        `digest` names it: the id of a digest, or that of the only alert in it.

        The members stay leased.
        """

    def delivered(self, deliveries: Sequence[Delivery], now: datetime) -> None:
        """Mark delivered. Idempotent; counts even when the lease was lost, for the message is out."""

    def failed(self, deliveries: Sequence[Delivery], *, attempts: int, retry_at: datetime, error: str) -> None:
        """Release claimed deliveries until `retry_at`, with their new number of attempts and the reason."""

    def postpone(self, deliveries: Sequence[Delivery], until: datetime) -> None:
        """Release claimed deliveries until `until`; nothing was attempted."""

    def give_up(self, deliveries: Sequence[Delivery], now: datetime, error: str) -> None:
        """Stop trying claimed deliveries; they stay visible with the reason."""

    def traffic(self, channel: str, *, urgent: bool, since: datetime) -> Traffic:
        """Messages delivered to `channel` at or after `since`, of pages (`urgent`) or of the rest.

        `last_digest` is the newest digest at or after `since`.
        """

    def backlog(self) -> Mapping[str, Backlog]:
        """Pending deliveries, for each channel that has any."""
