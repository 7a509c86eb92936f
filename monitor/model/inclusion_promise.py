"""Promises that a log signs for submitters: "your entry is in my tree", or "it will be before long".

Rekor v1 signs an entry timestamp (SET) over an entry's body and its index; a CT log signs a certificate timestamp (SCT)
that holds for its maximum merge delay. Clients accept a promise without a request to the log, so a log that signs a
promise and keeps the entry out of its tree hides a signing. Pure: bytes, keys and times in, verified promises out.
"""

import base64
import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

import msgspec
import pybase64
import rfc8785
from cryptography.exceptions import InvalidSignature
from msgspec import Struct

from monitor.model.errors import PromiseKind, PromiseStatement, SignwatchError
from sigstore_entries.logged_entry import timestamp_statement
from tlog.ct import MalformedCt, parse_leaf, sct_message, verify_digitally_signed
from tlog.merkle import MAX_TREE_SIZE, LeafHash, leaf_hash
from tlog.note import BadSignature, MalformedNote, load_public_key, verify_signature
from tlog.static_ct import leaf_index

if TYPE_CHECKING:  # it brings the reader of certificates
    from sigstore_entries.trust import EmbeddedSct

# A promise is stored until it is settled; entries of the public logs are far smaller than this cap.
MAX_STATEMENT: Final = 1024 * 1024
# SPEC rekor entries.go: the timestamp is signed after the entry was integrated. This delay allows for replicas that
# lag and clocks that differ.
SET_MERGE_DELAY: Final = timedelta(hours=1)
# The maximum merge delay of CTFE by default and of Sigstore's CT logs; a trusted root holds no other value.
SCT_MERGE_DELAY: Final = timedelta(hours=24)
_SET_FIELDS: Final = frozenset({"body", "integratedTime", "logID", "logIndex"})
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class BadPromise(SignwatchError):
    """The log's key did not sign this, or it is no promise. It shows nothing about the log."""


class InclusionPromise(Struct, frozen=True):
    """A promise whose signature verified under `spki`. `leaf` are the bytes that must be a leaf of the tree.

    `index` is the promised index, if the promise has one: through all trees of a Rekor v1 log (the virtual index), in
    the one tree of a static CT log. `at` is the log's time of the promise.
    """

    signed: PromiseStatement
    spki: bytes
    leaf: bytes
    index: int | None
    at: datetime

    @property
    def kind(self) -> PromiseKind:
        """Its kind."""
        return PromiseKind(self.signed.kind)

    @property
    def log_id(self) -> str:
        """Hex SHA-256 of the key that promised: the log's id in both kinds."""
        return sha256(self.spki).hexdigest()

    @property
    def leaf_hash(self) -> LeafHash:
        """Hash of the promised leaf (RFC 6962 2.1)."""
        return leaf_hash(self.leaf)

    @property
    def id(self) -> str:
        """Id of the promised entry, the same for every signature of the promise."""
        parts = (self.log_id, self.kind.value, str(self.index), self.leaf_hash.hex())
        return sha256("\0".join(parts).encode()).hexdigest()

    def due(self, seen: datetime) -> datetime:
        """Time by which the promise must be kept. After `seen`, a promise with a future time gets no extension."""
        delay = SET_MERGE_DELAY if self.kind is PromiseKind.SET else SCT_MERGE_DELAY
        return min(self.at, seen) + delay


class Overdue(Struct, frozen=True):
    """Overdue promises about which one log did not answer: number, time at which the oldest was due, reason."""

    log_id: str
    promises: int
    since: datetime
    why: str


def read_promise(signed: PromiseStatement, spki: bytes) -> InclusionPromise:
    """Verify a promise by the one key pinned to the log. Raises `BadPromise`."""
    if len(signed.statement) > MAX_STATEMENT:
        raise BadPromise(f"a promise of {len(signed.statement)} bytes is longer than any that is kept")
    try:
        if signed.kind == PromiseKind.SET:
            return _read_set(signed, spki)
        if signed.kind == PromiseKind.SCT:
            return _read_sct(signed, spki)
    except (BadSignature, InvalidSignature) as error:
        raise BadPromise("the log's key did not sign this promise") from error
    except (MalformedCt, MalformedNote, OverflowError, ValueError, RecursionError) as error:
        raise BadPromise(f"not a promise: {error!s:.200}") from error
    raise BadPromise(f"no such kind of promise: {signed.kind!r:.40}")


