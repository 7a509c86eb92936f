"""The outbox in the database (`alerts.outbox.Outbox`), and the silences that keep alerts out of it.

A silenced alert is recorded and not sent. A silence never covers a log's misbehaviour.
"""

import json
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from msgspec import Struct
from sqlalchemy import Connection, Row, and_, exists, func, or_, select, update
from typing_extensions import override

from alerts.alert import Alert, AlertChange, ChangeKind, Owner, Severity
from alerts.outbox import Backlog, Delivery, Outbox, Traffic
from monitor.raising.signing_alerts import SEEN
from monitor.store.database import Database, lock_name
from monitor.store.sql import add_new, change_sealed, chunks, known_values, lock_rows, table
from monitor.store.tables import AlertRow, DeliveryRow, SilenceRow

LONGEST: Final = timedelta(days=31)
_ALERT: Final = table(AlertRow)
_SILENCE: Final = table(SilenceRow)


class Silence(Struct, frozen=True):
    """Alerts of this rule, identity and kind until `expires`; `None` in a field stands for any value.

    At least one field is set.
    """

    expires: datetime
    by: str
    note: str
    rule: str | None = None
    identity: str | None = None
    kind: str | None = None
    number: int = 0
    ended_at: datetime | None = None
    silenced: int = 0

    def covers(self, alert: Alert) -> bool:
        """True if the silence covers the alert.

        Never for a log's misbehaviour, the alert about a silence's end, or the canary's own signing.
        """
        if alert.owner is Owner.LOG_MISBEHAVED or alert.kind in {ENDED, SEEN}:
            return False
        wanted = ((self.rule, alert.rule), (self.identity, alert.identity), (self.kind, alert.kind))
        return any(want is not None for want, _ in wanted) and all(want in {None, has} for want, has in wanted)


ENDED: Final = "silence-ended"
"""Kind of the alert with the number of alerts that a silence kept from the channels."""


def silences_in_force(connection: Connection, now: datetime) -> list[Silence]:
    """Silences that hold at `now`, oldest first."""
    holds = and_(_SILENCE.c.expires > now, _SILENCE.c.ended_at.is_(None))
    rows = connection.execute(select(_SILENCE).where(holds).order_by(_SILENCE.c.id)).mappings()
    return [_silence(row) for row in rows]


def silenced_by(alert: Alert, silences: Sequence[Silence]) -> int | None:
    """Number of the silence that covers an alert."""
    return next((silence.number for silence in silences if silence.covers(alert)), None)


