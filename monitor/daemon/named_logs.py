"""Logs by the names people give them: one configured log, or one tree of it."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from monitor.config import Config, LogConfig
from monitor.daemon.assembly import http_fetcher, open_log
from monitor.daemon.followed_logs import configured_logs
from monitor.following.timing import Timing
from monitor.model.log_source import LogSource
from monitor.store.store import Store
from monitor.trust.provider import TrustKeeper


class UnknownLog(ValueError):
    """No log has this name, or several trees have it; the message lists what there is."""


@contextmanager
def opened_trees(
    config: Config, trust: TrustKeeper, store: Store | None, timing: Timing, name: str | None
) -> Iterator[list[LogSource]]:
    """Every tree `name` stands for, all of them without one. Connections are closed when the block ends.

    Raises `UnknownLog`, and what opening a log raises: `FetchFailed`, `OwnFault`.
    """
    logs = configured_logs(config, trust)
    wanted = [log for log in logs if name is None or log.name in {name, name.partition("/")[0]}]
    if not wanted:
        raise UnknownLog(f"no log is named {name!r}; logs: {', '.join(log.name for log in logs) or 'none'}")
    with ExitStack() as parts:
        trees = [tree for log in wanted for tree in _open(log, trust, store, timing, parts)]
        named = [tree for tree in trees if tree.identity.log == name]
        if name is not None and "/" in name and not named:
            known = ", ".join(tree.identity.log for tree in trees)
            raise UnknownLog(f"the log has no tree {name!r}; trees: {known}")
        yield named or trees


def only_tree(trees: Sequence[LogSource], name: str) -> LogSource:
    """Return the one tree a name stands for. Raises `UnknownLog` when it has several: their indexes differ."""
    if len(trees) != 1:
        known = ", ".join(tree.identity.log for tree in trees)
        raise UnknownLog(f"{name} has several trees, each counted from 0; name one of them: {known}")
    return trees[0]


def _open(
    log: LogConfig, trust: TrustKeeper, store: Store | None, timing: Timing, parts: ExitStack
) -> Sequence[LogSource]:
    fetcher = http_fetcher(log, timing.pause)
    parts.callback(fetcher.close)
    return open_log(log, trust, store, fetcher)
