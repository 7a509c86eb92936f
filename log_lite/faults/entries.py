"""Faults that serve other entries than the tree holds. The tree and its heads stay honest."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace

from typing_extensions import override

from log_lite.faults.settings import Settings
from log_lite.lens import Lens
from log_lite.shard import Place, View
from log_lite.store import Entry


class _OtherEntries(Lens, ABC):
    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def view(self, view: View) -> View:
        """Show the real tree with other entries."""

        def read(start: int, end: int) -> Sequence[Entry]:
            return self._shown(view, view.read(start, end))

        return replace(view, read=read)

    @abstractmethod
    def _shown(self, view: View, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Entries that are served instead of `entries`."""


class Hide(_OtherEntries):
    """One entry is left out wherever it would be served."""

    @override
    def _shown(self, view: View, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Leave the entry out."""
        return [e for e in entries if e.index != self.settings.index]


class Swap(_OtherEntries):
    """One entry has another body; the leaf hash beside it stays, so its UUID does too."""

    @override
    def _shown(self, view: View, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Swap the body."""
        body, extra = self.settings.body, self.settings.extra
        return [replace(e, body=body, extra=extra) if e.index == self.settings.index else e for e in entries]


class DuplicateIndex(_OtherEntries):
    """One entry is served a second time, in the place of the next one."""

    @override
    def _shown(self, view: View, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Serve entry N at N + 1 as well."""
        index = self.settings.index
        if not any(e.index == index + 1 for e in entries):
            return entries
        (twice,) = view.read(index, index + 1)
        return [replace(twice, index=index + 1) if e.index == index + 1 else e for e in entries]


class OutOfOrder(Lens):
    """Retrieve answers in another order than asked."""

    def retrieved(self, places: list[Place]) -> list[Place]:
        """Turn the order around."""
        return places[::-1]
