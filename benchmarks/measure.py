"""Clocks and memory: how a figure is taken so that a busy machine changes it least."""

import gc
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

_MOMENT: Final = 0.3  # seconds

Run = Callable[[], int]
Clock = Callable[[], float]


def relative_rate(ours: Run, theirs: Run, *, rounds: int, clock: Clock = time.process_time) -> float:
    """Rate of `ours` over rate of `theirs`: the median over `rounds` of a pair taken one right after the other.

    A run does its work once and returns how many entries that were. Pairs share the machine's other load;
    the default clock counts the processor time of this process alone. One pair before the first is not counted.
    """
    ratios = []
    for number in range(rounds + 1):
        first, second = _rate(ours, clock), _rate(theirs, clock)
        if number:
            ratios.append(first / second)
    return statistics.median(ratios)


def relative_best(ours: Run, theirs: Run, *, rounds: int, begin: Callable[[], object]) -> float:
    """Best wall-clock rate of `ours` over the best of `theirs`, of `rounds` runs each, taken in turn.

    For what needs more than one core: there, other people's work does not slow both down alike. What disturbs a run
    only makes it slower, so the best is what comes nearest to an idle machine. `begin` is called before each run.
    """
    rates: tuple[list[float], list[float]] = [], []
    for _ in range(rounds):
        for run, taken in zip((ours, theirs), rates, strict=True):
            begin()
            taken.append(_rate(run, time.perf_counter))
    return max(rates[0]) / max(rates[1])


def wait_for_quiet(patience: float = 3.0, busy: float = 0.1) -> bool:
    """Wait until all cores together were less than `busy` of a core busy for a moment; at most `patience` seconds.

    Returns whether they were: the measurement then runs alone on the machine.
    """
    until = time.monotonic() + patience
    while time.monotonic() < until:
        before, started = _busy_seconds(), time.monotonic()
        time.sleep(_MOMENT)
        if _busy_seconds() - before < busy * (time.monotonic() - started):
            return True
    return False


def _busy_seconds() -> float:
    """Processor seconds that all cores spent on anything since the machine started."""
    user, nice, system, _, _, *rest = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:]
    return sum(map(int, (user, nice, system, *rest[:3]))) / os.sysconf("SC_CLK_TCK")


def _rate(run: Run, clock: Clock) -> float:
    gc.collect()
    started = clock()
    entries = run()
    return entries / (clock() - started)


def peak_memory() -> int:
    """Largest resident size of this process so far, in bytes.

    From `/proc`, not `getrusage`: the latter keeps the peak of the process that started this one.
    """
    return _status("VmHWM")


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")
