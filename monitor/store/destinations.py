"""Destinations of subscribers: where each account is told, whether it may be told there now, and secrets for signing.

Each method is one transaction. A destination that is another's is answered as one that does not exist.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final

from msgspec import Struct
from sqlalchemy import Connection, delete, func, or_, select, update

from monitor.store.database import Database
from monitor.store.outbox import PENDING, WITHDRAWN
from monitor.store.site_tables import DestinationRow, NoticeRow
from monitor.store.sql import new_id, table, value_of
from monitor.store.stages import count

READY: Final = "ready"
WAITING: Final = "waiting"
SUSPENDED: Final = "suspended"
STOPPED: Final = "stopped"
"""State of a destination whose reader left by a link in a mail; a button goes on."""

_DESTINATION: Final = table(DestinationRow)
_NOTICE: Final = table(NoticeRow)


class Destination(Struct, frozen=True):
    """Destination of a subscriber's messages; secrets are for signing and never shown again."""

    id: str
    subscriber: str
    kind: str
    target: str
    host: str
    secret: str
    former_secret: str
    former_until: datetime | None
    state: str
    created_at: datetime
    failing_since: datetime | None
    bounces: int
    error: str


class Destinations:
    """Destinations in the database."""

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database, self._clock = database, clock

    def of(self, subscriber: str) -> list[Destination]:
        """Destinations of an account, oldest first."""
        chosen = select(_DESTINATION).where(_DESTINATION.c.subscriber == subscriber)
        with self._database.read() as connection:
            rows = connection.execute(chosen.order_by(_DESTINATION.c.created_at, _DESTINATION.c.id))
            return [value_of(Destination, row) for row in rows]

    def find(self, destination: str, subscriber: str | None) -> Destination | None:
        """One destination of an account; of any for a feed's own address."""
        chosen = select(_DESTINATION).where(_DESTINATION.c.id == destination)
        if subscriber is not None:
            chosen = chosen.where(_DESTINATION.c.subscriber == subscriber)
        with self._database.read() as connection:
            row = connection.execute(chosen).first()
        return None if row is None else value_of(Destination, row)

    def add(self, subscriber: str, kind: str, target: str, *, host: str, secret: str, state: str) -> str:
        """Add a destination and return its id."""
        with self._database.write() as connection:
            return self.insert(connection, subscriber, kind, target, host=host, secret=secret, state=state)

    def change(self, destination: str, subscriber: str, **values: Any) -> bool:
        """Change columns of one destination of an account."""
        mine = (_DESTINATION.c.id == destination, _DESTINATION.c.subscriber == subscriber)
        with self._database.write() as connection:
            return connection.execute(update(_DESTINATION).where(*mine).values(**values)).rowcount == 1

    def remove(self, destination: str, subscriber: str) -> bool:
        """Remove a destination and its waiting messages."""
        mine = (_DESTINATION.c.id == destination, _DESTINATION.c.subscriber == subscriber)
        with self._database.write() as connection:
            if connection.execute(delete(_DESTINATION).where(*mine)).rowcount != 1:
                return False
            connection.execute(delete(_NOTICE).where(_NOTICE.c.destination == destination))
        return True

    def stop(self, destination: str) -> bool:
        """Stop messages to a destination, and withdraw waiting ones; false when it was stopped already."""
        mine = (_DESTINATION.c.id == destination, _DESTINATION.c.state == READY)
        with self._database.write() as connection:
            if connection.execute(update(_DESTINATION).where(*mine).values(state=STOPPED)).rowcount != 1:
                return False
            waiting = (_NOTICE.c.destination == destination, _NOTICE.c.state == PENDING)
            ended = {"state": WITHDRAWN, "finished_at": self._clock()}
            connection.execute(update(_NOTICE).where(*waiting).values(**ended))
            count(connection, "left")
        return True

    def restart(self, destination: str) -> bool:
        """Resume messages to a stopped destination; false if it was not stopped."""
        mine = (_DESTINATION.c.id == destination, _DESTINATION.c.state == STOPPED)
        with self._database.write() as connection:
            return connection.execute(update(_DESTINATION).where(*mine).values(state=READY)).rowcount == 1

    def insert(
        self, connection: Connection, subscriber: str, kind: str, target: str, *, host: str, secret: str, state: str
    ) -> str:
        """Add a destination within a transaction and return its id."""
        row = {
            "id": new_id(),
            "subscriber": subscriber,
            "kind": kind,
            "target": target,
            "host": host,
            "secret": secret,
            "former_secret": "",
            "state": state,
            "created_at": self._clock(),
            "bounces": 0,
            "error": "",
        }
        connection.execute(_DESTINATION.insert(), row)
        return str(row["id"])


def suspended_hosts(database: Database, limit: int) -> Sequence[tuple[str, int]]:
    """Receiving hosts with the number of their suspended destinations, most first."""
    bad = or_(_DESTINATION.c.state == SUSPENDED, _DESTINATION.c.bounces > 0)
    number = func.count().label("n")
    chosen = select(_DESTINATION.c.host, number).where(bad).group_by(_DESTINATION.c.host).order_by(number.desc())
    with database.read() as connection:
        return [(row.host, int(row.n)) for row in connection.execute(chosen.limit(limit))]
