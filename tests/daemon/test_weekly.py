"""The weekly summary: once a week and channel, true about findings and gaps, and nothing to acknowledge."""

from datetime import UTC, datetime, timedelta

import pytest

from monitor.daemon.weekly import last_week, rules_of, weekly_summary
from monitor.model.errors import BadConfig
from monitor.store.database import Database
from monitor.store.history import Pass
from monitor.store.reading import Reading
from monitor.store.store import Store
from tests.commands.test_config import GOOD, read
from tests.support.parts import LOG, Clock, a_batch, a_finding, a_position, a_store, some_evidence

MONDAY = datetime(2026, 3, 9, tzinfo=UTC)
BEGIN = MONDAY - timedelta(days=7)
LIMIT = timedelta(hours=2)


@pytest.fixture
def clock() -> Clock:
    made = Clock()
    made.now = BEGIN - timedelta(days=3)
    return made


@pytest.fixture
def store(database: Database, clock: Clock) -> Store:
    made = a_store(database, ["mail"], clock)
    made.baseline(a_position(0, head=9), "index 0")
    return made


def watch(store: Store, clock: Clock, until: datetime) -> None:
    """Watch hour by hour; the nine entries come in the middle of the week before `MONDAY`."""
    while clock.now < until:
        size = 9 if clock.now >= MONDAY - timedelta(days=4) else 0
        store.health.went_well(LOG, clock.now, None, progress=Pass(size, 0, LIMIT))
        clock.advance(hours=1)


def facts(store: Store, clock: Clock, rules: list[str]) -> tuple[str, dict[str, str]]:
    summary = weekly_summary(store, "mail", rules, clock.now, lambda _log: LIMIT)
    assert summary is not None
    return summary.title, dict(summary.facts)


def test_a_quiet_week_says_that_nothing_unexpected_was_found_and_what_was_read(store: Store, clock: Clock) -> None:
    watch(store, clock, MONDAY + timedelta(hours=2))
    title, told = facts(store, clock, ["acme-release"])
    assert title == "Week of 2026-03-02: nothing unexpected"
    assert told[LOG] == "9 entries read and proven, watched throughout"


def test_the_time_until_the_first_pass_of_the_next_week_is_no_gap(store: Store, clock: Clock) -> None:
    watch(store, clock, MONDAY)
    assert facts(store, clock, [])[1][LOG] == "9 entries read and proven, watched throughout"
    clock.now = MONDAY + timedelta(hours=2)
    assert facts(store, clock, [])[1][LOG].endswith("not watched for 60 minutes"), "control"


def test_it_is_told_once_and_asks_for_nothing(store: Store, clock: Clock) -> None:
    watch(store, clock, MONDAY + timedelta(hours=2))
    summary = weekly_summary(store, "mail", [], clock.now, lambda _log: LIMIT)
    assert summary is not None
    assert [store.tell(summary, "mail"), store.tell(summary, "mail")] == [True, False]
    assert weekly_summary(store, "mail", [], clock.now, lambda _log: LIMIT) is None
    assert weekly_summary(store, "hook", [], clock.now, lambda _log: LIMIT) is not None, "another channel has its own"
    assert Reading(store.database).open_alerts() == {}
    [sent] = store.outbox.claim("mail", clock.now, timedelta(minutes=1), 9)
    assert sent.alert == summary
    clock.advance(days=7)
    assert weekly_summary(store, "mail", [], clock.now, lambda _log: LIMIT) is not None


def test_findings_of_the_channels_rules_gaps_and_lies_are_in_the_title(store: Store, clock: Clock) -> None:
    watch(store, clock, BEGIN + timedelta(days=1))
    store.advance(a_position(0, head=9), a_position(9), a_batch(0, 9, [a_finding(1), a_finding(2)]), [])
    clock.now = MONDAY + timedelta(hours=1)
    title, told = facts(store, clock, ["other"])
    assert title == "Week of 2026-03-02: nothing unexpected, with gaps in watching"
    assert told[LOG].endswith("not watched for 145 hours")
    assert facts(store, clock, ["acme-release"])[0] == "Week of 2026-03-02: 2 unexpected signings"
    store.keep_evidence(some_evidence(), [])
    assert facts(store, clock, ["other"])[0] == "Week of 2026-03-02: a log broke a promise"


def test_nothing_is_told_of_a_week_in_which_nothing_was_followed(database: Database, clock: Clock) -> None:
    store = a_store(database, ["mail"], clock)
    clock.now = MONDAY + timedelta(hours=1)
    assert weekly_summary(store, "mail", [], clock.now, lambda _log: LIMIT) is None
    store.baseline(a_position(0, head=9), "index 0")
    assert weekly_summary(store, "mail", [], clock.now, lambda _log: LIMIT) is None
    clock.advance(days=7)
    assert weekly_summary(store, "mail", [], clock.now, lambda _log: LIMIT) is not None


def test_weeks_are_iso_weeks() -> None:
    for now in (MONDAY, MONDAY + timedelta(days=6, hours=23)):
        assert last_week(now) == (BEGIN, MONDAY)
    assert last_week(MONDAY - timedelta(seconds=1)) == (BEGIN - timedelta(days=7), BEGIN)


def test_a_channel_is_told_of_the_rules_that_alert_it() -> None:
    own = {"a": ("hook",), "b": ("mail", "hook")}
    assert rules_of("mail", ["a", "b", "c"], own, ["mail"]) == ["b", "c"]
    assert rules_of("hook", ["a", "b", "c"], own, ["mail"]) == ["a", "b"]


def test_the_configuration_names_channels_that_exist() -> None:
    with_weekly = GOOD + "weekly: [nowhere]\n"
    with pytest.raises(BadConfig, match="nowhere"):
        read(with_weekly)
