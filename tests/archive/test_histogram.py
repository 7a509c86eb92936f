"""Entries a day as bars: all entries are counted, for all times and on a narrow terminal."""

import re
from datetime import date, timedelta
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.archive.histogram import as_svg, as_text

DAY = date(2026, 1, 31)
_SVG = "{http://www.w3.org/2000/svg}"


def days(count: int, first: date = DAY, every: int = 1) -> dict[date, int]:
    return {first + timedelta(days=every * number): 1 + number % 9 for number in range(count)}


def counts(lines: list[str]) -> int:
    return sum(int(line.rpartition(" ")[2]) for line in lines)


def test_nothing_is_drawn_for_nothing() -> None:
    assert list(as_text({})) == []
    picture = ET.fromstring(as_svg({}, "Entries a day"))
    assert picture.findall(f"{_SVG}rect") == []


def test_one_day_is_one_line() -> None:
    assert list(as_text({DAY: 3}, 20)) == [f"2026-01-31  {'█' * 6} 3"]
    picture = ET.fromstring(as_svg({DAY: 3}, "Entries a day"))
    assert len(picture.findall(f"{_SVG}rect")) == 1


@pytest.mark.parametrize("width", [20, 40, 80, 200, 1000])
def test_the_longest_bar_fills_the_terminal_and_none_is_longer(width: int) -> None:
    lines = list(as_text({DAY: 12_345, DAY + timedelta(days=1): 1, DAY + timedelta(days=2): 0}, width))
    assert len(lines[0]) == width
    assert max(map(len, lines)) == width
    assert lines[1].split() == ["2026-02-01", "▏", "1"], "the least is seen"
    assert lines[2].split() == ["2026-02-02", "0"]


@pytest.mark.parametrize("width", [0, 1, 12])
def test_a_terminal_without_room_still_gets_the_numbers(width: int) -> None:
    assert list(as_text({DAY: 7}, width)) == ["2026-01-31  █ 7"]


@pytest.mark.parametrize(
    ("per_day", "begins"),
    [
        (days(60), ["2026-01-31", "2026-02-01"]),
        (days(61), ["2026-01-26", "2026-02-02"]),  # weeks begin on Mondays
        (days(100, every=7), ["2026-01-01", "2026-02-01"]),
        (days(100, every=100), ["2026-01-01", "2027-01-01"]),
    ],
    ids=["days", "weeks", "months", "years"],
)
def test_long_spans_are_drawn_by_week_month_or_year(per_day: dict[date, int], begins: list[str]) -> None:
    lines = list(as_text(per_day))
    assert [line[:10] for line in lines[:2]] == begins
    assert len(lines) <= 60
    assert counts(lines) == sum(per_day.values())
    drawn = ET.fromstring(as_svg(per_day, "x")).findall(f"{_SVG}rect/{_SVG}title")
    assert [title.text for title in drawn] == [f"{line[:10]}: {line.rpartition(' ')[2]}" for line in lines]


@pytest.mark.parametrize("far", [date.min, date(1900, 6, 1), date(2600, 6, 1), date.max])
def test_a_made_up_time_squeezes_nothing_and_is_told(far: date) -> None:
    """Anyone can log a certificate of their own that begins in the year 1."""
    per_day = {DAY: 5, date(2025, 3, 1): 7, far: 2}
    lines = list(as_text(per_day))
    assert counts([line for line in lines if line.startswith("2026")]) == 5
    assert counts([line for line in lines if line.startswith("2025")]) == 7
    outside = lines[-1]
    assert re.fullmatch(r"(before \d{4}-01-01|after \d{4}): 2", outside)
    assert counts(lines) == 14
    assert outside in as_svg(per_day, "x")


@given(st.dictionaries(st.dates(), st.integers(1, 10**9), max_size=40), st.integers(0, 300))
def test_every_entry_is_counted_once(per_day: dict[date, int], width: int) -> None:
    lines = list(as_text(per_day, width))
    assert counts(lines) == sum(per_day.values())
    assert len(lines) <= 62
    ET.fromstring(as_svg(per_day, "x"))


def test_a_title_stays_text() -> None:
    picture = ET.fromstring(as_svg({DAY: 1}, "</title><script>alert(1)</script>"))
    assert picture.find(f"{_SVG}title") is not None
    assert picture.find(f".//{_SVG}script") is None
