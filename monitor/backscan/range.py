"""Reads and proves one range of one tree from end to end.

A scan runs the code of following over a bounded range: it hashes every entry into the tree, proves each batch
against the signed head, and compares the head with earlier ones.
"""

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Executor
from typing import Final, Protocol

from msgspec import Struct
from msgspec.structs import replace
from typing_extensions import override

from alerts.alert import counted
from monitor.backscan.progress import ScanState
from monitor.following.follower import BatchScanner, FollowLimits, LogFollower, Timing, Unkept
from monitor.following.scan_batch import RuleScanner
from monitor.judging.judge import Judge
from monitor.model.errors import FetchFailed, LogMisbehaved, OwnFault
from monitor.model.log_source import LogApi, LogSource, Position, TrustedHead
from monitor.model.state import FactStore, Hit
from monitor.proof.trusted_head import newest
from monitor.raising.log_alerts import alert_of_evidence
from rules.facts import Facts
from rules.matching.matcher import Matcher

# Rekor v1 answers a request with ten entries: such a batch takes half a minute.
_BATCH: Final = {LogApi.REKOR_V1: 256}
_BATCH_OTHERWISE: Final = 4096
_LONGEST_WAIT: Final = 30.0
_BATCH_BYTES: Final = 64 * 1024 * 1024


class BatchExaminers(Protocol):
    """Makes scanners of a tree's batches, with the rules in `matcher`."""

    @property
    def matcher(self) -> Matcher:
        """The rules that entries are offered to."""

    def batch_scanner(self, log: str, api: LogApi) -> BatchScanner:
        """Reader of one tree's batches."""


class NotInLog(OwnFault):
    """The requested range reaches beyond the log's entries."""


class ScanEnvironment(Struct, frozen=True):
    """Surroundings of a scan: time, threads that fetch ahead, and patience with outages.

    `patience` lists the seconds to wait before each further request when a log does not answer; progress restarts the
    list. `pauses` are the seconds between attempts before a promise counts as broken. `batch_entries` replaces the
    protocol's default. After `timing.stop` is set, a scan ends with the current batch.
    """

    timing: Timing
    executor: Executor | None = None
    ahead: int = 2
    patience: Sequence[float] = (1.0, 2.0, 4.0, 8.0)
    pauses: tuple[float, ...] = (1.0, 4.0)
    batch_entries: int | None = None


def waits(patience: float) -> tuple[float, ...]:
    """Growing waits that add up to `patience` seconds, for `ScanEnvironment.patience`."""
    found, wait = [], 1.0
    while patience > 0:
        found.append(min(wait, patience))
        patience, wait = patience - found[-1], min(wait * 2, _LONGEST_WAIT)
    return tuple(found)


def begin_range(
    source: LogSource,
    known: TrustedHead | None,
    first: int,
    last: int | None,
    *,
    state: ScanState,
    world: ScanEnvironment,
) -> tuple[Position, int]:
    """Authenticated beginning of a scan of `[first, last)`, and its end; `last` is the head's size if left out.

    Proven against the newest head that is consistent with `known`, the one trusted so far. Raises `NotInLog`,
    `FetchFailed`, and `LogMisbehaved` when the log contradicts itself: its evidence is already kept.
    """
    tries = iter(world.patience)
    while True:
        try:
            trusted = newest(source, known, state.record_head)
            head = trusted.head
            end = head.size if last is None else last
            if not 0 <= first <= end <= head.size:
                raise NotInLog(
                    f"{head.log} has {counted(head.size, 'entry')}; there is no range from {first} to {end} in it"
                )
            return Position(head.log, source.frontier(first, head), trusted), end
        except LogMisbehaved as misbehaved:
            state.keep_evidence(misbehaved.evidence, [alert_of_evidence(misbehaved.evidence, world.timing.clock())])
            raise
        except FetchFailed:
            if (seconds := next(tries, None)) is None:
                raise
            world.timing.pause(seconds)


def scan_range(
    source: LogSource,
    state: ScanState,
    judge: Judge,
    pool: BatchExaminers,
    *,
    last: int,
    world: ScanEnvironment,
    unkept: Unkept | None = None,
) -> Position:
    """Read, prove and judge all entries from the position of `state` to `last`; returns the new position.

    `unkept` counts broken promises over several scans, as `LogFollower` does over its passes. Raises `FetchFailed` when
    the log cannot be asked for longer than `world.patience`, `LogMisbehaved` with its evidence kept, `OwnFault`.
    The proven part is kept: calling again continues from there.
    """
    identity = source.identity
    follower = LogFollower(
        source,
        state,
        RuleScanner(pool.matcher),
        judge,
        world.timing,
        limits=FollowLimits(
            batch_entries=world.batch_entries or _BATCH.get(identity.api, _BATCH_OTHERWISE),
            batch_bytes=_BATCH_BYTES,
            ahead=world.ahead,
            pauses=world.pauses,
            end=last,
        ),
        executor=world.executor,
        batch_scanner=pool.batch_scanner(identity.log, identity.api),
        unkept=unkept,
    )
    tries = 0
    while (position := _stands(state, identity.log)).frontier.size < last and not world.timing.stop():
        try:
            follower.run_pass()
        except FetchFailed:
            if _stands(state, identity.log).frontier.size > position.frontier.size:
                tries = 0
            if tries == len(world.patience):
                raise
            world.timing.pause(world.patience[tries])
            tries += 1
    return position


def _stands(state: ScanState, log: str) -> Position:
    position = state.position(log)
    if position is None:
        raise OwnFault(f"{log}: the scan was never begun")
    return position


class ScanFacts(FactStore):
    """Facts about the past from `read`, all others from `known`."""

    def __init__(self, read: FactStore, known: FactStore) -> None:
        self._read, self._known = read, known

    @override
    def revisions(self, rules: Collection[str]) -> Mapping[str, int]:
        """Revisions of the scan's own past."""
        return self._read.revisions(rules)

    @override
    def ahead(self, hits: Sequence[Hit]) -> Facts:
        return replace(self._known.ahead(hits), past=self._read.ahead(hits).past)
