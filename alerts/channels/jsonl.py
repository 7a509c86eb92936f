"""Alerts appended to a file, one JSON object a line, each on disk before it counts as delivered."""

import os
from datetime import datetime
from pathlib import Path

from msgspec import Struct, field

from alerts.alert import Alert
from alerts.channels.channel import DeliveryFailed
from alerts.rendering import Renderer


class JsonlChannel(Struct, frozen=True):
    """Appends to `path`, made with mode 0600.

    The file is opened for each alert, so it may be rotated or removed at any time.
    """

    name: str
    path: Path
    renderer: Renderer = field(default_factory=Renderer)
    digests: bool = False

    def send(self, alert: Alert, key: str, now: datetime) -> None:  # noqa: ARG002 - the protocol's shape
        """Append one line and fsync it."""
        line = self.renderer.line(alert, key).encode("ascii") + b"\n"
        try:
            is_new = not self.path.exists()
            # O_NOFOLLOW: a link that an attacker put into a shared directory must not choose the file.
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(self.path, flags, 0o600)
            try:
                _append(descriptor, line)
            finally:
                os.close(descriptor)
            if is_new:
                _sync_directory(self.path.parent)
        except OSError as error:
            raise DeliveryFailed(f"cannot append to {self.path}: {error.strerror or error}") from error


def _append(descriptor: int, line: bytes) -> None:
    # A crash or a full disk may have left half a line: end the line, so that only this line is unreadable.
    size = os.fstat(descriptor).st_size
    if size and os.pread(descriptor, 1, size - 1) != b"\n":
        line = b"\n" + line
    while line:
        line = line[os.write(descriptor, line) :]
    os.fsync(descriptor)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
