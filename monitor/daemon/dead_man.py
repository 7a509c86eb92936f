"""Requests to a dead-man service, which alerts when they stop."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Final

from alerts.channels.channel import DeliveryFailed
from alerts.channels.guarded_http import GuardedPoster, check_url
from monitor.config import HeartbeatConfig
from monitor.model.errors import BadConfig, FetchFailed

_LONGEST_URL: Final = 2_000


class DeadManService:
    """Sends requests to the URL of a dead-man service. The URL is a secret and in no message."""

    def __init__(self, config: HeartbeatConfig, clock: Callable[[], datetime]) -> None:
        self.seconds = max(1.0, config.every.total_seconds())
        self._url, self._clock = _read_url(config), clock
        self._poster = GuardedPoster(allow_private=config.allow_private)

    def ask(self) -> None:
        """Send one request. Raises `FetchFailed`."""
        try:
            self._poster.ask("GET", self._url, b"", {}, self._clock())
        except DeliveryFailed as error:
            raise FetchFailed(
                f"the dead-man service was not reached: {error}. It alerts by itself if this lasts."
            ) from error


def _read_url(config: HeartbeatConfig) -> str:
    path: Path = config.url_file
    try:
        with path.open(encoding="utf-8") as file:
            url = file.read(_LONGEST_URL + 1).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadConfig(f"heartbeat: url_file: {path} cannot be read: {error}") from error
    problem = check_url(url, allow_private=config.allow_private) if len(url) <= _LONGEST_URL else "is too long"
    if problem:
        raise BadConfig(f"heartbeat: url_file: the URL in {path} {problem}")
    return url
