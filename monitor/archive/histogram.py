"""Entries a day, drawn: bars on a terminal, an SVG picture for pages; long spans by week, month or year."""

from collections.abc import Callable, Iterator, Mapping
from datetime import date, timedelta
from html import escape
from typing import Final

_BARS: Final = 60
_BLOCKS: Final = " ▏▎▍▌▋▊▉█"
_WIDTH, _HEIGHT, _BOTTOM, _TOP = 720, 160, 20, 16


def as_text(per_day: Mapping[date, int], width: int = 50) -> Iterator[str]:
    """One line for each day, week, month or year: its beginning, a bar, and how many entries."""
    bars = _bars(per_day)
    most = max((count for _, count in bars), default=0)
    for begin, count in bars:
        eighths = round(8 * width * count / most) if most else 0
        # Nothing is drawn for nothing, and something for the least.
        bar = _BLOCKS[8] * (eighths // 8) + _BLOCKS[eighths % 8].strip() or (_BLOCKS[1] if count else "")
        yield f"{begin}  {bar} {count}"


def as_svg(per_day: Mapping[date, int], title: str) -> str:
    """An SVG document without script, style sheet or reference; `title` is escaped, and read out to who cannot see."""
    bars = _bars(per_day)
    most = max((count for _, count in bars), default=0)
    room = _HEIGHT - _BOTTOM - _TOP
    step = _WIDTH / max(1, len(bars))
    drawn = []
    for number, (begin, count) in enumerate(bars):
        height = max(1.0, room * count / most) if count else 0.0
        drawn.append(
            f'<rect x="{number * step:.1f}" y="{_TOP + room - height:.1f}" width="{max(1.0, step - 1):.1f}" '
            f'height="{height:.1f}"><title>{begin}: {count}</title></rect>'
        )
    ends = f"{bars[0][0]}", f"{bars[-1][0]}" if len(bars) > 1 else "" if bars else ("", "")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'font-family="sans-serif" font-size="11" fill="currentColor"><title>{escape(title)}</title>'
        f'<text x="0" y="11">{most}</text>{"".join(drawn)}'
        f'<path d="M0 {_TOP + room}.5H{_WIDTH}" stroke="currentColor" fill="none"/>'
        f'<text x="0" y="{_HEIGHT - 5}">{ends[0]}</text>'
        f'<text x="{_WIDTH}" y="{_HEIGHT - 5}" text-anchor="end">{ends[1]}</text></svg>\n'
    )


def _bars(per_day: Mapping[date, int]) -> list[tuple[date, int]]:
    """Beginning and count of each bar, days without entries included, at most `_BARS` where a year each does it."""
    if not per_day:
        return []
    first, last = min(per_day), max(per_day)
    for begin_of, next_of in _UNITS:
        begin = begin_of(first)
        found: dict[date, int] = {}
        at: date | None = begin
        while at is not None and at <= last and len(found) <= _BARS:
            found[at] = 0
            at = next_of(at)
        if len(found) <= _BARS or next_of is _next_year:
            for day, count in per_day.items():
                # Times are what logs and certificates say: one far off goes into the last bar drawn.
                key = begin_of(day)
                found[key if key in found else max(found)] += count
            return sorted(found.items())
    return []


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


_UNITS: Final[tuple[tuple[Callable[[date], date], Callable[[date], date | None]], ...]] = (
    (lambda at: at, _next_day),
    (_week, _next_week),
    (lambda at: at.replace(day=1), _next_month),
    (lambda at: at.replace(month=1, day=1), _next_year),
)
