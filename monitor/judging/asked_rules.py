"""What subscribers ask for, in force: an index that follows the database change by change."""

import threading
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final, Protocol

from rules.asking import AskIndex, rule_of
from rules.rule import Rule

_KEPT: Final = 50_000


class RequestChange(Protocol):
    """One request that was added, changed or removed. `keys` are those it is filed under."""

    @property
    def number(self) -> int:
        """Number of the request."""

    @property
    def keys(self) -> Any:
        """Keys of the index, as `rules.asking.AskIndex` takes them."""

    @property
    def active(self) -> bool:
        """True while a subscription asks for it."""


class RequestTexts(Protocol):
    """Requests as they are stored."""

    def last_change(self) -> int:
        """Number of the newest change."""

    def changed(self, after: int, up_to: int) -> Iterable[RequestChange]:
        """Changes of `(after, up_to]`, oldest first."""

    def documents(self, numbers: Collection[int]) -> Mapping[int, str]:
        """Texts of requests by number."""


class AskedRules:
    """Requests in force. `refresh` is called by one thread; everything else from any.

    Texts of requests are loaded when an entry shows a key of one: a million requests are a million keys in memory.
    """

    def __init__(self, asks: RequestTexts) -> None:
        self._asks = asks
        self.index = AskIndex()
        self._known: OrderedDict[int, Rule] = OrderedDict()
        self._lock = threading.Lock()
        self._change = 0

    @property
    def change(self) -> int:
        """Number of the last change that is in the index."""
        return self._change

    def refresh(self) -> int:
        """Take over what changed since the last time; return how much did."""
        last = self._asks.last_change()
        changes = 0
        if last > self._change:
            is_first = self._change == 0
            for each in self._asks.changed(self._change, last):
                changes += 1
                # Keys of a request do not change while it is known, so filing one twice is what must not happen.
                if not is_first:
                    self.index.remove(each.number, each.keys)
                if each.active:
                    self.index.add(each.number, each.keys)
            self.index.ready()
            self._change = last
        return changes

    def load(self, numbers: Collection[int]) -> Mapping[int, Rule]:
        """Rules of requests by number; those that are not known are left out. Raises `OwnFault`."""
        with self._lock:
            found = {number: self._known[number] for number in numbers if number in self._known}
        missing = [number for number in numbers if number not in found]
        if missing:
            loaded = {number: rule_of(number, text) for number, text in self._asks.documents(missing).items()}
            found.update(loaded)
            with self._lock:
                self._known.update(loaded)
                while len(self._known) > _KEPT:
                    self._known.popitem(last=False)
        return {number: found[number] for number in numbers if number in found}
