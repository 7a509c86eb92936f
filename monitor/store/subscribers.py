"""Accounts of subscribers: addresses, sessions, links in mails, tokens, and subscriptions.

Each method is one transaction. Every query about a subscriber's data names the subscriber: another subscriber's id
is answered like an unknown one.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from msgspec import Struct
from sqlalchemy import Connection, delete, func, select, update

from monitor.store.asks import Asks
from monitor.store.authorisations import Authorisations, NumberedAuthorisation
from monitor.store.database import Database, lock_name
from monitor.store.destinations import READY, STOPPED, SUSPENDED, Destinations
from monitor.store.findings import SeenFact, add_known, set_past
from monitor.store.site_tables import (
    AnswerRow,
    ApiTokenRow,
    DestinationRow,
    InvitationRow,
    LinkRow,
    NoticeRow,
    OperatorAction,
    SessionRow,
    SubscriberRow,
    SubscriptionAsk,
    SubscriptionRow,
)
from monitor.store.sql import add_new, chunks, new_id, table, text_key, value_of
from monitor.store.stages import count, reached
from monitor.store.tables import AskRow
from rules.asking import Ask
from rules.facts import Authorisation
from rules.matching.matcher import PREFIX
from sigstore_entries.signing import EntryRef

WEEK: Final = timedelta(days=7)
_UNFILED: Final = timedelta(minutes=10)
"""Every process has taken over a change by then; each looks for changes every second (`monitor.daemon.daemon`)."""
KnownSignings = Sequence[tuple[EntryRef, SeenFact]]
"""Signings that a new request counts as its past."""

_SUBSCRIBER = table(SubscriberRow)
_SUBSCRIPTION = table(SubscriptionRow)
_DESTINATION = table(DestinationRow)
_SESSION = table(SessionRow)
_LINK = table(LinkRow)
_TOKEN = table(ApiTokenRow)
_ANSWER = table(AnswerRow)
_NOTICE = table(NoticeRow)
_ACTION = table(OperatorAction)
_INVITATION = table(InvitationRow)
_STOOD_FOR = table(SubscriptionAsk)


class Subscriber(Struct, frozen=True):
    """One account."""

    id: str
    address: str
    confirmed_at: datetime
    suspended_at: datetime | None
    suspended_why: str
    weekly_due: datetime | None
    weekly_from: datetime


class Subscription(Struct, frozen=True):
    """One subscription with the request it stands for: `document` is its JSON, `change` when that came in force."""

    id: str
    subscriber: str
    ask: int
    subject: str
    title: str
    created_at: datetime
    document: str
    change: int


class Link(Struct, frozen=True):
    """A link in a mail that is valid or was used."""

    token_key: bytes
    purpose: str
    address: str
    browser_key: bytes
    payload: Mapping[str, Any]
    expires_at: datetime
    used_at: datetime | None


class ApiToken(Struct, frozen=True):
    """A token for scripts, without the token."""

    id: str
    subscriber: str
    name: str
    scope: str
    created_at: datetime
    used_at: datetime | None


def address_key(address: str) -> bytes:
    """Key of an address in indexes, in lower case: mail servers take an address in any case."""
    return text_key(address.strip().lower())


class Subscribers:
    """Accounts in the database."""

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self.database, self.clock = database, clock
        self.asks = Asks(database)
        self.destinations = Destinations(database, clock)
        self._given = Authorisations(database)

    # Accounts

    def by_address(self, address: str) -> Subscriber | None:
        """The account of an address."""
        return self._subscriber(_SUBSCRIBER.c.address_key == address_key(address))

    def by_id(self, subscriber: str) -> Subscriber | None:
        """The account of an id."""
        return self._subscriber(_SUBSCRIBER.c.id == subscriber)

    def all(self, limit: int, after: str = "") -> list[Subscriber]:
        """Accounts in the order of their ids, `limit` of them after one."""
        chosen = select(_SUBSCRIBER).where(_SUBSCRIBER.c.id > after).order_by(_SUBSCRIBER.c.id).limit(limit)
        with self.database.read() as connection:
            return [value_of(Subscriber, row) for row in connection.execute(chosen)]

    def invite(self, address: str) -> None:
        """Invite an address to a site that is for invited people only."""
        with self.database.write() as connection:
            add_new(connection, _INVITATION, [{"address_key": address_key(address), "created_at": self.clock()}])

    def is_invited(self, address: str) -> bool:
        """True if an address was let in."""
        found = select(_INVITATION.c.address_key).where(_INVITATION.c.address_key == address_key(address))
        with self.database.read() as connection:
            return connection.execute(found).first() is not None

    def set_weekly(self, subscriber: str, *, on: bool) -> None:
        """Turn the weekly mail on or off."""
        due = self.clock() + WEEK if on else None
        with self.database.write() as connection:
            connection.execute(update(_SUBSCRIBER).where(_SUBSCRIBER.c.id == subscriber).values(weekly_due=due))

    def suspend(self, subscriber: str, why: str, who: str) -> None:
        """Stop messages to an account, or with an empty `why` resume them; an operator's action, recorded."""
        at = self.clock() if why else None
        with self.database.write() as connection:
            connection.execute(
                update(_SUBSCRIBER).where(_SUBSCRIBER.c.id == subscriber).values(suspended_at=at, suspended_why=why)
            )
            if why:
                connection.execute(delete(_SESSION).where(_SESSION.c.subscriber == subscriber))
            self._act(connection, who, "suspend" if why else "resume", subscriber, why)

    def delete(self, subscriber: str, who: str = "") -> bool:
        """Delete an account and every row with its address; a deletion by an operator (`who`) is recorded."""
        with self.database.write() as connection:
            found = connection.execute(select(_SUBSCRIBER).where(_SUBSCRIBER.c.id == subscriber)).first()
            if found is None:
                return False
            mine = select(_SUBSCRIPTION).where(_SUBSCRIPTION.c.subscriber == subscriber)
            rows = connection.execute(mine).all()
            destinations = select(_DESTINATION.c.id).where(_DESTINATION.c.subscriber == subscriber)
            connection.execute(delete(_NOTICE).where(_NOTICE.c.destination.in_(destinations)))
            for part in chunks([row.id for row in rows]):
                connection.execute(delete(_ANSWER).where(_ANSWER.c.subscription.in_(part)))
                connection.execute(delete(_STOOD_FOR).where(_STOOD_FOR.c.subscription.in_(part)))
            for owned in (_SUBSCRIPTION, _DESTINATION, _SESSION, _TOKEN):
                connection.execute(delete(owned).where(owned.c.subscriber == subscriber))
            for row in rows:
                self.asks.release(connection, row.ask, self.clock())
            # Links and letters hold the address as text, so they are deleted too.
            connection.execute(delete(_LINK).where(_LINK.c.address == found.address))
            connection.execute(
                delete(_NOTICE).where(
                    _NOTICE.c.destination == "", _NOTICE.c.document.contains(json.dumps(found.address))
                )
            )
            connection.execute(delete(_INVITATION).where(_INVITATION.c.address_key == found.address_key))
            connection.execute(delete(_SUBSCRIBER).where(_SUBSCRIBER.c.id == subscriber))
            count(connection, "left")
            if who:
                self._act(connection, who, "delete", subscriber, "")
        return True

    def record_action(self, who: str, action: str, subscriber: str, detail: str = "") -> None:
        """Record an operator's action that changes nothing else, such as reading an account."""
        with self.database.write() as connection:
            self._act(connection, who, action, subscriber, detail)

    def actions(self, limit: int) -> list[Mapping[str, Any]]:
        """Newest actions of operators."""
        with self.database.read() as connection:
            found = connection.execute(select(_ACTION).order_by(_ACTION.c.id.desc()).limit(limit))
            return [dict(row) for row in found.mappings()]

    # Sessions

    def open_session(self, token: str, subscriber: str) -> None:
        """Remember a browser that signed in."""
        now = self.clock()
        row = {"token_key": text_key(token), "subscriber": subscriber, "created_at": now, "seen_at": now}
        with self.database.write() as connection:
            add_new(connection, _SESSION, [row])

    def session(self, token: str, idle: timedelta, absolute: timedelta) -> Subscriber | None:
        """Account of a cookie's session; `None` when it ended. Notes its use at most every few minutes."""
        now, key = self.clock(), text_key(token)
        found = (
            select(_SUBSCRIBER, _SESSION.c.seen_at)
            .join(_SESSION, _SESSION.c.subscriber == _SUBSCRIBER.c.id)
            .where(_SESSION.c.token_key == key, _SESSION.c.seen_at > now - idle, _SESSION.c.created_at > now - absolute)
        )
        with self.database.read() as connection:
            row = connection.execute(found).first()
        if row is None or row.suspended_at is not None:
            return None
        if now - row.seen_at > timedelta(minutes=5):
            with self.database.write() as connection:
                connection.execute(update(_SESSION).where(_SESSION.c.token_key == key).values(seen_at=now))
        return value_of(Subscriber, row)

    def close_session(self, token: str) -> None:
        """Sign one browser out."""
        with self.database.write() as connection:
            connection.execute(delete(_SESSION).where(_SESSION.c.token_key == text_key(token)))

    def close_sessions(self, subscriber: str) -> None:
        """Sign every browser of an account out."""
        with self.database.write() as connection:
            connection.execute(delete(_SESSION).where(_SESSION.c.subscriber == subscriber))

    def sessions(self, subscriber: str) -> int:
        """Number of browsers that are signed in."""
        counted = select(func.count()).select_from(_SESSION).where(_SESSION.c.subscriber == subscriber)
        with self.database.read() as connection:
            return int(connection.execute(counted).scalar_one())

    # Links

    def link(self, token: str) -> Link | None:
        """The link of a token, used or not, as long as it is kept."""
        with self.database.read() as connection:
            row = connection.execute(select(_LINK).where(_LINK.c.token_key == text_key(token))).first()
        return None if row is None else _link(row)

    def sign_in(self, token: str, browser: str) -> Subscriber | None:
        """Use a sign-in link in the browser that asked for it; `None` when it cannot be."""
        with self.database.write() as connection:
            link = self._use(connection, token, "sign-in")
            if link is None or link.browser_key != text_key(browser):
                connection.rollback()
                return None
            wanted = _SUBSCRIBER.c.address_key == address_key(link.address)
            row = connection.execute(select(_SUBSCRIBER).where(wanted)).first()
        return None if row is None or row.suspended_at is not None else value_of(Subscriber, row)

    def confirm(self, token: str, known: KnownSignings = ()) -> tuple[Subscriber, Subscription] | None:
        """Use a confirming link: it makes the account and the subscription, both or neither."""
        with self.database.write() as connection:
            link = self._use(connection, token, "confirm")
            if link is None:
                return None
            subscriber = self._proven(connection, link.address)
            payload = link.payload
            made = self._subscribe(
                connection,
                subscriber.id,
                Ask(payload["document"], payload["keys"]),
                payload["subject"],
                payload["title"],
                known=known,
            )
        return subscriber, made

    def accept(self, token: str, known: KnownSignings = ()) -> tuple[Subscriber, Subscription] | None:
        """Use a link that shares or hands over a subscription: a copy is made, or it changes its owner.

        A copy begins with the public past `known`: answers and announcements are not copied.
        """
        with self.database.write() as connection:
            link = self._use(connection, token, "share")
            if link is None:
                return None
            chosen = self._of(link.payload["subscription"], link.payload["subscriber"])
            row = connection.execute(chosen).first()
            if row is None:
                return None
            receiver = self._proven(connection, link.address)
            if link.payload["hand_over"]:
                mine = _SUBSCRIPTION.c.id == row.id
                connection.execute(update(_SUBSCRIPTION).where(mine).values(subscriber=receiver.id))
                moved = connection.execute(self._of(row.id, receiver.id)).one()
                return receiver, value_of(Subscription, moved)
            copied = Ask(row.document, row.index_keys)
            made = self._subscribe(connection, receiver.id, copied, row.subject, row.title, known=known)
        return receiver, made

    def ensure(self, connection: Connection, address: str) -> Subscriber:
        """The account of a confirmed address, made with its mail destination where there was none."""
        now, key = self.clock(), address_key(address)
        lock_name(connection, "subscriber")
        row = connection.execute(select(_SUBSCRIBER).where(_SUBSCRIBER.c.address_key == key)).first()
        if row is None:
            values = {
                "id": new_id(),
                "address": address,
                "address_key": key,
                "confirmed_at": now,
                "suspended_why": "",
                "weekly_due": now + WEEK,
                "weekly_from": now,
            }
            connection.execute(_SUBSCRIBER.insert(), values)
            self.destinations.insert(
                connection, str(values["id"]), "mail", address, host=address.rpartition("@")[2], secret="", state=READY
            )
            row = connection.execute(select(_SUBSCRIBER).where(_SUBSCRIBER.c.address_key == key)).one()
        return value_of(Subscriber, row)

    def ensure_account(self, address: str) -> Subscriber:
        """`ensure` for an address that a login service proved, or that an operator imports."""
        with self.database.write() as connection:
            return self.ensure(connection, address)

    # Subscriptions

    def subscribe(self, subscriber: str, ask: Ask, subject: str, title: str, known: KnownSignings = ()) -> Subscription:
        """Subscribe a confirmed account. `known` is what a request that is judged by its past has seen already."""
        with self.database.write() as connection:
            return self._subscribe(connection, subscriber, ask, subject, title, known=known)

    def subscriptions(self, subscriber: str) -> list[Subscription]:
        """Subscriptions of an account, oldest first."""
        chosen = self._of(None, subscriber).order_by(_SUBSCRIPTION.c.created_at, _SUBSCRIPTION.c.id)
        with self.database.read() as connection:
            return [value_of(Subscription, row) for row in connection.execute(chosen)]

    def subscription(self, subscription: str, subscriber: str | None) -> Subscription | None:
        """One subscription of an account; of any account only for links that name the subscription themselves."""
        with self.database.read() as connection:
            row = connection.execute(self._of(subscription, subscriber)).first()
        return None if row is None else value_of(Subscription, row)

    def change(self, subscription: str, subscriber: str, ask: Ask, title: str, known: KnownSignings = ()) -> bool:
        """Replace selection and expectation of a subscription.

        An existing past stays; otherwise it begins with `known`.
        """
        with self.database.write() as connection:
            row = connection.execute(self._of(subscription, subscriber)).first()
            if row is None:
                return False
            number = self.asks.hold(connection, ask, subscription)
            mine = _SUBSCRIPTION.c.id == subscription
            connection.execute(update(_SUBSCRIPTION).where(mine).values(ask=number, title=title))
            if number != row.ask:
                stands = {"subscription": subscription, "since": self.clock(), "ask": number}
                add_new(connection, _STOOD_FOR, [stands])
                if ask.by_past:
                    add_known(connection, f"{PREFIX}{number}", known)
                self.asks.release(connection, row.ask, self.clock())
        return True

    def unsubscribe(self, subscription: str, subscriber: str | None) -> bool:
        """End one subscription; true also when it had ended before."""
        with self.database.write() as connection:
            row = connection.execute(self._of(subscription, subscriber)).first()
            if row is None:
                return False
            connection.execute(delete(_ANSWER).where(_ANSWER.c.subscription == subscription))
            connection.execute(delete(_STOOD_FOR).where(_STOOD_FOR.c.subscription == subscription))
            connection.execute(delete(_SUBSCRIPTION).where(_SUBSCRIPTION.c.id == subscription))
            self.asks.release(connection, row.ask, self.clock())
            count(connection, "left")
        return True

    def stood_for(self, subscription: str) -> list[tuple[int, datetime]]:
        """Earlier and present requests of a subscription with their beginnings, oldest first."""
        chosen = select(_STOOD_FOR.c.ask, _STOOD_FOR.c.since).where(_STOOD_FOR.c.subscription == subscription)
        with self.database.read() as connection:
            return [(row.ask, row.since) for row in connection.execute(chosen.order_by(_STOOD_FOR.c.since))]

    def answer(self, subscription: str, log: str, index: int, *, mine: bool) -> None:
        """Record a subscriber's answer about one signing; the last answer counts.

        A signing that was theirs counts as the past of this subscription, any other one does not.
        """
        here = (_ANSWER.c.subscription == subscription, _ANSWER.c.log == log, _ANSWER.c.entry == index)
        row = {"subscription": subscription, "log": log, "entry": index, "mine": mine, "at": self.clock()}
        with self.database.write() as connection:
            connection.execute(delete(_ANSWER).where(*here))
            add_new(connection, _ANSWER, [row])
            asks = select(_STOOD_FOR.c.ask).where(_STOOD_FOR.c.subscription == subscription)
            for number in connection.execute(asks).scalars().all():
                # A shared request has no expectation about its past.
                if self.asks.owner(connection, number) == subscription:
                    set_past(connection, EntryRef(log, index), f"{PREFIX}{number}", past=mine)

    def answers(self, subscription: str) -> dict[tuple[str, int], bool]:
        """Answers about signings, by log and index."""
        with self.database.read() as connection:
            rows = connection.execute(select(_ANSWER).where(_ANSWER.c.subscription == subscription))
            return {(row.log, row.entry): row.mine for row in rows}

    # Announcements

    def announce(self, subscription: str, authorisation: Authorisation) -> int | None:
        """Announce signings to a subscription that expects only announced ones; `None` for any other."""
        rule = self._announced_to(subscription)
        return None if rule is None else self._given.add(rule, authorisation, self.clock())

    def announced(self, subscription: str) -> list[NumberedAuthorisation]:
        """Announcements in force for a subscription, oldest first, expired and used up ones included."""
        rule = self._announced_to(subscription)
        return [] if rule is None else self._given.of_rule(rule)

    def withdraw(self, subscription: str, number: int) -> bool:
        """End an announcement of a subscription; false when it has none of this number in force."""
        rule = self._announced_to(subscription)
        mine = rule is not None and any(each.number == number for each in self._given.of_rule(rule))
        return mine and self._given.revoke(number, self.clock())

    def _announced_to(self, subscription: str) -> str | None:
        """The rule of a subscription with a request of its own; otherwise `None`."""
        with self.database.read() as connection:
            row = connection.execute(self._of(subscription, None)).first()
            if row is None or self.asks.owner(connection, row.ask) != subscription:
                return None
        return f"{PREFIX}{row.ask}"

    # Tokens

    def add_token(self, subscriber: str, token: str, name: str, scope: str) -> None:
        """Remember a token for scripts by its hash."""
        row = {
            "token_key": text_key(token),
            "id": new_id(),
            "subscriber": subscriber,
            "name": name,
            "scope": scope,
            "created_at": self.clock(),
        }
        with self.database.write() as connection:
            add_new(connection, _TOKEN, [row])

    def tokens(self, subscriber: str) -> list[ApiToken]:
        """Tokens of an account, oldest first."""
        chosen = select(_TOKEN).where(_TOKEN.c.subscriber == subscriber).order_by(_TOKEN.c.created_at, _TOKEN.c.id)
        with self.database.read() as connection:
            return [value_of(ApiToken, row) for row in connection.execute(chosen)]

    def revoke_token(self, token_id: str, subscriber: str) -> bool:
        """End one token of an account."""
        with self.database.write() as connection:
            mine = (_TOKEN.c.id == token_id, _TOKEN.c.subscriber == subscriber)
            return connection.execute(delete(_TOKEN).where(*mine)).rowcount == 1

    def by_token(self, token: str) -> tuple[Subscriber, str] | None:
        """Account of a token, and the token's scope."""
        now = self.clock()
        chosen = select(_TOKEN).where(_TOKEN.c.token_key == text_key(token))
        with self.database.read() as connection:
            row = connection.execute(chosen).first()
        if row is None:
            return None
        if row.used_at is None or now - row.used_at > timedelta(minutes=5):
            with self.database.write() as connection:
                connection.execute(update(_TOKEN).where(_TOKEN.c.token_key == row.token_key).values(used_at=now))
        subscriber = self.by_id(row.subscriber)
        return None if subscriber is None or subscriber.suspended_at is not None else (subscriber, row.scope)

    # Numbers

    def count(self, stage: str, more: int = 1) -> None:
        """Count a stage that was reached."""
        with self.database.write() as connection:
            count(connection, stage, more)

    def stats(self) -> dict[str, int]:
        """Number of times that each stage was reached, and the present numbers."""
        counted = {
            "subscribers": select(func.count()).select_from(_SUBSCRIBER),
            "subscriptions": select(func.count()).select_from(_SUBSCRIPTION),
            "destinations": select(func.count()).select_from(_DESTINATION),
            "destinations_suspended": select(func.count())
            .select_from(_DESTINATION)
            .where(_DESTINATION.c.state == SUSPENDED),
        }
        with self.database.read() as connection:
            now = {name: int(connection.execute(each).scalar_one()) for name, each in counted.items()}
            return reached(connection) | now

    def forget_old(self, before: datetime) -> None:
        """Delete links that ended before a moment, with their addresses, and sessions unused for two months.

        The texts of ended requests are deleted minutes after their end, when every process has removed them from its
        index.
        """
        self.asks.forget_ended(self.clock() - _UNFILED)
        with self.database.write() as connection:
            connection.execute(delete(_LINK).where(_LINK.c.expires_at < before))
            connection.execute(delete(_SESSION).where(_SESSION.c.seen_at < before - timedelta(days=60)))

    # Within a transaction

    def _proven(self, connection: Connection, address: str) -> Subscriber:
        """The account of an address whose reader just followed a link in a mail: mails arrive and are wanted."""
        subscriber = self.ensure(connection, address)
        held = (_DESTINATION.c.subscriber == subscriber.id, _DESTINATION.c.state.in_((STOPPED, SUSPENDED)))
        mine = (_DESTINATION.c.kind == "mail", func.lower(_DESTINATION.c.target) == address.lower())
        values = {"state": READY, "failing_since": None, "bounces": 0, "error": ""}
        connection.execute(update(_DESTINATION).where(*held, *mine).values(**values))
        return subscriber

    def _subscribe(
        self, connection: Connection, subscriber: str, ask: Ask, subject: str, title: str, *, known: KnownSignings
    ) -> Subscription:
        same = self._of(None, subscriber).where(table(AskRow).c.document == ask.document)
        there = connection.execute(same).first()
        if there is not None:
            return value_of(Subscription, there)
        made = new_id()
        number = self.asks.hold(connection, ask, made)
        row = {"id": made, "subscriber": subscriber, "ask": number, "subject": subject, "title": title}
        connection.execute(_SUBSCRIPTION.insert(), row | {"created_at": self.clock()})
        add_new(connection, _STOOD_FOR, [{"subscription": made, "since": self.clock(), "ask": number}])
        if ask.by_past:
            add_known(connection, f"{PREFIX}{number}", known)
        count(connection, "confirmed")
        return value_of(Subscription, connection.execute(self._of(made, subscriber)).one())

    def _use(self, connection: Connection, token: str, purpose: str) -> Link | None:
        """Take an unused link; a second use in another transaction finds it used."""
        now = self.clock()
        here = (
            _LINK.c.token_key == text_key(token),
            _LINK.c.purpose == purpose,
            _LINK.c.used_at.is_(None),
            _LINK.c.expires_at > now,
        )
        if connection.execute(update(_LINK).where(*here).values(used_at=now)).rowcount != 1:
            return None
        return _link(connection.execute(select(_LINK).where(_LINK.c.token_key == text_key(token))).one())

    def _subscriber(self, condition: Any) -> Subscriber | None:
        with self.database.read() as connection:
            row = connection.execute(select(_SUBSCRIBER).where(condition)).first()
        return None if row is None else value_of(Subscriber, row)

    def _act(self, connection: Connection, who: str, action: str, subscriber: str, detail: str) -> None:
        row = {"at": self.clock(), "who": who, "action": action, "subscriber": subscriber, "detail": detail}
        connection.execute(_ACTION.insert(), row)

    def _of(self, subscription: str | None, subscriber: str | None) -> Any:
        chosen = self.asks.joined(_SUBSCRIPTION)
        if subscription is not None:
            chosen = chosen.where(_SUBSCRIPTION.c.id == subscription)
        return chosen if subscriber is None else chosen.where(_SUBSCRIPTION.c.subscriber == subscriber)


def add_link(
    connection: Connection,
    token: str,
    *,
    purpose: str,
    address: str,
    browser: str,
    payload: Mapping[str, Any],
    expires_at: datetime,
) -> None:
    """Store a link by the hash of its token."""
    row = {
        "token_key": text_key(token),
        "purpose": purpose,
        "address": address,
        "browser_key": text_key(browser),
        "payload": json.dumps(payload),
        "expires_at": expires_at,
    }
    add_new(connection, _LINK, [row])


def _link(row: Any) -> Link:
    return Link(
        row.token_key,
        row.purpose,
        row.address,
        row.browser_key,
        json.loads(row.payload),
        row.expires_at,
        row.used_at,
    )
