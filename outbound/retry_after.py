"""How long a server asks to be left alone (RFC 9110 10.2.3, Retry-After)."""

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
