"""Sequencing: drafts become entries, entries become durable, and only then does a checkpoint cover them.

The order within one batch is the promise of this program: (1) entries and leaf hashes are committed with an fsync,
(2) the trees in memory grow, (3) a checkpoint is signed and committed, (4) readers see the new size, (5) submitters get
their answer. A crash before 1 loses entries whose submitters got no answer; between 1 and 3 the next start integrates
them.
"""

import logging
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct

from log_lite.keys import read_key
from log_lite.notes import NoteSigner, ct_signer, rekor_v1_signer, rekor_v2_signer
from log_lite.shard import Shard
from log_lite.store import Entry, LedgerDatabase, TreeRow
from tlog.merkle import leaf_hash

DATABASE: Final = "log.db"
KEYS: Final = "keys"
V1: Final = "v1"
V2: Final = "v2"
CT: Final = "ct"
_logger = logging.getLogger(__name__)


class LogDamaged(Exception):
    """The stored entries do not give the root that the log signed. The log must not be served."""


class SealedLeaf(Struct, frozen=True):
    """A leaf's bytes and the values stored beside it, made when its index and time (ms) are known."""

    body: bytes
    extra: bytes = b""


class PendingEntry(Struct, frozen=True):
    """An entry that passed every check and waits for its place.

    `tree` names the tree, or the log (`v1`) whose active tree is meant. `dedupe` is equal for equivalent entries.
    """

    tree: str
    dedupe: bytes
    seal: Callable[[int, int], SealedLeaf]
    search_keys: tuple[str, ...] = ()
    issuers: tuple[tuple[bytes, bytes], ...] = ()


class Receipt(Struct, frozen=True):
    """Index that a draft was given. `duplicate`: the tree already held the entry; nothing was added."""

    tree: str
    entry: Entry
    duplicate: bool = False


class TreeClosed(Struct, frozen=True):
    """The tree no longer takes entries; `state` is the reason."""

    tree: str
    state: str


