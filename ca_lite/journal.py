"""The issuance journal: every certificate of this CA, recorded before the precertificate goes to the CT log."""

import threading
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from msgspec import Struct
from sqlalchemy import (
    URL,
    Column,
    Connection,
    Engine,
    Insert,
    LargeBinary,
    Table,
    Update,
    bindparam,
    event,
    insert,
    update,
)
from sqlalchemy.exc import NoResultFound, SQLAlchemyError
from sqlmodel import Field, Session, SQLModel, col, create_engine, select

from ca_lite.errors import ConfigError

_VERSION: Final = 1
REQUESTED: Final = "requested"
ISSUED: Final = "issued"
FAILED: Final = "failed"


class Issuance(SQLModel, table=True):
    """One request that passed every check.

    `state` is `requested` from before the CT log is asked, then `issued` or `failed`. A row that stays at `requested`
    comes from a crash in between: the CT log may hold a precertificate for which no client got a certificate.
    """

    __tablename__ = "issuance"

    id: int | None = Field(default=None, primary_key=True)
    request_id: str = Field(index=True)
    serial: str = Field(index=True, unique=True)  # lower-case hex
    name_form: str
    name: str = Field(index=True)
    issuer: str = Field(index=True)
    subject: str
    not_before: datetime
    not_after: datetime
    state: str
    sct_timestamp: int | None = None  # milliseconds since the epoch
    certificate: bytes | None = Field(default=None, sa_column=Column(LargeBinary))


_TABLE: Final[Table] = SQLModel.metadata.tables["issuance"]
# Made once, and filled in for each row: making them anew with the row's values took a third of issuing a certificate.
_REQUESTED: Final = insert(_TABLE)
_ENDED: Final = (
    update(_TABLE)
    .where(_TABLE.c.serial == bindparam("of_serial"))
    .values(state=bindparam("state"), sct_timestamp=bindparam("sct_timestamp"), certificate=bindparam("certificate"))
)


class _Waiting(Struct):
    """A statement for one row: `done` after it was tried; then `error` is `None` if it is on disk."""

    statement: Insert | Update
    row: Mapping[str, Any]
    done: bool = False
    error: SQLAlchemyError | None = None

    def ended(self, error: SQLAlchemyError | None) -> None:
        """Record that the statement was tried, and its error."""
        self.done, self.error = True, error


class Journal:
    """Rows in one SQLite file; safe to share between threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._queue: list[_Waiting] = []
        self._queue_lock = threading.Lock()
        self._writing = threading.Lock()
        # Of the writer, under `_writing`: to take one from the pool for each row took 2 % of issuing a certificate.
        self._connection: Connection | None = None

    @classmethod
    def create(cls, path: Path) -> "Journal":
        """Make the file. Raises `ConfigError` if the file exists."""
        if path.exists():
            raise ConfigError(f"{path}: exists already")
        journal = cls(_engine(path))
        with journal._engine.begin() as connection:
            SQLModel.metadata.create_all(connection, tables=[SQLModel.metadata.tables["issuance"]])
            connection.exec_driver_sql(f"PRAGMA user_version = {_VERSION}")
        path.chmod(0o600)
        return journal

    @classmethod
    def open(cls, path: Path) -> "Journal":
        """Open the file. Raises `ConfigError` when it is missing, damaged or newer than this program."""
        if not path.exists():
            raise ConfigError(f"{path}: missing; a CA without its journal does not start. Restore it from a backup")
        journal = cls(_engine(path))
        try:
            with journal._engine.connect() as connection:
                version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
        except SQLAlchemyError as error:
            journal.close()
            raise ConfigError(f"{path}: not a journal: {error}") from error
        if version != _VERSION:
            journal.close()
            raise ConfigError(f"{path}: has version {version}, this program knows version {_VERSION}")
        return journal

    def request(self, row: Mapping[str, Any]) -> None:
        """Record a request durably, before anything is signed for it. `row` has columns of `Issuance`."""
        self._write(_REQUESTED, row)

    def finish(
        self, serial: str, state: str, *, sct_timestamp: int | None = None, certificate: bytes | None = None
    ) -> None:
        """Record how a request ended."""
        ended = {"of_serial": serial, "state": state, "sct_timestamp": sct_timestamp, "certificate": certificate}
        self._write(_ENDED, ended)

    def _write(self, statement: Insert | Update, row: Mapping[str, Any]) -> None:
        """Execute a statement for one row durably. Waiting requests share one commit and its fsync."""
        mine = _Waiting(statement, row)
        with self._queue_lock:
            self._queue.append(mine)
        with self._writing:
            if not mine.done:
                with self._queue_lock:
                    together, self._queue = self._queue, []
                self._commit(together)
        if not mine.done:
            raise SQLAlchemyError("the journal's writer ended before this row was written")
        if mine.error is not None:
            raise mine.error

    def _commit(self, together: Sequence["_Waiting"]) -> None:
        try:
            connection = self._connection = self._connection or self._engine.connect()
            with connection.begin():
                for each in together:
                    _execute(connection, each)
        except SQLAlchemyError as error:
            # The transaction of a failed commit may be open still; the pool ends it.
            self._release()
            if len(together) > 1:
                # One statement may be invalid: each runs alone, so that the others succeed.
                for each in together:
                    self._commit([each])
                return
            for each in together:
                each.ended(error)
            return
        for each in together:
            each.ended(None)

    def search(self, *, name: str | None, issuer: str | None, serial: str | None, limit: int) -> Sequence[Issuance]:
        """Rows that match every given filter, newest first."""
        query = select(Issuance).order_by(col(Issuance.id).desc()).limit(limit)
        for column, wanted in ((Issuance.name, name), (Issuance.issuer, issuer), (Issuance.serial, serial)):
            if wanted is not None:
                query = query.where(column == wanted)
        with Session(self._engine, expire_on_commit=False) as session:
            return session.exec(query).all()

    def close(self) -> None:
        """Close every connection."""
        with self._writing:
            self._release()
        self._engine.dispose()

    def _release(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _execute(connection: Connection, waiting: _Waiting) -> None:
    try:
        changed = connection.execute(waiting.statement, waiting.row).rowcount
    except UnicodeEncodeError as error:
        # SQLAlchemy passes the driver's error on as it is.
        raise SQLAlchemyError(f"a text of the row is no Unicode: {error}") from error
    if changed != 1:
        raise NoResultFound("the journal has no row of this request")


def _engine(path: Path) -> Engine:
    engine = create_engine(URL.create("sqlite", database=str(path)))

    @event.listens_for(engine, "connect")
    def _pragmas(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=5000"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    return engine
