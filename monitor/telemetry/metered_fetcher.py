"""A fetcher that reports each request to a `FetchMeter`."""

from collections.abc import Callable
from typing import Any

from typing_extensions import override

from monitor.http_fetcher import Expect, MovableFetcher
from monitor.model.errors import FetchFailed
from monitor.telemetry.hooks import FETCHED, FetchMeter


class MeteredFetcher(MovableFetcher):
    """A `Fetcher` that reports each request. `clock` counts seconds."""

    def __init__(self, inner: MovableFetcher, meter: FetchMeter, log: str, clock: Callable[[], float]) -> None:
        self._inner, self._meter, self._log, self._clock = inner, meter, log, clock

    @override
    def move_to(self, base_url: str) -> None:
        self._inner.move_to(base_url)

    @override
    def get(self, path: str, *, max_bytes: int, expect: Expect) -> bytes:
        return self._metered(lambda: self._inner.get(path, max_bytes=max_bytes, expect=expect))

    @override
    def post_json(self, path: str, document: Any, *, max_bytes: int) -> bytes:
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
