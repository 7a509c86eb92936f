"""A rate with a burst: the arithmetic of a token bucket. It knows no clock and does not wait."""


class Tokens:
    """At most `rate` a second on average, `burst` at once. `now` counts seconds. Raises `ValueError` for no rate."""

    def __init__(self, rate: float, burst: float, now: float) -> None:
        if rate <= 0 or burst < 1:
            raise ValueError(f"a rate of {rate}/s with a burst of {burst} lets nothing through")
        self._rate, self._burst = rate, burst
        self._left, self._at = burst, now

    def borrow(self, now: float) -> float:
        """Take one in any case; returns the seconds to wait before it is used.

        The count may go below zero: each waiter then waits for its own share, so waiting needs no queue.
        """
        self._fill(now)
        self._left -= 1
        return max(0.0, -self._left / self._rate)

    def take(self, now: float) -> float:
        """Take one if there is one, and return 0; otherwise the seconds until there is."""
        self._fill(now)
        if self._left < 1:
            return (1 - self._left) / self._rate
        self._left -= 1
        return 0.0

    def _fill(self, now: float) -> None:
        self._left = min(self._burst, self._left + max(0.0, now - self._at) * self._rate)
        self._at = now
