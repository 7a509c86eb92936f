"""Looking back beside following: what was asked for and no more, never in the way, and every trouble owned."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from alerts.alert import Owner, Severity
from monitor.backscan import step as backscan
from monitor.http_fetcher import TimedOut
from monitor.model.errors import FetchFailed, OwnFault
from monitor.model.log_source import TrustedHead
from monitor.store.fsck import fsck
from monitor.store.reading import Reading
from rules.rule import LookBack
from tests.support.alerts import NOW
from tests.support.harness import KINDS
from tests.support.looking_back import NEW, OLD, LookedBack, good_and_evil
from tests.support.misbehaving_log import MisbehavingLog, RekorV2Log

EVIL = [5, 40, 77]


def a_log(kind: type[MisbehavingLog] = RekorV2Log, size: int = 80) -> MisbehavingLog:
    good, evil = good_and_evil(kind)
    return kind([evil if index in EVIL else good for index in range(size)])


@pytest.fixture
def place(tmp_path: Path) -> Iterator[LookedBack]:
    """A log of 80 entries, followed from entry 30 on under one rule."""
    made = LookedBack(tmp_path, a_log())
    made.watch.baseline(30)
    made.watch.run_pass()
    yield made
    made.store.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_rule_is_offered_the_past_of_every_kind_of_log(kind: type[MisbehavingLog], tmp_path: Path) -> None:
    place = LookedBack(tmp_path, a_log(kind), "all")
    place.watch.baseline(30)
    place.watch.run_pass()
    place.put_in_force(NEW)
    assert place.found() == [], "control: following does not look back"
    assert place.run() > 1
    assert place.found() == EVIL
    assert place.found("old")[:30] == list(range(30)), "what was logged before following began, too"
    assert place.gaps() == []
    assert fsck(place.store.database) == []
    place.store.close()


@pytest.mark.parametrize(
    ("look_back", "found", "gaps"),
    [
        ("none", [], [(0, 80)]),
        ("followed", [40, 77], [(0, 30)]),
        ("all", EVIL, []),
        (10, [77], [(0, 70)]),
        (60, [40, 77], [(0, 20)]),
    ],
)
@pytest.mark.parametrize("in_the_rule", [False, True], ids=["by default", "by the rule"])
def test_what_was_asked_for_is_offered_and_no_more(
    tmp_path: Path, look_back: LookBack, found: list[int], gaps: list[tuple[int, int]], in_the_rule: bool
) -> None:
    place = LookedBack(tmp_path, a_log(), "none" if in_the_rule else look_back)
    place.watch.baseline(30)
    place.watch.run_pass()
    place.put_in_force(f"{NEW}    backscan: {look_back}\n" if in_the_rule else NEW)
    place.run()
    assert place.found() == found
    new = place.store.coverage.of_rule(place.name, "new", place.rules.held.selections["new"])
    assert new.missing(0, 80) == tuple(gaps)
    place.store.close()


def test_a_number_counts_back_from_where_the_rule_came_however_long_it_takes(place: LookedBack) -> None:
    place.put_in_force(f"{NEW}    backscan: 10\n")
    place.log.append(*[good_and_evil(RekorV2Log)[0]] * 30)
    place.watch.run_pass()
    place.run()
    assert place.found() == [77]


def test_steps_are_bounded_in_rate_and_never_take_more_than_half_of_the_time(place: LookedBack) -> None:
    place.put_in_force(NEW)
    began = place.clock.now
    place.run()
    seconds = (place.clock.now - began).total_seconds()
    assert 50 / seconds <= place.config.entries_per_second
    place.put_in_force(NEW.replace("id: new", "id: newer"))
    place.clock.advance(minutes=1)
    place.opening_takes = timedelta(seconds=100)
    place.backscan.forget_sources()
    waiting = place.backscan.step()
    assert waiting is not None
    assert waiting >= 100


def test_following_comes_first(place: LookedBack) -> None:
    place.put_in_force(NEW)
    position = place.store.position(place.name)
    assert position is not None
    place.clock.advance(minutes=1)
    for size, wanted in ((80, True), (80 + 5000, False)):
        head = place.log.source().latest()
        object.__setattr__(head, "size", size)
        read = replace(position, head=TrustedHead(head))
        place.store.position = lambda _log, read=read: read  # type: ignore[method-assign,misc]
        assert (place.backscan.step() is not None) is wanted


def test_killed_after_any_commit_it_goes_on_and_tells_nothing_twice(tmp_path: Path) -> None:
    whole = LookedBack(tmp_path, a_log())
    whole.watch.baseline(30)
    whole.watch.run_pass()
    whole.put_in_force(NEW)
    for _ in range(50):
        whole.restart()
        if whole.backscan.step() is None:
            break
        whole.clock.advance(minutes=1)
    assert whole.found() == [40, 77]
    assert whole.told() == ["unexpected-signing"] * 2 + ["unexpected-signing"] * 2
    assert whole.gaps() == [(0, 30)]
    whole.store.close()


def test_a_rule_withdrawn_or_changed_in_the_middle(place: LookedBack) -> None:
    place.put_in_force(NEW)
    place.backscan.step()
    assert place.store.back_scans.all()[place.name].remaining == 48, "control: in the middle"
    place.put_in_force(OLD)
    place.clock.advance(minutes=1)
    assert place.run() == 0
    assert place.store.back_scans.all() == {}, "no rule wants it any more"
    place.put_in_force(NEW.replace("@refs/heads/evil", "@refs/heads/e*"))
    place.clock.advance(minutes=1)
    place.run()
    assert place.found() == [40, 77], "what it selects is new, so all of it is"
    place.put_in_force(NEW)
    place.clock.advance(minutes=1)
    assert place.run() > 0, "back to what it was: only what it never saw is left"
    assert place.gaps() == [(0, 30)]


def test_a_rule_that_is_not_active_yet_is_not_taken_for_one_that_lacks_everything(place: LookedBack) -> None:
    place.write(NEW)
    place.rules.reload()
    assert place.run() == 0
    place.watch.run_pass()
    place.clock.advance(minutes=1)
    assert place.run() > 0


def test_an_outage_is_waited_for_shown_and_told_once_when_it_lasts(place: LookedBack) -> None:
    place.put_in_force(NEW)
    place.down = FetchFailed("connection refused")
    for _ in range(20):
        assert place.backscan.step() is None
        place.clock.advance(seconds=16)
    scan = place.store.back_scans.all()[place.name]
    assert scan.trouble is not None
    assert (scan.trouble.owner, scan.remaining, scan.rate) == (Owner.COULD_NOT_ASK, 50, 0)
    assert "back-scan-stuck" not in place.told()
    since = scan.trouble.since
    place.clock.advance(hours=2)
    place.backscan.step()
    place.clock.advance(hours=2)
    place.backscan.step()
    assert place.told().count("back-scan-stuck") == 1
    place.restart()
    place.clock.advance(hours=1)
    place.backscan.step()
    kept = place.store.back_scans.all()[place.name].trouble
    assert kept is not None
    assert kept.since == since, "a restart does not forget since when"
    place.down = None
    place.clock.advance(hours=1)
    place.run()
    assert place.found() == [40, 77]
    assert place.store.back_scans.all() == {}


def test_a_log_that_serves_other_old_entries_than_it_signed_is_caught_with_evidence(place: LookedBack) -> None:
    place.put_in_force(NEW)
    good, _ = good_and_evil(RekorV2Log)
    place.log.swap_leaf(40, good)
    for _ in range(6):
        place.backscan.step()
        place.clock.advance(minutes=20)
    assert place.told().count("log-entries-not-in-tree") == 1
    [evidence] = Reading(place.store.database).evidence(10)
    assert evidence.kind == "log-entries-not-in-tree"
    trouble = place.store.back_scans.all()[place.name].trouble
    assert trouble is not None
    assert trouble.owner is Owner.LOG_MISBEHAVED
    assert place.found() == [], "nothing that was not proven is judged"
    place.log.honest()
    place.clock.advance(hours=1)
    place.run()
    assert place.found() == [40, 77]


def test_an_old_entry_that_stays_hidden_is_blamed_on_the_log_after_several_steps(place: LookedBack) -> None:
    place.put_in_force(NEW)
    place.log.hide_leaf(40)
    for _ in range(6):
        place.backscan.step()
        place.clock.advance(minutes=20)
    assert "log-entry-missing" in place.told()


def test_what_is_wrong_with_us_is_raised_until_it_is_mended(place: LookedBack) -> None:
    place.put_in_force(NEW)
    recorded = place.store.record_scan

    def full(*_arguments: Any, **_options: Any) -> None:
        raise OwnFault("the disk is full")

    place.store.record_scan = full  # type: ignore[method-assign]
    for _ in range(3):
        with pytest.raises(OwnFault, match="disk is full"):
            place.backscan.step()
    place.store.record_scan = recorded  # type: ignore[method-assign]
    place.clock.advance(minutes=1)
    place.run()
    assert place.found() == [40, 77]


def test_it_ends_promptly_when_told_to_stop(place: LookedBack) -> None:
    place.put_in_force(NEW)
    place.stopped = True
    assert place.backscan.step() is None
    assert place.gaps() == [(0, 30), (30, 80)], "nothing was begun"


def test_a_log_that_was_declared_final_is_looked_back_in_like_any_other(place: LookedBack) -> None:
    place.log.freeze()
    place.watch.run_pass()
    place.put_in_force(NEW)
    place.run()
    assert place.found() == [40, 77]


def test_alerts_wake_nobody_say_that_they_look_back_and_wait_for_the_full_hour(place: LookedBack) -> None:
    place.put_in_force(NEW)
    place.run()
    kept = [each.alert for each in Reading(place.store.database).alerts(100) if each.alert.rule == "new"]
    assert {alert.severity for alert in kept} == {Severity.WARN}
    assert all(alert.title.startswith("Looking back: ") for alert in kept)
    assert ("Found", "looking back: it was logged before the rule came") in kept[0].facts
    due = NOW.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    waiting = place.store.outbox.claim("mail", due - timedelta(seconds=1), timedelta(hours=1), 100)
    assert {each.alert.rule for each in waiting} == {"old"}, "control: what following found is told at once"
    later = place.store.outbox.claim("mail", due, timedelta(minutes=1), 100)
    assert sorted(each.alert.index or 0 for each in later) == [40, 77]


@pytest.mark.parametrize("expectation", ["log_entry_within: 1s", "certificate_log_within: 1s"])
def test_what_another_log_does_not_show_is_not_held_against_the_past(tmp_path: Path, expectation: str) -> None:
    kind = KINDS[2] if expectation.startswith("log_entry") else RekorV2Log
    place = LookedBack(tmp_path, a_log(kind))
    place.watch.baseline(30)
    place.watch.run_pass()
    place.store.facts.known.certificate_logs = place.store.facts.known.signature_logs = frozenset({"elsewhere"})
    place.put_in_force(NEW + f"    expect: {{{expectation}}}\n")
    place.run()
    found = [each for each in Reading(place.store.database).findings(100) if each.rule == "new"]
    assert sorted(each.index for each in found) == [40, 77]
    assert {reason["id"] for each in found for reason in each.reasons} <= {"untrusted-chain"}
    assert {each.outcome for each in found} <= {"expected", "unverified"}
    place.store.close()


def test_many_rules_that_lack_the_same_are_written_once_for_many_entries(
    place: LookedBack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backscan, "_MANY", 4)
    others = "".join(f"  - {{id: r{number}, select: {{identity: r{number}@acme.example}}}}\n" for number in range(7))
    place.put_in_force(NEW + others)
    wrote, offered = [], place.store.coverage.offered

    def counted(log: str, rules: Mapping[str, str], first: int, last: int) -> None:
        wrote.append((len(rules), first, last))
        offered(log, rules, first, last)

    monkeypatch.setattr(place.store.coverage, "offered", counted)
    place.log.fail("tile/entries", TimedOut("too slow"), times=1)
    assert place.backscan.step() is None, "control: a step that fails is tried again"
    place.clock.advance(minutes=1)
    place.run()
    # Steps of 32 entries are three times as long for eight rules.
    assert wrote == [(8, 30, 30), (8, 30, 80)]
    assert place.found() == [40, 77]
    assert place.gaps() == [(0, 30)]
    assert fsck(place.store.database) == []


def test_progress_is_counted(place: LookedBack) -> None:
    place.meter.add_log(place.name)
    place.put_in_force(NEW)
    place.run()
    shown = place.meter.expose().decode()
    assert f'signwatch_backscan_entries_total{{log="{place.name}"}} 50.0' in shown
    assert 'signwatch_backscan_findings_total{outcome="unexpected"} 2.0' in shown
    assert f'signwatch_backscan_pending_entries{{log="{place.name}"}} 0.0' in shown


def test_a_server_that_fails_now_and_then_only_costs_time(place: LookedBack) -> None:
    place.put_in_force(NEW)
    place.log.fail("tile", TimedOut("too slow"), times=3)
    for _ in range(60):
        place.backscan.step()
        place.clock.advance(seconds=30)
    assert place.found() == [40, 77]