class Silences:
    """Silences in the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, silence: Silence, now: datetime) -> int:
        """Put a silence in force; returns its number. Raises `ValueError` for a silence without an end or a field."""
        if silence.rule is silence.identity is silence.kind is None:
            raise ValueError("a silence names a rule, an identity or a kind; a silence of everything does not exist")
        if not now < silence.expires <= now + LONGEST:
            raise ValueError(f"a silence ends within {LONGEST.days} days")
        row = {
            "rule": silence.rule,
            "identity": silence.identity,
            "kind": silence.kind,
            "created_at": now,
            "expires": silence.expires,
            "by": silence.by,
            "note": silence.note,
        }
        row["made_by"] = row.pop("by")
        with self._database.write() as connection:
            add_new(connection, _SILENCE, [row])
            return int(connection.execute(select(func.max(_SILENCE.c.id))).scalar_one())

    def end(self, number: int, now: datetime) -> bool:
        """End a silence early; false when it is over or absent."""
        holds = and_(_SILENCE.c.id == number, _SILENCE.c.expires > now, _SILENCE.c.ended_at.is_(None))
        with self._database.write() as connection:
            return bool(change_sealed(connection, _SILENCE, holds, {"ended_at": now}))

    def all(self) -> list[Silence]:
        """Every silence, newest first, with the number of alerts that it kept from the channels."""
        with self._database.read() as connection:
            rows = connection.execute(select(_SILENCE).order_by(_SILENCE.c.id.desc())).mappings().all()
            counts = _counts(connection)
        return [_silence(row, counts.get(row["id"], 0)) for row in rows]

    def take_ended(self, connection: Connection, now: datetime) -> list[Silence]:
        """Ended silences without an alert about their end; they count as reported from now on."""
        over = (_SILENCE.c.expires <= now) | _SILENCE.c.ended_at.is_not(None)
        untold = and_(over, _SILENCE.c.told_at.is_(None))
        rows = connection.execute(select(_SILENCE).where(untold).order_by(_SILENCE.c.id)).mappings().all()
        if not rows:
            return []
        change_sealed(connection, _SILENCE, untold, {"told_at": now})
        counts = _counts(connection)
        return [_silence(row, counts.get(row["id"], 0)) for row in rows]


def _counts(connection: Connection) -> dict[int, int]:
    query = select(_ALERT.c.silence, func.count()).where(_ALERT.c.silence.is_not(None)).group_by(_ALERT.c.silence)
    return {row[0]: row[1] for row in connection.execute(query)}


def _silence(row: Any, silenced: int = 0) -> Silence:
    return Silence(
        row["expires"],
        row["made_by"],
        row["note"],
        row["rule"],
        row["identity"],
        row["kind"],
        row["id"],
        row["ended_at"],
        silenced,
    )


PENDING: Final = "pending"
DELIVERED: Final = "delivered"
GIVEN_UP: Final = "given-up"
WITHDRAWN: Final = "withdrawn"
FRESH: Final = {"state": PENDING, "attempts": 0, "news": "", "lease": "", "error": ""}
"""A delivery that was not tried yet, of the alert itself."""

_DELIVERY = table(DeliveryRow)
# A message of one alert: not sent yet, or sent under the alert's own id.
_IS_SINGLE: Final = or_(_DELIVERY.c.digest.is_(None), _DELIVERY.c.digest == _DELIVERY.c.alert)
_EARLIER = _DELIVERY.alias("earlier")


class QueuedAlert(NamedTuple):
    """An alert for some channels. Before `due` it is neither delivered nor counted as waiting."""

    alert: Alert
    channels: Sequence[str]
    due: datetime


def put(connection: Connection, posts: Sequence[QueuedAlert], now: datetime) -> None:
    """Record alerts and a delivery for each of their channels; existing alerts and deliveries do not change.

    An alert under a silence in force is recorded with the silence and not sent. The alert about the canary's own
    signing is never open.
    """
    if not posts:
        return
    in_force = silences_in_force(connection, now)
    silences = {post.alert.id: number for post in posts if (number := silenced_by(post.alert, in_force)) is not None}
    add_new(connection, _ALERT, [_alert_row(post.alert, now, silences.get(post.alert.id)) for post in posts])
    rows = [
        {
            "alert": post.alert.id,
            "channel": channel,
            "urgent": post.alert.severity is Severity.PAGE,
            "enqueued_at": post.due,
            "due_at": post.due,
            **FRESH,
        }
        for post in posts
        if post.alert.id not in silences
        for channel in post.channels
    ]
    add_new(connection, _DELIVERY, rows)


def new_alerts(connection: Connection, alerts: Sequence[Alert]) -> list[Alert]:
    """Alerts that were never enqueued, each once."""
    known = known_values(connection, _ALERT.c.id, [alert.id for alert in alerts])
    return list({alert.id: alert for alert in reversed(alerts) if alert.id not in known}.values())[::-1]


class DatabaseOutbox(Outbox):
    """Outbox in the database. Several processes may share one on PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def release(self) -> None:
        """End every lease. Only for the holder of the daemon's lock: the holders of these leases are dead."""
        with self._database.write() as connection:
            held = and_(_DELIVERY.c.state == PENDING, _DELIVERY.c.leased_until.is_not(None))
            connection.execute(update(_DELIVERY).where(held).values(leased_until=None))

    @override
    def claim(self, channel: str, now: datetime, lease: timedelta, limit: int) -> Sequence[Delivery]:
        with self._database.write() as connection:
            # One claimer at a time per channel: a digest is claimed whole.
            lock_name(connection, f"claim {channel}")
            due = and_(
                _DELIVERY.c.channel == channel,
                _DELIVERY.c.state == PENDING,
                _DELIVERY.c.due_at <= now,
                or_(_DELIVERY.c.leased_until.is_(None), _DELIVERY.c.leased_until <= now),
            )
            waits = exists().where(
                _EARLIER.c.alert == _DELIVERY.c.alert,
                _EARLIER.c.channel == channel,
                _EARLIER.c.state == PENDING,
                _EARLIER.c.id < _DELIVERY.c.id,
            )
            # A receiver that got the end of an alert before its beginning would keep the alert open for ever.
            due = and_(due, or_(_DELIVERY.c.news == "", ~waits))
            order = (_DELIVERY.c.attempts, _DELIVERY.c.urgent.desc(), _DELIVERY.c.id)
            digests = select(_DELIVERY.c.digest).where(due, ~_IS_SINGLE).order_by(*order).limit(1)
            digest = connection.execute(digests).scalar()
            chosen = (
                select(_DELIVERY, _ALERT.c.document).join(_ALERT, _ALERT.c.id == _DELIVERY.c.alert).order_by(*order)
            )
            if digest is not None:
                lock_rows(connection, _DELIVERY.c.id, and_(due, _DELIVERY.c.digest == digest))
                chosen = chosen.where(due, _DELIVERY.c.digest == digest)
            else:
                # Locked rows are skipped: a delivery that is being withdrawn must not be sent. If it is not
                # withdrawn, the next claim gets it.
                chosen = chosen.where(due, _IS_SINGLE).limit(limit)
                chosen = chosen.with_for_update(of=_DELIVERY, skip_locked=True)
            rows = connection.execute(chosen).all()
            token = secrets.token_hex(8)
            _set(connection, [row.id for row in rows], {"lease": token, "leased_until": now + lease})
        return [_delivery(row, token) for row in rows]

    @override
    def bundle(self, deliveries: Sequence[Delivery], digest: str) -> None:
        self._set_held(deliveries, {"digest": digest})

    @override
    def delivered(self, deliveries: Sequence[Delivery], now: datetime) -> None:
        with self._database.write() as connection:
            ids = [int(delivery.id) for delivery in deliveries]
            values = {"state": DELIVERED, "finished_at": now, "leased_until": None}
            _set(connection, ids, values, _DELIVERY.c.state != DELIVERED)

    @override
    def failed(self, deliveries: Sequence[Delivery], *, attempts: int, retry_at: datetime, error: str) -> None:
        changed = {"attempts": attempts, "due_at": retry_at, "leased_until": None, "error": error}
        self._set_held(deliveries, changed)

    @override
    def postpone(self, deliveries: Sequence[Delivery], until: datetime) -> None:
        self._set_held(deliveries, {"due_at": until, "leased_until": None})

    @override
    def give_up(self, deliveries: Sequence[Delivery], now: datetime, error: str) -> None:
        self._set_held(deliveries, {"state": GIVEN_UP, "finished_at": now, "leased_until": None, "error": error})

    @override
    def traffic(self, channel: str, *, urgent: bool, since: datetime) -> Traffic:
        sent = and_(
            _DELIVERY.c.channel == channel,
            _DELIVERY.c.state == DELIVERED,
            _DELIVERY.c.urgent == urgent,
            _DELIVERY.c.finished_at >= since,
        )
        with self._database.read() as connection:
            singles = connection.execute(select(func.count()).where(sent, _IS_SINGLE)).scalar_one()
            digests, newest = connection.execute(
                select(func.count(_DELIVERY.c.digest.distinct()), func.max(_DELIVERY.c.finished_at)).where(
                    sent, ~_IS_SINGLE
                )
            ).one()
        return Traffic(singles + digests, newest)

    @override
    def backlog(self) -> Mapping[str, Backlog]:
        waiting = (
            select(_DELIVERY.c.channel, func.count(), func.min(_DELIVERY.c.enqueued_at))
            .where(_DELIVERY.c.state == PENDING)
            .group_by(_DELIVERY.c.channel)
        )
        with self._database.read() as connection:
            return {channel: Backlog(count, oldest) for channel, count, oldest in connection.execute(waiting)}

    def replay(self, now: datetime, alert: str | None = None, channel: str | None = None) -> int:
        """Make given-up deliveries (of one alert, to one channel) pending again; returns their number."""
        with self._database.write() as connection:
            dead = [_DELIVERY.c.state == GIVEN_UP]
            dead += [_DELIVERY.c.alert == alert] if alert is not None else []
            dead += [_DELIVERY.c.channel == channel] if channel is not None else []
            fresh = {"state": PENDING, "attempts": 0, "due_at": now, "enqueued_at": now, "finished_at": None}
            return connection.execute(update(_DELIVERY).where(*dead).values(**fresh)).rowcount

    def _set_held(self, deliveries: Sequence[Delivery], values: Mapping[str, Any]) -> None:
        with self._database.write() as connection:
            by_lease: dict[str, list[int]] = {}
            for delivery in deliveries:
                by_lease.setdefault(delivery.lease, []).append(int(delivery.id))
            for lease, ids in by_lease.items():
                _set(connection, ids, values, and_(_DELIVERY.c.lease == lease, _DELIVERY.c.state == PENDING))


