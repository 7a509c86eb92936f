"""Signing happens at certain hours of certain days."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import ClassVar, Final, Self

from msgspec import Struct

from rules.rule import Case, Check, Schema
from settings.document import Misplaced, Node
from settings.reading import Fields, read_choice, read_list, read_text, read_timestamp

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_CLOCK = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])|24:00", re.ASCII)
_OFFSET = re.compile(r"([+-])(0[0-9]|1[0-4]):([0-5][0-9])", re.ASCII)
_WHOLE_DAY: Final = 24 * 60
WINDOW_KEYS: Final = ("days", "from", "to", "utc_offset", "not_before", "not_after")


class Window(Struct, frozen=True):
    """Minutes `[start, end)` of certain weekdays at a fixed offset, between two dates."""

    days: tuple[int, ...] = tuple(range(7))
    start: int = 0
    end: int = _WHOLE_DAY
    offset: timedelta = timedelta()
    not_before: datetime | None = None
    not_after: datetime | None = None

    def holds(self, when: datetime) -> bool:
        """True if a moment lies in the window."""
        if (self.not_before is not None and when < self.not_before) or (
            self.not_after is not None and when > self.not_after
        ):
            return False
        local = when.astimezone(timezone(self.offset))
        minute = local.hour * 60 + local.minute
        if self.start < self.end:
            return local.weekday() in self.days and self.start <= minute < self.end
        # A window over midnight belongs to the day it starts on.
        evening, morning = minute >= self.start, minute < self.end
        day = local.weekday() if evening else (local.weekday() - 1) % 7
        return (evening or morning) and day in self.days

    def __str__(self) -> str:
        days = ",".join(DAYS[day] for day in self.days)
        clock = f"{self.start // 60:02}:{self.start % 60:02}-{self.end // 60:02}:{self.end % 60:02}"
        minutes = int(self.offset.total_seconds() // 60)
        zone = f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"
        dates = [
            f"from {self.not_before:%Y-%m-%d}" if self.not_before else "",
            f"to {self.not_after:%Y-%m-%d}" if self.not_after else "",
        ]
        return " ".join(part for part in (days, clock, zone, *dates) if part)


class TimeWindowsExpectation(Struct, frozen=True):
    """`time_windows: [{days: [mon, tue], from: "08:00", to: "18:00", utc_offset: "+01:00"}]`."""

    windows: tuple[Window, ...]

    id: ClassVar[str] = "time-windows"
    key: ClassVar[str] = "time_windows"
    schema: ClassVar[Schema] = {"$ref": "#/$defs/timeWindows"}

    @classmethod
    def read(cls, node: Node) -> Self:
        """Read one window or a list of them."""
        return cls(read_list(node, _read_window))

    def checks(self, case: Case) -> Iterator[Check]:
        """The time of signing is in one of the windows; an entry without a time is in none."""
        expected = " or ".join(str(window) for window in self.windows)
        when = case.signed_at
        if when is None:
            sentence = "The entry holds no time of signing, so it counts as outside the time windows."
            yield Check("time", expected, "(no time)", ok=False, sentence=sentence)
            return
        ok = any(window.holds(when) for window in self.windows)
        shown = when.astimezone(UTC).strftime("%a %Y-%m-%dT%H:%M:%SZ")
        yield Check("time", expected, shown, ok, "It was signed at a time that the rule does not list.")


def _read_window(node: Node) -> Window:
    fields = Fields(node, WINDOW_KEYS, "a time window")
    whole_week = tuple(range(7))
    window = Window(
        days=fields.read("days", lambda value: tuple(sorted(set(read_list(value, _read_day)))), whole_week),
        start=fields.read("from", _read_clock, 0),
        end=fields.read("to", _read_clock, _WHOLE_DAY),
        offset=fields.read("utc_offset", _read_offset, timedelta()),
        not_before=fields.read("not_before", read_timestamp, None),
        not_after=fields.read("not_after", read_timestamp, None),
    )
    if window.start == window.end:
        raise Misplaced("this window is empty: from and to are the same", node)
    if window.not_before is not None and window.not_after is not None and window.not_before > window.not_after:
        raise Misplaced("this window is empty: not_before is later than not_after", node)
    return window


def _read_day(node: Node) -> int:
    return DAYS.index(read_choice(node, DAYS))


def _read_clock(node: Node) -> int:
    text = read_text(node)
    if not _CLOCK.fullmatch(text):
        raise Misplaced(f'{text[:40]!r} is not a time of day such as "08:00"', node)
    hour, _, minute = text.partition(":")
    return int(hour) * 60 + int(minute)


def _read_offset(node: Node) -> timedelta:
    match = _OFFSET.fullmatch(read_text(node))
    if match is None:
        raise Misplaced('an offset from UTC is written like "+01:00"', node)
    span = timedelta(hours=int(match[2]), minutes=int(match[3]))
    return -span if match[1] == "-" else span
