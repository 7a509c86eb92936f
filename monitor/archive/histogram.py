"""Entries a day, drawn: bars on a terminal, an SVG picture for pages; long spans by week, month or year."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import date, timedelta
from html import escape
from typing import Final

from msgspec import Struct

_BARS: Final = 60
_BLOCKS: Final = " ▏▎▍▌▋▊▉█"
_WIDTH, _HEIGHT, _BOTTOM, _TOP = 720, 160, 20, 16


def as_text(per_day: Mapping[date, int], width: int = 80) -> Iterator[str]:
    """One line for each day, week, month or year: its beginning, a bar, and how many entries.

    No line has more than `width` characters, unless that leaves no room for a bar of one.
    """
    drawn = bars_of(per_day)
    most = max((count for _, count in drawn.bars), default=0)
    room = max(1, width - len("2026-01-31  ") - len(f" {most}"))
    for begin, count in drawn.bars:
        eighths = round(8 * room * count / most) if most else 0
        # A count of zero has no bar; the smallest count has the shortest bar.
        bar = _BLOCKS[8] * (eighths // 8) + _BLOCKS[eighths % 8].strip() or (_BLOCKS[1] if count else "")
        yield f"{begin}  {bar} {count}"
    yield from drawn.outside()


def as_svg(per_day: Mapping[date, int], title: str) -> str:
    """An SVG document without script, style sheet or reference; `title` is escaped, and screen readers read it."""
    drawn = bars_of(per_day)
    bars, most = drawn.bars, max((count for _, count in drawn.bars), default=0)
    room = _HEIGHT - _BOTTOM - _TOP
    step = _WIDTH / max(1, len(bars))
    rectangles = []
    for number, (begin, count) in enumerate(bars):
        height = max(1.0, room * count / most) if count else 0.0
        rectangles.append(
            f'<rect x="{number * step:.1f}" y="{_TOP + room - height:.1f}" width="{max(1.0, step - 1):.1f}" '
            f'height="{height:.1f}"><title>{begin}: {count}</title></rect>'
        )
    first = f"{bars[0][0]}" if bars else ""
    last = f"{bars[-1][0]}" if len(bars) > 1 else ""
    outside = escape("; ".join(drawn.outside()))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'font-family="sans-serif" font-size="11" fill="currentColor"><title>{escape(title)}</title>'
        f'<text x="0" y="11">{most}</text>{"".join(rectangles)}'
        f'<text x="{_WIDTH}" y="11" text-anchor="end">{outside}</text>'
        f'<path d="M0 {_TOP + room}.5H{_WIDTH}" stroke="currentColor" fill="none"/>'
        f'<text x="0" y="{_HEIGHT - 5}">{first}</text>'
        f'<text x="{_WIDTH}" y="{_HEIGHT - 5}" text-anchor="end">{last}</text></svg>\n'
    )


class HistogramBars(Struct, frozen=True):
    """Beginning and count of each bar, in order, empty bars included; and the entries before and after all bars.

    A bar is a `unit`: a day, week, month or year.
    """

    bars: tuple[tuple[date, int], ...] = ()
    unit: str = "day"
    earlier: int = 0
    later: int = 0

    def outside(self) -> Iterator[str]:
        """Sentences about entries outside of all bars."""
        if self.earlier:
            yield f"before {self.bars[0][0]}: {self.earlier}"
        if self.later:
            yield f"after {self.bars[-1][0].year}: {self.later}"


def bars_of(per_day: Mapping[date, int]) -> HistogramBars:
    """At most `_BARS` bars of the shortest unit that fits; of a longer span the years that hold most entries.

    Logs and certificates claim the times: one that is centuries off must not squeeze all others into one bar.
    """
    if not per_day:
        return HistogramBars()
    first, last = min(per_day), max(per_day)
    for unit, begin_of, next_of in _UNITS:
        found = dict.fromkeys(_begins(begin_of(first), last, next_of), 0)
        if len(found) <= _BARS:
            for day, count in per_day.items():
                found[begin_of(day)] += count
            return HistogramBars(tuple(found.items()), unit)
    years = Counter[int]()
    for day, count in per_day.items():
        years[day.year] += count
    start = max(years, key=lambda year: (sum(years[each] for each in range(year, year + _BARS)), year))
    shown = [year for year in range(start, start + _BARS) if year <= max(years)]
    return HistogramBars(
        tuple((date(year, 1, 1), years[year]) for year in shown),
        "year",
        sum(count for year, count in years.items() if year < shown[0]),
        sum(count for year, count in years.items() if year > shown[-1]),
    )


def _begins(begin: date, last: date, next_of: Callable[[date], date | None]) -> Iterator[date]:
    """Beginnings of the bars up to the last day, at most `_BARS + 1`."""
    at: date | None = begin
    for _ in range(_BARS + 1):
        if at is None or at > last:
            return
        yield at
        at = next_of(at)


def _next_day(at: date) -> date | None:
    return None if at == date.max else at + timedelta(days=1)


def _week(at: date) -> date:
    return date.fromordinal(max(1, at.toordinal() - at.weekday()))


def _next_week(at: date) -> date | None:
    return None if at > date.max - timedelta(days=7) else at + timedelta(days=7)


def _next_month(at: date) -> date | None:
    month = at.year * 12 + at.month
    return None if month // 12 > date.max.year else date(month // 12, month % 12 + 1, 1)


def _next_year(at: date) -> date | None:
    return None if at.year == date.max.year else date(at.year + 1, 1, 1)


_UNITS: Final[tuple[tuple[str, Callable[[date], date], Callable[[date], date | None]], ...]] = (
    ("day", lambda at: at, _next_day),
    ("week", _week, _next_week),
    ("month", lambda at: at.replace(day=1), _next_month),
    ("year", lambda at: at.replace(month=1, day=1), _next_year),
)
