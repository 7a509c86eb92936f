"""Reading a Rekor entry body: strict JSON with fields asked for one by one, PEM (RFC 7468 strict) and base64."""

import json
import re
from typing import Any, Final, NamedTuple

import pybase64

from sigstore_entries.signing import Digest, EntryRef, KnownTime, Signer, Unreadable

MAX_BLOCKS: Final = 10  # Rekor takes at most ten certificates (its pkg/pki/x509)
_BEGIN: Final = b"-----BEGIN "
_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----\r?\n([A-Za-z0-9+/=\r\n]*)-----END ([A-Z0-9 ]{1,40})-----\s*")


class MalformedText(ValueError):
    """Text that should be base64 or PEM is not."""


class Block(NamedTuple):
    """One PEM block: its label and the bytes in it."""

    label: str
    content: bytes


def from_base64(text: str | bytes, what: str) -> bytes:
    """Decode standard padded base64 without white space. Raises `MalformedText`."""
    try:
        return pybase64.b64decode(text, validate=True)
    except ValueError as error:  # binascii.Error, and str that is not ASCII
        raise MalformedText(f"{what} is not base64") from error


def blocks(text: bytes, what: str) -> list[Block]:
    """All PEM blocks of `text`, one to ten of them, with nothing but white space between. Raises `MalformedText`."""
    if text.count(_BEGIN) > MAX_BLOCKS:
        raise MalformedText(f"{what} has more than {MAX_BLOCKS} PEM blocks")
    found = []
    at = len(text) - len(text.lstrip())
    while at < len(text):
        match = _BLOCK.match(text, at)
        if match is None or match[1] != match[3]:
            raise MalformedText(f"{what} is not PEM")
        content = from_base64(match[2].translate(None, b"\r\n"), f"the PEM block in {what}")
        found.append(Block(match[1].decode("ascii"), content))
        at = match.end()
    if not found:
        raise MalformedText(f"{what} holds no PEM block")
    return found


MAX_BODY: Final = 4 * 1024 * 1024
_SHOWN: Final = 60


class MalformedBody(ValueError):
    """The body is not the JSON document it should be. `code` is for metrics."""

    def __init__(self, reason: str, code: str = "malformed-body") -> None:
        super().__init__(reason)
        self.code = code


class BodyObject:
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

    def object(self, *names: str) -> "BodyObject":
        """Object under a path of names."""
        here = self
        for name in names:
            here = BodyObject(here.raw(name), f"{here._path}.{_step(name)}")
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

    def list(self, name: str) -> "list[BodyObject]":
        """List of objects under `name`, at least one. `MAX_BODY` is the bound: an attacker could exceed a count."""
        value = self.raw(name)
        if not isinstance(value, list) or not value:
            raise MalformedBody(f"{self._path}.{name} is not a list of objects")
        return [BodyObject(each, f"{self._path}.{name}[{at}]") for at, each in enumerate(value)]


def read_json(raw: bytes, what: str) -> Any:
    """Strict JSON of at most `MAX_BODY` bytes: UTF-8, no repeated key, no NaN. Raises `MalformedBody`."""
    if len(raw) > MAX_BODY:
        raise MalformedBody(f"{what} has {len(raw)} bytes, more than {MAX_BODY}", "too-large")
    try:
        return _STRICT.decode(raw.decode("utf-8"))
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


_STRICT: Final = json.JSONDecoder(object_pairs_hook=_no_repeats, parse_constant=_no_constant)


def _step(name: str) -> str:
    # Names come from our code or from the body: a TUF root may choose any names for its keys.
    return name if name.isascii() and name.isidentifier() else shown(name)


def shown(value: str) -> str:
    """Untrusted text for a reason: ASCII, escaped and cut."""
    return ascii(value)[:_SHOWN]


_HEX_SIZES: Final = {"sha1": 40, "sha256": 64, "sha384": 96, "sha512": 128}


class DecodedBody(NamedTuple):
    """Signers, digests and times in the body itself."""

    signers: tuple[Signer, ...]
    digests: tuple[Digest, ...] = ()
    times: tuple[KnownTime, ...] = ()


def hex_digest(fields: BodyObject, of: str = "artifact") -> Digest:
    """Read `{"algorithm": …, "value": <hex>}`. Raises `MalformedBody`."""
    algorithm, value = fields.text("algorithm").lower(), fields.text("value").lower()
    if len(value) != _HEX_SIZES.get(algorithm) or set(value) - set("0123456789abcdef"):
        raise MalformedBody(f"not a {shown(algorithm)} digest: {shown(value)}")
    return Digest(algorithm, value, of)


def failed(where: EntryRef, error: BaseException) -> Unreadable:
    """Turn an unforeseen exception into a value: no entry may stop a monitor from reading the next one.

    Raises `error` again when the entry did not cause it: interrupts, exit, memory.
    """
    # A panic in a Rust library arrives as a BaseException of this name; the entry causes it, like other errors.
    if isinstance(error, MemoryError) or not (isinstance(error, Exception) or type(error).__name__ == "PanicException"):
        raise error
    return Unreadable(where, "decoder-failed", f"{type(error).__name__}: {ascii(str(error))[:200]}")
