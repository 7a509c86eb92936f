"""A promise that is not kept is asked for again before it counts as broken: replicas lag, caches are stale."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from monitor.model.errors import Lagging, NotShown

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Patience:
    """How often and how long to wait, in seconds, for a log to show what it signed; `pause` does the waiting."""

    pauses: tuple[float, ...]
    pause: Callable[[float], object]

    def insist(self, ask: Callable[[], _T]) -> _T:
        """Ask until the log keeps its promise or the tries are used up; other failures are not worth insisting on."""
        for seconds in self.pauses:
            try:
                return ask()
            except (NotShown, Lagging):
                self.pause(seconds)
        return ask()
