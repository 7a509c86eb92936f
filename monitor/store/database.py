"""Opening the database: only an existing, undamaged one of this version, with full durability."""

import os
import sqlite3
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from sqlalchemy import Connection, Engine, QueuePool, create_engine, event, inspect, make_url, select, text
from sqlalchemy.exc import ArgumentError, DatabaseError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from monitor.model.errors import OwnFault
from monitor.store.sql import Base, database_words, table
from monitor.store.tables import SCHEMA, Instance

_BUSY_MILLISECONDS: Final = 30_000
_QUICK_CHECK_BYTES: Final = 64 * 1024 * 1024
_SQLITE_MAGIC: Final = b"SQLite format 3\x00"


class NoDatabase(OwnFault):
    """There is no database at the configured place; this is never taken for a first run."""


class DamagedDatabase(OwnFault):
    """The database exists, but its content cannot be trusted."""


class VanishedDatabase(OwnFault):
    """The file was deleted or replaced while it was in use, so later writes to it would be lost."""


class WrongSchema(OwnFault):
    """The database was written by another version of the program."""


class FairLock:
    """Lets the writers of one process write in the order in which they came.

    SQLite has one writer and lets the others look again every tenth of a second: a loop of short transactions, such as
    a fan-out, would keep a pass over a log waiting until it is through.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queue: deque[threading.Lock] = deque()
        self._taken = False

    @property
    def waiting(self) -> int:
        """Number of writers that wait for their turn."""
        return len(self._queue)

    def take(self, seconds: float) -> bool:
        """Wait for the turn; false when it did not come in time."""
        with self._lock:
            if not self._taken:
                self._taken = True
                return True
            mine = threading.Lock()
            mine.acquire()
            self._queue.append(mine)
        try:
            came = mine.acquire(timeout=seconds)
        except BaseException:
            # An interrupt of the main thread: a turn given to a writer that is gone would never end.
            if not self._leave(mine):
                self.give()
            raise
        return came or not self._leave(mine)

    def _leave(self, mine: threading.Lock) -> bool:
        """Wait no longer; false when the turn came at the last moment."""
        with self._lock:
            if mine not in self._queue:
                return False
            self._queue.remove(mine)
        return True

    def give(self) -> None:
        """End the turn: the writer that waits longest is next."""
        with self._lock:
            if self._queue:
                self._queue.popleft().release()
            else:
                self._taken = False


@dataclass(frozen=True, slots=True)
class Database:
    """One open database. `read` and `write` hand out connections inside one transaction each.

    `file` are device and inode of an SQLite file: an open file stays usable after its name is deleted, and a commit
    to it would succeed.
    """

    engine: Engine
    where: str
    path: Path | None = None
    file: tuple[int, int] | None = None
    turns: FairLock = field(default_factory=FairLock, compare=False)

    @property
    def is_sqlite(self) -> bool:
        """True for an SQLite file, false for a server."""
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Connection that sees one consistent state and changes nothing."""
        self._check_in_place()
        with _own_fault(self.where), self.engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Connection with one transaction: its changes are durable at the end of the block, or none of them is."""
        with self._turn(), _own_fault(self.where), self.engine.connect() as connection:
            self._check_in_place()
            options = connection.execution_options(signwatch_write=True)
            with options.begin():
                yield options

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if not self.is_sqlite:
            yield
            return
        if not self.turns.take(_BUSY_MILLISECONDS / 1000):
            raise OwnFault(
                f"{self.where}: another step wrote to the database for {_BUSY_MILLISECONDS // 1000} s. Nothing of this "
                "step was kept; it is tried again."
            )
        try:
            yield
        finally:
            self.turns.give()

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()

    def _check_in_place(self) -> None:
        if self.path is not None and self.file is not None and _file_of(self.path) != self.file:
            raise VanishedDatabase(
                f"{self.path}: the database was deleted or replaced while it was in use. Further commits would be "
                "lost, so there are none. Stop the daemon, put the file back or restore it from a backup, "
                "and start again."
            )


def _file_of(path: Path) -> tuple[int, int] | None:
    """Device and inode of a file; `None` when it is gone."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OwnFault(f"{path}: the database cannot be reached: {error.strerror}.") from error
    return found.st_dev, found.st_ino


