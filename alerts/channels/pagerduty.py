"""Alerts as PagerDuty incidents through the Events API v2."""

import json
from datetime import datetime
from typing import Any, Final

from msgspec import Struct, field

from alerts.alert import Alert, AlertChange, ChangeKind, Severity, rfc3339
from alerts.channels.channel import DeliveryFailed
from alerts.channels.guarded_http import GuardedPoster
from alerts.channels.settings import SecretFile, SecretUnreadable
from alerts.inert import header_token, inert_line
from alerts.page import PageSection
from alerts.rendering import Renderer

EVENTS_URL: Final = "https://events.pagerduty.com/v2/enqueue"
_MAX_SUMMARY: Final = 1_024
_SEVERITY: Final = {Severity.PAGE: "critical", Severity.WARN: "warning", Severity.INFO: "info"}


class PagerDutyChannel(Struct, frozen=True):
    """Triggers one event per alert; `dedup_key` makes a repeat the same incident."""

    name: str
    routing_key: SecretFile
    poster: GuardedPoster
    url: str = EVENTS_URL
    renderer: Renderer = field(default_factory=Renderer)
    digests: bool = True

    def send(self, alert: Alert, key: str, now: datetime) -> None:
        """Trigger one event; PagerDuty answers 202."""
        self._post(event(alert, key, self._key(), self.renderer), now)

    def tell(self, alert: Alert, change: AlertChange, key: str, now: datetime) -> None:
        """Acknowledge or resolve the incident, or trigger it again."""
        document = event(alert, key, self._key(), self.renderer)
        if change.kind is not ChangeKind.REOPENED:
            # Events API v2: `payload` belongs to a trigger alone.
            action = "acknowledge" if change.kind is ChangeKind.ACKNOWLEDGED else "resolve"
            document = {name: document[name] for name in ("routing_key", "dedup_key")} | {"event_action": action}
        self._post(document, now)

    def _key(self) -> str:
        try:
            return self.routing_key.read()
        except SecretUnreadable as error:
            raise DeliveryFailed(str(error)) from error

    def _post(self, document: dict[str, Any], now: datetime) -> None:
        body = json.dumps(document, ensure_ascii=True, separators=(",", ":")).encode("ascii")
        self.poster.post(self.url, body, {}, now)


def event(alert: Alert, key: str, routing_key: str, renderer: Renderer) -> dict[str, Any]:
    """The Events v2 `trigger` document."""
    page = renderer.page(alert, key)
    return {
        "routing_key": routing_key,
        "event_action": "trigger",
        "dedup_key": header_token(key),
        "client": "Signwatch",
        **({"client_url": page.link} if page.link else {}),
        "payload": {
            "summary": inert_line(f"{page.title}: {page.summary}", _MAX_SUMMARY - 40),
            "source": page.where or "signwatch",
            "severity": _SEVERITY[alert.severity],
            "timestamp": rfc3339(alert.created_at),
            "class": page.kind,
            "custom_details": {
                "whose trouble": page.owner,
                "why": list(page.reasons),
                "facts": {section.name or "facts": _rows(section) for section in (*page.sections, *page.claims)},
                "what this means": page.consequence,
                "what to do": page.next_step,
                "acknowledge": page.command,
                "id": page.id,
                "key": page.key,
            },
        },
    }


def _rows(section: PageSection) -> list[str]:
    return [f"{label}: {value}" for label, value in section.facts]
