"""Sigstore's protobuf documents, read strictly: JSON (trusted roots, bundles), and entries in gitsign's binary form.

SPEC protobuf ProtoJSON: a parser accepts lowerCamelCase names and the names of the .proto file, `null` for an absent
field, bytes in standard or URL-safe base64 with or without padding, and enumerations by name or by number. `canonical`
brings each to one spelling, that of Sigstore's own tools.

SPEC protobuf encoding; sigstore_rekor.proto TransparencyLogEntry. An entry read from the binary form is a document in
the spelling of protobuf JSON, as in a bundle: 64-bit integers as text, bytes in base64.
"""

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    """The bytes are not a message of the expected type."""


def read_entry(raw: bytes) -> dict[str, Any]:
    """A TransparencyLogEntry. Unknown fields are ignored, as protobuf requires. Raises `MalformedWire`."""
    return _read(raw, _ENTRY)


def write_entry(entry: Mapping[str, Any]) -> bytes:
    """The binary form of an entry. Raises `KeyError`, `TypeError` or `ValueError` for a document that is no entry."""
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
            continue  # SPEC protobuf: fields with the value zero are left out
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


_SNAKE: Final = re.compile(r"_([a-z0-9])")
_URL_SAFE: Final = str.maketrans("-_", "+/")
# Fields of type `bytes` in sigstore_common, sigstore_bundle, sigstore_rekor, sigstore_trustroot and DSSE's envelope.
_BYTES_FIELDS: Final = frozenset(
    {
        "canonicalizedBody",
        "digest",
        "hashes",
        "keyId",
        "payload",
        "rawBytes",
        "rootHash",
        "sig",
        "signature",
        "signedEntryTimestamp",
        "signedTimestamp",
    }
)
_HASHES: Final = {
    0: "HASH_ALGORITHM_UNSPECIFIED",
    1: "SHA2_256",
    2: "SHA2_384",
    3: "SHA2_512",
    4: "SHA3_256",
    5: "SHA3_384",
}
# SPEC protobuf-specs sigstore_common.proto and sigstore_trustroot.proto.
_ENUMS: Final[Mapping[str, Mapping[int, str]]] = {
    "hashAlgorithm": _HASHES,
    "algorithm": _HASHES,
    "keyDetails": {
        0: "PUBLIC_KEY_DETAILS_UNSPECIFIED",
        1: "PKCS1_RSA_PKCS1V5",
        2: "PKCS1_RSA_PSS",
        3: "PKIX_RSA_PKCS1V5",
        4: "PKIX_RSA_PSS",
        5: "PKIX_ECDSA_P256_SHA_256",
        6: "PKIX_ECDSA_P256_HMAC_SHA_256",
        7: "PKIX_ED25519",
        8: "PKIX_ED25519_PH",
        9: "PKIX_RSA_PKCS1V15_2048_SHA256",
        10: "PKIX_RSA_PKCS1V15_3072_SHA256",
        11: "PKIX_RSA_PKCS1V15_4096_SHA256",
        12: "PKIX_ECDSA_P384_SHA_384",
        13: "PKIX_ECDSA_P521_SHA_512",
        14: "LMS_SHA256",
        15: "LMOTS_SHA256",
        16: "PKIX_RSA_PSS_2048_SHA256",
        17: "PKIX_RSA_PSS_3072_SHA256",
        18: "PKIX_RSA_PSS_4096_SHA256",
        19: "PKIX_ECDSA_P384_SHA_256",
        20: "PKIX_ECDSA_P521_SHA_256",
    },
    "selector": {0: "SERVICE_SELECTOR_UNDEFINED", 1: "ALL", 2: "ANY", 3: "EXACT"},
}


def read_json(raw: bytes) -> Any:
    """Read one JSON document in UTF-8. Raises `ValueError`, also for a name that stands twice in one object."""
    try:
        return json.loads(raw.decode("utf-8"), object_pairs_hook=unique, parse_constant=no_number)
    except RecursionError as error:
        raise ValueError("JSON nested too deeply") from error


def canonical(value: Any) -> Any:
    """Return protobuf JSON in the spelling of Sigstore's tools. Raises `ValueError` for one field under two names."""
    if isinstance(value, list):
        return [canonical(each) for each in value]
    if not isinstance(value, dict):
        return value
    return unique((name, _field(name, each)) for name, each in _named(value))


def _named(value: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    return ((_SNAKE.sub(lambda m: m[1].upper(), name), each) for name, each in value.items() if each is not None)


def _field(name: str, value: Any) -> Any:
    if name in _BYTES_FIELDS:
        return [_base64(each) for each in value] if isinstance(value, list) else _base64(canonical(value))
    if name in _ENUMS and isinstance(value, int) and not isinstance(value, bool):
        return _ENUMS[name].get(value, str(value))
    return canonical(value)


def _base64(value: Any) -> Any:
    """Base64 text in the standard spelling with padding; the reader of the field refuses other text."""
    if not isinstance(value, str) or (("+" in value or "/" in value) and ("-" in value or "_" in value)):
        return value
    bare = value.rstrip("=").translate(_URL_SAFE)
    return bare + "=" * (-len(bare) % 4) if len(value) - len(value.rstrip("=")) <= 2 else value  # noqa: PLR2004


def unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Make a JSON object of its members. Raises `ValueError` for a name that stands twice."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name!r:.80} stands twice in one object")
        found[name] = value
    return found


def no_number(text: str) -> Any:
    """Refuse NaN and the infinities, which Python's reader takes. Raises `ValueError`."""
    raise ValueError(f"{text} is no number in JSON")