def _set(connection: Connection, ids: Sequence[int], values: Mapping[str, Any], only: Any = None) -> None:
    for part in chunks(sorted(ids)):
        lock_rows(connection, _DELIVERY.c.id, _DELIVERY.c.id.in_(part))
        change = update(_DELIVERY).where(_DELIVERY.c.id.in_(part)).values(**values)
        connection.execute(change if only is None else change.where(only))


def _alert_row(alert: Alert, now: datetime, silence: int | None) -> dict[str, Any]:
    return {
        "id": alert.id,
        "kind": alert.kind,
        "owner": alert.owner.value,
        "severity": alert.severity.value,
        "log": alert.log,
        "entry": alert.index,
        "rule": alert.rule,
        "identity": alert.identity,
        "silence": silence,
        "resolved_at": now if alert.kind == SEEN else None,
        "document": json.dumps(alert.to_json()),
        "enqueued_at": now,
    }


def _delivery(row: Row[Any], lease: str) -> Delivery:
    return Delivery(
        id=str(row.id),
        alert=Alert.from_json(json.loads(row.document)),
        channel=row.channel,
        enqueued_at=row.enqueued_at,
        attempts=row.attempts,
        digest=row.digest,
        lease=lease,
        change=_change(row.news),
    )


def news_of(change: AlertChange) -> str:
    """The outbox's text for a change."""
    return json.dumps([change.kind.value, change.number, change.by, change.note])


def _change(news: str) -> AlertChange | None:
    if not news:
        return None
    kind, number, by, note = json.loads(news)
    return AlertChange(ChangeKind(kind), number, by, note)
