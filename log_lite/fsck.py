"""Checks a stored log from its files alone, without the trees that the server keeps in memory."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from log_lite.ledger import signer_for
from log_lite.store import LedgerDatabase, StoredHead, TreeRow
from tlog.ct import MalformedCt, parse_leaf
from tlog.merkle import Frontier, leaf_hash
from tlog.note import BadSignature, MalformedCheckpoint, MalformedNote, open_note, parse_checkpoint

_CHUNK: Final = 1000
_MAX_DEFECTS: Final = 20


class Report(Struct, frozen=True):
    """Findings in one tree: `entries` stored, `signed` covered by the head signed last, and `defects`."""

    origin: str
    entries: int
    signed: int
    defects: tuple[str, ...]

    def line(self) -> str:
        """One line for people."""
        found = "; ".join(self.defects) if self.defects else "ok"
        return f"{self.origin}\t{self.entries} entries\t{self.signed} signed\t{found}"

    def as_json(self) -> dict[str, Any]:
        """Return values for scripts."""
        return {
            "origin": self.origin, "entries": self.entries, "signed": self.signed, "defects": list(self.defects)
        }  # fmt: skip


def check_tree(store: LedgerDatabase, row: TreeRow, folder: Path, advance: Callable[[int], None]) -> Report:
    """Hash every entry of one tree again and compare with the signed head. Raises `StoreUnusable`, `KeyUnusable`.

    1. Indexes run from 0 without gaps. 2. Each leaf hash is that of its body. 3. The head's note is signed by this
    tree's key, under its origin. 4. The entries' root at the head's size is the signed root.
    """
    defects = list(store.damage())
    frontier, head = Frontier(), store.head(row.name)
    root_at_head = frontier.root() if head is not None and head.size == 0 else None
    expected = 0
    while chunk := store.entries(row.name, expected, expected + _CHUNK):
        for entry in chunk:
            if entry.index != expected:
                defects.append(f"entry {expected} is missing")
            if leaf_hash(entry.body) != entry.leaf_hash:
                defects.append(f"entry {entry.index} differs from the entry that was hashed into the tree")
            if row.log == "ct" and not _leaf_names(entry.body, entry.index):
                defects.append(f"entry {entry.index} is no CT leaf that names its index")
            expected = entry.index + 1
            frontier = frontier.extended([leaf_hash(entry.body)])
            if head is not None and frontier.size == head.size:
                root_at_head = frontier.root()
        advance(len(chunk))
    defects.extend(_check_head(row, folder, head, root_at_head))
    if store.count(row.name) != frontier.size:
        defects.append(f"{store.count(row.name)} entries are stored, {frontier.size} of them in order")
    return Report(row.origin, frontier.size, head.size if head else 0, tuple(defects[:_MAX_DEFECTS]))


def _leaf_names(body: bytes, index: int) -> bool:
    try:
        return parse_leaf(body).extensions == b"\x00\x00\x05" + index.to_bytes(5, "big")
    except MalformedCt:
        return False


def _check_head(row: TreeRow, folder: Path, head: StoredHead | None, root: bytes | None) -> list[str]:
    if head is None:
        return ["no head was ever signed"]
    try:
        checkpoint = parse_checkpoint(open_note(head.note, signer_for(row, folder).verifier))
    except (MalformedNote, BadSignature, MalformedCheckpoint) as error:
        return [f"the stored head does not verify: {error}"]
    defects = []
    if (checkpoint.origin, checkpoint.size, checkpoint.root) != (row.origin, head.size, head.root):
        defects.append("the stored head differs from its note")
    if root != head.root:
        defects.append(f"the entries do not lead to the root signed for size {head.size}")
    return defects
