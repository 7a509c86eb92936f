"""Transparency log entries in protobuf's binary form, as gitsign keeps one in a commit. Reading and writing, strictly.

SPEC protobuf encoding; sigstore_rekor.proto TransparencyLogEntry. Documents are in the spelling of protobuf JSON, as in
a bundle: 64-bit integers as text, bytes in base64.
"""

import base64
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

_VARINT: Final = 0
_BYTES: Final = 2
_MAX_VARINT: Final = 10  # octets of 64 bits
_MAX_HASHES: Final = 64
_INT64_MAX: Final = 2**63 - 1
_CONTINUED: Final = 0x80

# Name and type of each field by its number: `int`, `bytes`, `text`, a message, or a list of bytes.
_Fields = Mapping[int, tuple[str, Any]]
_ENTRY: Final[_Fields] = {
    1: ("logIndex", "int"),
    2: ("logId", {1: ("keyId", "bytes")}),
    3: ("kindVersion", {1: ("kind", "text"), 2: ("version", "text")}),
    4: ("integratedTime", "int"),
    5: ("inclusionPromise", {1: ("signedEntryTimestamp", "bytes")}),
    6: (
        "inclusionProof",
        {
            1: ("logIndex", "int"),
            2: ("rootHash", "bytes"),
            3: ("treeSize", "int"),
            4: ("hashes", "many"),
            5: ("checkpoint", {1: ("envelope", "text")}),
        },
    ),
    7: ("canonicalizedBody", "bytes"),
}


class MalformedWire(ValueError):
    """The bytes are no such message."""


def read_entry(raw: bytes) -> dict[str, Any]:
    """A TransparencyLogEntry. Unknown fields are passed over, as protobuf wants. Raises `MalformedWire`."""
    return _read(raw, _ENTRY)


def write_entry(entry: Mapping[str, Any]) -> bytes:
    """The binary form of an entry. Raises `KeyError`, `TypeError` or `ValueError` for what is no entry."""
    return _write(entry, _ENTRY)


def _read(raw: bytes, known: _Fields) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for number, value in _fields(raw):
        if number not in known:
            continue
        name, kind = known[number]
        if kind == "int":
            if not isinstance(value, int) or value > _INT64_MAX:
                raise MalformedWire(f"{name} is no number, or a negative one")
            found[name] = str(value)
            continue
        if not isinstance(value, bytes):
            raise MalformedWire(f"{name} is a number")
        if kind == "many":
            found.setdefault(name, []).append(_b64(value))
            if len(found[name]) > _MAX_HASHES:
                raise MalformedWire(f"more than {_MAX_HASHES} {name}")
        elif kind == "bytes":
            found[name] = _b64(value)
        elif kind == "text":
            found[name] = _text(value, name)
        else:
            found[name] = _read(value, kind)
    return found


def _fields(raw: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0
    while at < len(raw):
        key, at = _varint(raw, at)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _varint(raw, at)
            yield number, value
        elif wire == _BYTES:
            size, at = _varint(raw, at)
            if size > len(raw) - at:
                raise MalformedWire("a field reaches beyond the message")
            yield number, raw[at : at + size]
            at += size
        else:
            raise MalformedWire(f"a field of wire type {wire}, which no field of the message has")


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = 0
    for count in range(_MAX_VARINT):
        if at >= len(raw):
            break
        value |= (raw[at] & 0x7F) << (7 * count)
        at += 1
        if raw[at - 1] < _CONTINUED:
            return value, at
    raise MalformedWire("a number is cut short or too long")


def _write(document: Mapping[str, Any], known: _Fields) -> bytes:
    out = bytearray()
    for number, (name, kind) in known.items():
        value = document.get(name)
        if value in (None, "", 0, "0"):
            continue  # SPEC protobuf: what is zero is left out
        if kind == "int":
            out += _encoded(number << 3 | _VARINT) + _encoded(int(value))
            continue
        parts: Sequence[bytes]
        if kind == "many":
            parts = [base64.b64decode(each, validate=True) for each in value]
        elif kind == "bytes":
            parts = [base64.b64decode(value, validate=True)]
        elif kind == "text":
            parts = [str(value).encode()]
        else:
            parts = [_write(value, kind)]
        for part in parts:
            out += _encoded(number << 3 | _BYTES) + _encoded(len(part)) + part
    return bytes(out)


def _encoded(value: int) -> bytes:
    out = bytearray()
    while value >= _CONTINUED:
        out.append(value & 0x7F | _CONTINUED)
        value >>= 7
    return bytes((*out, value))


def _text(raw: bytes, name: str) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise MalformedWire(f"{name} is no text") from error


def _b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