def lock_name(connection: Connection, name: str) -> None:
    """Hold the lock `name` until the transaction ends: only PostgreSQL has a second writer."""
    if connection.dialect.name == "postgresql":
        key = int.from_bytes(sha256(f"signwatch {name}".encode()).digest()[:8], "big", signed=True)
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})


def create(where: str, now: datetime, version: str) -> Database:
    """Make the database if there is none, and bring an older one up to date. Raises `OwnFault`."""
    path = sqlite_path(where)
    if path is not None and not path.exists():
        _make_whole(path, now, version)
    elif path is not None:
        _check_file(path)
    return _upgraded(where, path, now, version)


def open_database(where: str, *, check: bool = False) -> Database:
    """Open an existing database of exactly this version. Raises `NoDatabase`, `DamagedDatabase`, `WrongSchema`.

    With `check`, a small SQLite file is also read through for damage.
    """
    path = sqlite_path(where)
    if path is not None:
        if not path.exists():
            raise NoDatabase(
                f"{path}: there is no database here. The positions of the logs are unknown, and a missing database is "
                "never taken for a first start: run `signwatch init`, or restore the file from a backup."
            )
        _check_file(path)
    database = Database(_engine(where, path), _shown(where), path, None if path is None else _file_of(path))
    try:
        with database.read() as connection:
            _check_encoding(connection, database.where)
            _check_version(connection, database.where)
            if check and path is not None and path.stat().st_size <= _QUICK_CHECK_BYTES:
                check_pages(connection, database.where)
    except BaseException:
        database.close()
        raise
    return database


def check_place(where: str) -> None:
    """Refuse a place for which this installation has no driver; asks no server. Raises `OwnFault`."""
    _engine(where, sqlite_path(where)).dispose()


def sqlite_path(where: str) -> Path | None:
    """File of a SQLite database given as a path or a `sqlite:///` URL; `None` for a server."""
    if "://" not in where:
        return Path(where)
    try:
        url = make_url(where)
    except ArgumentError as error:
        raise OwnFault(f"database: {_shown(where)!r} is not a path or a database URL: {error}") from error
    if url.get_backend_name() != "sqlite":
        return None
    if not url.database or url.database == ":memory:":
        raise OwnFault("database: a database in memory would lose the state; name a file")
    return Path(url.database)


def check_pages(connection: Connection, where: str) -> None:
    """Have SQLite read every page. Raises `DamagedDatabase`."""
    found = connection.execute(text("PRAGMA quick_check(1)")).scalar_one()
    if found != "ok":
        raise DamagedDatabase(_damaged(where, str(found)))


def _make_whole(path: Path, now: datetime, version: str) -> None:
    """Make the database under a temporary name and rename it.

    After a crash `init` would refuse half a database as damaged.
    """
    rest = path.with_name(f"{path.name}-wal")
    if rest.exists():
        # SQLite would read it into the new database.
        raise OwnFault(f"{rest}: this is a part of another database: move it away, and run `signwatch init` again.")
    draft = path.with_name(path.name + ".new")
    try:
        for name in (draft.name, f"{draft.name}-wal", f"{draft.name}-shm", f"{draft.name}-journal"):
            draft.with_name(name).unlink(missing_ok=True)
        write_draft(draft, now, version)
        draft.rename(path)
        descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise OwnFault(f"{path}: the database cannot be made here: {error.strerror}. Nothing was begun.") from error


def write_draft(draft: Path, now: datetime, version: str, *, with_site: bool = True) -> None:
    """Write schema and first row into a new file, which the caller renames once it is whole.

    There is no journal on disk: an unfinished draft is deleted. The ledger of a scan has none of the site's tables.
    Raises `OwnFault`.
    """
    _make_file(draft)
    engine = create_engine("sqlite://", creator=lambda: _connect(draft), poolclass=QueuePool, hide_parameters=True)
    event.listen(engine, "connect", _prepare_draft)
    event.listen(engine, "begin", _begin_sqlite)
    with closing(Database(engine, str(draft))) as database:
        _upgrade(database, now, version, with_site=with_site)
    # Opened as for use, so that the header names the write-ahead log before the file is synchronised and renamed.
    with closing(Database(_engine(str(draft), draft), str(draft))) as database, database.read():
        pass
    if draft.with_name(f"{draft.name}-wal").exists():
        # Closing the last connection moves the write-ahead log into the file, and reports no failure of that.
        raise OwnFault(f"{draft}: the database could not be written to the disk. Nothing was begun: try again.")


