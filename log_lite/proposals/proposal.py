"""An accepted submission, and the reader of the untrusted JSON of a submission."""

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any, NoReturn

import rfc8785
from msgspec import Struct

from log_lite.ledger import PendingEntry, SealedLeaf
from tlog.merkle import leaf_hash


class Rejected(Exception):
    """The submission is not acceptable; the message is for the client."""


class NotJson(Exception):
    """The body is no JSON object."""


class Proposal(Struct, frozen=True):
    """A verified submission: canonical `body` (RFC 8785), its search keys, and an attestation to keep beside it."""

    body: bytes
    search_keys: tuple[str, ...] = ()
    attestation: bytes = b""

    @property
    def leaf(self) -> bytes:
        """Leaf hash of the body."""
        return leaf_hash(self.body)

    def draft(self, tree: str) -> PendingEntry:
        """Return a draft for a tree; equal bodies are duplicates."""
        sealed = SealedLeaf(self.body, self.attestation)
        return PendingEntry(tree, self.leaf, lambda _index, _now: sealed, self.search_keys)


def canonical_body(kind: str, version: str, spec: Mapping[str, Any]) -> bytes:
    """RFC 8785 JSON of an entry. Raises `Rejected` when a value has no canonical form."""
    entry: dict[str, Any] = {"apiVersion": version, "kind": kind, "spec": dict(spec)}
    try:
        if _is_text(entry):
            # The standard library writes such a value as RFC 8785 does, in a tenth of the time.
            return json.dumps(entry, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()
        return rfc8785.dumps(entry)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError, RecursionError) as error:
        raise Rejected(f"entry has no canonical JSON form: {error}") from error


def _is_text(value: Any) -> bool:
    """True for text, and for lists of it and objects with names in ASCII.

    SPEC RFC 8785 3.2.2.2: strings are escaped as by ECMAScript, that is as little as JSON allows. 3.2.3: names are
    sorted by their UTF-16 code units, for ASCII the order of their characters.
    """
    if isinstance(value, str):
        return True
    if isinstance(value, dict):
        return all(isinstance(name, str) and name.isascii() and _is_text(part) for name, part in value.items())
    return isinstance(value, list) and all(map(_is_text, value))


def parse_object(raw: bytes) -> dict[str, Any]:
    """Parse a JSON object, strictly. Raises `NotJson`."""
    try:
        value = json.loads(raw.decode("utf-8"), parse_constant=_no_constant, object_pairs_hook=_unique)
        if b"\\u" in raw:
            # Escapes can write half of a surrogate pair, for which neither an answer nor the store has a form.
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise NotJson(str(error)) from error
    if not isinstance(value, dict):
        raise NotJson(f"a JSON {type(value).__name__} is not an object")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"invalid literal {name}")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # With two values under one name, the client could sign one value and the log store the other.
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("an object holds a name twice")
    return result


def member(value: Mapping[str, Any], path: str) -> Any:
    """Return the value at a dotted path. Raises `Rejected` when it is missing or null."""
    found: Any = value
    for name in path.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
        if found is None:
            raise Rejected(f"{path} in body is required")
    return found


def text(value: Mapping[str, Any], path: str) -> str:
    """Return the string at a dotted path. Raises `Rejected`."""
    found = member(value, path)
    if not isinstance(found, str) or not found:
        raise Rejected(f"{path} in body must be a string that is not empty")
    return found


def items(value: Mapping[str, Any], path: str, *, most: int = 10) -> list[Any]:
    """Return the list at a dotted path, with 1 to `most` members. Raises `Rejected`."""
    found = member(value, path)
    if not isinstance(found, list) or not 1 <= len(found) <= most:
        raise Rejected(f"{path} in body must have 1 to {most} items")
    return found


def binary(value: Mapping[str, Any], path: str) -> bytes:
    """Return the bytes of a base64 string at a dotted path. Raises `Rejected`."""
    return decode_base64(text(value, path), path)


def decode_base64(encoded: str, name: str) -> bytes:
    """Decode standard base64, strictly. Raises `Rejected`."""
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Rejected(f"{name} is not base64: {error}") from error


def encode_base64(raw: bytes) -> str:
    """Encode as standard base64."""
    return base64.b64encode(raw).decode()
