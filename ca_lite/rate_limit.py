"""A token bucket per identity, bounded in number."""

import math
import threading
from collections import OrderedDict
from typing import Final

from outbound.transport import Tokens

_MAX_BUCKETS: Final = 10_000


class RateLimiter:
    """At most `burst` at once and `per_minute` in the long run, per key. Times are monotonic seconds."""

    def __init__(self, per_minute: float, burst: int) -> None:
        self._per_second = per_minute / 60
        self._burst = burst
        self._buckets: OrderedDict[str, Tokens] = OrderedDict()
        self._lock = threading.Lock()

    def wait_seconds(self, key: str, now: float) -> int:
        """Take one: 0 when allowed, else after how many seconds to come again."""
        with self._lock:
            bucket = self._buckets.pop(key, None) or Tokens(self._per_second, self._burst, now)
            wait = bucket.take(now)
            self._buckets[key] = bucket
            # The longest-unused bucket goes first: it has refilled most, so forgetting it gives away least.
            while len(self._buckets) > _MAX_BUCKETS:
                self._buckets.popitem(last=False)
            return math.ceil(wait)