def _upgraded(where: str, path: Path | None, now: datetime, version: str) -> Database:
    database = Database(_engine(where, path), _shown(where), path, None if path is None else _file_of(path))
    try:
        if path is None:
            with database.read() as connection:
                _check_encoding(connection, database.where)
        _upgrade(database, now, version)
    except BaseException:
        database.close()
        raise
    return database


def _make_file(path: Path) -> None:
    try:
        # Created here, empty and readable by this user only; opening for use never creates a file.
        path.touch(mode=0o600, exist_ok=False)
    except OSError as error:
        raise OwnFault(
            f"{path}: the database cannot be made here: {error.strerror}. Signwatch cannot follow logs without a "
            "database: make the folder writable, or name another file under `database`."
        ) from error


def _check_file(path: Path) -> None:
    """Check the header before SQLite opens the file, because SQLite takes an empty file for a new database."""
    try:
        with path.open("rb") as file:
            header, size = file.read(100), path.stat().st_size
    except OSError as error:
        why = "it is a folder" if path.is_dir() else error.strerror
        raise OwnFault(
            f"{path}: the database cannot be read: {why}. Signwatch cannot follow logs without it: name the file "
            "under `database` in the configuration, or make it readable."
        ) from error
    wal = path.with_name(path.name + "-wal")
    has_wal = wal.exists() and wal.stat().st_size > 0
    if not header and not has_wal:
        raise DamagedDatabase(_damaged(path, "the file is empty"))
    if header and not header.startswith(_SQLITE_MAGIC):
        raise DamagedDatabase(_damaged(path, "the file is not an SQLite database"))
    if len(header) == 100 and not has_wal:  # noqa: PLR2004  SQLite's header is 100 bytes
        page = int.from_bytes(header[16:18], "big")
        pages = int.from_bytes(header[28:32], "big")
        # SPEC SQLite file format 1.3.7: the page count is valid when both change counters agree.
        if header[24:28] == header[92:96] and pages * (65536 if page == 1 else page) > size:
            raise DamagedDatabase(_damaged(path, f"the file ends after {size} bytes: it was cut short"))


def _damaged(where: object, what: str) -> str:
    return (
        f"{where}: the database is damaged: {what}. Its positions are not reliable, and Signwatch does not begin anew "
        "by itself: restore the file from a backup, or move it away and run `signwatch init`."
    )


def _engine(where: str, path: Path | None) -> Engine:
    if path is None:
        try:
            # An SQL_ASCII database, or PGCLIENTENCODING, would otherwise give bytes or lack characters.
            encoding = {"client_encoding": "utf8"}
            return create_engine(where, pool_pre_ping=True, hide_parameters=True, connect_args=encoding)
        except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
            raise OwnFault(
                f"database: {_shown(where)!r} cannot be used: {error}. SQLite paths and postgresql:// URLs are "
                "supported; PostgreSQL needs the [postgres] extra."
            ) from error

    engine = create_engine("sqlite://", creator=lambda: _connect(path), poolclass=QueuePool, hide_parameters=True)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _connect(path: Path) -> sqlite3.Connection:
    # mode=rw: opening must never create a file.
    uri = f"file:{quote(str(path.absolute()))}?mode=rw"
    return sqlite3.connect(uri, uri=True, check_same_thread=False, timeout=_BUSY_MILLISECONDS / 1000)


