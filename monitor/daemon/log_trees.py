"""Sources of one's own for whoever asks the logs beside the daemon's passes: opened when first needed, then kept.

A source remembers things while it is read, so two threads never share one.
"""

import logging
import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from monitor.config import LogConfig
from monitor.daemon.assembly import Monitor, http_fetcher, open_log
from monitor.following.timing import Timing
from monitor.http_fetcher import MovableFetcher
from monitor.model.errors import SignwatchError
from monitor.model.log_source import LogSource

_LOG: Final = logging.getLogger(__name__)
_LIST_AGAIN: Final = timedelta(minutes=10)
Opener = Callable[[], Sequence[LogSource]]


class OwnSources:
    """Every tree of every log, listed again after ten minutes. A log that cannot be opened is left out until then.

    `openers` are asked for each time: when others are wanted than those listed, all are listed anew at once.
    """

    def __init__(self, openers: Callable[[], Mapping[Hashable, Opener]], clock: Callable[[], datetime]) -> None:
        self._openers, self._clock = openers, clock
        self._lock = threading.Lock()
        self._listed: tuple[datetime, frozenset[Hashable], list[LogSource]] | None = None

    def __call__(self) -> Sequence[LogSource]:
        """The sources; asks the logs for their trees when it is time to."""
        with self._lock:
            now, openers = self._clock(), self._openers()
            wanted = frozenset(openers)
            if self._listed is None or self._listed[1] != wanted or now - self._listed[0] >= _LIST_AGAIN:
                sources = [source for opener in openers.values() for source in _opened(opener)]
                self._listed = now, wanted, sources
            return self._listed[2]


def own_sources(monitor: Monitor, timing: Timing, parts: ExitStack) -> OwnSources:
    """Sources of all logs that are followed at the time of asking; their connections are closed with `parts`."""
    fetchers: dict[LogConfig, MovableFetcher] = {}

    def fetcher_of(log: LogConfig) -> MovableFetcher:
        if log not in fetchers:
            made = http_fetcher(log, timing.pause)
            parts.callback(made.close)
            fetchers[log] = made
        return fetchers[log]

    def openers() -> dict[Hashable, Opener]:
        # Another trust root may hold other keys; the daemon adds to `logs` while it runs.
        root = monitor.trust.kept().root.fingerprint
        return {
            (root, log): partial(open_log, log, monitor.trust, monitor.store, fetcher_of(log))
            for log in tuple(monitor.logs)
        }

    return OwnSources(openers, timing.clock)


def _opened(opener: Opener) -> Sequence[LogSource]:
    try:
        return opener()
    except SignwatchError as error:
        _LOG.warning("log_not_opened detail=%s", error)
        return ()
