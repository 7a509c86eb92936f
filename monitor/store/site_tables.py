"""Tables of the subscribers' site: accounts, subscriptions, destinations, and waiting messages.

Tokens are never stored: a row holds the SHA-256 of one. Addresses, titles and targets are text that a visitor chose.
"""

from datetime import datetime

from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Index, LargeBinary, Text
from sqlmodel import Field

from monitor.store.sql import AnyText, Base, RowNumber, UtcTime


class SubscriberRow(Base, table=True):
    """An account: one confirmed address. `address_key` is the SHA-256 of the address in lower case."""

    __tablename__ = "subscriber"
    __table_args__ = (Index("subscriber_weekly", "weekly_due"),)
    id: str = Field(sa_column=Column(Text, primary_key=True))
    address: str = Field(sa_column=Column(AnyText, nullable=False))
    address_key: bytes = Field(sa_column=Column(LargeBinary, nullable=False, unique=True))
    confirmed_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))
    suspended_at: datetime | None = Field(sa_column=Column(UtcTime))
    suspended_why: str = Field(sa_column=Column(AnyText, nullable=False))
    weekly_due: datetime | None = Field(sa_column=Column(UtcTime))
    weekly_from: datetime = Field(sa_column=Column(UtcTime, nullable=False))


class InvitationRow(Base, table=True):
    """An address that the operator lets in where the site is for invited people only."""

    __tablename__ = "invitation"
    address_key: bytes = Field(sa_column=Column(LargeBinary, primary_key=True))
    created_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))


class SubscriptionRow(Base, table=True):
    """One person's subscription: `subject` is the name that was looked up, `title` what the person calls it."""

    __tablename__ = "subscription"
    __table_args__ = (Index("subscription_by_ask", "ask", "id"), Index("subscription_by_owner", "subscriber"))
    id: str = Field(sa_column=Column(Text, primary_key=True))
    subscriber: str = Field(sa_column=Column(Text, ForeignKey("subscriber.id"), nullable=False))
    ask: int = Field(sa_column=Column(BigInteger, ForeignKey("ask.number"), nullable=False))
    subject: str = Field(sa_column=Column(AnyText, nullable=False))
    title: str = Field(sa_column=Column(AnyText, nullable=False))
    created_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))


class SubscriptionAsk(Base, table=True):
    """The request of a subscription from a time on: the subscription saw the request's findings since then."""

    __tablename__ = "subscription_ask"
    subscription: str = Field(sa_column=Column(Text, primary_key=True))
    since: datetime = Field(sa_column=Column(UtcTime, primary_key=True))
    ask: int = Field(sa_column=Column(BigInteger, nullable=False))


class AnswerRow(Base, table=True):
    """A subscriber's answer about one signing: it was theirs (`mine`) or not. It counts for this signing alone."""

    __tablename__ = "answer"
    subscription: str = Field(sa_column=Column(Text, primary_key=True))
    log: str = Field(sa_column=Column(Text, primary_key=True))
    index: int = Field(sa_column=Column("entry", BigInteger, primary_key=True, autoincrement=False))
    mine: bool = Field(sa_column=Column(Boolean, nullable=False))
    at: datetime = Field(sa_column=Column(UtcTime, nullable=False))


class DestinationRow(Base, table=True):
    """Destination of a subscriber's messages. `target` is an address or URL; `secret` signs webhooks or names a feed.

    `former_secret` also signs until `former_until`, so that a receiver can change its own in between.
    """

    __tablename__ = "destination"
    __table_args__ = (Index("destination_subscriber", "subscriber"),)
    id: str = Field(sa_column=Column(Text, primary_key=True))
    subscriber: str = Field(sa_column=Column(Text, ForeignKey("subscriber.id"), nullable=False))
    kind: str = Field(sa_column=Column(Text, nullable=False))
    target: str = Field(sa_column=Column(AnyText, nullable=False))
    host: str = Field(sa_column=Column(AnyText, nullable=False))
    secret: str = Field(sa_column=Column(Text, nullable=False))
    former_secret: str = Field(sa_column=Column(Text, nullable=False))
    former_until: datetime | None = Field(sa_column=Column(UtcTime))
    state: str = Field(sa_column=Column(Text, nullable=False))
    created_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))
    failing_since: datetime | None = Field(sa_column=Column(UtcTime))
    bounces: int = Field(sa_column=Column(BigInteger, nullable=False))
    error: str = Field(sa_column=Column(AnyText, nullable=False))


