"""Whether a log's silence means anything. Heads of Rekor carry no signed time, so an old head is no lie by itself."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final

CLOCK_SKEW: Final = timedelta(minutes=10)
"""How far two honest clocks may be apart."""
# Before anything is learned of a log it must have grown this often.
_GROWTHS: Final = 8
# A silence is unusual when it lasts this many times the longest before it, and this many entries are missed in it.
_LONGER: Final = 3
_MISSED: Final = 10
# SPEC RFC 6962 3.5: a log signs a new head at least once per maximum merge delay, new entries or none. 24 hours is the
# longest that a client's policy accepts.
_LONGEST_MERGE_DELAY: Final = timedelta(hours=24)

_POLLS_MISSED: Final = 5
_LEAST_PAUSE: Final = timedelta(minutes=2)

Growth = Sequence[tuple[datetime, int]]
"""When heads were first seen, and their sizes, oldest first."""


@dataclass(frozen=True, slots=True)
class Freshness:
    """How long a log may show nothing new. `busy`: whether it must move in that time; `None` leaves it to its past.

    `poll` is the time between two passes.
    """

    stale_after: timedelta
    busy: bool | None = None
    poll: timedelta = timedelta(seconds=30)

    @property
    def longest_pause(self) -> timedelta:
        """Time between two passes that succeeded after which the log was not watched."""
        return max(self.poll * _POLLS_MISSED, _LEAST_PAUSE)

    def is_silent(self, fresh: datetime, now: datetime) -> bool:
        """Whether nothing new was shown for too long, if it is a busy log."""
        return now - fresh > self.stale_after

    def is_unusual(self, fresh: datetime, now: datetime, growth: Callable[[], Growth], *, signs_time: bool) -> bool:
        """Whether the silence since `fresh` says that something keeps new heads from us.

        `signs_time`: heads of this log carry the time they were signed at, and are signed anew without new entries.
        """
        if not self.is_silent(fresh, now):
            return False
        if self.busy is not None:
            return self.busy
        return (signs_time and now - fresh > _LONGEST_MERGE_DELAY) or is_unusual_silence(growth(), now - fresh)


def is_unusual_silence(growth: Growth, silence: timedelta) -> bool:
    """Whether a log that grew like this would have grown in `silence`. False for one of which too little is known."""
    grown: list[tuple[datetime, int]] = []
    for at, size in growth:
        if not grown or size > grown[-1][1]:
            grown.append((at, size))
    if len(grown) <= _GROWTHS:
        return False
    (first, first_size), (last, last_size) = grown[0], grown[-1]
    longest = max(later - earlier for (earlier, _), (later, _) in pairwise(grown))
    if longest <= timedelta(0) or last <= first:
        return False
    missed = (last_size - first_size) * (silence / (last - first))
    return silence > _LONGER * longest and missed >= _MISSED
