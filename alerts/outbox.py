"""The guarantees of an outbox that delivery relies on. `monitor` implements it in its database."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Protocol

from msgspec import Struct

from alerts.alert import Alert, AlertChange, Severity


class Delivery(Struct, frozen=True):
    """One alert on its way to one channel.

    `id` is the outbox's name for the delivery. `attempts` is the number that the last `failed` stored, 0 before.
    `digest` is set permanently once the delivery is part of a digest message. `lease` names the claim: the outbox
    ignores the outcome of a claim that another process took over. `change` is set for a delivery of a change of the
    alert.
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


class Traffic(Struct, frozen=True):
    """Messages to a channel: single deliveries, plus one for each digest; and the time of the newest digest."""

    messages: int = 0
    last_digest: datetime | None = None


class Backlog(Struct, frozen=True):
    """Pending deliveries of a channel, and the time of the oldest."""

    pending: int
    oldest: datetime


class Outbox(Protocol):
    """Durable deliveries, safe to use from several threads and processes.

    The effect of a method is durable when it returns.

    A delivery is pending, delivered or given up. Given-up deliveries stay visible until they are replayed.
    """

    def claim(self, channel: str, now: datetime, lease: timedelta, limit: int) -> Sequence[Delivery]:
        """Lease due deliveries of `channel`: pending, retry time reached, no live lease.

        No other process gets them before `now + lease`; after a crash they are due again at that time.

        Returns either all members of one digest, even beyond the limit, or up to `limit` deliveries without a
        digest. A due digest comes first. A change of an alert is due only after all earlier deliveries of this alert
        to the channel are delivered or given up. Otherwise the order is fewest attempts first, then pages, then
        oldest first, so that an alert that always fails does not delay one that was not tried.
        """

    def bundle(self, deliveries: Sequence[Delivery], digest: str) -> None:
        """Put claimed deliveries into one message before sending it, so that a crash repeats the same message.

        `digest` is the id of a digest, or of the only alert in the message.

        The members stay leased.
        """

    def delivered(self, deliveries: Sequence[Delivery], now: datetime) -> None:
        """Mark delivered. Idempotent; valid even after the lease was lost, because the message was sent."""

    def failed(self, deliveries: Sequence[Delivery], *, attempts: int, retry_at: datetime, error: str) -> None:
        """Release claimed deliveries until `retry_at`, with their new number of attempts and the reason."""

    def postpone(self, deliveries: Sequence[Delivery], until: datetime) -> None:
        """Release claimed deliveries until `until`, without an attempt."""

    def give_up(self, deliveries: Sequence[Delivery], now: datetime, error: str) -> None:
        """Stop trying claimed deliveries; they stay visible with the reason."""

    def traffic(self, channel: str, *, urgent: bool, since: datetime) -> Traffic:
        """Messages delivered to `channel` at or after `since`, of pages (`urgent`) or of the rest.

        `last_digest` is the newest digest at or after `since`.
        """

    def backlog(self) -> Mapping[str, Backlog]:
        """Pending deliveries of each channel with at least one."""
