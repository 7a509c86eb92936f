"""Rate-limits repeated warnings: once when trouble starts, then hourly. Repetition would fill a full disk further."""

import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

_AGAIN_AFTER: Final = timedelta(hours=1)


class LogThrottle:
    """Remembers when each trouble was logged. Safe to use from several threads; in memory, so a restart logs anew."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._said: dict[str, datetime] = {}

    def admits(self, what: str) -> bool:
        """True if this trouble is to be logged now; it then counts as logged."""
        with self._lock:
            now, last = self._clock(), self._said.get(what)
            if last is not None and now - last < _AGAIN_AFTER:
                return False
            self._said[what] = now
            return True

    def reset(self, what: str) -> None:
        """Forget a trouble, so that it is logged at once when it returns."""
        with self._lock:
            self._said.pop(what, None)
