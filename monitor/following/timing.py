"""The clock, the pauses and the stop signal that long-running work is given."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Timing:
    """What a pass needs of the world: a clock, a way to wait, and whether it should come to an end."""

    clock: Callable[[], datetime]
    pause: Callable[[float], object]
    stop: Callable[[], bool] = lambda: False
