"""A log's directory: keys, database, and its trees. Made once by `init`, changed by `rotate` and `freeze`."""

import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from msgspec.structs import astuple

from addresses.url import is_loopback_host
from log_lite.genesis import statement_ct, statement_v1, statement_v2, utc
from log_lite.keys import new_ecdsa_key, new_ed25519_key, read_key, write_key
from log_lite.ledger import CT, DATABASE, KEYS, V1, V2, Ledger, PendingEntry, insert
from log_lite.store import LedgerDatabase, TreeRow, WrongFolder

V1_KEY: Final = "rekor-v1.pem"
CT_KEY: Final = "ct.pem"


class NotApplicable(Exception):
    """The request does not apply to this log; the message names a request that does."""


def check_url(url: str) -> str:
    """Return a base URL without its trailing slash. Raises `NotApplicable`."""
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError as error:
        raise NotApplicable(f"{url!r}: {error}") from error
    if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0:
        raise NotApplicable(f"{url!r} is not a base URL such as http://localhost:3000")
    if parts.path.strip("/") or parts.query or parts.fragment or parts.username:
        raise NotApplicable(f"{url!r}: a base URL has a host and a port only, because a log's origin is its host")
    return url.rstrip("/")


def host_of(url: str) -> str:
    """Host name of a URL, lower case, without a port: the origin of a log there."""
    return urlsplit(url).hostname or ""


def initialise(folder: Path, url: str, now_ms: int) -> None:
    """Make keys, database and the three trees. Raises `NotApplicable`, `WrongFolder`, `StoreUnusable`."""
    url = check_url(url)
    host = host_of(url)
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / DATABASE).exists() or (folder / KEYS).exists():
        raise WrongFolder(f"{folder} holds a log already: a log is made once; take another directory to start over")
    (folder / KEYS).mkdir(mode=0o700)
    v2_key = _v2_key_file(0)
    write_key(new_ecdsa_key(), folder / KEYS / V1_KEY)
    write_key(new_ed25519_key(), folder / KEYS / v2_key)
    write_key(new_ecdsa_key(), folder / KEYS / CT_KEY)
    store = LedgerDatabase.create(folder / DATABASE)
    seconds = now_ms // 1000
    tree_id = _new_tree_id()
    with store.write() as connection:
        connection.execute("INSERT INTO meta VALUES ('url', ?)", (url,))
        for row in (
            TreeRow(f"v1:{tree_id}", V1, 0, tree_id, f"{host} - {tree_id}", url, V1_KEY, "active", seconds),
            TreeRow(f"v2:{host}", V2, 0, "", host, url, v2_key, "active", seconds),
            TreeRow("ct", CT, 0, "", f"{host}/ct", f"{url}/ct", CT_KEY, "active", seconds),
        ):
            _start_tree(connection, folder, row, now_ms)
    store.close()
    with opened(folder, now_ms):
        # Opening the ledger publishes the first head of each tree.
        pass


@contextmanager
def opened(folder: Path, now_ms: int) -> Iterator[Ledger]:
    """Return the log in `folder`, closed at the end of the block."""
    ledger = Ledger.open(folder, now_ms)
    try:
        yield ledger
    finally:
        ledger.close()


def rotate_v1(ledger: Ledger, now_ms: int) -> TreeRow:
    """End the active Rekor v1 tree and start a new one; virtual indexes go on counting. Raises `NotApplicable`."""
    old = ledger.active(V1).row
    host, tree_id = old.origin.partition(" - ")[0], _new_tree_id()
    row = TreeRow(
        f"v1:{tree_id}", V1, old.position + 1, tree_id, f"{host} - {tree_id}", old.url, old.key_file, "active",
        now_ms // 1000,
    )  # fmt: skip
    _replace(ledger, old, "inactive", row, now_ms)
    return row


