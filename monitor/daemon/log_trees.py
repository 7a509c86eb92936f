"""Sources for questions to the logs beside the daemon's passes: opened when first needed, then kept.

A source remembers things while it is read, so two threads never share one.
"""

import logging
import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime
from functools import partial
from typing import Final

from monitor.config import LogConfig
from monitor.daemon.assembly import Monitor, http_fetcher, open_log
from monitor.http_fetcher import MovableFetcher
from monitor.logs.opening import LIST_EVERY, LogTrees, OpenTrees
from monitor.model.errors import SignwatchError
from monitor.model.log_source import LogSource

_LOG: Final = logging.getLogger(__name__)


class OwnSources:
    """Every tree of every log that `openers` name at the time of asking.

    A log that could not be opened is left out, and tried again when its trees would be listed again: a visitor's
    request must not become a request to a log that is down.
    """

    def __init__(self, openers: Callable[[], Mapping[Hashable, OpenTrees]], clock: Callable[[], datetime]) -> None:
        self._openers, self._clock = openers, clock
        self._lock = threading.Lock()
        self._trees: dict[Hashable, LogTrees] = {}
        self._listed: list[LogSource] = []

    def __call__(self) -> Sequence[LogSource]:
        """The sources; asks the logs for their trees when it is time to."""
        with self._lock:
            self._trees = {
                key: self._trees.get(key) or LogTrees(opener, self._clock, retry=LIST_EVERY)
                for key, opener in self._openers().items()
            }
            listed = [source for trees in self._trees.values() for source in _listed(trees)]
            if listed != self._listed:
                self._listed = listed
            return self._listed


def own_sources(monitor: Monitor, parts: ExitStack) -> OwnSources:
    """Sources of all logs that are followed at the time of asking; their connections are closed with `parts`."""
    fetchers: dict[LogConfig, MovableFetcher] = {}
    timing = monitor.services.timing

    def fetcher_of(log: LogConfig) -> MovableFetcher:
        if log not in fetchers:
            made = http_fetcher(log, timing.pause)
            parts.callback(made.close)
            fetchers[log] = made
        return fetchers[log]

    def openers() -> dict[Hashable, OpenTrees]:
        # Another trust root may hold other keys; the daemon adds to `logs` while it runs.
        root = monitor.trust.kept().root.fingerprint
        return {
            (root, log): partial(open_log, log, monitor.trust, monitor.store, fetcher_of(log))
            for log in tuple(monitor.logs)
        }

    return OwnSources(openers, timing.clock)


def _listed(trees: LogTrees) -> Sequence[LogSource]:
    try:
        trees.refresh()
    except SignwatchError as error:
        _LOG.warning("log_not_opened detail=%s", error)
    return trees.sources
