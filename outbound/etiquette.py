"""Manners towards other hosts, without I/O or a clock: Retry-After, a rate with a burst."""

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

_MAX_DIGITS: Final = 9  # thirty years of seconds


def parse_retry_after(value: str | None, now: datetime | None) -> timedelta | None:
    """Return the wait that a Retry-After header asks for: seconds or an HTTP date; None when absent or not understood.

    `now` is the time the date counts from: the answer's own Date, or our clock. Without it a date is not understood.
    """
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit() and len(value) <= _MAX_DIGITS:
        return timedelta(seconds=int(value))
    at = parse_http_date(value)
    return None if at is None or now is None else max(at - now, timedelta(0))


def parse_http_date(value: str | None) -> datetime | None:
    """Return the time of an HTTP date (RFC 9110 5.6.7), None when it is none."""
    try:
        at = parsedate_to_datetime(value or "")
    except (TypeError, ValueError):
        return None
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


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
