"""Watching logs with the real store: every trouble becomes a value, a record and at most one alert."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection

from alerts.alert import Owner, Severity
from monitor.backscan.planner import Services
from monitor.commands.outcomes import one_line, verdict
from monitor.commands.terminal import Exit
from monitor.config import TrustConfig
from monitor.daemon.pass_result import PassResult
from monitor.daemon.supervisor import LogSupervisor, WatchSettings
from monitor.following.follower import FollowLimits, LogFollower, Timing, baseline
from monitor.judging.active_rules import RuleKeeper
from monitor.judging.reevaluation import RecheckCounts
from monitor.model.errors import FetchFailed, OwnFault
from monitor.model.log_source import Freshness, LogSource, is_unusual_silence
from monitor.store.database import Database, create
from monitor.store.fsck import fsck
from monitor.store.reading import Reading
from monitor.store.store import Store
from monitor.telemetry.prometheus import PrometheusMeter
from monitor.trust.provider import TrustKeeper
from tests.support.alerts import NOW
from tests.support.harness import EverythingIsNews, NumberScanner
from tests.support.misbehaving_log import MisbehavingLog, RekorV1Log, RekorV2Log
from tests.support.parts import LOG, Clock, a_position, a_store

RULES = """\
version: 1
rules:
  - {id: acme, select: {identity: release@acme.example}}
"""


class Place:
    """One misbehaving log in memory, watched with a real store, rules and meter."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.log: MisbehavingLog = RekorV2Log()
        self.log.grow(20)
        self.store = a_store(create(str(folder / "signwatch.db"), NOW, "test"), ["mail"], self.clock)
        (folder / "rules.yaml").write_text(RULES, encoding="utf-8")
        self.rules = RuleKeeper(folder / "rules.yaml", ["mail"])
        self.trust = TrustKeeper(TrustConfig(trusted_root=folder / "none.json"), self.clock)
        self.meter = PrometheusMeter("test")
        self.down: Exception | None = None
        self.busy: bool | None = None
        self.watch = self.watching(self.open)

    @property
    def name(self) -> str:
        return self.log.source().identity.log

    def open(self) -> Sequence[LogSource]:
        if self.down is not None:
            raise self.down
        return [self.log.source()]

    def watching(self, opening: Callable[[], Sequence[LogSource]]) -> LogSupervisor:
        return LogSupervisor(
            self.name,
            opening,
            Services(self.store, self.rules, self.trust, self.meter, Timing(self.clock, lambda _seconds: None)),
            WatchSettings(Freshness(timedelta(hours=1), self.busy), limits=FollowLimits(batch_entries=8)),
        )

    def alerts(self) -> list[str]:
        kinds = [each.alert.kind for each in Reading(self.store.database).alerts(100)]
        # The log's entries are numbers, which no decoder of Rekor bodies reads.
        return [kind for kind in kinds if kind != "entry-unreadable"]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.store.close()


def test_a_baselined_log_is_followed_to_its_head(place: Place) -> None:
    place.watch.baseline(5)
    [outcome] = place.watch.run_pass()
    assert (outcome.owner, outcome.first, outcome.last) == (None, 5, 20)
    assert place.store.health.of(place.name).trouble is None
    assert place.store.coverage.of_rule(place.name, "acme", place.rules.held.selections["acme"]).ranges == ((5, 20),)
    assert fsck(place.store.database) == []


def test_a_log_nobody_baselined_is_our_trouble_and_not_a_first_run(place: Place) -> None:
    [outcome] = place.watch.run_pass()
    assert outcome.owner is Owner.OURSELVES
    assert "signwatch init" in outcome.detail
    assert place.store.position(place.name) is None


def test_an_outage_is_told_once_and_only_when_it_lasts(place: Place) -> None:
    place.watch.baseline(0)
    place.watch.run_pass()
    place.down = FetchFailed("connection refused")
    place.watch.forget_sources()
    watch = place.watching(place.open)
    for minutes in (0, 30, 31, 60):
        place.clock.advance(minutes=minutes)
        [outcome] = watch.run_pass()
        assert outcome.owner is Owner.COULD_NOT_ASK
        assert place.alerts() == ([] if minutes < 31 else ["log-unreachable"])
    place.down = None
    place.log.grow(1)
    assert [outcome.owner for outcome in watch.run_pass()] == [None]
    assert place.store.health.of(place.name).trouble is None


