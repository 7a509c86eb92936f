"""Faults that serve other entries than the tree holds. The tree and its heads stay honest."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from msgspec.structs import replace
from typing_extensions import override

from log_lite.faults.settings import FaultSettings
from log_lite.lens import Lens
from log_lite.shard import ShardEntry, TreeView
from log_lite.store import Entry


class _OtherEntries(Lens, ABC):
    def __init__(self, settings: FaultSettings) -> None:
        self.settings = settings

    def view(self, view: TreeView) -> TreeView:
        """Return the real tree with its entries replaced by `_shown`."""

        def read(start: int, end: int) -> Sequence[Entry]:
            return self._shown(view, view.read(start, end))

        return replace(view, read=read)

    @abstractmethod
    def _shown(self, view: TreeView, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Entries to serve instead of `entries`."""


class Hide(_OtherEntries):
    """Leaves one entry out of every answer."""

    @override
    def _shown(self, view: TreeView, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Leave the entry out."""
        return [e for e in entries if e.index != self.settings.index]


class Swap(_OtherEntries):
    """Serves one entry with another body, but with the original leaf hash and therefore the original UUID."""

    @override
    def _shown(self, view: TreeView, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Swap the body."""
        body, extra = self.settings.body, self.settings.extra
        return [replace(e, body=body, extra=extra) if e.index == self.settings.index else e for e in entries]


class DuplicateIndex(_OtherEntries):
    """Serves one entry twice: the second time in place of the next entry."""

    @override
    def _shown(self, view: TreeView, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Serve entry N at N + 1 as well."""
        index = self.settings.index
        if not any(e.index == index + 1 for e in entries):
            return entries
        (twice,) = view.read(index, index + 1)
        return [replace(twice, index=index + 1) if e.index == index + 1 else e for e in entries]


class OutOfOrder(Lens):
    """Answers a retrieve request in another order than requested."""

    def retrieved(self, places: list[ShardEntry]) -> list[ShardEntry]:
        """Reverse the order."""
        return places[::-1]
