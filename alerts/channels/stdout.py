"""Alerts on standard output, as pages to read or JSON lines to pipe."""

import sys
from datetime import datetime
from typing import TextIO

from msgspec import Struct, field

from alerts.alert import Alert
from alerts.channels.channel import DeliveryFailed
from alerts.rendering import Renderer


class StdoutChannel(Struct, frozen=True):
    """Writes to `stream`; standard output when none is given."""

    name: str
    as_json: bool = False
    renderer: Renderer = field(default_factory=Renderer)
    stream: TextIO | None = None
    digests: bool = False

    def send(self, alert: Alert, key: str, now: datetime) -> None:  # noqa: ARG002 - the protocol's shape
        """Write and flush one alert."""
        text = self.renderer.line(alert, key) + "\n" if self.as_json else self.renderer.text(alert, key) + "\n"
        # Looked up at each call: a program may have replaced sys.stdout.
        stream = self.stream or sys.stdout
        encoding = stream.encoding or "utf-8"
        try:
            # A terminal that cannot show a character gets its escape, because an encoding error would stop the alert.
            stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
            stream.flush()
        except (OSError, ValueError) as error:
            raise DeliveryFailed(f"standard output is closed: {error}") from error
