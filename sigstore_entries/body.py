"""Reading a Rekor entry body: strict JSON, then fields asked for one by one.

A body is canonical JSON, so it never repeats a key. Libraries that meet a repeated key pick one, and not all the same
one: a body that repeats a key could show one signer to us and another to other readers, so it is unreadable here.
"""

import json
from typing import Any, Final

from sigstore_entries.pem import MalformedText, from_base64

MAX_BODY: Final = 4 * 1024 * 1024
_SHOWN: Final = 60


class MalformedBody(ValueError):
    """The body is not the JSON document it should be. `code` is for metrics."""

    def __init__(self, reason: str, code: str = "malformed-body") -> None:
        super().__init__(reason)
        self.code = code


class Fields:
    """One JSON object and where it stands in the body. Every access checks the type; `MalformedBody` says where."""

    __slots__ = ("_path", "_value")

    def __init__(self, value: Any, path: str) -> None:
        if not isinstance(value, dict):
            raise MalformedBody(f"{path} is not an object")
        self._value: dict[str, Any] = value
        self._path = path

    def __contains__(self, name: str) -> bool:
        return name in self._value

    def names(self) -> list[str]:
        """Names in this object."""
        return list(self._value)

    def raw(self, name: str) -> Any:
        """Value under `name`, of any type."""
        if name not in self._value:
            raise MalformedBody(f"{self._path}.{_step(name)} is missing")
        return self._value[name]

    def object(self, *names: str) -> "Fields":
        """Object under a path of names."""
        here = self
        for name in names:
            here = Fields(here.raw(name), f"{here._path}.{_step(name)}")
        return here

    def text(self, name: str) -> str:
        """Text under `name`."""
        value = self.raw(name)
        if not isinstance(value, str):
            raise MalformedBody(f"{self._path}.{name} is not text")
        return value

    def bytes(self, name: str) -> bytes:
        """Bytes whose base64 stands under `name`."""
        where = f"{self._path}.{name}"
        try:
            return from_base64(self.text(name), where)
        except MalformedText as error:
            raise MalformedBody(str(error)) from error

    def list(self, name: str) -> "list[Fields]":
        """List of objects under `name`, at least one. `MAX_BODY` is the bound: a count could be stepped over."""
        value = self.raw(name)
        if not isinstance(value, list) or not value:
            raise MalformedBody(f"{self._path}.{name} is not a list of objects")
        return [Fields(each, f"{self._path}.{name}[{at}]") for at, each in enumerate(value)]


def read_json(raw: bytes, what: str) -> Any:
    """Strict JSON of at most `MAX_BODY` bytes: UTF-8, no repeated key, no NaN. Raises `MalformedBody`."""
    if len(raw) > MAX_BODY:
        raise MalformedBody(f"{what} has {len(raw)} bytes, more than {MAX_BODY}", "too-large")
    try:
        return json.loads(raw.decode("utf-8"), object_pairs_hook=_no_repeats, parse_constant=_no_constant)
    except MalformedBody:
        raise
    except RecursionError as error:
        raise MalformedBody(f"{what} is nested too deeply", "malformed-json") from error
    except ValueError as error:  # JSONDecodeError, UnicodeDecodeError, numbers of thousands of digits
        raise MalformedBody(f"{what} is not JSON: {str(error)[:_SHOWN]}", "malformed-json") from error


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise MalformedBody("an object repeats a key", "repeated-key")
    return value


def _no_constant(name: str) -> Any:
    raise MalformedBody(f"{name} is not JSON", "malformed-json")


def _step(name: str) -> str:
    # Names come from our code, or from the body: a TUF root calls its keys what it likes.
    return name if name.isascii() and name.isidentifier() else shown(name)


def shown(value: str) -> str:
    """Untrusted text for a reason: ASCII, escaped and cut."""
    return ascii(value)[:_SHOWN]
