"""Messages to subscribers: one queue over destinations of all kinds.

Delivery is at least once, with the same key each time. A claim leases a bounded number of messages; their results are
written together. A failing destination waits alone.
"""

import json
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from msgspec import Struct
from sqlalchemy import Connection, and_, bindparam, delete, func, or_, select, update

from alerts.alert import Alert
from monitor.store.database import Database
from monitor.store.destinations import READY, SUSPENDED
from monitor.store.outbox import DELIVERED, GIVEN_UP, PENDING, WITHDRAWN
from monitor.store.site_tables import DestinationRow, NoticeRow, SubscriberRow, SubscriptionRow
from monitor.store.sql import add_new, chunks, table
from monitor.store.stages import count
from monitor.store.tables import AlertRow

ALERT: Final = "alert"
LETTER: Final = "letter"
_FORGOTTEN: Final = 1_000

_NOTICE = table(NoticeRow)
_ALERT = table(AlertRow)
_DESTINATION = table(DestinationRow)
_SUBSCRIPTION = table(SubscriptionRow)
_SUBSCRIBER = table(SubscriberRow)


class Notice(Struct, frozen=True):
    """One message that was claimed. A letter has a `document`; an alert has a subscription and its `alert`."""

    id: int
    key: str
    kind: str
    destination: str
    subscription: str | None
    alert: Alert | None
    document: Mapping[str, Any]
    attempts: int
    enqueued_at: datetime
    digest: str | None
    lease: str


class Result(Struct, frozen=True):
    """Result of sending one notice: delivered (no `error`), given up (`final`), or retried at `retry_at`."""

    notice: Notice
    error: str = ""
    final: bool = False
    retry_at: datetime | None = None


