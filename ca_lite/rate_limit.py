"""A token bucket per identity, bounded in number."""

import math
import threading
from collections import OrderedDict
from typing import Final

_MAX_BUCKETS: Final = 10_000


class RateLimiter:
    """At most `burst` at once and `per_minute` in the long run, per key. Times are monotonic seconds."""

    def __init__(self, per_minute: float, burst: int) -> None:
        self._per_second = per_minute / 60
        self._burst = burst
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def wait_seconds(self, key: str, now: float) -> int:
        """Take one: 0 when allowed, else after how many seconds to come again."""
        with self._lock:
            level, since = self._buckets.pop(key, (float(self._burst), now))
            level = min(self._burst, level + max(0.0, now - since) * self._per_second)
            allowed = level >= 1
            self._buckets[key] = (level - 1 if allowed else level, now)
            # The longest-unused bucket goes first: it has refilled most, so forgetting it gives away least.
            while len(self._buckets) > _MAX_BUCKETS:
                self._buckets.popitem(last=False)
            return 0 if allowed else max(1, math.ceil((1 - level) / self._per_second))
