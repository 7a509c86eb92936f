"""Older entries of one log, offered to newer rules in small steps beside following.

Following comes first: the back-scan stops while following has a backlog, and pauses after a step at least as long as
the step took. The database holds the offered ranges, so a restart continues after the last commit.
"""

import logging
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Final

from msgspec import Struct, field

from alerts.alert import Owner
from alerts.inert import inert_line
from monitor.backscan.step import BackscanStep, backscan_step
from monitor.config import BackscanConfig
from monitor.following.follower import Timing, Unkept
from monitor.judging.active_rules import HeldRules, RuleKeeper
from monitor.judging.judge import RuleJudge
from monitor.logs.opening import LogTrees, OpenTrees
from monitor.model.errors import FetchFailed, LogMisbehaved
from monitor.model.log_source import LogApi, LogSource, Position
from monitor.raising.log_alerts import back_scan_stuck_alert
from monitor.store.coverage import BackScan, CoverageGroup, Gap, first_gap, union_size, without_first
from monitor.store.reading import Reading
from monitor.store.store import Store
from monitor.telemetry.hooks import BackscanMeter, Meter
from monitor.trust.provider import TrustKeeper
from rules.matching.matcher import Matcher, compile_rules
from rules.rule import LookBack, first_wanted

_LOG: Final = logging.getLogger(__name__)
# Rekor v1 answers a request with ten entries: such a step takes some seconds.
_ENTRIES: Final = {LogApi.REKOR_V1: 64}
_ENTRIES_OTHERWISE: Final = 2048
_STEP_SECONDS: Final = 4
_BACKLOG: Final = 4096  # a longer backlog of following (in entries) pauses the back-scan
_PLAN_AGAIN: Final = timedelta(seconds=5)
_PLANNING_SHARE: Final = 50  # planning takes at most one part in this many of the time
_TELL_EVERY: Final = timedelta(seconds=2)
_FIRST_RETRY: Final = timedelta(seconds=15)
_LONGEST_RETRY: Final = timedelta(minutes=15)
_MAX_LINE: Final = 1_000


class _BackscanTree(Struct):
    """One tree: ranges that rules still lack, and the state of its back-scan."""

    log: str
    lacking: dict[tuple[int, int], frozenset[str]] = field(default_factory=dict)
    unkept: Unkept = field(default_factory=dict)
    began_at: datetime | None = None
    read: int = 0
    told_at: datetime | None = None
    failures: int = 0
    retry_at: datetime | None = None

    @property
    def remaining(self) -> int:
        """Number of entries still to be read."""
        return union_size(self.lacking)


FromArchive = Callable[[LogSource, Gap, Matcher, Mapping[str, str], RuleJudge], BackscanStep | None]
"""Offers the beginning of a gap to its rules from the archive; `None` where the log itself must be read."""


class Services(Struct, frozen=True):
    """Parts of the daemon that all work on a log shares: state, rules in force, trusted keys, metrics and clock."""

    store: Store
    rules: RuleKeeper
    trust: TrustKeeper
    meter: Meter
    timing: Timing


