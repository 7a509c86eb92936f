"""An outbox in memory, kept to the same contract as the database's."""

import itertools
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from alerts.alert import Alert
from alerts.outbox import Backlog, Delivery, Traffic


class Outcome(StrEnum):
    PENDING = "pending"
    DELIVERED = "delivered"
    GIVEN_UP = "given-up"


@dataclass
class Row:
    delivery: Delivery
    due: datetime
    order: int
    outcome: Outcome = Outcome.PENDING
    lease: str = ""
    leased_until: datetime | None = None
    finished_at: datetime | None = None
    error: str = ""


class MemoryOutbox:
    """Keeps `alerts.outbox.Outbox`; `rows` is for tests to look at."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)

    def enqueue(self, alert: Alert, channel: str, now: datetime) -> None:
        """Put one alert in; an (alert id, channel) that was ever there is left alone."""
        with self._lock:
            name = f"{alert.id}:{channel}"
            if name not in self.rows:
                delivery = Delivery(id=name, alert=alert, channel=channel, enqueued_at=now)
                self.rows[name] = Row(delivery, due=now, order=next(self._numbers))

    def claim(self, channel: str, now: datetime, lease: timedelta, limit: int) -> Sequence[Delivery]:
        with self._lock:
            due = [row for row in self.rows.values() if self._is_due(row, channel, now)]
            due.sort(key=lambda row: (row.delivery.attempts, not row.delivery.urgent, row.order))
            digest = next((row.delivery.digest for row in due if not _is_single(row.delivery)), None)
            chosen = [
                row for row in due if (_is_single(row.delivery) if digest is None else row.delivery.digest == digest)
            ]
            if digest is None:
                chosen = chosen[:limit]
            token = f"lease-{next(self._numbers)}"
            for row in chosen:
                row.lease, row.leased_until = token, now + lease
                row.delivery = _changed(row.delivery, lease=token)
            return [row.delivery for row in chosen]

    @staticmethod
    def _is_due(row: Row, channel: str, now: datetime) -> bool:
        leased = row.leased_until is not None and row.leased_until > now
        return row.delivery.channel == channel and row.outcome is Outcome.PENDING and row.due <= now and not leased

    def bundle(self, deliveries: Sequence[Delivery], digest: str) -> None:
        with self._lock:
            for row in self._held(deliveries):
                row.delivery = _changed(row.delivery, digest=digest)

    def delivered(self, deliveries: Sequence[Delivery], now: datetime) -> None:
        with self._lock:
            for delivery in deliveries:
                row = self.rows[delivery.id]
                if row.outcome is not Outcome.DELIVERED:
                    row.outcome, row.finished_at, row.leased_until = Outcome.DELIVERED, now, None

    def failed(self, deliveries: Sequence[Delivery], *, attempts: int, retry_at: datetime, error: str) -> None:
        with self._lock:
            for row in self._held(deliveries):
                row.delivery = _changed(row.delivery, attempts=attempts)
                row.due, row.leased_until, row.error = retry_at, None, error

    def postpone(self, deliveries: Sequence[Delivery], until: datetime) -> None:
        with self._lock:
            for row in self._held(deliveries):
                row.due, row.leased_until = until, None

    def give_up(self, deliveries: Sequence[Delivery], now: datetime, error: str) -> None:
        with self._lock:
            for row in self._held(deliveries):
                row.outcome, row.finished_at, row.leased_until, row.error = Outcome.GIVEN_UP, now, None, error

    def traffic(self, channel: str, *, urgent: bool, since: datetime) -> Traffic:
        with self._lock:
            sent = [
                row
                for row in self.rows.values()
                if row.delivery.channel == channel
                and row.outcome is Outcome.DELIVERED
                and row.delivery.urgent is urgent
                and row.finished_at is not None
                and row.finished_at >= since
            ]
            digests = {row.delivery.digest for row in sent if not _is_single(row.delivery)}
            singles = sum(_is_single(row.delivery) for row in sent)
            times = [row.finished_at for row in sent if not _is_single(row.delivery) and row.finished_at is not None]
            return Traffic(singles + len(digests), max(times, default=None))

    def backlog(self) -> Mapping[str, Backlog]:
        with self._lock:
            waiting: dict[str, list[datetime]] = {}
            for row in self.rows.values():
                if row.outcome is Outcome.PENDING:
                    waiting.setdefault(row.delivery.channel, []).append(row.delivery.enqueued_at)
            return {channel: Backlog(len(times), min(times)) for channel, times in waiting.items()}

    def _held(self, deliveries: Sequence[Delivery]) -> list[Row]:
        rows = [(self.rows[delivery.id], delivery) for delivery in deliveries]
        return [row for row, held in rows if row.lease == held.lease and row.outcome is Outcome.PENDING]


def _changed(
    delivery: Delivery, *, attempts: int | None = None, digest: str | None = None, lease: str | None = None
) -> Delivery:
    return Delivery(
        delivery.id,
        delivery.alert,
        delivery.channel,
        delivery.enqueued_at,
        delivery.attempts if attempts is None else attempts,
        delivery.digest if digest is None else digest,
        delivery.lease if lease is None else lease,
    )


def _is_single(delivery: Delivery) -> bool:
    return delivery.digest in {None, delivery.alert.id}