def _prepare_sqlite(connection: Any, _entry: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # `_begin_sqlite` begins transactions, not the driver
    for pragma in (
        f"busy_timeout={_BUSY_MILLISECONDS}",
        "journal_mode=WAL",
        # In WAL mode only FULL makes a commit survive a power cut.
        "synchronous=FULL",
        "foreign_keys=ON",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _prepare_draft(connection: Any, _entry: ConnectionPoolEntry) -> None:
    connection.isolation_level = None
    for pragma in ("journal_mode=MEMORY", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    # IMMEDIATE: otherwise a transaction that reads first and writes later would fail with BUSY instead of waiting.
    is_write = connection.get_execution_options().get("signwatch_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if is_write else "BEGIN")


def _upgrade(database: Database, now: datetime, version: str, *, with_site: bool = True) -> None:
    with database.write() as connection:
        lock_name(connection, "schema")
        found = _found_version(connection)
        if found is None:
            _make_tables(connection, database.where, with_site=with_site)
        elif found != SCHEMA:
            from monitor.store import schema

            _refuse_newer(found, database.where)
            schema.upgrade(connection)
        if connection.execute(select(table(Instance))).first() is None:
            row = {"id": 1, "created_at": now, "created_by": version}
            connection.execute(table(Instance).insert(), row)


def _make_tables(connection: Connection, where: str, *, with_site: bool) -> None:
    """Make the newest schema as the tables are declared: importing Alembic alone takes longer than making them."""
    if with_site:
        from monitor.store import site_tables  # noqa: F401, PLC0415  declares them

    if inspect(connection).get_table_names():
        raise OwnFault(f"{where}: this database holds another program's tables; name another one.")
    Base.metadata.create_all(connection, checkfirst=False)
    # As Alembic makes it, which finds the schema's version in it.
    key = "CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)"
    connection.execute(text(f"CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL, {key})"))
    connection.execute(text("INSERT INTO alembic_version (version_num) VALUES (:newest)"), {"newest": SCHEMA})


def _check_encoding(connection: Connection, where: str) -> None:
    """Refuse a server's database that lacks characters: a name that cannot be stored stops following of its log."""
    if connection.dialect.name != "postgresql":
        return
    encoding = connection.execute(text("SHOW server_encoding")).scalar_one()
    if encoding != "UTF8":
        raise OwnFault(
            f"{where}: the database has the encoding {encoding} and cannot hold the names of all signers. "
            "Make another one with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0, and name it under `database`."
        )


def _check_version(connection: Connection, where: str) -> None:
    found = _found_version(connection)
    if found is None or connection.execute(select(table(Instance))).first() is None:
        raise NoDatabase(
            f"{where}: this is no Signwatch database: `signwatch init` was not run here, or it did not finish. "
            "Check `database` in the configuration; run `signwatch init` if this is a first start."
        )
    _refuse_newer(found, where)
    if found != SCHEMA:
        raise WrongSchema(
            f"{where}: the database has schema {found}, this version writes {SCHEMA}. Nothing was changed: "
            "make a backup and run `signwatch migrate`."
        )


def _refuse_newer(found: str, where: str) -> None:
    if found == SCHEMA:
        return
    from monitor.store import schema

    if found not in schema.revisions()[1]:
        raise WrongSchema(
            f"{where}: the database has schema {found}, which this version does not know: a newer one wrote it. "
            "Nothing was changed: run the newer version, or restore a backup from before the upgrade."
        )


def _found_version(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return None if found is None else str(found)


def _shown(where: str) -> str:
    """The place without its password."""
    try:
        return make_url(where).set(query={}).render_as_string(hide_password=True) if "://" in where else where
    except ArgumentError:
        return where.partition("@")[2] or "the URL"


@contextmanager
def _own_fault(where: str) -> Iterator[None]:
    """Turn every error of the database into `OwnFault`; Signwatch's own errors pass."""
    try:
        yield
    except DatabaseError as error:
        told = database_words(error)
        # A traceback prints the texts of both.
        for each in (error, error.orig):
            if each is not None:
                each.args = (told,)
        if "malformed" in told or "not a database" in told:
            raise DamagedDatabase(_damaged(where, told)) from error
        if "readonly" in told:
            raise OwnFault(
                f"{where}: this user may not write the database or its folder, and reading needs that as well. Run the "
                "command as the user of the daemon."
            ) from error
        raise OwnFault(f"{where}: the database failed: {told}. No change of this step was stored.") from error
    except SQLAlchemyError as error:
        raise OwnFault(f"{where}: the database cannot be used: {database_words(error)}") from error
