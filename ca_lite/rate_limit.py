"""A token bucket per identity; the number of buckets is bounded."""

import math
import threading
from collections import OrderedDict
from typing import Final

from outbound.transport import Tokens

_MAX_BUCKETS: Final = 10_000


class RateLimiter:
    """Allows each key at most `burst` requests at once and `per_minute` in the long run.

    Times are monotonic seconds.
    """

    def __init__(self, per_minute: float, burst: int) -> None:
        self._per_second = per_minute / 60
        self._burst = burst
        self._buckets: OrderedDict[str, Tokens] = OrderedDict()
        self._lock = threading.Lock()

    def wait_seconds(self, key: str, now: float) -> int:
        """Count one request. Returns 0 if it is allowed, else the number of seconds to wait."""
        with self._lock:
            bucket = self._buckets.pop(key, None) or Tokens(self._per_second, self._burst, now)
            wait = bucket.take(now)
            self._buckets[key] = bucket
            # The bucket unused for longest is dropped first: it is nearly full again, so dropping it allows the fewest
            # requests.
            while len(self._buckets) > _MAX_BUCKETS:
                self._buckets.popitem(last=False)
            return math.ceil(wait)
