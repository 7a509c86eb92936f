"""Progress of a long test: a line now and then on standard error, for a person or a CI log to follow."""

import sys
import time
from collections.abc import Iterator, Sequence
from typing import Final, TypeVar

_T = TypeVar("_T")
_EVERY_SECONDS: Final = 10.0


class Progress:
    """Says how far something of `total` parts is, at most every few seconds, and how long the rest may take."""

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total = what, total
        self._began = self._told = time.monotonic()

    def at(self, done: int, more: str = "") -> None:
        """`done` parts are over; `more` is told beside it."""
        now = time.monotonic()
        if now - self._told < _EVERY_SECONDS and done < self._total:
            return
        self._told = now
        took = now - self._began
        left = f", some {_shown(took * (self._total - done) / done)} to go" if 0 < done < self._total else ""
        line = f"  {self._what}: {done:,} of {self._total:,} in {_shown(took)}{left}{more and '; '}{more}"
        print(line, file=sys.stderr, flush=True)


def told(things: Sequence[_T], what: str) -> Iterator[_T]:
    """Iterate over things, saying how far it is."""
    progress = Progress(what, len(things))
    for done, thing in enumerate(things, start=1):
        yield thing
        progress.at(done)


def _shown(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s"
