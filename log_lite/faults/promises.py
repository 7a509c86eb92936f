"""A log that breaks its promises: signed timestamps and proofs for entries that it never adds to its tree."""

from collections.abc import Sequence

from msgspec.structs import replace

from log_lite.ledger import PendingEntry
from log_lite.lens import Lens
from log_lite.shard import TreeView
from log_lite.store import Entry
from log_lite.tree import Tree
from tlog.merkle import leaf_hash


class SetNotIncluded(Lens):
    """Every submission gets a tree of its own, correctly signed, that no other client sees."""

    def promise(self, view: TreeView, draft: PendingEntry, now_ms: int) -> tuple[TreeView, Entry] | None:
        """Build the private tree."""
        index = view.size
        sealed = draft.seal(index, now_ms)
        entry = Entry(index, leaf_hash(sealed.body), now_ms, sealed.body, sealed.extra)
        tree = Tree([*(view.tree.leaf(i) for i in range(index)), entry.leaf_hash])

        def read(start: int, end: int) -> Sequence[Entry]:
            return [*view.read(start, end), *([entry] if start <= index < end else [])]

        return replace(view, tree=tree, size=tree.size, read=read), entry
