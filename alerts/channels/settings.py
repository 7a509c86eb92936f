"""Reading one channel's settings strictly: an unknown key, a wrong type or a missing secret is an error that helps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from alerts.inert import inert_line
from alerts.links import Links
from alerts.user_template import UserTemplate

_MAX_SECRET: Final = 64 * 1024


class ChannelMisconfigured(ValueError):
    """The operator's settings cannot be used: says which key of which channel, why, and what would do.

    `place` is line and column in the file, where they are known.
    """

    def __init__(self, message: str, place: tuple[int, int] | None = None) -> None:
        super().__init__(message)
        self.place = place


class SecretUnreadable(Exception):
    """A secret's file cannot be read (any more)."""


@dataclass(frozen=True, slots=True)
class SecretFile:
    """A secret by its file's path. Read anew at each use, so it can be rotated without a restart; never shown."""

    path: Path

    def read(self) -> str:
        """The secret without the white space around it. Raises `SecretUnreadable`."""
        try:
            with self.path.open("rb") as file:
                raw = file.read(_MAX_SECRET + 1)
        except OSError as error:
            raise SecretUnreadable(f"the secret file {self.path} cannot be read: {error.strerror}") from error
        try:
            secret = raw.decode().strip()
        except UnicodeDecodeError:
            secret = ""
        if not secret or len(raw) > _MAX_SECRET:
            raise SecretUnreadable(f"the secret file {self.path} is empty, too long or not text")
        return secret


class Settings:
    """Takes keys out of a channel's mapping one by one; `finish` refuses what is left."""

    def __init__(self, channel: str, kind: str, values: Mapping[str, Any], base: Path, links: Links) -> None:
        self.links, self.base = links, base
        self._channel, self._kind = channel, kind
        self._left = {key: value for key, value in values.items() if key != "type"}
        self._known: list[str] = []
        self._places = getattr(values, "places", {})

    def wrong(self, key: str, why: str) -> ChannelMisconfigured:
        """The error for one key."""
        return ChannelMisconfigured(f"channels.{self._channel}.{key} ({self._kind}): {why}", self._place(key))

    def has(self, key: str) -> bool:
        """Whether the operator set `key`."""
        return self._left.get(key) is not None

    def text(self, key: str, default: str | None = None) -> str:
        """A non-empty single-line string; required when there is no default."""
        value = self._take(key, default)
        if not isinstance(value, str) or not value or inert_line(value, 2_000) != value:
            raise self.wrong(key, "must be a non-empty line of text")
        return value

    def choice(self, key: str, choices: Sequence[str], default: str) -> str:
        """One of `choices`."""
        value = self._take(key, default)
        if value not in choices:
            raise self.wrong(key, f"must be one of {', '.join(choices)}")
        return str(value)

    def flag(self, key: str, *, default: bool) -> bool:
        """True or false, not "yes"."""
        value = self._take(key, default)
        if not isinstance(value, bool):
            raise self.wrong(key, "must be true or false")
        return value

    def number(self, key: str, default: float, *, least: float, most: float) -> float:
        """A number between `least` and `most`, both allowed."""
        value = self._take(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise self.wrong(key, f"must be a number from {least:g} to {most:g}")
        return float(value)

    def texts(self, key: str) -> tuple[str, ...]:
        """One line of text, or a list of them; at least one."""
        value = self._take(key, None)
        items = [value] if isinstance(value, str) else value
        if not isinstance(items, list) or not items or not all(isinstance(item, str) and item for item in items):
            raise self.wrong(key, "must be a line of text or a list of them")
        if any(inert_line(item, 2_000) != item for item in items):
            raise self.wrong(key, "holds a control character or line break")
        return tuple(items)

    def path(self, key: str) -> Path:
        """A path; a relative one counts from the configuration file's directory."""
        return self.base / self.text(key)

    def optional_path(self, key: str) -> Path | None:
        """A path, where one is set."""
        if self.has(key):
            return self.path(key)
        self._known.append(key)
        return None

    def secret(self, key: str) -> SecretFile:
        """The path of a file that holds a secret, readable now."""
        file = SecretFile(self.path(key))
        try:
            file.read()
        except SecretUnreadable as error:
            raise self.wrong(key, str(error)) from error
        return file

    def template(self, key: str, *, html: bool = False) -> UserTemplate | None:
        """The user's own template, where one is set."""
        path = self.optional_path(key)
        if path is None:
            return None
        try:
            return UserTemplate.read(path, html=html)
        except (OSError, ValueError) as error:
            raise self.wrong(key, f"the template cannot be read: {error}") from error

    def finish(self) -> None:
        """Refuse unknown keys."""
        if self._left:
            unknown = ", ".join(sorted(inert_line(str(key), 60) for key in self._left))
            near = get_close_matches(next(iter(self._left)), self._known, n=1, cutoff=0.6)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ChannelMisconfigured(
                f"channels.{self._channel} ({self._kind}): unknown: {unknown}{hint}; "
                f"known: {', '.join(sorted(self._known))}",
                self._place(next(iter(self._left))),
            )

    def _place(self, key: str) -> tuple[int, int] | None:
        """Where a key stands, or the mapping that lacks it."""
        return self._places.get(key, self._places.get(""))

    def _take(self, key: str, default: Any) -> Any:
        self._known.append(key)
        value = self._left.pop(key, None)
        if value is None:
            if default is None:
                raise self.wrong(key, "is required")
            return default
        return value
