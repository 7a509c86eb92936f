"""Log lines about what goes on being wrong: when it begins, then now and then. A full disk takes no more lines."""

import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

_AGAIN_AFTER: Final = timedelta(hours=1)


class Seldom:
    """Knows what was said of which trouble. Safe to use from several threads; kept in memory, for a restart is news."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._said: dict[str, datetime] = {}

    def is_news(self, what: str) -> bool:
        """Whether this trouble is to be said now; it counts as said then."""
        with self._lock:
            now, last = self._clock(), self._said.get(what)
            if last is not None and now - last < _AGAIN_AFTER:
                return False
            self._said[what] = now
            return True

    def is_over(self, what: str) -> None:
        """Forget a trouble: when it comes back it is news."""
        with self._lock:
            self._said.pop(what, None)
