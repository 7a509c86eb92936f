"""Runs of the canary: times of announcement, signing and sighting, and the result.

A run is kept for `KEPT`, for reports. The bundle of a missed run is kept with it: it is the log's signed statement
that it took the entry.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from msgspec import Struct
from sqlalchemy import and_, delete, func, select, update

from monitor.model.errors import OwnFault
from monitor.store.database import Database
from monitor.store.sql import table
from monitor.store.tables import CanaryRow

_RUN: Final = table(CanaryRow)
WAITING: Final = "waiting"
SEEN: Final = "seen"
LATE: Final = "late"
MISSED: Final = "missed"
NOT_SIGNED: Final = "not-signed"
RESULTS: Final = (SEEN, LATE, MISSED, NOT_SIGNED)
# Without the bundle, which is long.
_SHOWN: Final = (*(each for each in _RUN.c if each.name != "bundle"), _RUN.c.bundle.is_not(None).label("has_bundle"))
KEPT: Final = timedelta(days=400)
MOST_BUNDLES: Final = 200
"""Missed runs whose bundles are kept: the newest. A log that is down for a month must not fill the disk."""


class CanaryRun(Struct, frozen=True):
    """One run. `signed_at` is when the log had taken the entry, `seen_at` when its alert arrived."""

    number: int
    log: str
    digest: str
    began_at: datetime
    signed_at: datetime | None
    seen_at: datetime | None
    result: str
    detail: str
    has_bundle: bool = False

    @property
    def latency(self) -> timedelta | None:
        """Time from the log's answer to the alert; zero for an alert that came before the answer."""
        if self.signed_at is None or self.seen_at is None:
            return None
        return max(self.seen_at - self.signed_at, timedelta(0))


class Canaries:
    """Runs of the canary in the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, log: str, digest: str, now: datetime) -> int:
        """Record a run before it signs, and forget old ones; return its number."""
        row = {"log": log, "digest": digest, "began_at": now, "result": WAITING, "detail": ""}
        newest_seen = select(func.max(_RUN.c.id)).where(_RUN.c.seen_at.is_not(None)).scalar_subquery()
        # SQLite reuses the number of a deleted newest row, but the ids of alerts hold these numbers.
        newest = select(func.max(_RUN.c.id)).scalar_subquery()
        bundles = select(_RUN.c.id).where(_RUN.c.bundle.is_not(None)).order_by(_RUN.c.id.desc()).offset(MOST_BUNDLES)
        with self._database.write() as connection:
            connection.execute(
                delete(_RUN).where(
                    _RUN.c.began_at < now - KEPT, _RUN.c.id != func.coalesce(newest_seen, 0), _RUN.c.id != newest
                )
            )
            if crowded := connection.execute(bundles.limit(1)).scalar():
                connection.execute(update(_RUN).where(_RUN.c.id <= crowded).values(bundle=None))
            key = connection.execute(_RUN.insert().values(**row)).inserted_primary_key
        if key is None:
            raise OwnFault("the database did not say which run of the canary it stored")
        return int(key[0])

    def signed(self, number: int, now: datetime, bundle: bytes) -> None:
        """Record that the log took the entry, with the bundle."""
        self._change(number, {"signed_at": now, "bundle": bundle})

    def failed(self, number: int, detail: str) -> None:
        """Record that the run could not sign."""
        self._change(number, {"result": NOT_SIGNED, "detail": detail})

    def end(self, number: int, result: str, detail: str = "") -> None:
        """Record the end of the run: seen, late or missed. Only a missed run keeps its bundle."""
        over = {} if result == MISSED else {"bundle": None}
        self._change(number, {"result": result, "detail": detail, **over})

    def seen(self, digest: str, now: datetime) -> bool:
        """Record that the alert for the entry with this digest arrived; false if no run waits for it."""
        unseen = and_(_RUN.c.digest == digest, _RUN.c.seen_at.is_(None))
        with self._database.write() as connection:
            return connection.execute(update(_RUN).where(unseen).values(seen_at=now)).rowcount > 0

    def bundle(self, number: int) -> bytes | None:
        """The bundle of a run; `None` if it is not kept."""
        with self._database.read() as connection:
            found = connection.execute(select(_RUN.c.bundle).where(_RUN.c.id == number)).scalar()
        return None if found is None else bytes(found)

    def counts(self, begin: datetime, end: datetime) -> Mapping[str, int]:
        """Number of runs that began in `[begin, end)`, by how they ended."""
        query = select(_RUN.c.result, func.count()).where(_RUN.c.began_at >= begin, _RUN.c.began_at < end)
        with self._database.read() as connection:
            return {str(result): int(count) for result, count in connection.execute(query.group_by(_RUN.c.result))}

    def newest(self, limit: int) -> list[CanaryRun]:
        """Newest runs, newest first."""
        query = select(*_SHOWN).order_by(_RUN.c.id.desc()).limit(limit)
        with self._database.read() as connection:
            return [_run(row) for row in connection.execute(query).mappings()]

    def unsettled(self) -> list[CanaryRun]:
        """Runs that wait, and missed ones whose alert came after all, oldest first."""
        came = and_(_RUN.c.result == MISSED, _RUN.c.seen_at.is_not(None))
        query = select(*_SHOWN).where((_RUN.c.result == WAITING) | came).order_by(_RUN.c.id)
        with self._database.read() as connection:
            return [_run(row) for row in connection.execute(query).mappings()]

    def first_failure(self) -> int:
        """Number of the first run of the present series of failures; 0 if the newest run did not fail."""
        well = select(func.max(_RUN.c.id)).where(_RUN.c.result == SEEN)
        with self._database.read() as connection:
            after = connection.execute(well).scalar() or 0
            failed = select(func.min(_RUN.c.id)).where(_RUN.c.id > after, _RUN.c.result.in_((MISSED, NOT_SIGNED, LATE)))
            return int(connection.execute(failed).scalar() or 0)

    def last_seen(self) -> CanaryRun | None:
        """The newest run whose alert arrived."""
        query = select(*_SHOWN).where(_RUN.c.seen_at.is_not(None)).order_by(_RUN.c.id.desc()).limit(1)
        with self._database.read() as connection:
            row = connection.execute(query).mappings().first()
        return None if row is None else _run(row)

    def _change(self, number: int, values: Mapping[str, Any]) -> None:
        with self._database.write() as connection:
            connection.execute(update(_RUN).where(_RUN.c.id == number).values(**values))


def _run(row: Any) -> CanaryRun:
    return CanaryRun(
        row["id"],
        row["log"],
        row["digest"],
        row["began_at"],
        row["signed_at"],
        row["seen_at"],
        row["result"],
        row["detail"],
        bool(row["has_bundle"]),
    )
