"""Limits of one client, address or account: the `limits` library, in the database where they bound mail."""

import hashlib
import math
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final

from limits import RateLimitItem, RateLimitItemPerDay, RateLimitItemPerHour, RateLimitItemPerMinute
from limits.storage import MemoryStorage, Storage
from limits.strategies import FixedWindowRateLimiter, MovingWindowRateLimiter
from sqlalchemy import delete, select

from alerts.alert import lasting
from monitor.site.sessions import RequestRefused
from monitor.site_config import SiteLimits
from monitor.store.database import Database
from monitor.store.site_tables import RateRow
from monitor.store.sql import add_or_replace, table

_RATE: Final = table(RateRow)


class DatabaseStorage(Storage):
    """Counters of the library in the database: they outlive a restart, and several processes share them."""

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        super().__init__()
        self._database, self._clock = database, clock

    @property
    def base_exceptions(self) -> type[Exception] | tuple[type[Exception], ...]:
        """Errors of the storage itself."""
        return Exception

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Add to a counter, which begins at 0 once its window is over."""
        now, digest = self._clock(), _digest(key)
        with self._database.write() as connection:
            row = connection.execute(select(_RATE).where(_RATE.c.key == digest).with_for_update()).first()
            entries, expires = amount, now + timedelta(seconds=expiry)
            if row is not None and row.expires_at > now:
                entries, expires = row.entries + amount, row.expires_at
            add_or_replace(connection, _RATE, {"key": digest, "entries": entries, "expires_at": expires}, ("key",))
            connection.execute(delete(_RATE).where(_RATE.c.expires_at < now))
        return int(entries)

    def get(self, key: str) -> int:
        """Count in the present window."""
        row = self._row(key)
        return 0 if row is None else int(row.entries)

    def get_expiry(self, key: str) -> float:
        """End of the present window, in seconds since the epoch."""
        row = self._row(key)
        return (self._clock() if row is None else row.expires_at).timestamp()

    def check(self) -> bool:
        """Always true: an unusable database raises its own error."""
        return True

    def reset(self) -> int | None:
        """Forget every counter."""
        with self._database.write() as connection:
            return connection.execute(delete(_RATE)).rowcount

    def clear(self, key: str) -> None:
        """Forget one counter."""
        with self._database.write() as connection:
            connection.execute(delete(_RATE).where(_RATE.c.key == _digest(key)))

    def _row(self, key: str) -> Any:
        with self._database.read() as connection:
            found = connection.execute(select(_RATE).where(_RATE.c.key == _digest(key))).first()
        return found if found is not None and found.expires_at > self._clock() else None


class RateLimits:
    """The limits of one site."""

    def __init__(self, limits: SiteLimits, database: Database, clock: Callable[[], datetime]) -> None:
        self._quick = MovingWindowRateLimiter(MemoryStorage())
        self._lasting = FixedWindowRateLimiter(DatabaseStorage(database, clock))
        self._clock = clock
        self._page = RateLimitItemPerMinute(limits.requests_per_minute)
        self._api = RateLimitItemPerMinute(limits.api_requests_per_minute)
        self._entry = RateLimitItemPerMinute(limits.entries_per_minute)
        self._search = RateLimitItemPerMinute(limits.searches_per_minute)
        self._change = RateLimitItemPerMinute(max(1, limits.requests_per_minute // 4))
        self._address = RateLimitItemPerDay(limits.mails_per_address_per_day)
        self._client = RateLimitItemPerHour(limits.mails_per_client_per_hour)

    def page(self, client: str) -> None:
        """Count a request for a page. Raises `RequestRefused`."""
        self._hit_quick(self._page, "page", client)

    def change(self, account: str) -> None:
        """Count a change by an account. Raises `RequestRefused`."""
        self._hit_quick(self._change, "change", account)

    def api(self, who: str) -> None:
        """Count a request of a program. Raises `RequestRefused`."""
        self._hit_quick(self._api, "api", who)

    def entry(self, client: str) -> bool:
        """Count an entry fetched from a log for a client; false once the limit per minute is reached."""
        return self._quick.hit(self._entry, "entry", client)

    def search(self, client: str) -> None:
        """Count a search of the archive. Raises `Refused`."""
        self._hit_quick(self._search, "search", client)

    def mail_from(self, client: str) -> None:
        """Count a mail that a client requests. Raises `RequestRefused`."""
        if not self._lasting.hit(self._client, "mail", client):
            expires = self._lasting.get_window_stats(self._client, "mail", client).reset_time
            raise _too_many(expires - self._clock().timestamp())

    def mail_to(self, address: bytes) -> bool:
        """Count a mail to an address; false once the limit per day is reached."""
        return self._lasting.hit(self._address, "address", address.hex())

    def _hit_quick(self, item: RateLimitItem, what: str, who: str) -> None:
        if not self._quick.hit(item, what, who):
            raise _too_many(self._quick.get_window_stats(item, what, who).reset_time - time.time())


def _too_many(seconds: float) -> RequestRefused:
    wait = max(1, math.ceil(seconds))
    often = lasting(timedelta(seconds=wait))
    return RequestRefused(
        429, "Too often", f"This was asked for too often. Nothing was changed: wait {often}.", retry_after=wait
    )


def _digest(key: str) -> bytes:
    """A counter's name without the address in it."""
    return hashlib.sha256(key.encode()).digest()
