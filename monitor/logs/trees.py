"""The trees of one log: opened when they are first needed, and listed again every ten minutes."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final

from monitor.model.errors import FetchFailed
from monitor.model.log_source import LogSource

MAX_SIGNED: Final = 64
LIST_EVERY: Final = timedelta(minutes=10)


class Trees(list[LogSource]):
    """Sources of one log, oldest first. `left_out` counts trees that the log names and that are not followed.

    A list of trees is not signed, so one without a head by the pinned key may be made up; of signed ones that are not
    followed yet the newest `MAX_SIGNED` are taken.
    """

    def __init__(self, sources: Iterable[LogSource] = (), *, left_out: int = 0) -> None:
        super().__init__(sources)
        self.left_out = left_out


OpenTrees = Callable[[], Sequence[LogSource]]
"""Opens every tree of one log. Raises `FetchFailed`, `OwnFault`."""


class LogTrees:
    """Trees of one log. `refresh` is called by one thread at a time, `forget` by any.

    A listing that failed is tried again at the next `refresh`, but not before `retry` is over: until then the log is
    not asked. Trees listed before stay in `sources`.
    """

    def __init__(
        self, open_trees: OpenTrees, clock: Callable[[], datetime], *, retry: timedelta = timedelta(0)
    ) -> None:
        self._open, self._clock, self._retry = open_trees, clock, retry
        self._listed_at: datetime | None = None
        self._failed_at: datetime | None = None
        self.sources: Sequence[LogSource] = ()

    def forget(self) -> None:
        """List the trees again at the next `refresh`: the log's keys or its address may have changed."""
        self._listed_at = self._failed_at = None

    def refresh(self) -> bool:
        """List the trees where that is due; true if they were listed. Raises what opening raises."""
        now = self._clock()
        if self._listed_at is not None and now - self._listed_at < LIST_EVERY:
            return False
        if self._failed_at is not None and now - self._failed_at < self._retry:
            return False
        # Set before opening, so that a concurrent `forget` is not overwritten.
        self._listed_at = now
        try:
            self.sources = self._open()
        except BaseException:
            self._listed_at, self._failed_at = None, now
            raise
        self._failed_at = None
        return True

    @property
    def left_out(self) -> int:
        """How many trees the log named in the newest listing that are not followed."""
        return self.sources.left_out if isinstance(self.sources, Trees) else 0

    def source(self, log: str) -> LogSource:
        """The tree named `log`; if it is unknown, the trees are listed again. Raises `FetchFailed`, `OwnFault`."""
        if not self.refresh() and log not in self._logs():
            self.forget()
            self.refresh()
        for source in self.sources:
            if source.identity.log == log:
                return source
        raise FetchFailed(f"{log}: the log does not list this tree any more, so its entries cannot be read")

    def _logs(self) -> set[str]:
        return {source.identity.log for source in self.sources}
