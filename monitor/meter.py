"""What following tells whoever counts, and a fetcher that counts requests. Nothing here knows of Prometheus."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final, Protocol

from alerts.alert import Owner
from alerts.outbox import Backlog
from monitor.errors import FetchFailed
from monitor.net import Expect, MovableFetcher
from monitor.state import Batch
from monitor.store.promises import Tally

FETCHED: Final = "ok"


class Meter(Protocol):
    """Receives numbers. Never raises, never blocks."""

    def add_log(self, log: str) -> None:
        """A log is followed: every series of it exists from now on."""

    def passed(self, log: str, at: datetime, owner: Owner | None) -> None:
        """A pass ended: well, or with trouble of this owner."""

    def misbehaved(self, log: str, kind: str) -> None:
        """New evidence against a log was stored."""

    def position(self, log: str, verified: int, head: int, head_at: datetime | None) -> None:
        """Where a log stands: entries verified, size of the trusted head, and when that was signed or first seen."""

    def batch(self, batch: Batch) -> None:
        """A batch was committed."""

    def looked_back(self, log: str, entries: int, findings: Mapping[str, int], dropped: int) -> None:
        """Entries were offered to rules that came late: findings by outcome, and matches left out."""

    def back_scan(self, log: str, remaining: int) -> None:
        """How many entries are still to be offered to rules that came late."""

    def rules(self, rules: int, unindexed: int) -> None:
        """Rules were put in force; so many of them are asked about every entry."""

    def coverage(self, log: str, rules: int, entries: int) -> None:
        """So many active rules were not offered all that was followed, and so many entries are lacking to one."""

    def fetched(self, log: str, result: str, seconds: float) -> None:
        """A request to a log ended; `result` is `ok` or a `FetchFailed.reason`."""

    def delivered(self, channel: str, *, delivered: int, failed: int, given_up: int) -> None:
        """A delivery pass over a channel ended."""

    def outbox(self, backlog: Mapping[str, Backlog], now: datetime) -> None:
        """What waits in the outbox, per channel that has any."""

    def promises(self, tally: Tally) -> None:
        """How many promises of logs wait to be seen kept, and how the others ended."""

    def trust_root(self, refreshed_at: datetime, expires: datetime | None) -> None:
        """The trust root was refreshed; `expires` where its metadata says so."""

    def trust_refreshed(self, *, well: bool) -> None:
        """A refresh of the trust root was tried."""


class MeteredFetcher:
    """A `Fetcher` that reports each request. `clock` counts seconds."""

    def __init__(self, inner: MovableFetcher, meter: Meter, log: str, clock: Callable[[], float]) -> None:
        self._inner, self._meter, self._log, self._clock = inner, meter, log, clock

    def move_to(self, base_url: str) -> None:
        """See `MovableFetcher.move_to`."""
        self._inner.move_to(base_url)

    def get(self, path: str, *, max_bytes: int, expect: Expect) -> bytes:
        """See `Fetcher.get`."""
        return self._metered(lambda: self._inner.get(path, max_bytes=max_bytes, expect=expect))

    def post_json(self, path: str, document: Any, *, max_bytes: int) -> bytes:
        """See `Fetcher.post_json`."""
        return self._metered(lambda: self._inner.post_json(path, document, max_bytes=max_bytes))

    def _metered(self, ask: Callable[[], bytes]) -> bytes:
        began = self._clock()
        try:
            answer = ask()
        except FetchFailed as error:
            self._meter.fetched(self._log, error.reason, self._clock() - began)
            raise
        self._meter.fetched(self._log, FETCHED, self._clock() - began)
        return answer
