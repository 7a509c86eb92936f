"""Silences: alerts that are recorded and told to no channel for a while. A log's misbehaviour is never silenced."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, and_, func, select

from alerts.alert import Alert, Owner
from monitor.store.database import Database
from monitor.store.seals import change_sealed
from monitor.store.tables import AlertRow, SilenceRow, table
from monitor.store.writing import add_new

LONGEST: Final = timedelta(days=31)
_ALERT: Final = table(AlertRow)
_SILENCE: Final = table(SilenceRow)


@dataclass(frozen=True, slots=True)
class Silence:
    """Alerts of this rule, identity and kind until `expires`; a field that is `None` stands for any. One is given."""

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
        """True if the alert is one of those. Never for a log's misbehaviour, nor for the news of a silence's end."""
        if alert.owner is Owner.LOG_MISBEHAVED or alert.kind == ENDED:
            return False
        wanted = ((self.rule, alert.rule), (self.identity, alert.identity), (self.kind, alert.kind))
        return any(want is not None for want, _ in wanted) and all(want in {None, has} for want, has in wanted)


ENDED: Final = "silence-ended"
"""Kind of the alert that tells how many alerts a silence kept from the channels."""


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
        """Put a silence in force; return its number. Raises `ValueError` for one without an end or a limit."""
        if silence.rule is silence.identity is silence.kind is None:
            raise ValueError("a silence names a rule, an identity or a kind; there is none for everything")
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
        """Every silence there ever was, newest first, with how many alerts it kept from the channels."""
        with self._database.read() as connection:
            rows = connection.execute(select(_SILENCE).order_by(_SILENCE.c.id.desc())).mappings().all()
            counts = _counts(connection)
        return [_silence(row, counts.get(row["id"], 0)) for row in rows]

    def take_ended(self, connection: Connection, now: datetime) -> list[Silence]:
        """Silences that are over and whose end was not told yet; they count as told from now on."""
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