class Ledger:
    """All trees of one directory. Several processes may hold one: the database's write lock orders them."""

    def __init__(self, folder: Path, store: LedgerDatabase) -> None:
        self.folder = folder
        self.store = store
        self.shards: dict[str, Shard] = {}
        self._seen_changes = -1

    @classmethod
    def open(cls, folder: Path, now_ms: int) -> "Ledger":
        """Load every tree and check it against its stored head, then publish the entries that a crash left unpublished.

        Raises `StoreUnusable`, `KeyUnusable`, `LogDamaged`.
        """
        ledger = cls(folder, LedgerDatabase.open(folder / DATABASE))
        try:
            ledger.sync(now_ms)
        except BaseException:
            ledger.close()
            raise
        return ledger

    def close(self) -> None:
        """Release the database."""
        self.store.close()

    @property
    def url(self) -> str:
        """Base URL this log was made for, without a trailing slash."""
        return self.store.meta("url") or ""

    def of_log(self, log: str) -> list[Shard]:
        """Trees of one log (`v1`, `v2`, `ct`), oldest first."""
        return sorted((s for s in self.shards.values() if s.row.log == log), key=lambda s: s.row.position)

    def active(self, log: str) -> Shard:
        """Newest tree of one log."""
        return self.of_log(log)[-1]

    def sync_if_changed(self, now_ms: int) -> bool:
        """Call `sync` if another writer has written since this thread's last check; returns True if it has.

        The calling thread's own database connection counts the changes, so only one thread may call this.
        """
        # Counted before `sync` and stored after it, so that a change in between is read twice instead of being missed.
        changes = self.store.foreign_changes()
        if changes == self._seen_changes:
            return False
        self.sync(now_ms)
        self._seen_changes = changes
        return True

    def sync(self, now_ms: int) -> None:
        """Take over trees, states and entries from the database, and publish every tree that has grown."""
        for row in self.store.trees():
            shard = self.shards.get(row.name)
            if shard is None:
                shard = self._load(row)
                # The dictionary is replaced, not changed: readers iterate over it without a lock.
                self.shards = {**self.shards, row.name: shard}
            else:
                shard.row = row
                shard.tree.extend(self.store.leaf_hashes(row.name, shard.tree.size))
        self._publish(now_ms)

    def _load(self, row: TreeRow) -> Shard:
        shard = Shard(row, self.store, signer_for(row, self.folder))
        # The head first: another process may add entries and sign a larger head between the two reads.
        head = self.store.head(row.name)
        shard.tree.extend(self.store.leaf_hashes(row.name, 0))
        if head is not None:
            if head.size > shard.tree.size or shard.tree.root(head.size) != head.root:
                raise LogDamaged(
                    f"{self.store.path}: the entries of {row.origin} are not the tree of size {head.size} that "
                    "this log has signed; serving them would fork the log. Restore the database from a backup"
                )
            shard.published = head.size
        return shard

    def commit(self, drafts: Sequence[PendingEntry], now_ms: int) -> list[Receipt | TreeClosed]:
        """Add drafts in order; durable and covered by a published checkpoint on return.

        Raises `StoreUnusable` when nothing was added.
        """
        results: list[Receipt | TreeClosed] = []
        added: dict[str, list[bytes]] = {}
        with self.store.write() as connection:
            self._catch_up(connection)
            for draft in drafts:
                result = self._place(connection, draft, now_ms)
                results.append(result)
                if isinstance(result, Receipt) and not result.duplicate:
                    added.setdefault(result.tree, []).append(result.entry.leaf_hash)
        for name, leaves in added.items():
            self.shards[name].tree.extend(leaves)
        if added:
            self._publish(now_ms)
        return results

    def _catch_up(self, connection: sqlite3.Connection) -> None:
        # Under the write lock no other process can add entries, so the new entries follow the size read here.
        for row in self.store.trees():
            shard = self.shards.get(row.name)
            if shard is None:
                shard = self._load(row)
                self.shards = {**self.shards, row.name: shard}
            shard.row = row
            if next_index(connection, row) != shard.tree.size:
                shard.tree.extend(self.store.leaf_hashes(row.name, shard.tree.size))

    def _place(self, connection: sqlite3.Connection, draft: PendingEntry, now_ms: int) -> Receipt | TreeClosed:
        row = (self.active(draft.tree) if draft.tree in {V1, V2, CT} else self.shards[draft.tree]).row
        found = connection.execute(
            "SELECT idx, leaf_hash, time_ms, body, extra FROM entries WHERE tree = ? AND dedupe = ?",
            (row.name, draft.dedupe),
        ).fetchone()
        if found is not None:
            return Receipt(row.name, Entry(*found), duplicate=True)
        if row.state != "active":
            return TreeClosed(row.name, row.state)
        return Receipt(row.name, insert(connection, row, draft, now_ms))

    def _publish(self, now_ms: int) -> None:
        grown = [(shard, shard.tree.size) for shard in self.shards.values() if shard.tree.size > shard.published]
        if not grown:
            return
        with self.store.write() as connection:
            for shard, size in grown:
                # The head never gets smaller, also when two processes publish at the same time.
                connection.execute(
                    "INSERT INTO heads VALUES (?, ?, ?, ?) ON CONFLICT (tree) DO UPDATE SET size = excluded.size,"
                    " root = excluded.root, note = excluded.note WHERE excluded.size >= heads.size",
                    (shard.row.name, size, shard.tree.root(size), shard.note(now_ms, size)),
                )
        for shard, size in grown:
            shard.published = size
            _logger.debug("published %s at size %d", shard.row.origin, size)


def signer_for(row: TreeRow, folder: Path) -> NoteSigner:
    """Load the key a tree signs its notes with. Raises `KeyUnusable`."""
    key = read_key(folder / KEYS / row.key_file)
    if row.log == V1:
        return rekor_v1_signer(key, row.origin.partition(" - ")[0])
    return rekor_v2_signer(key, row.origin) if row.log == V2 else ct_signer(key, row.origin)


def next_index(connection: sqlite3.Connection, row: TreeRow) -> int:
    """Return the index the next entry of a tree gets."""
    found = connection.execute("SELECT COALESCE(MAX(idx) + 1, 0) FROM entries WHERE tree = ?", (row.name,)).fetchone()
    return int(found[0])


def insert(connection: sqlite3.Connection, row: TreeRow, draft: PendingEntry, now_ms: int) -> Entry:
    """Add a draft to a tree, within the caller's transaction. Publishes nothing."""
    index = next_index(connection, row)
    sealed = draft.seal(index, now_ms)
    entry = Entry(index, leaf_hash(sealed.body), now_ms, sealed.body, sealed.extra)
    connection.execute(
        "INSERT INTO entries (tree, idx, leaf_hash, dedupe, time_ms, body, extra) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (row.name, index, entry.leaf_hash, draft.dedupe, now_ms, entry.body, entry.extra),
    )
    connection.executemany(
        "INSERT INTO index_keys VALUES (?, ?, ?)",
        [(key.lower(), row.name, index) for key in set(draft.search_keys)],
    )
    connection.executemany("INSERT OR IGNORE INTO issuers VALUES (?, ?)", draft.issuers)
    return entry