def test_a_fork_is_evidence_and_one_alert_and_watching_goes_on(place: Place) -> None:
    place.watch.baseline(0)
    place.watch.run_pass()
    place.log.rewrite_from(10)
    for _ in range(3):
        [outcome] = place.watch.run_pass()
        assert outcome.owner is Owner.LOG_MISBEHAVED
        assert outcome.evidence
    assert len(Reading(place.store.database).evidence(10)) == 1
    assert len(place.alerts()) == 1
    assert 'signwatch_inconsistencies_total{kind="log-forked"' in place.meter.expose().decode()
    position = place.store.position(place.name)
    assert position is not None
    assert position.frontier.size == 20, "the last proven entry stays"


def silence(place: Place, **span: float) -> PassResult:
    """Nothing new is shown for so long; returns how the pass after it ends."""
    place.clock.advance(**span)
    [outcome] = place.watch.run_pass()
    return outcome


def grown(place: Place, growths: int, **every: float) -> None:
    """Read a log that has grown so often by five entries, each time after such a pause."""
    place.watch.baseline(0)
    for _ in range(growths):
        place.clock.advance(**every)
        place.log.grow(5)
        assert [outcome.owner for outcome in place.watch.run_pass()] == [None]


def test_a_quiet_log_is_no_liar_and_pages_nobody(place: Place) -> None:
    grown(place, 3, hours=12)
    outcome = silence(place, hours=2)
    assert (outcome.owner, outcome.note) == (None, "no new head for 2 hours, which may be usual for this log")
    assert "no trouble; no new head for 2 hours" in one_line(outcome)
    assert verdict([outcome], RecheckCounts()) is Exit.FINE
    assert place.alerts() == []
    grown(place, 10, hours=12)
    assert silence(place, hours=30).owner is None, "its past has pauses of half a day"
    assert place.alerts() == []


def test_a_busy_log_that_falls_silent_is_told_by_its_own_past_and_never_as_a_lie(place: Place) -> None:
    grown(place, 20, minutes=5)
    assert silence(place, minutes=50).owner is None
    outcome = silence(place, minutes=20)
    assert (outcome.owner, outcome.reason) == (Owner.COULD_NOT_ASK, "log-stale")
    assert verdict([outcome], RecheckCounts()) is Exit.UNFINISHED
    (alert,) = (each.alert for each in Reading(place.store.database).alerts(50) if each.alert.kind.startswith("log-"))
    assert (alert.kind, alert.owner, alert.severity) == ("log-stale", Owner.COULD_NOT_ASK, Severity.PAGE)
    assert Reading(place.store.database).evidence(10) == []
    place.log.grow(1)
    assert silence(place, minutes=1).owner is None


@pytest.mark.parametrize(("busy", "owner"), [(True, Owner.COULD_NOT_ASK), (False, None)])
def test_a_setting_says_whether_a_log_must_move(place: Place, busy: bool, owner: Owner | None) -> None:
    place.busy = busy
    place.watch = place.watching(place.open)
    grown(place, 20, minutes=5)
    assert silence(place, hours=2).owner is owner
    assert place.alerts() == (["log-stale"] if busy else [])


@given(
    gaps=st.lists(st.integers(min_value=1, max_value=10_000), max_size=40),
    sizes=st.lists(st.integers(min_value=0, max_value=10_000), min_size=41, max_size=41),
    silence_seconds=st.integers(min_value=0, max_value=30_000),
)
def test_no_silence_is_unusual_that_is_not_much_longer_than_any_before(
    gaps: list[int], sizes: list[int], silence_seconds: int
) -> None:
    growth, at, size = [], NOW, 0
    for gap, more in zip(gaps, sizes, strict=False):
        at, size = at + timedelta(seconds=gap), size + more
        growth.append((at, size))
    if is_unusual_silence(growth, timedelta(seconds=silence_seconds)):
        assert silence_seconds > 3 * max(gaps[1:])
        assert len(growth) > 8


def test_a_head_kept_by_a_first_pass_that_never_ended_is_as_old_as_it_says(place: Place) -> None:
    store = place.store
    begun = a_position(0, head=9)
    store.record_head(begun.head.head)
    store.baseline(begun, "index 0")
    place.clock.advance(hours=3)
    assert store.health.went_well(LOG, place.clock(), None).fresh_at == NOW, "the head was signed then"
    place.clock.advance(hours=1)
    assert store.health.went_well(LOG, place.clock(), place.clock()).fresh_at == place.clock(), "control: a newer head"


def test_a_defect_of_ours_is_not_blamed_on_the_log(place: Place) -> None:
    place.down = ZeroDivisionError("a defect")
    [outcome] = place.watch.run_pass()
    assert (outcome.owner, outcome.reason) == (Owner.OURSELVES, "defect")


