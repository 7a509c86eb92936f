"""Faults that show another tree: a forked, older or frozen tree, or a closed tree that was changed."""

import itertools
import threading
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from log_lite.faults.settings import FaultSettings
from log_lite.lens import Lens
from log_lite.shard import Shard, TreeView
from log_lite.store import Entry
from log_lite.tree import Tree
from tlog.merkle import leaf_hash
from tlog.tiles import TILE_WIDTH


class Forged:
    """A tree with one leaf replaced, which goes on growing with the real one."""

    def __init__(self, settings: FaultSettings) -> None:
        self._settings = settings
        self._leaf = leaf_hash(settings.body)
        self._tree = Tree()
        self._lock = threading.Lock()

    def view(self, view: TreeView) -> TreeView:
        """Return a view of the forged tree: its hashes, proofs and entries are consistent with each other."""
        index = self._settings.index
        if view.size <= index:
            return view
        with self._lock:
            grown = range(self._tree.size, view.size)
            self._tree.extend(self._leaf if i == index else view.tree.leaf(i) for i in grown)

        def read(start: int, end: int) -> Sequence[Entry]:
            return [self._settings.forged(e) if e.index == index else e for e in view.read(start, end)]

        def find(leaf: bytes) -> Sequence[int]:
            return [index] if leaf == self._leaf else [i for i in view.find(leaf) if i != index]

        return replace(view, tree=self._tree, read=read, find=find)


class Fork(Lens):
    """A consistent alternate history from entry N on."""

    def __init__(self, settings: FaultSettings) -> None:
        self._forged = Forged(settings)

    def view(self, view: TreeView) -> TreeView:
        """Show the forged tree."""
        return self._forged.view(view)


class PartialNotPrefix(Lens):
    """A forged entry until its tile is full: the partial tiles and the full one contradict each other."""

    def __init__(self, settings: FaultSettings) -> None:
        self._forged = Forged(settings)
        self._full_at = (settings.index // TILE_WIDTH + 1) * TILE_WIDTH

    def view(self, view: TreeView) -> TreeView:
        """Show the forged tree as long as the tile is partial."""
        return self._forged.view(view) if view.size < self._full_at else view


class InactiveShardChanged(Lens):
    """A closed Rekor v1 shard with another last entry, and so another root."""

    def __init__(self, settings: FaultSettings) -> None:
        self._forged = Forged(settings)
        self._tree_name = settings.tree

    def past_view(self, view: TreeView) -> TreeView:
        """Show the forged tree of that shard only."""
        return self._forged.view(view) if view.row.name == self._tree_name else view


class ShardVanished(Lens):
    """Leaves a closed Rekor v1 shard out of the list; its entries are not found."""

    def __init__(self, settings: FaultSettings) -> None:
        self._tree_name = settings.tree

    def listed(self, shards: Sequence[Shard]) -> list[Shard]:
        """Leave that shard out."""
        return [shard for shard in shards if shard.row.name != self._tree_name]


class Rewind(Lens):
    """A tree that stays at one size, or went back to it."""

    def __init__(self, settings: FaultSettings) -> None:
        self._size = settings.size

    def view(self, view: TreeView) -> TreeView:
        """Show the tree at that size or smaller."""
        return replace(view, size=min(view.size, self._size))


class Freeze(Rewind):
    """A tree that has stopped, with heads that carry the time of the freeze."""

    def __init__(self, settings: FaultSettings) -> None:
        super().__init__(settings)
        self._now_ms = settings.now_ms

    def now_ms(self, now_ms: int) -> int:  # noqa: ARG002  this lens hides the current time
        """Time of the freeze, in milliseconds."""
        return self._now_ms


class StaleReplica(Rewind):
    """Two replicas under one name, of which one lags: every second request reaches the lagging replica."""

    def __init__(self, settings: FaultSettings) -> None:
        super().__init__(settings)
        self._stale: Callable[[], bool] = itertools.cycle((True, False)).__next__

    def view(self, view: TreeView) -> TreeView:
        """Show the old size every second time."""
        return super().view(view) if self._stale() else view


class Unfreeze(Lens):
    """A frozen shard without its freeze line, one entry longer than it was."""

    def __init__(self, settings: FaultSettings) -> None:
        self._settings = settings

    def view(self, view: TreeView) -> TreeView:
        """Show the grown tree, if this is the shard."""
        return self.past_view(view)

    def past_view(self, view: TreeView) -> TreeView:
        """Show the grown tree, if this is the shard."""
        if view.row.name != self._settings.tree:
            return view
        tree = Tree([*(view.tree.leaf(i) for i in range(view.size)), leaf_hash(self._settings.body)])
        added = Entry(view.size, tree.leaf(view.size), 0, self._settings.body, self._settings.extra)

        def read(start: int, end: int) -> Sequence[Entry]:
            return [*view.read(start, min(end, view.size)), *([added] if start <= added.index < end else [])]

        return replace(view, row=replace(view.row, extension=None), tree=tree, size=tree.size, read=read)
