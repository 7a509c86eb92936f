"""The trees of one log are listed again every ten minutes, and when a caller says that they changed."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import pytest

from monitor.logs.opening import LIST_EVERY, LogTrees
from monitor.model.errors import FetchFailed
from monitor.model.log_source import LogSource
from tests.support.misbehaving_log import RekorV2Log

NOW = datetime.fromisoformat("2026-06-01T12:00:00+00:00")


class Log:
    """A log whose trees are counted as they are listed."""

    def __init__(self) -> None:
        self.now, self.listed = NOW, 0
        self.trees: list[LogSource] = [RekorV2Log([b"{}"]).source()]
        self.down: Exception | None = None
        self.meanwhile: Callable[[], object] = lambda: None

    def open(self) -> Sequence[LogSource]:
        self.listed += 1
        self.meanwhile()
        if self.down is not None:
            raise self.down
        return list(self.trees)


def trees_of(log: Log, retry: timedelta = timedelta(0)) -> LogTrees:
    return LogTrees(log.open, lambda: log.now, retry=retry)


def test_trees_are_listed_once_in_ten_minutes() -> None:
    log = Log()
    trees = trees_of(log)
    assert [trees.refresh(), trees.refresh()] == [True, False]
    log.now += LIST_EVERY - timedelta(seconds=1)
    assert trees.refresh() is False
    log.now += timedelta(seconds=1)
    assert trees.refresh() is True
    assert log.listed == 2


def test_forgetting_while_they_are_listed_is_not_overwritten() -> None:
    log = Log()
    trees = trees_of(log)
    log.meanwhile = trees.forget
    trees.refresh()
    log.meanwhile = lambda: None
    assert trees.refresh() is True


def test_a_listing_that_failed_is_tried_again_and_the_trees_known_before_stay() -> None:
    log = Log()
    trees = trees_of(log)
    trees.refresh()
    log.now, log.down = log.now + LIST_EVERY, FetchFailed("down")
    for _ in range(2):
        with pytest.raises(FetchFailed, match="down"):
            trees.refresh()
    assert list(trees.sources) == log.trees
    assert log.listed == 3


def test_a_log_that_is_down_is_not_asked_before_the_retry_is_due() -> None:
    log = Log()
    trees, log.down = trees_of(log, retry=LIST_EVERY), FetchFailed("down")
    with pytest.raises(FetchFailed):
        trees.refresh()
    assert (trees.refresh(), log.listed) == (False, 1)
    log.now, log.down = log.now + LIST_EVERY, None
    assert (trees.refresh(), log.listed) == (True, 2)


def test_a_tree_that_is_not_known_is_looked_for_once_more() -> None:
    log = Log()
    trees = trees_of(log)
    name = log.trees[0].identity.log
    assert trees.source(name) is log.trees[0]
    with pytest.raises(FetchFailed, match="does not list this tree any more"):
        trees.source("other")
    assert log.listed == 2
