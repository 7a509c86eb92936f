"""Requests of subscribers in the database: equal requests share a row, and a reader gets only the changes."""

from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from msgspec import Struct
from sqlalchemy import Connection, Table, delete, func, select, update

from monitor.store.database import Database, lock_name
from monitor.store.sql import add_new, add_or_replace, chunks, table
from monitor.store.tables import AskChange, AskRange, AskRow, AuthorisationRow, LogPosition
from rules.asking import KEYS_VERSION, Ask, keys_text, required_keys_of_document
from rules.matching.matcher import PREFIX

_ASK = table(AskRow)
_CHANGE = table(AskChange)
_RANGE = table(AskRange)
_POSITION = table(LogPosition)
_GIVEN = table(AuthorisationRow)
_PAGE: Final = 10_000


class AskUpdate(Struct, frozen=True):
    """A request that came in force (`active`) or ended, with its index keys.

    An `owned` request may change its keys: its text changes, and its number and past stay.
    """

    number: int
    keys: str
    active: bool
    change: int
    owned: bool


class Asks:
    """Requests in the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def hold(self, connection: Connection, ask: Ask, subscription: str) -> int:
        """Number of a request of `subscription`, in force from this transaction on.

        A request that is judged by a past belongs to one subscription, and keeps its number when its text changes.
        """
        # One transaction at a time, so that numbers of changes become visible in order.
        lock_name(connection, "asks")
        owner = subscription if ask.by_past else ""
        digest = ask.digest(owner)
        same = _ASK.c.owner == owner if owner else _ASK.c.digest == digest
        row = connection.execute(select(_ASK.c.number, _ASK.c.active, _ASK.c.digest).where(same)).first()
        if row is not None and row.active and bytes(row.digest) == digest:
            return int(row.number)
        values = {
            "digest": digest,
            "document": ask.document,
            "index_keys": ask.keys,
            "keys_version": KEYS_VERSION,
            "active": True,
            "change": self._next(connection),
            "owner": owner,
            "ended_at": None,
        }
        if row is not None:
            connection.execute(update(_ASK).where(_ASK.c.number == row.number).values(**values))
            return int(row.number)
        connection.execute(_ASK.insert(), values)
        return int(connection.execute(select(_ASK.c.number).where(_ASK.c.digest == digest)).scalar_one())

    def release(self, connection: Connection, number: int, now: datetime) -> None:
        """Take a request out of force when no subscription holds it any more; its announcements end."""
        from monitor.store.site_tables import SubscriptionRow  # noqa: PLC0415  a monitor without a site has none

        lock_name(connection, "asks")
        subscription = table(SubscriptionRow)
        held = select(subscription.c.id).where(subscription.c.ask == number).limit(1)
        if connection.execute(held).first() is None:
            values = {"active": False, "change": self._next(connection), "ended_at": now}
            connection.execute(update(_ASK).where(_ASK.c.number == number).values(**values))
            connection.execute(delete(_GIVEN).where(_GIVEN.c.rule == f"{PREFIX}{number}"))

    @staticmethod
    def owner(connection: Connection, number: int) -> str:
        """The only subscription of a request that is judged by a past; empty for a shared one."""
        return str(connection.execute(select(_ASK.c.owner).where(_ASK.c.number == number)).scalar() or "")

    def forget_ended(self, before: datetime) -> None:
        """Delete the texts of requests that ended before a moment, because a person wrote them.

        Every process has removed them from its index by then; a process that has not finds no text and leaves the
        request out.
        """
        with self._database.write() as connection:
            connection.execute(delete(_ASK).where(_ASK.c.active.is_(False), _ASK.c.ended_at < before))

    def last_change(self) -> int:
        """Number of the last change; 0 when there was none."""
        with self._database.read() as connection:
            return int(connection.execute(select(_CHANGE.c.change)).scalar() or 0)

    def changed(self, after: int, up_to: int) -> Iterator[AskUpdate]:
        """Requests that changed after one change up to another, in order, each in its last state."""
        at = (after, -1)
        while True:
            kept = (_ASK.c.number, _ASK.c.index_keys, _ASK.c.keys_version, _ASK.c.active, _ASK.c.change)
            columns = (*kept, _ASK.c.owner)
            chosen = (
                select(*columns)
                .where(_ASK.c.change > at[0], _ASK.c.change <= up_to)
                .order_by(_ASK.c.change)
                .limit(_PAGE)
            )
            with self._database.read() as connection:
                rows = connection.execute(chosen).all()
            for number, keys, version, active, change, owner in rows:
                if version != KEYS_VERSION:
                    keys = self._rekeyed(number)  # noqa: PLW2901
                yield AskUpdate(number, keys, active, change, bool(owner))
            if len(rows) < _PAGE:
                return
            at = (rows[-1].change, rows[-1].number)

    def documents(self, numbers: Collection[int]) -> dict[int, str]:
        """Texts of requests by number."""
        found: dict[int, str] = {}
        with self._database.read() as connection:
            for part in chunks(list(numbers)):
                rows = connection.execute(select(_ASK.c.number, _ASK.c.document).where(_ASK.c.number.in_(part)))
                found.update({row.number: row.document for row in rows})
        return found

    def keys(self, number: int) -> str:
        """Index keys of one request."""
        with self._database.read() as connection:
            return str(connection.execute(select(_ASK.c.index_keys).where(_ASK.c.number == number)).scalar_one())

    def in_force(self) -> int:
        """Number of requests in force."""
        with self._database.read() as connection:
            counted = select(func.count()).select_from(_ASK).where(_ASK.c.active.is_(True))
            return int(connection.execute(counted).scalar_one())

    def offered_from(self, log: str, change: int, now: datetime) -> None:
        """Record that every request up to a change is offered each entry of a log from its present position on.

        Call it between two passes, before the first with these requests.
        """
        with self._database.write() as connection:
            known = select(_RANGE.c.change).where(_RANGE.c.log == log, _RANGE.c.change >= change).limit(1)
            if connection.execute(known).first() is not None:
                return
            size = connection.execute(select(_POSITION.c.size).where(_POSITION.c.log == log)).scalar()
            row = {"log": log, "change": change, "first": int(size or 0), "at": now}
            add_new(connection, _RANGE, [row])

    def coverage(self, change: int) -> dict[str, tuple[int, datetime] | None]:
        """First entry of each followed log from which on a request was offered all, with the time; `None`: not yet."""
        found: dict[str, tuple[int, datetime] | None] = {}
        with self._database.read() as connection:
            for log in connection.execute(select(_POSITION.c.log)).scalars().all():
                chosen = select(_RANGE.c.first, _RANGE.c.at).where(_RANGE.c.log == log, _RANGE.c.change >= change)
                row = connection.execute(chosen.order_by(_RANGE.c.change).limit(1)).first()
                found[log] = None if row is None else (row.first, row.at)
        return found

    @staticmethod
    def joined(subscription: Table) -> Any:
        """Subscriptions with the request of each."""
        columns = (_ASK.c.document, _ASK.c.index_keys, _ASK.c.change)
        return select(subscription, *columns).join(_ASK, _ASK.c.number == subscription.c.ask)

    def _rekeyed(self, number: int) -> str:
        document = self.documents([number])[number]
        keys = keys_text(required_keys_of_document(document))
        with self._database.write() as connection:
            values: Mapping[str, Any] = {"index_keys": keys, "keys_version": KEYS_VERSION}
            connection.execute(update(_ASK).where(_ASK.c.number == number).values(**values))
        return keys

    @staticmethod
    def _next(connection: Connection) -> int:
        change = int(connection.execute(select(_CHANGE.c.change)).scalar() or 0) + 1
        add_or_replace(connection, _CHANGE, {"id": 1, "change": change}, ("id",))
        return change