class Notices:
    """The queue in the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def expand(self, alert: str, ask: int, now: datetime, chunk: int) -> int:
        """Put an alert into the queue of every destination of its subscribers; returns the number of new messages.

        In chunks, each a transaction: a repeated expansion adds only the missing messages.
        """
        added, after = 0, ""
        while True:
            with self._database.write() as connection:
                rows = connection.execute(
                    select(_SUBSCRIPTION.c.id, _SUBSCRIPTION.c.subscriber)
                    .join(_SUBSCRIBER, _SUBSCRIBER.c.id == _SUBSCRIPTION.c.subscriber)
                    .where(_SUBSCRIPTION.c.ask == ask, _SUBSCRIPTION.c.id > after, _SUBSCRIBER.c.suspended_at.is_(None))
                    .order_by(_SUBSCRIPTION.c.id)
                    .limit(chunk)
                ).all()
                if not rows:
                    return added
                added += self._add_alerts(connection, alert, rows, now)
            after = rows[-1].id

    def _add_alerts(self, connection: Connection, alert: str, rows: Sequence[Any], now: datetime) -> int:
        by_subscriber = {row.subscriber: row.id for row in rows}
        found: list[dict[str, Any]] = []
        for part in chunks(list(by_subscriber)):
            ready = and_(_DESTINATION.c.subscriber.in_(part), _DESTINATION.c.state == READY)
            for row in connection.execute(select(_DESTINATION.c.id, _DESTINATION.c.subscriber).where(ready)):
                subscription = by_subscriber[row.subscriber]
                found.append(_row(f"{alert}:{row.id}", ALERT, row.id, now, subscription=subscription, alert=alert))
        before = self._count(connection)
        add_new(connection, _NOTICE, found)
        return self._count(connection) - before

    @staticmethod
    def _count(connection: Connection) -> int:
        # The newest number, not a count of rows: the table may hold millions.
        return int(connection.execute(select(func.max(_NOTICE.c.id))).scalar() or 0)

    def release(self) -> None:
        """End every lease. Only for the holder of the daemon's lock."""
        held = and_(_NOTICE.c.state == PENDING, _NOTICE.c.leased_until.is_not(None))
        with self._database.write() as connection:
            connection.execute(update(_NOTICE).where(held).values(leased_until=None))

    def claim(self, now: datetime, lease: timedelta, limit: int) -> list[Notice]:
        """Lease due messages, those without a failure first, and all members of a digest with its first one."""
        due = and_(
            _NOTICE.c.state == PENDING,
            _NOTICE.c.due_at <= now,
            or_(_NOTICE.c.leased_until.is_(None), _NOTICE.c.leased_until <= now),
        )
        token = secrets.token_hex(8)
        with self._database.write() as connection:
            order = (_NOTICE.c.attempts, _NOTICE.c.due_at, _NOTICE.c.id)
            chosen = select(_NOTICE.c.id, _NOTICE.c.digest).where(due).order_by(*order).limit(limit)
            rows = connection.execute(chosen.with_for_update(skip_locked=True)).all()
            ids = {row.id for row in rows}
            for part in chunks(sorted({row.digest for row in rows if row.digest is not None})):
                ids.update(connection.execute(select(_NOTICE.c.id).where(due, _NOTICE.c.digest.in_(part))).scalars())
            ordered = sorted(ids)
            for part in chunks(ordered):
                leased = update(_NOTICE).where(_NOTICE.c.id.in_(part))
                connection.execute(leased.values(lease=token, leased_until=now + lease))
            found: list[Notice] = []
            for part in chunks(ordered):
                joined = select(_NOTICE, _ALERT.c.document.label("alert_document")).join(
                    _ALERT, _ALERT.c.id == _NOTICE.c.alert, isouter=True
                )
                found += [_notice(row) for row in connection.execute(joined.where(_NOTICE.c.id.in_(part)))]
        return found

    def destinations(self, ids: Sequence[str]) -> dict[str, Any]:
        """Rows of destinations by id, with the address of the account each belongs to."""
        found: dict[str, Any] = {}
        joined = select(_DESTINATION, _SUBSCRIBER.c.address, _SUBSCRIBER.c.suspended_at).join(
            _SUBSCRIBER, _SUBSCRIBER.c.id == _DESTINATION.c.subscriber
        )
        with self._database.read() as connection:
            for part in chunks(list(ids)):
                rows = connection.execute(joined.where(_DESTINATION.c.id.in_(part)))
                found.update({row.id: row for row in rows})
        return found

    def subscriptions(self, ids: Sequence[str]) -> dict[str, Any]:
        """Rows of subscriptions by id."""
        found: dict[str, Any] = {}
        with self._database.read() as connection:
            for part in chunks(list(ids)):
                rows = connection.execute(select(_SUBSCRIPTION).where(_SUBSCRIPTION.c.id.in_(part)))
                found.update({row.id: row for row in rows})
        return found

    def sent_since(self, ids: Sequence[str], since: datetime) -> dict[str, int]:
        """Number of messages to each destination since a moment; a digest counts once."""
        alone = func.coalesce(_NOTICE.c.digest, _NOTICE.c.key)
        found: dict[str, int] = {}
        with self._database.read() as connection:
            for part in chunks(list(ids)):
                chosen = (
                    select(_NOTICE.c.destination, func.count(alone.distinct()))
                    .where(
                        _NOTICE.c.destination.in_(part), _NOTICE.c.state == DELIVERED, _NOTICE.c.finished_at >= since
                    )
                    .group_by(_NOTICE.c.destination)
                )
                found.update({row[0]: int(row[1]) for row in connection.execute(chosen)})
        return found

    def bundle(self, notices: Sequence[Notice], digest: str) -> None:
        """Combine messages into one, for this and each later attempt."""
        with self._database.write() as connection:
            for part in chunks([notice.id for notice in notices]):
                connection.execute(update(_NOTICE).where(_NOTICE.c.id.in_(part)).values(digest=digest))

    def postpone(self, notices: Sequence[Notice], until: datetime) -> None:
        """Put messages off without counting an attempt."""
        with self._database.write() as connection:
            for part in chunks([notice.id for notice in notices]):
                held = and_(_NOTICE.c.id.in_(part), _NOTICE.c.lease == notices[0].lease)
                connection.execute(update(_NOTICE).where(held).values(due_at=until, leased_until=None))

    def finish(self, results: Sequence[Result], now: datetime) -> None:
        """Write the results of messages, in one transaction."""
        done = [each for each in results if not each.error]
        with self._database.write() as connection:
            for part in chunks([each.notice.id for each in done]):
                values = {"state": DELIVERED, "finished_at": now, "leased_until": None, "document": "{}", "error": ""}
                connection.execute(update(_NOTICE).where(_NOTICE.c.id.in_(part)).values(**values))
            for part in chunks([each.notice.id for each in results if each.error and each.final]):
                values = {"state": GIVEN_UP, "finished_at": now, "leased_until": None, "document": "{}"}
                connection.execute(update(_NOTICE).where(_NOTICE.c.id.in_(part)).values(**values))
            failed = [
                {
                    "notice_id": each.notice.id,
                    "new_error": each.error,
                    "new_attempts": each.notice.attempts + 1,
                    "new_due": each.retry_at or now,
                }
                for each in results
                if each.error
            ]
            if failed:
                again = update(_NOTICE).where(_NOTICE.c.id == bindparam("notice_id"))
                values = {
                    "error": bindparam("new_error"),
                    "attempts": bindparam("new_attempts"),
                    "due_at": bindparam("new_due"),
                    "leased_until": None,
                }
                connection.execute(again.values(**values), failed)
            told = sum(1 for each in done if each.notice.kind == ALERT)
            if told:
                count(connection, "told", told)

    def destination_well(self, ids: Sequence[str]) -> None:
        """Record that destinations accepted a message, which ends earlier trouble."""
        with self._database.write() as connection:
            for part in chunks(list(ids)):
                trouble = or_(_DESTINATION.c.failing_since.is_not(None), _DESTINATION.c.bounces > 0)
                connection.execute(
                    update(_DESTINATION)
                    .where(_DESTINATION.c.id.in_(part), trouble)
                    .values(failing_since=None, bounces=0, error="")
                )

    def destination_failed(
        self, destination: str, error: str, now: datetime, *, bounced: bool, bounces_allowed: int, patience: timedelta
    ) -> bool:
        """Record that a destination refused; true when this suspends it and withdraws its waiting messages."""
        with self._database.write() as connection:
            row = connection.execute(select(_DESTINATION).where(_DESTINATION.c.id == destination)).first()
            if row is None or row.state != READY:
                return False
            since, bounces = row.failing_since or now, row.bounces + bounced
            ends = bounces >= bounces_allowed or now - since >= patience
            values = {"failing_since": since, "bounces": bounces, "error": error}
            if ends:
                values["state"] = SUSPENDED
                count(connection, "suspended")
            connection.execute(update(_DESTINATION).where(_DESTINATION.c.id == destination).values(**values))
            if ends:
                waiting = and_(_NOTICE.c.destination == destination, _NOTICE.c.state == PENDING)
                connection.execute(update(_NOTICE).where(waiting).values(state=WITHDRAWN, finished_at=now))
        return ends

    def put_letter(
        self,
        connection: Connection,
        key: str,
        document: Mapping[str, Any],
        now: datetime,
        *,
        destination: str = "",
        withdrawn: bool = False,
    ) -> None:
        """Put a letter into the queue within a transaction; `withdrawn` writes the same row without sending it."""
        row = _row(key, LETTER, destination, now, document=json.dumps(document) if not withdrawn else "{}")
        ended = {"state": WITHDRAWN, "finished_at": now} if withdrawn else {"state": PENDING, "finished_at": None}
        add_new(connection, _NOTICE, [row | ended])

    def backlog(self) -> tuple[int, datetime | None]:
        """Number of messages that wait, and the time since which the oldest waits."""
        chosen = select(func.count(), func.min(_NOTICE.c.enqueued_at)).where(_NOTICE.c.state == PENDING)
        with self._database.read() as connection:
            number, oldest = connection.execute(chosen).one()
        return int(number), oldest

    def due_at(self, now: datetime) -> bool:
        """True if a message is due."""
        chosen = select(_NOTICE.c.id).where(_NOTICE.c.state == PENDING, _NOTICE.c.due_at <= now).limit(1)
        with self._database.read() as connection:
            return connection.execute(chosen).first() is not None

    def forget_old(self, before: datetime) -> None:
        """Forget messages that ended before a moment, some at a time: following must come between."""
        ended = and_(_NOTICE.c.state != PENDING, _NOTICE.c.finished_at < before)
        while True:
            with self._database.write() as connection:
                some = connection.execute(select(_NOTICE.c.id).where(ended).limit(_FORGOTTEN)).scalars().all()
                for part in chunks(some):
                    connection.execute(delete(_NOTICE).where(_NOTICE.c.id.in_(part)))
            if len(some) < _FORGOTTEN:
                return


def _row(
    key: str,
    kind: str,
    destination: str,
    now: datetime,
    *,
    subscription: str | None = None,
    alert: str | None = None,
    document: str = "{}",
) -> dict[str, Any]:
    return {
        "key": key,
        "kind": kind,
        "destination": destination,
        "subscription": subscription,
        "alert": alert,
        "document": document,
        "state": PENDING,
        "attempts": 0,
        "enqueued_at": now,
        "due_at": now,
        "lease": "",
        "error": "",
    }


def _notice(row: Any) -> Notice:
    return Notice(
        id=row.id,
        key=row.key,
        kind=row.kind,
        destination=row.destination,
        subscription=row.subscription,
        alert=None if row.alert_document is None else Alert.from_json(json.loads(row.alert_document)),
        document=json.loads(row.document),
        attempts=row.attempts,
        enqueued_at=row.enqueued_at,
        digest=row.digest,
        lease=row.lease,
    )
