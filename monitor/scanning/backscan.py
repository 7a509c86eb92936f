"""Back-scanning beside a running daemon: one small step at a time, so that following is never held up."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from monitor.follow import Judge
from monitor.scanning.missing import missing_ranges
from monitor.scanning.pool import ExaminerPool
from monitor.scanning.run import World, begin_range, scan_range
from monitor.scanning.state import PassingProgress, Recording, ScanState, SomeRules
from monitor.source import LogSource
from monitor.state import Batch
from monitor.store.store import Store
from rules.index import Matcher


@dataclass(frozen=True, slots=True)
class Step:
    """What one step did: entries `[first, last)` were offered to `rules`; `left` entries are still to be offered."""

    log: str
    first: int
    last: int
    rules: frozenset[str]
    findings: int
    left: int


def backscan_step(
    source: LogSource,
    store: Store,
    matcher: Matcher,
    rules: Mapping[str, str],
    judge: Judge,
    *,
    clock: Callable[[], datetime],
    pause: Callable[[float], object],
    entries: int = 4096,
    first: int | None = None,
) -> Step | None:
    """Offer the next `entries` entries of one tree to the rules that were never offered them; `None` when none is left.

    `rules` are the active ones (id to what they select), compiled in `matcher`. Findings, their alerts and the covered
    range are committed together, so a step may be killed at any point. How often it is called bounds the rate; give it
    a `source` of its own, so that its requests do not wait in the same queue as following's.

    Raises `FetchFailed`, `LogMisbehaved` with its evidence kept, `OwnFault`.
    """
    log = source.identity.log
    gaps = missing_ranges(store, log, rules, first)
    if not gaps:
        return None
    gap, known = gaps[0], store.position(log)
    # Cut at multiples, so that a step's batch is one aligned subtree.
    last = min(gap.last, (gap.first // entries + 1) * entries)
    found = 0

    def count(batch: Batch) -> None:
        nonlocal found
        found += len(batch.findings)

    recording = Recording({rule: rules[rule] for rule in gap.rules}, deliver=True)
    state = ScanState(PassingProgress(), store, recording=recording, on_batch=count)
    world = World(clock, pause, ahead=1, patience=(), pauses=(1.0,), batch_entries=entries)
    trusted = known.head if known is not None else None
    position, _ = begin_range(source, trusted, gap.first, last, state=state, world=world)
    state.baseline(position, "back-scan")
    pool = ExaminerPool(matcher, 1)
    scan_range(source, state, SomeRules(judge, gap.rules), pool, last=last, world=world)
    left = sum(each.last - each.first for each in gaps) - (last - gap.first)
    return Step(log, gap.first, last, gap.rules, found, left)