def set_of(leaf: bytes, integrated_time: int, log_id: bytes, index: int, signature: bytes) -> PromiseStatement:
    """A signed entry timestamp with the bytes it must have been signed over. Raises `BadPromise` for odd numbers."""
    try:
        statement = timestamp_statement(leaf, integrated_time, log_id, index)
    except ValueError as error:
        raise BadPromise(f"not a signed entry timestamp: {error!s:.200}") from error
    return PromiseStatement(PromiseKind.SET, statement, signature)


def promise_of(sct: "EmbeddedSct") -> InclusionPromise | None:
    """The promise in a verified SCT of a certificate; `None` for one that is too long or malformed."""
    statement = sct_message(sct.leaf)
    if len(statement) > MAX_STATEMENT:
        return None
    with suppress(MalformedCt, OverflowError):
        return _sct(PromiseStatement(PromiseKind.SCT, statement, sct.sct.signature), sct.spki)
    return None


def _read_set(signed: PromiseStatement, spki: bytes) -> InclusionPromise:
    told: Any = json.loads(signed.statement)
    # Only one spelling is accepted: a repeated key or another form of a number could be read in two ways.
    if not isinstance(told, dict) or set(told) != _SET_FIELDS or rfc8785.dumps(told) != signed.statement:
        raise BadPromise("a signed entry timestamp is the canonical JSON of four fields")
    body, at, log_id, index = (told[name] for name in ("body", "integratedTime", "logID", "logIndex"))
    if not isinstance(body, str) or not _is_number(at) or not _is_number(index):
        raise BadPromise("a signed entry timestamp with fields of other types")
    if log_id != sha256(spki).hexdigest():
        raise BadPromise("a signed entry timestamp of another log")
    leaf = base64.b64decode(body, validate=True)
    if base64.b64encode(leaf).decode() != body:
        raise BadPromise("a signed entry timestamp over a body in no canonical base64")
    verify_signature(load_public_key(spki), signed.statement, signed.signature)
    return InclusionPromise(signed, spki, leaf, index, _EPOCH + timedelta(seconds=at))


def _read_sct(signed: PromiseStatement, spki: bytes) -> InclusionPromise:
    promise = _sct(signed, spki)
    verify_digitally_signed(spki, signed.statement, signed.signature)
    return promise


def _sct(signed: PromiseStatement, spki: bytes) -> InclusionPromise:
    # SPEC RFC 6962 3.2 and 3.4: the signed bytes begin with version v1 and signature type certificate_timestamp, the
    # leaf with version v1 and leaf type timestamped_entry: all of them 0, and the rest is the same.
    leaf = parse_leaf(signed.statement)
    return InclusionPromise(
        signed, spki, signed.statement, leaf_index(leaf.extensions), _EPOCH + timedelta(milliseconds=leaf.timestamp)
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_TREE_SIZE


class _Timestamp(msgspec.Struct):
    """The promise as Rekor v1 serves it beside the entry."""

    signature: bytes
    index: int
    seconds: int


def pack_timestamp(signature: str | None, index: int, seconds: int | None) -> bytes:
    """Fields of a signed entry timestamp without the body, for `unpack_timestamp`; empty without a timestamp."""
    try:
        raw = pybase64.b64decode(signature or "", validate=True)
    except ValueError:
        return b""
    if not raw or not _is_number(index) or not _is_number(seconds):
        return b""
    return msgspec.msgpack.encode(_Timestamp(raw, index, seconds or 0))


def unpack_timestamp(packed: bytes, leaf: bytes, spki: bytes) -> InclusionPromise:
    """Verify the signed timestamp that was served with an entry. Raises `BadPromise`."""
    if not packed:
        raise BadPromise("no signed entry timestamp was served")
    told = msgspec.msgpack.decode(packed, type=_Timestamp)
    return read_promise(set_of(leaf, told.seconds, sha256(spki).digest(), told.index, told.signature), spki)
