"""The alert: one event a person should know of, with its meaning and the next step."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import Any

from msgspec import Struct


class Owner(StrEnum):
    """Owner of the trouble in an alert: one of the three kinds of trouble, or an unexpected signing."""

    SIGNING = "signing"
    LOG_MISBEHAVED = "log-misbehaved"
    COULD_NOT_ASK = "could-not-ask"
    OURSELVES = "ourselves"


class Severity(StrEnum):
    """Urgency: `page` wakes a person, `warn` waits for the morning, `info` is for the digest."""

    PAGE = "page"
    WARN = "warn"
    INFO = "info"


class ChangeKind(StrEnum):
    """Change of an alert that was sent before."""

    ACKNOWLEDGED = "acknowledged"
    REOPENED = "reopened"
    RESOLVED = "resolved"


class AlertChange(Struct, frozen=True):
    """A change in the life of an alert. `number` distinguishes the changes of one alert."""

    kind: ChangeKind
    number: int
    by: str
    note: str = ""


class FactGroup(Struct, frozen=True):
    """Label and value rows under one heading. A `raw` group repeats the source's own words and is shown last."""

    name: str
    facts: tuple[tuple[str, str], ...]
    raw: bool = False


class Alert(Struct, frozen=True):
    """One alert, complete: its reader needs no other system to understand the event and the next step.

    `id` is stable for one event, so a receiver can drop repeats; with the channel's name it is the idempotency key.
    `kind` names the page under `docs/alerts/`. `facts` are ordered label and value rows that are read first, `groups`
    are further ones under headings. `identity` is the name or key that a signing alert is about, `evidence` the id
    of the evidence that was kept against a log. Every text may hold words that an attacker chose: renderers make all
    of it inert.
    """

    id: str
    kind: str
    owner: Owner
    severity: Severity
    title: str
    summary: str
    consequence: str
    next_step: str
    created_at: datetime
    reasons: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    log: str | None = None
    index: int | None = None
    rule: str | None = None
    identity: str | None = None
    evidence: str | None = None
    groups: tuple[FactGroup, ...] = ()

    def every_fact(self) -> Iterator[tuple[str, str]]:
        """All rows of all groups."""
        yield from self.facts
        for group in self.groups:
            yield from group.facts

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, times as RFC 3339 in UTC: the form in which an alert is stored."""
        document = {name: getattr(self, name) for name in self.__struct_fields__}
        document["created_at"] = self.created_at.astimezone(UTC).isoformat().replace("+00:00", "Z")
        document["reasons"] = list(self.reasons)
        document["facts"] = [list(fact) for fact in self.facts]
        document["groups"] = [
            {"name": group.name, "facts": [list(fact) for fact in group.facts], "raw": group.raw}
            for group in self.groups
        ]
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Alert":
        """Read what `to_json` wrote."""
        fields = dict(document)
        fields["owner"] = Owner(fields["owner"])
        fields["severity"] = Severity(fields["severity"])
        fields["created_at"] = datetime.fromisoformat(fields["created_at"])
        fields["reasons"] = tuple(fields["reasons"])
        fields["facts"] = tuple((label, value) for label, value in fields["facts"])
        fields["groups"] = tuple(
            FactGroup(group["name"], tuple((label, value) for label, value in group["facts"]), group["raw"])
            for group in fields["groups"]
        )
        return cls(**fields)


def alert_id(*parts: str) -> str:
    """Id that is the same for every sighting of the same event."""
    return sha256("\0".join(parts).encode()).hexdigest()[:32]


def day_of(now: datetime) -> str:
    """Date that a once-a-day alert is about."""
    return now.date().isoformat()


def lasting(length: timedelta) -> str:
    """A length of time in one unit: seconds below a minute, minutes below two hours, hours below two days."""
    seconds = max(0, int(length.total_seconds()))
    for unit, size, least in (("day", 86400, 2), ("hour", 3600, 2), ("minute", 60, 1)):
        if seconds >= least * size:
            return counted(seconds // size, unit)
    return counted(seconds, "second")


def exactly(length: timedelta) -> str:
    """A length of time for a record: hours to a hundredth from two hours on, else as `lasting` writes it."""
    hours = length.total_seconds() / 3600
    return f"{round(hours, 2):g} hours" if hours >= 2 else lasting(length)  # noqa: PLR2004  where `lasting` begins with hours


def counted(number: float, what: str) -> str:
    """A number with its noun, whose last word is a regular one: "1 alert", "2 entries", "3,000 matches"."""
    told = f"{number:,}" if isinstance(number, int) else f"{number:g}"
    if number == 1:
        return f"{told} {what}"
    if what.endswith("y") and what[-2:-1] not in "aeiou":
        return f"{told} {what[:-1]}ies"
    return f"{told} {what}{'es' if what.endswith(('ch', 'sh', 's', 'x')) else 's'}"


def rfc3339(at: datetime) -> str:
    """A time as every alert shows it: UTC to the second."""
    return at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
