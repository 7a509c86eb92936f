"""Alerts in Prometheus Alertmanager, through its API v2: it groups, repeats and routes them by their labels."""

import json
from datetime import datetime, timedelta
from typing import Any, Final

from msgspec import Struct, field

from alerts.alert import Alert, AlertChange, ChangeKind, rfc3339
from alerts.channels.channel import DeliveryFailed
from alerts.channels.guarded_http import GuardedPoster
from alerts.channels.settings import SecretFile, SecretUnreadable
from alerts.inert import inert_line
from alerts.rendering import Renderer

# Alertmanager ends an alert at its `endsAt`; without one it ends the alert five minutes after the last post.
_STAYS: Final = timedelta(days=365)
_MAX_LABEL: Final = 200
_MAX_CHANGE: Final = 1_000


class AlertmanagerChannel(Struct, frozen=True):
    """Posts to `url` (the base address). An alert fires until it is acknowledged or resolved."""

    name: str
    url: str
    poster: GuardedPoster
    token: SecretFile | None = None
    renderer: Renderer = field(default_factory=Renderer)
    digests: bool = False

    def send(self, alert: Alert, key: str, now: datetime) -> None:
        """Fire one alert. Alertmanager takes the same labels as the same alert, so a repeat adds none."""
        self._post(document(alert, key, self.renderer, ends=now + _STAYS), now)

    def tell(self, alert: Alert, change: AlertChange, key: str, now: datetime) -> None:
        """End the alert when it is acknowledged or resolved, fire it again when it is reopened."""
        ends = now + _STAYS if change.kind is ChangeKind.REOPENED else now
        made = document(alert, key, self.renderer, ends=ends)
        told = f"by {change.by}" + (f": {change.note}" if change.note else "")
        made["annotations"][change.kind.value] = inert_line(told, _MAX_CHANGE)
        self._post(made, now)

    def _post(self, made: dict[str, Any], now: datetime) -> None:
        headers = {}
        if self.token is not None:
            try:
                headers["authorization"] = f"Bearer {self.token.read()}"
            except SecretUnreadable as error:
                raise DeliveryFailed(str(error)) from error
        body = json.dumps([made], ensure_ascii=True, separators=(",", ":")).encode("ascii")
        self.poster.post(f"{self.url}/api/v2/alerts", body, headers, now)


def document(alert: Alert, key: str, renderer: Renderer, *, ends: datetime) -> dict[str, Any]:
    """One `postableAlert`. Labels name the alert and may route it; everything else is an annotation."""
    page = renderer.page(alert, key)
    labels = {
        "alertname": f"Signwatch {page.kind}",
        "severity": page.severity,
        "owner": alert.owner.value,
        "kind": page.kind,
        "alert_id": page.id,
        "rule": alert.rule or "",
        "log": alert.log or "",
    }
    annotations = {
        "summary": page.title,
        "description": page.summary,
        "what_to_do": page.next_step,
        "what_this_means": page.consequence,
        "why": "\n".join(page.reasons),
        "facts": "\n".join(f"{label}: {value}" for label, value in page.facts),
        "acknowledge": page.command,
    }
    return {
        "labels": {name: _utf8(value)[:_MAX_LABEL] for name, value in labels.items() if value},
        "annotations": {name: value for name, value in annotations.items() if value},
        "startsAt": rfc3339(min(alert.created_at, ends)),
        "endsAt": rfc3339(ends),
        **({"generatorURL": page.link} if page.link else {}),
    }


def _utf8(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
