"""Alerts through Apprise: the long tail of services, for those who installed the `apprise` extra."""

from datetime import datetime
from typing import Any, Final

from msgspec import Struct, field

from alerts.alert import Alert, Severity
from alerts.channels.channel import DeliveryFailed
from alerts.channels.settings import SecretFile, SecretUnreadable
from alerts.inert import inert_line
from alerts.rendering import Renderer
from outbound.names import BoundedCalls, CallNotEnded, receiver_calls

_TYPE: Final = {Severity.PAGE: "failure", Severity.WARN: "warning", Severity.INFO: "info"}
# Signwatch does not know a service's markup: characters of HTML, Markdown and mentions all become look-alikes.
_DEFUSED: Final = str.maketrans(
    {"<": "\u2039", ">": "\u203a", "`": "'", "[": "(", "]": ")", "*": "\u2217", "@": "@\u2060"}
)


class AppriseMissing(ImportError):
    """The `apprise` extra is not installed."""


class AppriseChannel(Struct, frozen=True):
    """Notifies every Apprise URL in a file, one a line; they hold secrets, so they come from a file."""

    name: str
    urls: SecretFile
    renderer: Renderer = field(default_factory=Renderer)
    digests: bool = True
    seconds: float = 60.0
    calls: BoundedCalls = field(default_factory=receiver_calls)

    def send(self, alert: Alert, key: str, now: datetime) -> None:  # noqa: ARG002 - the protocol's shape
        """Notify all URLs within `seconds`. If one fails, the delivery fails; the next try notifies all of them again.

        Apprise's limits are for one read or write, and it looks names up without a limit.
        """
        try:
            lines = self.urls.read().splitlines()
        except SecretUnreadable as error:
            raise DeliveryFailed(str(error)) from error
        apprise = load()
        notifier = apprise.Apprise(asset=apprise.AppriseAsset(secure_logging=True, async_mode=False))
        for number, line in enumerate(lines, start=1):
            url = line.strip()
            if url and not url.startswith("#") and not notifier.add(url):
                raise DeliveryFailed(f"line {number} of {self.urls.path} is no Apprise URL")
        if not len(notifier):
            raise DeliveryFailed(f"{self.urls.path} holds no Apprise URL")
        title, body = defuse(self.renderer.subject(alert, key)), defuse(self.renderer.text(alert, key))
        try:
            done = self.calls.result(
                object(),
                lambda: notifier.notify(
                    title=title,
                    body=body,
                    notify_type=_TYPE[alert.severity],
                    body_format="text",
                    interpret_escapes=False,
                ),
                self.seconds,
            )
        except CallNotEnded as error:
            hosts = ", ".join(sorted({str(each.host) for each in notifier if getattr(each, "host", None)}))
            raise DeliveryFailed(f"Apprise did not end: {error} (services at {inert_line(hosts, 200)})") from error
        if not done:
            raise DeliveryFailed("Apprise could not notify every service; its log names the failed ones")


def defuse(text: str) -> str:
    """`text` without the characters of any service's markup or mentions."""
    return text.translate(_DEFUSED)


def load() -> Any:
    """The apprise package. Raises `AppriseMissing`."""
    try:
        import apprise  # noqa: PLC0415 - an optional extra, and slow to import
    except ImportError as error:
        raise AppriseMissing("install requirements/extras.txt (docs/operations.md, Install)") from error
    return apprise
