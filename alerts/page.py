"""The page a person reads: an alert with every text made inert and every length bounded."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from alerts.alert import Alert, Owner, Severity
from alerts.inert import inert_line

_TITLE: Final = 200
_SENTENCE: Final = 1_000
_REASON: Final = 400
_LABEL: Final = 60
_VALUE: Final = 600
_NAME: Final = 200
_MAX_REASONS: Final = 25
_MAX_FACTS: Final = 40

_WHOSE: Final = {
    Owner.SIGNING: "A signing to look at",
    Owner.LOG_MISBEHAVED: "The log misbehaved",
    Owner.COULD_NOT_ASK: "The log could not be asked",
    Owner.OURSELVES: "Signwatch itself needs help",
}


@dataclass(frozen=True, slots=True)
class Page:
    """Everything shown of one alert. All texts are single visible lines; renderers still escape for their markup."""

    severity: str
    owner: str
    kind: str
    title: str
    summary: str
    consequence: str
    next_step: str
    reasons: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    where: str
    created: str
    key: str
    note: str = ""

    @property
    def heading(self) -> str:
        """The title with how loud it is, for a subject line."""
        return f"[{self.severity}] {self.title}"


def page_of(alert: Alert, key: str, note: str = "") -> Page:
    """The page of `alert`; `key` is the delivery's idempotency key, `note` a remark about the rendering itself."""
    return Page(
        severity=Severity(alert.severity).value,
        owner=_WHOSE[alert.owner],
        kind=inert_line(alert.kind, _NAME),
        title=inert_line(alert.title, _TITLE),
        summary=inert_line(alert.summary, _SENTENCE),
        consequence=inert_line(alert.consequence, _SENTENCE),
        next_step=inert_line(alert.next_step, _SENTENCE),
        reasons=_reasons(alert),
        facts=_facts(alert),
        where=_where(alert),
        created=_utc(alert.created_at),
        key=inert_line(key, _NAME),
        note=inert_line(note, _SENTENCE),
    )


def _reasons(alert: Alert) -> tuple[str, ...]:
    shown = tuple(inert_line(reason, _REASON) for reason in alert.reasons[:_MAX_REASONS])
    left_out = len(alert.reasons) - len(shown)
    return (*shown, f"… and {left_out} more") if left_out else shown


def _facts(alert: Alert) -> tuple[tuple[str, str], ...]:
    shown = tuple((inert_line(label, _LABEL), inert_line(value, _VALUE)) for label, value in alert.facts[:_MAX_FACTS])
    left_out = len(alert.facts) - len(shown)
    return (*shown, ("…", f"and {left_out} more")) if left_out else shown


def _where(alert: Alert) -> str:
    parts = []
    if alert.rule is not None:
        parts.append(f"rule {inert_line(alert.rule, _NAME)}")
    if alert.log is not None:
        parts.append(f"log {inert_line(alert.log, _NAME)}")
    if alert.index is not None:
        parts.append(f"entry {alert.index}")
    return ", ".join(parts)


def _utc(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
