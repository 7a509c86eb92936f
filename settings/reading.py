"""Strict readers from YAML nodes to values. Each raises `Misplaced` with the place and the expected form."""

import difflib
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Final, TypeVar

from settings.document import Misplaced, Node, YamlMapping, YamlScalar, YamlSequence

MAX_TEXT: Final = 2_000
MAX_LIST: Final = 10_000

_DURATION = re.compile(r"([1-9][0-9]{0,5})([smhdw])", re.ASCII)
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_NUMBER = re.compile(r"0|[1-9][0-9]{0,8}", re.ASCII)
_DECIMAL = re.compile(r"(0|[1-9][0-9]{0,8})(\.[0-9]{1,9})?", re.ASCII)
_LISTEN = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+):([0-9]{1,5})", re.ASCII)
_LARGEST_PORT: Final = 65535
_HOST = re.compile(r"[^\s:/@?#\[\]]+")
_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?(Z|[+-]\d\d:\d\d)", re.ASCII)
# A NUL or a newline in a name is always a mistake, and a person cannot check unprintable text.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")

T = TypeVar("T")


class Fields:
    """The keys of one mapping, each read at most once; a key left over is an error that names the nearest valid key."""

    def __init__(
        self, node: Node, allowed: Iterable[str], what: str, extra: Callable[[str], bool] | None = None
    ) -> None:
        if not isinstance(node, YamlMapping):
            raise Misplaced(f"{what} is a mapping (key: value)", node)
        self.node = node
        self._values = {key.text: value for key, value in node.entries}
        known = list(allowed)
        for key, _ in node.entries:
            if key.text not in known and not (extra is not None and extra(key.text)):
                raise Misplaced(unknown_key(key.text, known, what), key)

    def get(self, key: str) -> Node | None:
        """The value under `key`; `None` if the key is missing."""
        return self._values.get(key)

    def need(self, key: str) -> Node:
        """The value under `key`, which is required."""
        value = self._values.get(key)
        if value is None:
            raise Misplaced(f"{key!r} is missing", self.node)
        return value

    def read(self, key: str, reader: Callable[[Node], T], default: T) -> T:
        """Read the value under `key`, or take the default."""
        value = self._values.get(key)
        return default if value is None else reader(value)


def unknown_key(key: str, known: Iterable[str], what: str) -> str:
    """Message for an unknown key, with the nearest valid key, or with all valid keys if none is near."""
    names = list(known)
    near = difflib.get_close_matches(key.lower().replace("-", "_"), names, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]!r}?" if near else "known keys: " + ", ".join(names)
    return f"{what} has no key {key[:80]!r}: {hint}"


def read_text(node: Node, longest: int = MAX_TEXT) -> str:
    """One line of text, as written."""
    if not isinstance(node, YamlScalar):
        raise Misplaced("this is one text, not a list or a mapping", node)
    if node.is_null or not node.text:
        raise Misplaced("this is empty: write a value or remove the key", node)
    if len(node.text) > longest:
        raise Misplaced(f"longer than {longest} characters", node)
    if _UNPRINTABLE.search(node.text):
        raise Misplaced("holds a control character or a line break", node)
    return node.text


def read_list(node: Node, reader: Callable[[Node], T]) -> tuple[T, ...]:
    """A list, or one value standing for a list of one."""
    if not isinstance(node, YamlSequence):
        return (reader(node),)
    if not node.items:
        raise Misplaced("an empty list: write a value or remove the key", node)
    if len(node.items) > MAX_LIST:
        raise Misplaced(f"more than {MAX_LIST} values", node)
    return tuple(reader(item) for item in node.items)


def read_number(node: Node) -> int:
    """A plain decimal from 0 to 999999999."""
    text = read_text(node)
    if not _NUMBER.fullmatch(text):
        raise Misplaced(f"{text[:40]!r} is not a plain number", node)
    return int(text)


def read_decimal(node: Node) -> float:
    """A plain decimal number, not negative."""
    text = read_text(node)
    if not _DECIMAL.fullmatch(text):
        raise Misplaced(f"{text[:40]!r} is not a plain number", node)
    return float(text)


def read_between(node: Node, least: int, most: int) -> int:
    """A plain number from `least` to `most`, both allowed."""
    number = read_number(node)
    if not least <= number <= most:
        raise Misplaced(f"must be a number from {least} to {most}", node)
    return number


def read_positive(node: Node) -> int:
    """A plain decimal from 1 on."""
    number = read_number(node)
    if number < 1:
        raise Misplaced("must be at least 1", node)
    return number


def read_listen(node: Node) -> tuple[str, int]:
    """An address and a port, such as `127.0.0.1:9464` or `[::1]:9464`."""
    match = _LISTEN.fullmatch(read_text(node))
    if match is None or int(match[2]) > _LARGEST_PORT:
        raise Misplaced('not an address and a port such as "127.0.0.1:9464"', node)
    return match[1].strip("[]"), int(match[2])


def read_host(node: Node) -> str:
    """Name or address of a host, without a scheme or a port."""
    text = read_text(node)
    try:
        ip_address(text)
    except ValueError:
        if not _HOST.fullmatch(text):
            raise Misplaced(
                f"{text[:80]!r} is not the name or address of a host alone: a port goes into `port`", node
            ) from None
    return text


def read_flag(node: Node) -> bool:
    """`true` or `false`."""
    text = read_text(node)
    if text not in ("true", "false"):
        raise Misplaced(f"{text[:40]!r} is not true or false", node)
    return text == "true"


def read_choice(node: Node, choices: Iterable[str]) -> str:
    """One of a few words."""
    text, known = read_text(node), list(choices)
    if text not in known:
        raise Misplaced(f"{text[:80]!r} is not one of: {', '.join(known)}", node)
    return text


def read_duration(node: Node) -> timedelta:
    """A whole number and one unit: `30s`, `15m`, `6h`, `7d`, `2w`."""
    text = read_text(node)
    match = _DURATION.fullmatch(text)
    if match is None:
        raise Misplaced(f"{text[:40]!r} is not a duration such as 30s, 15m, 6h, 7d or 2w", node)
    return timedelta(seconds=int(match[1]) * _UNITS[match[2]])


def duration_text(duration: timedelta) -> str:
    """A duration as `read_duration` reads it, in the largest unit that holds it whole."""
    seconds = int(duration.total_seconds())
    unit = next(unit for unit, size in reversed(_UNITS.items()) if seconds % size == 0)
    return f"{seconds // _UNITS[unit]}{unit}"


def read_timestamp(node: Node) -> datetime:
    """An RFC 3339 time with its offset, returned in UTC."""
    text = read_text(node)
    if _TIMESTAMP.fullmatch(text):
        try:
            return datetime.fromisoformat(text).astimezone(UTC)
        except (ValueError, OverflowError):
            pass
    raise Misplaced(f"{text[:40]!r} is not a time with an offset, such as 2026-01-31T18:00:00Z", node)
