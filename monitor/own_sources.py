"""Sources of one's own for whoever asks the logs beside the daemon's passes: opened when first needed, then kept.

A source remembers things while it is read, so two threads never share one.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from monitor.assembly import Monitor, describe, http_fetcher
from monitor.config import LogConfig
from monitor.errors import SignwatchError
from monitor.net import Fetcher
from monitor.source import LogSource
from monitor.sources.opening import open_sources
from monitor.trust_keeper import TrustKeeper
from monitor.watching import Timing

_LOG: Final = logging.getLogger(__name__)
_LIST_AGAIN: Final = timedelta(minutes=10)
Opener = Callable[[], Sequence[LogSource]]


class OwnSources:
    """Every tree of every log, listed again after ten minutes. A log that cannot be opened is left out until then."""

    def __init__(self, openers: Sequence[Opener], clock: Callable[[], datetime]) -> None:
        self._openers, self._clock = openers, clock
        self._lock = threading.Lock()
        self._listed: tuple[datetime, list[LogSource]] | None = None

    def __call__(self) -> Sequence[LogSource]:
        """The sources; asks the logs for their trees when it is time to."""
        with self._lock:
            now = self._clock()
            if self._listed is None or now - self._listed[0] >= _LIST_AGAIN:
                self._listed = now, [source for opener in self._openers for source in _opened(opener)]
            return self._listed[1]


def own_sources(monitor: Monitor, timing: Timing, parts: ExitStack) -> OwnSources:
    """Sources of all configured logs, their connections closed with `parts`."""
    openers = []
    for log in monitor.logs:
        fetcher = http_fetcher(log, timing.pause)
        parts.callback(fetcher.close)
        openers.append(partial(_open, log, monitor.trust, fetcher))
    return OwnSources(openers, timing.clock)


def _open(log: LogConfig, trust: TrustKeeper, fetcher: Fetcher) -> Sequence[LogSource]:
    # Described anew each time: the keys may have changed.
    return open_sources(describe(log, trust.kept().root), fetcher)


def _opened(opener: Opener) -> Sequence[LogSource]:
    try:
        return opener()
    except SignwatchError as error:
        _LOG.warning("log_not_opened detail=%s", error)
        return ()
