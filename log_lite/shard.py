"""One tree of a log: its metadata, its hashes in memory, its signer, and the head it last published."""

from collections.abc import Callable, Sequence
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from log_lite.notes import HeadText, NoteSigner, assemble, rekor_v2_signer
from log_lite.store import Entry, LedgerDatabase, TreeRow
from log_lite.tree import Tree

V2_PATH: Final = "/rekor-v2"
ReadEntryRange = Callable[[int, int], Sequence[Entry]]
LeafFinder = Callable[[bytes], Sequence[int]]


class TreeView(Struct, frozen=True):
    """A reader's view of a tree: its first `size` leaves, and the source of their bytes.

    `read(start, end)` returns the entries in that range in order; an honest log returns all of them. `find` returns the
    indexes of a leaf hash. A lying log is another view, so the API code is the same for both.
    """

    row: TreeRow
    tree: Tree
    size: int
    read: ReadEntryRange
    find: LeafFinder

    def entry(self, index: int) -> Entry | None:
        """Return the entry at `index`, `None` when the log does not show it."""
        if not 0 <= index < self.size:
            return None
        return next((e for e in self.read(index, index + 1) if e.index == index), None)

    def range(self, start: int, end: int) -> list[Entry]:
        """Entries of `[start, end)` that the log shows."""
        return list(self.read(start, min(end, self.size)))

    def head(self) -> HeadText:
        """Return the contents of a checkpoint of this view."""
        extensions = (self.row.extension,) if self.row.extension else ()
        return HeadText(self.row.origin, self.size, self.tree.root(self.size), extensions)


class Shard:
    """A tree this process serves. Only the log's writer changes it; readers take a `view()` and keep it."""

    def __init__(self, row: TreeRow, store: LedgerDatabase, signer: NoteSigner) -> None:
        self.row = row
        self.signer = signer
        self._store = store
        self.tree = Tree()
        self.published = 0

    def view(self) -> TreeView:
        """Return the published tree: complete, durable, and covered by the stored checkpoint."""
        return TreeView(self.row, self.tree, self.published, self._read, self._find)

    def _read(self, start: int, end: int) -> list[Entry]:
        return self._store.entries(self.row.name, start, end)

    def _find(self, leaf: bytes) -> list[int]:
        return [index for tree, index in self._store.find_leaf(leaf) if tree == self.row.name]

    def note(self, timestamp_ms: int, size: int) -> bytes:
        """Sign a checkpoint of the first `size` leaves."""
        head = replace(self.view(), size=size).head()
        return assemble(head.to_bytes(), self.signer.line(self.signer.blob(head, timestamp_ms)))

    def signer_by_url(self) -> NoteSigner:
        """Signer of a Rekor v2 shard's checkpoints for readers that use the shard's address as its origin."""
        return rekor_v2_signer(self.signer.key, v2_address(self.row.url).partition("://")[2])


def v2_address(url: str) -> str:
    """Address that serves a Rekor v2 shard only; `url` serves Rekor v1 and the CT log as well."""
    return url + V2_PATH


class ShardEntry(Struct, frozen=True):
    """One entry in one shard, with the view it is shown in."""

    shard: Shard
    view: TreeView
    entry: Entry
