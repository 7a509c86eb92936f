"""The life of an alert: open, acknowledged, resolved, reopened, escalated.

Each change is stored and sent to channels.
"""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from msgspec import Struct
from sqlalchemy import Connection, and_, func, or_, select

from alerts.alert import Alert, AlertChange, ChangeKind, Owner, Severity, counted
from monitor.store.database import Database
from monitor.store.findings import set_past_of_alert
from monitor.store.outbox import FRESH, WITHDRAWN, Silence, Silences, news_of
from monitor.store.sql import add_new, change_sealed, table
from monitor.store.tables import AlertChangeRow, AlertRow, DeliveryRow, PatternRow

_ALERT: Final = table(AlertRow)
_CHANGE: Final = table(AlertChangeRow)
_DELIVERY: Final = table(DeliveryRow)
_PATTERN: Final = table(PatternRow)
_LOOK_BACK: Final = timedelta(days=31)
_MAX_TEXT: Final = 2_000
IS_OPEN: Final = and_(_ALERT.c.acknowledged_at.is_(None), _ALERT.c.resolved_at.is_(None))


class NoSuchAlert(LookupError):
    """No alert, or more than one, has an id that begins so."""


class ChangeAuthor(Struct, frozen=True):
    """The person who changes an alert, and their note."""

    name: str
    note: str = ""


class KeptChange(Struct, frozen=True):
    """One stored change."""

    kind: str
    at: datetime
    by: str
    note: str