def test_new_rules_apply_from_the_next_pass_on(place: Place, tmp_path: Path) -> None:
    place.watch.baseline(0)
    place.watch.run_pass()
    (tmp_path / "rules.yaml").write_text(RULES + "  - {id: other, select: {identity: o@acme.example}}\n")
    assert not place.rules.is_due(asked=True), "it may still be being written"
    assert place.rules.is_due()
    held = place.rules.reload()
    place.log.grow(5)
    place.watch.run_pass()
    assert place.store.coverage.of_rule(place.name, "other", held.selections["other"]).ranges == ((20, 25),)
    assert place.store.coverage.active() == {place.name: (2, 1)}
    (tmp_path / "rules.yaml").write_text("version: 1\nrules: nonsense\n")
    with pytest.raises(OwnFault):
        place.rules.reload()
    assert len(place.rules.held.rules.rules) == 2, "a bad change leaves the old rules in force"


class Died(BaseException):
    """The process was killed here."""


class DyingDatabase(Database):
    """A database that dies before the k-th commit, in its middle, or right after it."""

    steps = 0
    die_at = 0

    @contextmanager
    def write(self) -> Iterator[Connection]:
        self._step()
        with super().write() as connection:
            yield connection
            self._step()
        self._step()

    @classmethod
    def _step(cls) -> None:
        cls.steps += 1
        if cls.steps == cls.die_at:
            raise Died


def _follow_once(store: Store, log: MisbehavingLog) -> None:
    source = log.source()
    if store.position(source.identity.log) is None:
        baseline(source, store, 0)
    follower = LogFollower(
        source,
        store,
        NumberScanner(),
        EverythingIsNews(),
        Timing(Clock(), lambda _seconds: None),
        limits=FollowLimits(batch_entries=8),
    )
    follower.run_pass()


def _state(store: Store) -> tuple[object, ...]:
    reading = Reading(store.database)
    found = sorted((each.index, each.rule) for each in reading.findings(1000))
    alerts = sorted(each.alert.id for each in reading.alerts(1000))
    return found, alerts, reading.kinds(), reading.unreadable(), store.outbox.backlog()["mail"].pending


def test_killed_at_any_step_it_ends_with_the_same_findings(tmp_path: Path) -> None:
    """SIGKILL before a commit, inside it and after it: a restart finds what an undisturbed run finds, once."""
    log = RekorV2Log()
    log.grow(30)
    calm = a_store(create(str(tmp_path / "calm.db"), NOW, "test"), ["mail"])
    _follow_once(calm, log)
    expected = _state(calm)
    calm.close()
    assert expected[4] == 5, "control: there is something to lose"
    for die_at in range(1, 100):
        made = create(str(tmp_path / f"{die_at}.db"), NOW, "test")
        DyingDatabase.steps, DyingDatabase.die_at = 0, die_at
        store = a_store(DyingDatabase(made.engine, made.where, made.path), ["mail"])
        try:
            _follow_once(store, log)
        except Died:
            DyingDatabase.die_at = 0
            _follow_once(store, log)
            assert _state(store) == expected, f"died at step {die_at}"
            assert fsck(store.database) == []
            store.close()
            continue
        store.close()
        break
    else:
        raise AssertionError("the run never completed")
    assert die_at > 15, "every commit was tried"


def test_a_log_that_answers_without_proofs_is_told_in_words_when_it_lasts(place: Place) -> None:
    place.watch.baseline(0)
    place.watch.run_pass()
    place.log.grow(300)
    place.log.failures.append((re.compile("tile/[0-9]/"), FetchFailed("the tile is garbage"), 10_000))
    for minutes in (0, 61):
        place.clock.advance(minutes=minutes)
        [outcome] = place.watch.run_pass()
        assert (outcome.owner, outcome.answered) == (Owner.COULD_NOT_ASK, True)
    [alert] = [each.alert for each in Reading(place.store.database).alerts(10) if each.alert.kind != "entry-unreadable"]
    assert alert.kind == "log-unreachable"
    assert "answers" in alert.title
    assert "never with a proof that can be checked" in alert.title
    assert "the tile is garbage" in alert.summary


def test_a_missing_entry_is_blamed_after_three_passes_however_slow_polls_are(place: Place) -> None:
    place.log = RekorV1Log()
    place.log.grow(20)
    place.watch = place.watching(place.open)
    place.watch.baseline(0)
    place.log.hidden.add(7)
    owners = []
    for _ in range(3):
        owners += [outcome.owner for outcome in place.watch.run_pass()]
        # Longer than trees stay listed: each pass opens the log anew.
        place.clock.advance(minutes=15)
    assert owners == [Owner.COULD_NOT_ASK, Owner.COULD_NOT_ASK, Owner.LOG_MISBEHAVED]
    assert place.alerts() == ["log-entry-missing"]
