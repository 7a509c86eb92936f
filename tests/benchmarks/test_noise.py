"""The noise figure in small: every attack of the year is paged once, for the right reasons, and nothing else is."""

from datetime import timedelta

import pytest

from benchmarks import year
from benchmarks.noise import live_through
from benchmarks.year import Size, Where, simulated_year

SMALL = Size(releases=30, self_signed=500, strangers=40, announcements=6)


def test_the_year_has_attacks_seen_in_each_place_and_in_both() -> None:
    events, _ = simulated_year(SMALL)
    attacks = [each for each in events if each.attack is not None]
    assert len(attacks) == 20
    assert {each.where for each in attacks} == set(Where)
    assert {each.where for each in events if each.genuine and each.attack is None} == {Where.BOTH}


def test_twenty_of_twenty_are_paged_for_the_right_reasons_and_nothing_else_is() -> None:
    noise = live_through(SMALL)
    assert noise.missed == ()
    assert noise.false_pages == ()
    assert noise.found == 20
    assert noise.restarts >= 7


def test_a_monitor_that_does_not_hold_certificates_would_page_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: the figure notices when one event is told twice."""
    monkeypatch.setattr("benchmarks.noise._HOLD", timedelta(0))
    first, second, *_ = year._attack_list()
    monkeypatch.setattr(year, "_attack_list", lambda: [first, second])
    noise = live_through(Size(releases=1, self_signed=1, strangers=1, announcements=1))
    assert noise.false_pages