class LogBackscan:
    """Looks back in one configured log, all trees of it; `step` is called by one thread at a time.

    `open_trees` opens sources for this use only, so that requests of following never wait for the back-scan. Entries
    that `from_archive` offers to the rules are not read from the log again.
    """

    def __init__(
        self,
        name: str,
        open_trees: OpenTrees,
        services: Services,
        *,
        config: BackscanConfig,
        stale_after: timedelta,
        from_archive: FromArchive | None = None,
    ) -> None:
        self.name, self._from_archive = name, from_archive
        self._config, self._stale_after = config, stale_after
        self._store, self._rules, self._trust = services.store, services.rules, services.trust
        self._meter: BackscanMeter = services.meter
        self._timing = services.timing
        self._log_trees = LogTrees(open_trees, services.timing.clock)
        # A power of two keeps steps aligned. A step is bounded by the entries allowed in a few seconds.
        self._most = 1 << (config.entries_per_second * _STEP_SECONDS).bit_length() - 1
        self._trees: dict[str, _BackscanTree] = {}
        self._planned: tuple[int, datetime] | None = None
        self._matcher: tuple[int, frozenset[str], Matcher] | None = None
        self._own: tuple[Exception, datetime] | None = None

    def step(self) -> float | None:
        """Offer some entries of one tree to the rules that lack them.

        Returns the seconds to wait before the next step, `None` when no step is due. Trouble with a log is recorded and
        reported, and the step is repeated later; a fault of Signwatch is raised at each step while it lasts.
        """
        now = self._timing.clock()
        if self._own is not None and now < self._own[1]:
            raise self._own[0]
        try:
            waiting = self._step(now)
        except Exception as error:
            self._own = error, now + _FIRST_RETRY
            raise
        self._own = None
        return waiting

    def forget_sources(self) -> None:
        """Open the log again at the next step: its keys may have changed."""
        self._log_trees.forget()

    def _step(self, now: datetime) -> float | None:
        held = self._rules.held
        if self._planned is None or self._planned[0] != held.generation or now >= self._planned[1]:
            self._plan(held, now)
        tree = next((tree for tree in self._trees.values() if tree.lacking and _is_due(tree, now)), None)
        if tree is None or self._timing.stop() or _backlog(self._store.position(tree.log)) > _BACKLOG:
            return None
        tree.began_at = tree.began_at or now
        try:
            done = self._offer(tree, held)
        except (FetchFailed, LogMisbehaved) as error:
            self._failed(tree, error)
            return None
        except Exception:
            # The next plan takes the committed part of the step into account.
            self._planned = None
            raise
        return self._went_well(tree, done, now)

    def _plan(self, held: HeldRules, now: datetime) -> None:
        """Look up the lacking entries; a longer look-up delays the next one."""
        for log, each in Reading(self._store.database).followed().items():
            if log.partition("/")[0] != self.name:
                continue
            tree = self._trees.setdefault(log, _BackscanTree(log))
            before = tree.remaining
            tree.lacking = self._lacking(held, log, each.baseline_size)
            if before and not tree.lacking:
                # Another process offered the entries, or no rule wants them any more.
                self._tell(tree, self._timing.clock(), 0)
        ended = self._timing.clock()
        self._planned = held.generation, ended + max(_PLAN_AGAIN, (ended - now) * _PLANNING_SHARE)

    def _lacking(self, held: HeldRules, log: str, followed_from: int) -> dict[tuple[int, int], frozenset[str]]:
        """Ranges not yet offered to some rules that want them, each with these rules."""
        asked = {self._config.range, *held.backscans.values()}
        if asked == {"none"}:
            return {}
        after = followed_from if asked <= {"none", "followed"} else 0
        found: dict[tuple[int, int], set[str]] = {}
        for group in self._store.coverage.groups(log, after):
            for look_back, rules in self._by_look_back(held, group).items():
                first = first_wanted(look_back, group.began, followed_from)
                for missing in () if first is None else group.missing(first):
                    found.setdefault(missing, set()).update(rules)
        return {missing: frozenset(rules) for missing, rules in found.items()}

    def _by_look_back(self, held: HeldRules, group: CoverageGroup) -> dict[LookBack, list[str]]:
        found: dict[LookBack, list[str]] = {}
        for rule, selection in group.rules.items():
            # A rule changed or withdrawn a moment ago stays active in the database until the next pass.
            if held.selections.get(rule) == selection:
                found.setdefault(held.backscans.get(rule, self._config.range), []).append(rule)
        return found

    def _offer(self, tree: _BackscanTree, held: HeldRules) -> BackscanStep:
        source = self._log_trees.source(tree.log)
        gap = first_gap(tree.lacking)
        matcher = self._matcher_of(held, gap.rules)
        judge = RuleJudge(matcher, self._store.facts, self._trust.authorities)
        if self._from_archive is not None:
            archived = self._from_archive(source, gap, matcher, held.selections, judge)
            if archived is not None:
                return archived
        return backscan_step(
            source,
            self._store,
            matcher,
            held.selections,
            judge,
            gap=gap,
            timing=self._timing,
            entries=min(_ENTRIES.get(source.identity.api, _ENTRIES_OTHERWISE), self._most),
            unkept=tree.unkept,
        )

    def _matcher_of(self, held: HeldRules, rules: frozenset[str]) -> Matcher:
        """The lacking rules, compiled. Others would cost time, and count against the cap of rules for each entry."""
        if len(rules) == len(held.selections):
            return held.matcher
        if self._matcher is None or self._matcher[:2] != (held.generation, rules):
            chosen = [rule for rule in held.rules.rules if rule.id in rules]
            self._matcher = held.generation, rules, compile_rules(chosen)
        return self._matcher[2]

    def _went_well(self, tree: _BackscanTree, done: BackscanStep, began: datetime) -> float:
        now = self._timing.clock()
        tree.lacking = without_first(tree.lacking, done.first, done.last)
        tree.read += done.asked
        tree.failures, tree.retry_at = 0, None
        tree.unkept.clear()
        self._meter.looked_back(tree.log, done.last - done.first, done.findings, done.dropped)
        took = (now - began).total_seconds()
        if done.findings:
            _LOG.info(
                "backscan_found log=%s first=%d last=%d findings=%s", tree.log, done.first, done.last, done.findings
            )
        self._tell(tree, now, done.last - done.first)
        return max(done.asked / self._config.entries_per_second, took)

    def _tell(self, tree: _BackscanTree, now: datetime, entries: int) -> None:
        """Record the progress: regularly, and at the beginning and end of a back-scan."""
        if entries and tree.lacking and tree.told_at is not None and now - tree.told_at < _TELL_EVERY:
            return
        seconds = (now - tree.began_at).total_seconds() if tree.began_at is not None else 0.0
        rate = round(tree.read / seconds) if seconds > 0 else 0
        if tree.lacking:
            if tree.told_at is None:
                _LOG.info("backscan_began log=%s entries=%d", tree.log, tree.remaining)
            tree.told_at = now
        else:
            _LOG.info("backscan_done log=%s entries=%d", tree.log, tree.read)
            tree.began_at = tree.told_at = None
            tree.read = 0
        self._meter.back_scan(tree.log, tree.remaining)
        self._store.back_scans.got_on(BackScan(tree.log, now, tree.remaining, rate))

    def _failed(self, tree: _BackscanTree, error: FetchFailed | LogMisbehaved) -> None:
        """Record trouble with a log; the delay before each further attempt grows."""
        now = self._timing.clock()
        tree.failures += 1
        tree.retry_at = now + min(_FIRST_RETRY * 2 ** min(tree.failures - 1, 16), _LONGEST_RETRY)
        tree.began_at, tree.read = None, 0
        owner = Owner.LOG_MISBEHAVED if isinstance(error, LogMisbehaved) else Owner.COULD_NOT_ASK
        reason = error.kind if isinstance(error, LogMisbehaved) else error.reason
        if tree.failures == 1:
            _LOG.warning(
                "backscan_trouble log=%s reason=%s detail=%s", tree.log, reason, inert_line(str(error), _MAX_LINE)
            )
        kept = self._store.back_scans.went_wrong(BackScan(tree.log, now, tree.remaining), owner, reason, str(error))
        self._meter.back_scan(tree.log, tree.remaining)
        trouble = kept.trouble
        if trouble is not None and owner is Owner.COULD_NOT_ASK and now - trouble.since > self._stale_after:
            alert = back_scan_stuck_alert(tree.log, trouble.detail, tree.remaining, trouble.since, now)
            self._store.enqueue([alert])


def _is_due(tree: _BackscanTree, now: datetime) -> bool:
    return tree.retry_at is None or now >= tree.retry_at


def _backlog(position: Position | None) -> int:
    """Entries that following has yet to read."""
    return 0 if position is None else position.head.head.size - position.frontier.size
