"""Pages and mails from templates: text of a log or a visitor is inert, cut, and never a link."""

import base64
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from msgspec import Struct

from alerts.inert import inert_line
from sigstore_entries.signing import digest_label

TEMPLATES: Final = Path(__file__).parent / "templates"
NEVER: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""Time of an archived signing that carries none: it sorts as the oldest."""
_LONGEST: Final = 300
_BARS: Final = 53
_DAYS: Final = 56
_WIDTH, _HEIGHT, _GROUND = 780, 132, 104


def environment() -> Environment:
    """The templates; a missing value is an error."""
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=select_autoescape(["html.j2"], default=False, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["inert"] = inert
    made.filters["digest_label"] = digest_label
    made.filters["moment"] = moment
    made.filters["day"] = day
    made.filters["ago"] = ago
    made.filters["number"] = number
    made.filters["short"] = short
    made.filters["base64"] = lambda raw: base64.b64encode(raw).decode("ascii")
    return made


def inert(value: object, limit: int = _LONGEST) -> str:
    """One visible line of bounded length."""
    return inert_line(str(value), limit)


def moment(at: datetime) -> str:
    """A time for people: UTC, to the minute."""
    return f"{at.astimezone(UTC):%-d %B %Y, %H:%M} UTC"


def day(at: datetime) -> str:
    """A day for people, in UTC."""
    return "no time" if at == NEVER else f"{at.astimezone(UTC):%-d %b %Y}"


def ago(at: datetime | None, now: datetime) -> str:
    """Time since a moment, in its largest whole unit."""
    if at is None:
        return "never"
    seconds = max(0, int((now - at).total_seconds()))
    for unit, size in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= size:
            count = seconds // size
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return f"{seconds} second{'' if seconds == 1 else 's'} ago"


def number(value: int | None) -> str:
    """A number with thin spaces between thousands."""
    return "-" if value is None else f"{value:,}".replace(",", "\u202f")


def short(value: str) -> str:
    """Beginning and end of a long hex value."""
    algorithm, colon, rest = value.rpartition(":")
    return value if len(rest) <= 16 else f"{algorithm}{colon}{rest[:8]}…{rest[-6:]}"  # noqa: PLR2004


class Bar(Struct, frozen=True):
    """One bucket of a timeline in the picture's units: parts from the ground up as (class, y, height)."""

    x: float
    width: float
    parts: tuple[tuple[str, float, float], ...]
    label: str


class Timeline(Struct, frozen=True):
    """Signings by day or week as bars. `summary` says the same in words, for a screen reader."""

    bars: tuple[Bar, ...]
    ticks: tuple[tuple[float, str, str], ...]
    unit: str
    summary: str
    width: int = _WIDTH
    height: int = _HEIGHT
    ground: int = _GROUND


def timeline(
    signings: Sequence[tuple[datetime, str]], now: datetime, odd: str = "unlike the others"
) -> Timeline | None:
    """Bars of signings (when, outcome) over at most the last year; `None` without signings.

    `odd` is the noun for unexpected ones in the summary.
    """
    recent = [(at, outcome) for at, outcome in signings if now - at < timedelta(weeks=_BARS) and at <= now]
    if not recent:
        return None
    oldest = min(at for at, _ in recent)
    daily = now - oldest < timedelta(days=_DAYS)
    step, count = (timedelta(days=1), _DAYS) if daily else (timedelta(weeks=1), _BARS)
    end = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    start = end - step * count
    buckets: list[dict[str, int]] = [{} for _ in range(count)]
    for at, outcome in recent:
        place = min(count - 1, max(0, int((at - start) / step)))
        buckets[place][outcome] = buckets[place].get(outcome, 0) + 1
    highest = max(sum(bucket.values()) for bucket in buckets)
    pitch = _WIDTH / count
    bars = []
    for place, bucket in enumerate(buckets):
        if bucket:
            begins = start + step * place
            bars.append(_bar(place * pitch, pitch, bucket, highest, begins))
    unit = "day" if daily else "week"
    unexpected = sum(outcome == "unexpected" for _, outcome in recent)
    plural = "s" if len(recent) > 1 else ""
    summary = f"{len(recent)} signing{plural} by {unit} since {day(max(start, oldest))}"
    summary += f", {unexpected} of them {odd}." if unexpected else f", none {odd}."
    return Timeline(tuple(bars), _ticks(start, end, daily=daily), unit, summary)


def _bar(x: float, pitch: float, bucket: Mapping[str, int], highest: int, begins: datetime) -> Bar:
    parts, top = [], float(_GROUND)
    # Heights grow with the square root, so that a single signing is visible beside hundreds.
    full = (sum(bucket.values()) / highest) ** 0.5 * (_GROUND - 14)
    for outcome in ("expected", "unverified", "unexpected"):
        if bucket.get(outcome):
            height = max(7.0, full * bucket[outcome] / sum(bucket.values()))
            top -= height
            parts.append((outcome, round(top, 1), round(height - 1, 1)))
    said = ", ".join(f"{count} {outcome}" for outcome, count in sorted(bucket.items()))
    return Bar(round(x, 1), round(max(3.0, pitch - 3), 1), tuple(parts), f"{day(begins)}: {said}")


def _ticks(start: datetime, end: datetime, *, daily: bool) -> tuple[tuple[float, str, str], ...]:
    middle = start + (end - start) / 2
    form = "%-d %b" if daily else "%b %Y"
    return (
        (0.0, "start", f"{start:{form}}"),
        (_WIDTH / 2, "middle", f"{middle:{form}}"),
        (float(_WIDTH), "end", "today" if daily else f"{end - timedelta(days=1):{form}}"),
    )


def plain(value: Any) -> Any:
    """JSON types with times as RFC 3339."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
