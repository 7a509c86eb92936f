"""The log's database: SQLite in WAL mode with `synchronous=FULL`, so a committed row survives a power cut.

One file holds entries, leaf hashes, tree metadata and the latest published heads. Tiles are not stored: they are cut
from the leaf hashes, so only the leaf hashes need a backup and a check.
"""

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from msgspec import Struct

SCHEMA_VERSION: Final = 1
_BUSY_MS: Final = 10_000

_SCHEMA: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE trees (
    name TEXT PRIMARY KEY, log TEXT NOT NULL, position INTEGER NOT NULL, tree_id TEXT NOT NULL, origin TEXT NOT NULL,
    url TEXT NOT NULL, key_file TEXT NOT NULL, state TEXT NOT NULL, created_at INTEGER NOT NULL, ended_at INTEGER,
    extension TEXT, UNIQUE (log, position));
CREATE TABLE entries (
    tree TEXT NOT NULL, idx INTEGER NOT NULL, leaf_hash BLOB NOT NULL, dedupe BLOB NOT NULL, time_ms INTEGER NOT NULL,
    body BLOB NOT NULL, extra BLOB NOT NULL, PRIMARY KEY (tree, idx));
CREATE UNIQUE INDEX entries_dedupe ON entries (tree, dedupe);
CREATE INDEX entries_leaf ON entries (leaf_hash);
CREATE TABLE index_keys (key TEXT NOT NULL, tree TEXT NOT NULL, idx INTEGER NOT NULL);
CREATE INDEX index_keys_key ON index_keys (key);
CREATE TABLE issuers (fingerprint BLOB PRIMARY KEY, der BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE heads (
    tree TEXT PRIMARY KEY, size INTEGER NOT NULL, root BLOB NOT NULL, note BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE faults (log TEXT PRIMARY KEY, mode TEXT NOT NULL, settings TEXT NOT NULL) WITHOUT ROWID;
"""


class StoreUnusable(Exception):
    """The database is of another version, damaged, or cannot be written."""


class WrongFolder(Exception):
    """A folder that should hold a log has none, or a folder for a new log already has one."""


class TreeRow(Struct, frozen=True):
    """One tree. `log` is v1, v2 or ct; `state` is active, inactive (v1 shard) or frozen; times in unix seconds.

    `extension` is the extension line of a frozen v2 shard's checkpoint.
    """

    name: str
    log: str
    position: int
    tree_id: str
    origin: str
    url: str
    key_file: str
    state: str
    created_at: int
    ended_at: int | None = None
    extension: str | None = None


class Entry(Struct, frozen=True):
    """One stored leaf. `leaf_hash` is the hash of `body`; no hash covers `extra` (attestation, CT chain)."""

    index: int
    leaf_hash: bytes
    time_ms: int
    body: bytes
    extra: bytes


class StoredHead(Struct, frozen=True):
    """The head published last. The entries below `size` were durable before `note` was signed."""

    size: int
    root: bytes
    note: bytes


class LedgerDatabase:
    """Access to one database file, a connection per thread. Every failure is a `StoreUnusable`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._local = threading.local()
        self._opened: list[sqlite3.Connection] = []
        self._lock = threading.Lock()

    @classmethod
    def create(cls, path: Path) -> "LedgerDatabase":
        """Make a new database. Raises `WrongFolder` when there is one already."""
        if path.exists():
            raise WrongFolder(f"{path} exists already: a log is made once; delete the directory to start over")
        store = cls(path)
        connection = store._connection(create=True)
        with _translated(path):
            connection.executescript(f"BEGIN IMMEDIATE;{_SCHEMA}")
            connection.execute("INSERT INTO meta VALUES ('schema', ?)", (str(SCHEMA_VERSION),))
            connection.execute("COMMIT")
        return store

    @classmethod
    def open(cls, path: Path) -> "LedgerDatabase":
        """Open an existing database. Raises `WrongFolder` for a missing one, which only `create` may make."""
        if not path.is_file():
            raise WrongFolder(
                f"there is no log in {path.parent}, so nothing was done: name its folder with --dir, or make one with "
                f"`log-lite init --dir {path.parent}`"
            )
        store = cls(path)
        try:
            found = store.meta("schema")
        except BaseException:
            store.close()
            raise
        if found != str(SCHEMA_VERSION):
            store.close()
            raise StoreUnusable(f"{path} has schema {found}, this program reads {SCHEMA_VERSION}")
        return store

    def _connection(self, *, create: bool = False) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            with _translated(self.path):
                mode = "rwc" if create else "rw"
                # Closed by the thread that ends the program, hence check_same_thread.
                connection = sqlite3.connect(
                    f"{self.path.resolve().as_uri()}?mode={mode}",
                    uri=True,
                    isolation_level=None,
                    check_same_thread=False,
                )
                with self._lock:
                    self._opened.append(connection)
                connection.execute(f"PRAGMA busy_timeout={_BUSY_MS}")
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("PRAGMA synchronous=FULL")
            self._local.connection = connection
        return connection

    def close(self) -> None:
        """Close every thread's connection."""
        with self._lock:
            for connection in self._opened:
                connection.close()
            self._opened.clear()
        self._local = threading.local()

    def _all(self, sql: str, *values: object) -> list[tuple[object, ...]]:
        with _translated(self.path):
            return list(self._connection().execute(sql, values))

    @contextlib.contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """One transaction that holds the write lock from its start; durable once the block has ended."""
        connection = self._connection()
        with _translated(self.path):
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def foreign_changes(self) -> int:
        """Return a number that changes when another process has committed (`PRAGMA data_version`)."""
        return int(str(self._all("PRAGMA data_version")[0][0]))

    def meta(self, key: str) -> str | None:
        """Return a setting."""
        rows = self._all("SELECT value FROM meta WHERE key = ?", key)
        return str(rows[0][0]) if rows else None

    def trees(self) -> list[TreeRow]:
        """All trees, each log's oldest first."""
        rows = self._all(
            "SELECT name, log, position, tree_id, origin, url, key_file, state, created_at, ended_at, extension"
            " FROM trees ORDER BY log, position"
        )
        return [TreeRow(*row) for row in rows]  # type: ignore[arg-type]

    def leaf_hashes(self, tree: str, start: int) -> list[bytes]:
        """Leaf hashes from `start` on. Raises `StoreUnusable` when an index is missing."""
        rows = self._all("SELECT idx, leaf_hash FROM entries WHERE tree = ? AND idx >= ? ORDER BY idx", tree, start)
        for expected, (index, _) in enumerate(rows, start):
            if index != expected:
                raise StoreUnusable(f"{self.path}: tree {tree} lacks entry {expected}; restore the database")
        return [bytes(leaf) for _, leaf in rows]  # type: ignore[call-overload]

    def count(self, tree: str) -> int:
        """Return the number of stored entries."""
        return int(str(self._all("SELECT COUNT(*) FROM entries WHERE tree = ?", tree)[0][0]))

    def damage(self) -> list[str]:
        """Damage that SQLite itself finds in the file."""
        found = [str(row[0]) for row in self._all("PRAGMA integrity_check")]
        return [] if found == ["ok"] else found

    def entries(self, tree: str, start: int, end: int) -> list[Entry]:
        """Entries `[start, end)` in order, as far as they exist."""
        rows = self._all(f"{_ENTRY} WHERE tree = ? AND idx >= ? AND idx < ? ORDER BY idx", tree, start, end)
        return [Entry(*row) for row in rows]  # type: ignore[arg-type]

    def find_leaf(self, leaf_hash: bytes) -> list[tuple[str, int]]:
        """Trees and indexes that hold this leaf."""
        rows = self._all("SELECT tree, idx FROM entries WHERE leaf_hash = ?", leaf_hash)
        return [(str(tree), int(str(index))) for tree, index in rows]

    def search(self, key: str) -> list[tuple[str, int]]:
        """Trees and indexes of entries filed under a search key, oldest first."""
        rows = self._all("SELECT DISTINCT tree, idx FROM index_keys WHERE key = ? ORDER BY tree, idx LIMIT 10000", key)
        return [(str(tree), int(str(index))) for tree, index in rows]

    def issuer(self, fingerprint: bytes) -> bytes | None:
        """DER of an issuer certificate by its SHA-256."""
        rows = self._all("SELECT der FROM issuers WHERE fingerprint = ?", fingerprint)
        return bytes(rows[0][0]) if rows else None  # type: ignore[call-overload]

    def head(self, tree: str) -> StoredHead | None:
        """Head published last, if any."""
        rows = self._all("SELECT size, root, note FROM heads WHERE tree = ?", tree)
        return StoredHead(*rows[0]) if rows else None  # type: ignore[arg-type]

    def faults(self) -> dict[str, tuple[str, str]]:
        """Fault modes in force: log to mode and settings (JSON)."""
        return {str(log): (str(mode), str(settings)) for log, mode, settings in self._all("SELECT * FROM faults")}


_ENTRY: Final = "SELECT idx, leaf_hash, time_ms, body, extra FROM entries"


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StoreUnusable(f"{path}: {error}") from error