def rotate_v2(ledger: Ledger, now_ms: int, url: str | None = None) -> TreeRow:
    """Freeze the newest Rekor v2 shard and start one under another host name. Raises `NotApplicable`.

    A shard's origin is its host without a port, so two shards need two host names. On one machine those are further
    loopback addresses (127.0.0.2, …); elsewhere the operator names the new shard's URL.
    """
    old = ledger.active(V2).row
    url = check_url(url) if url else _next_loopback(ledger, old)
    host = host_of(url)
    if any(shard.row.origin == host for shard in ledger.of_log(V2)):
        raise NotApplicable(f"there is a shard with origin {host!r} already: a new shard needs a host name of its own")
    position = old.position + 1
    key_file = _v2_key_file(position)
    write_key(new_ed25519_key(), ledger.folder / KEYS / key_file)
    row = TreeRow(f"v2:{host}", V2, position, "", host, url, key_file, "active", now_ms // 1000)
    _replace(ledger, old, "frozen", row, now_ms)
    return row


def freeze(ledger: Ledger, log: str, now_ms: int) -> TreeRow:
    """Make a log's newest tree read-only permanently. Raises `NotApplicable`."""
    row = ledger.active(log).row
    if row.state != "active":
        raise NotApplicable(f"{row.origin} is {row.state} already")
    with ledger.store.write() as connection:
        _end(connection, row, "frozen", now_ms)
    ledger.sync(now_ms)
    return ledger.shards[row.name].row


def _replace(ledger: Ledger, old: TreeRow, state: str, new: TreeRow, now_ms: int) -> None:
    with ledger.store.write() as connection:
        # One transaction, so that no reader sees both trees active, or neither.
        if old.state == "active":
            _end(connection, old, state, now_ms)
        elif old.log == V1:
            connection.execute("UPDATE trees SET state = 'inactive' WHERE name = ?", (old.name,))
        _start_tree(connection, ledger.folder, new, now_ms)
    ledger.sync(now_ms)


def _end(connection: sqlite3.Connection, row: TreeRow, state: str, now_ms: int) -> None:
    # SPEC rekor-tiles freeze-checkpoint: extension line "Log frozen — <UnixDate>".
    date = datetime.fromtimestamp(now_ms // 1000, UTC).strftime("%a %b %e %H:%M:%S UTC %Y")
    extension = f"Log frozen — {date}" if row.log == V2 else None
    connection.execute(
        "UPDATE trees SET state = ?, ended_at = ?, extension = ? WHERE name = ?",
        (state, now_ms // 1000, extension, row.name),
    )


def _start_tree(connection: sqlite3.Connection, folder: Path, row: TreeRow, now_ms: int) -> None:
    # The first leaf comes with the tree: no submission can come before it.
    connection.execute("INSERT INTO trees VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", astuple(row))
    insert(connection, row, _genesis(folder, row, now_ms), now_ms)


def _genesis(folder: Path, row: TreeRow, now_ms: int) -> PendingEntry:
    text = f"genesis of {row.origin}"
    # Rekor v2 takes no plain Ed25519 signatures, so the ECDSA key of the same directory signs the first leaf.
    key = read_key(folder / KEYS / (CT_KEY if row.log == CT else V1_KEY))
    if row.log == V1:
        return statement_v1(key, text).draft(row.name)
    if row.log == V2:
        return statement_v2(key, text).draft(row.name)
    return statement_ct(key, text, utc(now_ms)).draft()


def _next_loopback(ledger: Ledger, old: TreeRow) -> str:
    parts = urlsplit(old.url)
    if not is_loopback_host(parts.hostname):
        raise NotApplicable(f"a new shard needs a host name of its own: pass --url (the old one is {old.url})")
    taken = {shard.row.origin for shard in ledger.of_log(V2)}
    host = next(name for n in range(2, 255) if (name := f"127.0.0.{n}") not in taken)
    return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port else "")


def _new_tree_id() -> str:
    # Clients want a positive int63 that is not zero.
    return str(secrets.randbelow((1 << 63) - (1 << 60)) + (1 << 60))


def _v2_key_file(position: int) -> str:
    return f"rekor-v2-{position}.pem"