class AlertLife:
    """Changes alerts in the database. `followers` are channels that get the changes of an alert."""

    def __init__(self, database: Database, followers: Collection[str]) -> None:
        self.database, self._followers = database, sorted(followers)
        self.silences = Silences(database)

    def find(self, beginning: str) -> str:
        """The whole id of the one alert whose id begins so. Raises `NoSuchAlert`."""
        query = select(_ALERT.c.id).where(_ALERT.c.id.startswith(beginning, autoescape=True)).limit(2)
        with self.database.read() as connection:
            found = connection.scalars(query).all()
        if len(found) != 1 or not beginning:
            what = "no alert has" if not found else "more than one alert has"
            raise NoSuchAlert(f"{what} an id that begins with {beginning!r:.80}")
        return str(found[0])

    def acknowledge(self, alert: str, who: ChangeAuthor, now: datetime) -> bool:
        """Record that a person has seen an alert; false when it was acknowledged already.

        From then on, the names in its finding count as the past.
        """
        values = {"acknowledged_at": now, "acknowledged_by": who.name[:_MAX_TEXT], "note": who.note[:_MAX_TEXT] or None}
        with self.database.write() as connection:
            here = and_(_ALERT.c.id == alert, _ALERT.c.acknowledged_at.is_(None))
            if not change_sealed(connection, _ALERT, here, values):
                return False
            set_past_of_alert(connection, alert, past=True)
            self._record(connection, alert, ChangeKind.ACKNOWLEDGED, who, now)
        return True

    def reopen(self, alert: str, who: ChangeAuthor, now: datetime) -> bool:
        """Open an alert again; false when it is open. The names in its finding no longer count as the past.

        Patterns that were made of it are revoked.
        """
        values = {"acknowledged_at": None, "acknowledged_by": None, "resolved_at": None, "silence": None}
        with self.database.write() as connection:
            here = and_(_ALERT.c.id == alert, or_(~IS_OPEN, _ALERT.c.silence.is_not(None)))
            if not change_sealed(connection, _ALERT, here, values):
                return False
            set_past_of_alert(connection, alert, past=False)
            made = and_(_PATTERN.c.alert == alert, _PATTERN.c.revoked_at.is_(None))
            change_sealed(connection, _PATTERN, made, {"revoked_at": now, "revoked_by": who.name[:_MAX_TEXT]})
            self._record(connection, alert, ChangeKind.REOPENED, who, now)
        return True

    def resolve(self, alerts: Sequence[str], who: ChangeAuthor, now: datetime) -> int:
        """Record that the condition of open alerts has ended; returns the number of alerts that were open."""
        count = 0
        with self.database.write() as connection:
            for alert in alerts:
                here = and_(_ALERT.c.id == alert, _ALERT.c.resolved_at.is_(None))
                if change_sealed(connection, _ALERT, here, {"resolved_at": now}):
                    self._record(connection, alert, ChangeKind.RESOLVED, who, now)
                    count += 1
        return count

    def changes(self, alert: str) -> list[KeptChange]:
        """Changes of an alert, oldest first."""
        with self.database.read() as connection:
            rows = connection.execute(select(_CHANGE).where(_CHANGE.c.alert == alert).order_by(_CHANGE.c.id))
            return [KeptChange(row.change, row.at, row.made_by, row.note) for row in rows]

    def open_of_kinds(self, kinds: Collection[str]) -> list[tuple[str, str, str | None]]:
        """Open alerts of some kinds, as (id, kind, log)."""
        query = select(_ALERT.c.id, _ALERT.c.kind, _ALERT.c.log).where(_ALERT.c.resolved_at.is_(None))
        with self.database.read() as connection:
            return [(row.id, row.kind, row.log) for row in connection.execute(query.where(_ALERT.c.kind.in_(kinds)))]

    def open_counts(self) -> dict[tuple[str, str], int]:
        """Number of open alerts that are not silenced, by severity and owner; every pair is listed, also with none."""
        counts = {(severity.value, owner.value): 0 for severity in Severity for owner in Owner}
        query = select(_ALERT.c.severity, _ALERT.c.owner, func.count()).where(IS_OPEN, _ALERT.c.silence.is_(None))
        with self.database.read() as connection:
            rows = connection.execute(query.group_by(_ALERT.c.severity, _ALERT.c.owner))
            return counts | {(row[0], row[1]): row[2] for row in rows}

    def escalate(self, after: timedelta, channels: Sequence[str], now: datetime) -> list[str]:
        """Put pages that stayed open for `after` on their way to more channels; return their ids.

        An alert that is silenced, or whose deliveries were all withdrawn, is not escalated.
        """
        overdue = and_(
            IS_OPEN,
            _ALERT.c.severity == Severity.PAGE.value,
            _ALERT.c.silence.is_(None),
            _ALERT.c.escalated_at.is_(None),
            _ALERT.c.enqueued_at <= now - after,
            _ALERT.c.enqueued_at > now - after - _LOOK_BACK,
            select(_DELIVERY.c.id).where(_DELIVERY.c.alert == _ALERT.c.id, _DELIVERY.c.state != WITHDRAWN).exists(),
        )
        with self.database.write() as connection:
            found = [str(each) for each in connection.scalars(select(_ALERT.c.id).where(overdue).order_by(_ALERT.c.id))]
            if found:
                rows = [_delivery(alert, channel, now) for alert in found for channel in channels]
                add_new(connection, _DELIVERY, rows)
                change_sealed(connection, _ALERT, _ALERT.c.id.in_(found), {"escalated_at": now})
        return found

    def take_ended_silences(self, now: datetime) -> list[Silence]:
        """Ended silences that have no alert about their end yet."""
        with self.database.write() as connection:
            return self.silences.take_ended(connection, now)

    def _record(self, connection: Connection, alert: str, kind: ChangeKind, who: ChangeAuthor, now: datetime) -> None:
        by, note = who.name[:_MAX_TEXT], who.note[:_MAX_TEXT]
        row = {"alert": alert, "change": kind.value, "at": now, "made_by": by, "note": note}
        add_new(connection, _CHANGE, [row])
        number = connection.execute(select(func.max(_CHANGE.c.id)).where(_CHANGE.c.alert == alert)).scalar_one()
        news = news_of(AlertChange(kind, int(number), by, note))
        # Only receivers of the alert itself get a change of it.
        told = and_(_DELIVERY.c.alert == alert, _DELIVERY.c.news == "", _DELIVERY.c.channel.in_(self._followers))
        channels = connection.scalars(select(_DELIVERY.c.channel).where(told, _DELIVERY.c.state != WITHDRAWN)).all()
        add_new(connection, _DELIVERY, [_delivery(alert, channel, now) | {"news": news} for channel in channels])


def silence_ended_alert(silence: Silence, now: datetime) -> Alert:
    """Alert for an ended silence that kept alerts from the channels, so that every alert is reported in the end."""
    about = ", ".join(
        f"{name} {value}"
        for name, value in (("rule", silence.rule), ("identity", silence.identity), ("kind", silence.kind))
        if value is not None
    )
    return Alert(
        id=f"silence-{silence.number}-ended",
        kind="silence-ended",
        owner=Owner.OURSELVES,
        severity=Severity.WARN,
        title=f"A silence ended: {counted(silence.silenced, 'alert')} kept from the channels",
        summary=f"Silence {silence.number} ({about}) was set by {silence.by}: {silence.note or 'no note'}.",
        consequence="The alerts are recorded and open. Alerts of this kind reach the channels again.",
        next_step=f"Run `signwatch alerts list --silence {silence.number}` to read each one.",
        created_at=now,
        facts=(("Silence", str(silence.number)), ("About", about), ("Alerts", str(silence.silenced))),
    )


def _delivery(alert: str, channel: str, now: datetime) -> dict[str, Any]:
    return {"alert": alert, "channel": channel, "urgent": True, "enqueued_at": now, "due_at": now, **FRESH}
