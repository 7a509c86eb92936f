"""Sources for requests to logs outside the daemon's passes: of one log or tree by its name, or of all followed ones.

A source has a state, so two threads never share one.
"""

import logging
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from monitor.config import Config, LogConfig
from monitor.daemon.configured_log import as_followed, http_fetcher, open_log, requests_per_second
from monitor.daemon.followed_logs import configured_logs, where_it_is
from monitor.following.follower import Timing
from monitor.http_fetcher import HttpFetcher
from monitor.logs.opening import LIST_EVERY, LogTrees, OpenTrees, pinned_to
from monitor.model.errors import SignwatchError
from monitor.model.log_description import LogDescription
from monitor.model.log_source import LogSource
from monitor.store.store import Store
from monitor.trust.provider import TrustKeeper

if TYPE_CHECKING:
    from monitor.daemon.assembly import Monitor


class UnknownLogName(ValueError):
    """No log has this name, or several trees have it; the message lists the names."""


class NamedTree(Struct, frozen=True):
    """One tree of a configured log: its source, its fetcher, and the description that opens it elsewhere."""

    source: LogSource
    log: LogConfig
    fetcher: HttpFetcher
    description: LogDescription

    @property
    def requests_per_second(self) -> int:
        """Highest rate of requests to the log."""
        return requests_per_second(self.log)


@contextmanager
def opened_trees(
    config: Config, trust: TrustKeeper, store: Store | None, timing: Timing, name: str | None
) -> Iterator[list[LogSource]]:
    """Every tree with this name, or all trees without a name. Connections are closed when the block ends.

    Raises `UnknownLogName`, `FetchFailed`, `OwnFault`.
    """
    with opened_named(config, trust, store, timing, name) as trees:
        yield [tree.source for tree in trees]


@contextmanager
def opened_named(
    config: Config, trust: TrustKeeper, store: Store | None, timing: Timing, name: str | None
) -> Iterator[list[NamedTree]]:
    """The same trees, each with the fetcher and description that opened it."""
    logs = configured_logs(config, trust)
    wanted = [log for log in logs if name is None or log.name in {name, name.partition("/")[0]}]
    if not wanted:
        raise UnknownLogName(f"no log is named {name!r}; logs: {', '.join(log.name for log in logs) or 'none'}")
    with ExitStack() as parts:
        trees = [tree for log in wanted for tree in _open(log, trust, store, timing, parts)]
        named = [tree for tree in trees if tree.source.identity.log == name]
        if name is not None and "/" in name and not named:
            known = ", ".join(tree.source.identity.log for tree in trees)
            raise UnknownLogName(f"the log has no tree {name!r}; trees: {known}")
        yield named or trees


def only_tree(trees: Sequence[LogSource], name: str) -> LogSource:
    """The only tree with this name. Raises `UnknownLogName` when there are several, because their indexes differ."""
    if len(trees) != 1:
        known = ", ".join(tree.identity.log for tree in trees)
        raise UnknownLogName(f"{name} has several trees, each counted from 0; name one of them: {known}")
    return trees[0]


def _open(
    log: LogConfig, trust: TrustKeeper, store: Store | None, timing: Timing, parts: ExitStack
) -> Sequence[NamedTree]:
    fetcher = http_fetcher(log, timing.pause)
    parts.callback(fetcher.close)
    sources = open_log(log, trust, store, fetcher)
    description = as_followed(where_it_is(log, trust), trust, store)
    return [NamedTree(source, log, fetcher, pinned_to(description, source.identity)) for source in sources]


_LOG: Final = logging.getLogger(__name__)


class OwnSources:
    """Every tree of every log that `openers` names at the time of the call.

    A log that could not be opened is left out until its trees are listed again, so that a visitor's request does not
    cause a request to a log that is down.
    """

    def __init__(self, openers: Callable[[], Mapping[Hashable, OpenTrees]], clock: Callable[[], datetime]) -> None:
        self._openers, self._clock = openers, clock
        self._lock = threading.Lock()
        self._trees: dict[Hashable, LogTrees] = {}
        self._listed: list[LogSource] = []

    def __call__(self) -> Sequence[LogSource]:
        """The sources; lists the logs' trees again when the list is old."""
        with self._lock:
            self._trees = {
                key: self._trees.get(key) or LogTrees(opener, self._clock, retry=LIST_EVERY)
                for key, opener in self._openers().items()
            }
            listed = [source for trees in self._trees.values() for source in _listed(trees)]
            if listed != self._listed:
                self._listed = listed
            return self._listed


def own_sources(monitor: "Monitor", parts: ExitStack) -> OwnSources:
    """Sources of all logs that are followed at the time of the call; `parts` closes their connections."""
    fetchers: dict[LogConfig, HttpFetcher] = {}
    timing = monitor.services.timing

    def fetcher_of(log: LogConfig) -> HttpFetcher:
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