class NoticeRow(Base, table=True):
    """One message on its way to one destination: an alert, or a letter (`document`) such as a sign-in link.

    `key` is the same at each attempt. The document of a letter is emptied once it was handed over.
    """

    __tablename__ = "notice"
    __table_args__ = (
        Index("notice_once", "key", unique=True),
        Index("notice_due", "state", "due_at"),
        Index("notice_destination", "destination", "state", "finished_at"),
        Index("notice_finished", "state", "finished_at"),
    )
    id: int | None = Field(default=None, sa_column=Column(RowNumber, primary_key=True, autoincrement=True))
    key: str = Field(sa_column=Column(Text, nullable=False))
    kind: str = Field(sa_column=Column(Text, nullable=False))
    destination: str = Field(sa_column=Column(Text, nullable=False))
    subscription: str | None = Field(sa_column=Column(Text))
    alert: str | None = Field(sa_column=Column(Text, ForeignKey("alert.id")))
    document: str = Field(sa_column=Column(AnyText, nullable=False))
    state: str = Field(sa_column=Column(Text, nullable=False))
    attempts: int = Field(sa_column=Column(BigInteger, nullable=False))
    enqueued_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))
    due_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))
    lease: str = Field(sa_column=Column(Text, nullable=False))
    leased_until: datetime | None = Field(sa_column=Column(UtcTime))
    digest: str | None = Field(sa_column=Column(Text))
    finished_at: datetime | None = Field(sa_column=Column(UtcTime))
    error: str = Field(sa_column=Column(AnyText, nullable=False))


class SessionRow(Base, table=True):
    """A browser that is signed in; `token_key` is the SHA-256 of its cookie."""

    __tablename__ = "session"
    __table_args__ = (Index("session_subscriber", "subscriber"),)
    token_key: bytes = Field(sa_column=Column(LargeBinary, primary_key=True))
    subscriber: str = Field(sa_column=Column(Text, ForeignKey("subscriber.id"), nullable=False))
    created_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))
    seen_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))


class LinkRow(Base, table=True):
    """A link in a mail, valid for one use: `token_key` is the SHA-256 of its token.

    `browser_key` is the SHA-256 of the cookie of the browser that asked. `payload` (JSON) says what the link does.
    """

    __tablename__ = "link"
    __table_args__ = (Index("link_expires", "expires_at"),)
    token_key: bytes = Field(sa_column=Column(LargeBinary, primary_key=True))
    purpose: str = Field(sa_column=Column(Text, nullable=False))
    address: str = Field(sa_column=Column(AnyText, nullable=False))
    browser_key: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    payload: str = Field(sa_column=Column(AnyText, nullable=False))
    expires_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))
    used_at: datetime | None = Field(sa_column=Column(UtcTime))


class ApiTokenRow(Base, table=True):
    """A token for scripts: `scope` is `read` or `write`."""

    __tablename__ = "api_token"
    __table_args__ = (Index("api_token_subscriber", "subscriber"),)
    token_key: bytes = Field(sa_column=Column(LargeBinary, primary_key=True))
    id: str = Field(sa_column=Column(Text, nullable=False))
    subscriber: str = Field(sa_column=Column(Text, ForeignKey("subscriber.id"), nullable=False))
    name: str = Field(sa_column=Column(AnyText, nullable=False))
    scope: str = Field(sa_column=Column(Text, nullable=False))
    created_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))
    used_at: datetime | None = Field(sa_column=Column(UtcTime))


class OperatorAction(Base, table=True):
    """An operator's action on an account.

    `subscriber` is an account's id, which identifies no person after the deletion.
    """

    __tablename__ = "operator_action"
    id: int | None = Field(default=None, sa_column=Column(RowNumber, primary_key=True, autoincrement=True))
    at: datetime = Field(sa_column=Column(UtcTime, nullable=False))
    who: str = Field(sa_column=Column(AnyText, nullable=False))
    action: str = Field(sa_column=Column(Text, nullable=False))
    subscriber: str = Field(sa_column=Column(Text, nullable=False))
    detail: str = Field(sa_column=Column(AnyText, nullable=False))


class StageCount(Base, table=True):
    """Times that each stage of a subscription was reached: asked, confirmed, told, bounced, left and others."""

    __tablename__ = "stage_count"
    stage: str = Field(sa_column=Column(Text, primary_key=True))
    entries: int = Field(sa_column=Column(BigInteger, nullable=False))


class RateRow(Base, table=True):
    """A counter of the `limits` library that outlives a restart and is shared by every process."""

    __tablename__ = "rate"
    __table_args__ = (Index("rate_expires", "expires_at"),)
    key: bytes = Field(sa_column=Column(LargeBinary, primary_key=True))
    entries: int = Field(sa_column=Column(BigInteger, nullable=False))
    expires_at: datetime = Field(sa_column=Column(UtcTime, nullable=False))
