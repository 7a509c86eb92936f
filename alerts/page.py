"""The page for people: an alert with every text made inert and every length bounded."""

from typing import Final

from msgspec import Struct

from alerts.alert import Alert, Owner, Severity, rfc3339
from alerts.inert import inert_line
from alerts.links import NO_LINKS, Links

_TITLE: Final = 200
_SENTENCE: Final = 1_000
_REASON: Final = 400
_LABEL: Final = 60
_VALUE: Final = 600
_NAME: Final = 200
_MAX_REASONS: Final = 25
_MAX_FACTS: Final = 40
# Bytes of UTF-8 for all reasons and for all facts: with both forms of the page, a mail stays under 100 KB.
_REASONS: Final = 4_000
_FACTS: Final = 10_000
_SHORT_ID: Final = 12

_WHOSE: Final = {
    Owner.SIGNING: "A signing to check",
    Owner.LOG_MISBEHAVED: "The log misbehaved",
    Owner.COULD_NOT_ASK: "The log could not be asked",
    Owner.OURSELVES: "Signwatch itself needs help",
}
TEST: Final = "test"
"""The kind of an alert that only tests a channel."""


class PageSection(Struct, frozen=True):
    """Rows under one heading."""

    name: str
    facts: tuple[tuple[str, str], ...]


class Page(Struct, frozen=True):
    """The shown parts of one alert. All texts are single visible lines; renderers still escape for their markup.

    `sections` are the facts in reading order, `claims` the source's own words, shown last. `link`,
    `acknowledge_link`, `proof_link`, `evidence_link` and `explanation_link` are addresses of this installation, or
    empty. `command` acknowledges the alert, or is empty.
    """

    severity: str
    owner: str
    kind: str
    id: str
    title: str
    summary: str
    consequence: str
    next_step: str
    reasons: tuple[str, ...]
    sections: tuple[PageSection, ...]
    claims: tuple[PageSection, ...]
    where: str
    created: str
    key: str
    link: str = ""
    acknowledge_link: str = ""
    proof_link: str = ""
    evidence_link: str = ""
    explanation_link: str = ""
    command: str = ""
    note: str = ""

    @property
    def heading(self) -> str:
        """The title with the severity, for a subject line."""
        return f"[{TEST if self.kind == TEST else self.severity}] {self.title}"

    @property
    def facts(self) -> tuple[tuple[str, str], ...]:
        """All rows of all sections that are not claims."""
        return tuple(fact for section in self.sections for fact in section.facts)


def page_of(alert: Alert, key: str, note: str = "", links: Links = NO_LINKS) -> Page:
    """The page of `alert`; `key` is the delivery's idempotency key, `note` a remark about the rendering itself."""
    sections, claims = _sections(alert)
    return Page(
        severity=Severity(alert.severity).value,
        owner="A test of this channel" if alert.kind == TEST else _WHOSE[alert.owner],
        kind=inert_line(alert.kind, _NAME),
        id=inert_line(alert.id, _NAME),
        title=inert_line(alert.title, _TITLE),
        summary=inert_line(alert.summary, _SENTENCE),
        consequence=inert_line(alert.consequence, _SENTENCE),
        next_step=inert_line(alert.next_step, _SENTENCE),
        reasons=_reasons(alert),
        sections=sections,
        claims=claims,
        where=_where(alert),
        created=rfc3339(alert.created_at),
        key=inert_line(key, _NAME),
        link=links.page(alert),
        acknowledge_link=links.acknowledge(alert),
        proof_link=links.proof(alert),
        evidence_link=links.evidence(alert),
        explanation_link=links.explanation(alert),
        command=_command(alert),
        note=inert_line(note, _SENTENCE),
    )


def _command(alert: Alert) -> str:
    if alert.kind in {TEST, "digest"}:
        return ""
    short = alert.id[:_SHORT_ID] if alert.id.isascii() and alert.id.isalnum() else alert.id
    return f'signwatch alerts ack {inert_line(short, _NAME)} --note "…"'


def _reasons(alert: Alert) -> tuple[str, ...]:
    fits = _Room(_MAX_REASONS, _REASONS)
    shown = tuple(each for each in (inert_line(reason, _REASON) for reason in alert.reasons) if fits.takes(each))
    left_out = len(alert.reasons) - len(shown)
    return (*shown, f"… and {left_out} more") if left_out else shown


def _sections(alert: Alert) -> tuple[tuple[PageSection, ...], tuple[PageSection, ...]]:
    """Sections and claims, together at most `_MAX_FACTS` rows, with a note of the number left out."""
    groups = [("", alert.facts, False), *((group.name, group.facts, group.raw) for group in alert.groups)]
    groups.sort(key=lambda group: group[2])
    fits, left_out = _Room(_MAX_FACTS, _FACTS), 0
    found: tuple[list[PageSection], list[PageSection]] = [], []
    for name, facts, raw in groups:
        made = ((inert_line(label, _LABEL), inert_line(value, _VALUE)) for label, value in facts)
        shown = tuple(row for row in made if fits.takes(*row))
        left_out += len(facts) - len(shown)
        if shown:
            found[raw].append(PageSection(inert_line(name, _LABEL), shown))
    if left_out:
        (found[1] or found[0]).append(PageSection("", (("…", f"and {left_out} more"),)))
    return tuple(found[0]), tuple(found[1])


class _Room:
    """A budget of rows and of bytes of text. After the first row that does not fit it takes no more."""

    def __init__(self, rows: int, size: int) -> None:
        self._rows, self._size = rows, size

    def takes(self, *texts: str) -> bool:
        self._rows -= 1
        self._size -= sum(len(text.encode()) for text in texts)
        return self._rows >= 0 and self._size >= 0


def _where(alert: Alert) -> str:
    parts = []
    if alert.rule is not None:
        parts.append(f"rule {inert_line(alert.rule, _NAME)}")
    if alert.log is not None:
        parts.append(f"log {inert_line(alert.log, _NAME)}")
    if alert.index is not None:
        parts.append(f"entry {alert.index}")
    return ", ".join(parts)
