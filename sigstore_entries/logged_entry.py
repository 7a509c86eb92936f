"""A log's signatures about the entry in a bundle: a checkpoint of a tree that holds it, and a promise to hold it.

The signing command and the monitor share this verifier. Pure: a TransparencyLogEntry (SPEC protobuf-specs
sigstore_rekor.proto) in JSON and the log's key in, values that verified out.
"""

import base64
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol, TypeVar

import rfc8785
from cryptography.exceptions import InvalidSignature
from msgspec import Struct

from sigstore_entries.bundle_file import NoBundle, decoded
from tlog.merkle import NodeHash, ProofInvalid, leaf_hash
from tlog.nodes import Coordinate, full_subtrees
from tlog.note import (
    BadSignature,
    Checkpoint,
    MalformedCheckpoint,
    MalformedNote,
    Note,
    NoteKey,
    load_public_key,
    open_note,
    parse_checkpoint,
    parse_note,
    parse_tree_size,
    rekor_v1_key,
    tile_log_key,
    verify_signature,
)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# SPEC rekor checkpoint.go: "<host> - <tree ID>".
_V1_ORIGIN: Final = re.compile(r"(\S+) - ([0-9]{1,20})")
_GARBLED: Final = (NoBundle, KeyError, TypeError, AttributeError, ValueError, OverflowError, MalformedCheckpoint)


class NotLogged(ValueError):
    """No log of the trust root signed this about the entry.

    It shows nothing about the log, because any person can write a file.
    """


class NoProof(NotLogged):
    """The entry has no inclusion proof with a checkpoint, but perhaps a promise of the log."""


class UnknownLog(NotLogged):
    """The trust root names no log with the entry's key id."""


class LoggingKey(Protocol):
    """A log of a trust root: its key in SPKI, the key id, and the time in which the key may have signed."""

    @property
    def spki(self) -> bytes: ...  # noqa: D102  the class describes it
    @property
    def log_id(self) -> bytes: ...  # noqa: D102
    @property
    def valid_from(self) -> datetime | None: ...  # noqa: D102
    @property
    def valid_until(self) -> datetime | None: ...  # noqa: D102


_Log = TypeVar("_Log", bound=LoggingKey)


class EntryInclusion(Struct, frozen=True):
    """A tree that a log signed and that holds the entry.

    `tree_name` is the origin that the checkpoint claims and the signature confirms; `is_rekor_v1` says that it has the
    form of Rekor v1. `nodes` are the full subtrees that the inclusion proof `hashes` shows.
    """

    key: NoteKey
    tree_name: str
    is_rekor_v1: bool
    note: Note
    checkpoint: Checkpoint
    index: int
    body: bytes
    hashes: tuple[NodeHash, ...]
    nodes: Mapping[Coordinate, NodeHash]


class EntryTimestamp(Struct, frozen=True):
    """A signed entry timestamp: the log promised at `at` to hold the entry. `statement` is the signed text."""

    statement: bytes
    signature: bytes
    at: datetime


def log_of(entry: Mapping[str, Any], logs: Iterable[_Log]) -> _Log:
    """The log whose key id the entry names. Raises `UnknownLog`, and `NotLogged` where it names none."""
    with _field_by_field():
        log_id = decoded(entry["logId"]["keyId"], "the log's id")
    for log in logs:
        if log.log_id == log_id:
            return log
    raise UnknownLog(f"the trust root knows no log with key id {log_id.hex()[:16]}…: nothing can be verified")


def checkpoint_of(entry: Mapping[str, Any]) -> bytes:
    """The checkpoint as the entry holds it, not verified. Raises `NoProof`."""
    with _field_by_field():
        proof = entry.get("inclusionProof")
        if not proof or not proof.get("checkpoint"):
            raise NoProof(
                "a log entry has no inclusion proof with a checkpoint: nothing the log signed can be compared"
            )
        envelope = str(proof["checkpoint"].get("envelope") or "").encode()
    if not envelope:
        raise NoProof("the inclusion proof of a log entry has no checkpoint: nothing the log signed can be compared")
    return envelope


def proven_entry(entry: Mapping[str, Any], log: LoggingKey) -> EntryInclusion:
    """Verify the checkpoint by the log's key, and the inclusion proof up to it. Raises `NoProof`, `NotLogged`."""
    raw = checkpoint_of(entry)
    with _field_by_field():
        proof, body = entry["inclusionProof"], decoded(entry["canonicalizedBody"], "the body of a log entry")
        # SPEC protobuf JSON: zero and empty values may be absent.
        index = parse_tree_size(str(proof.get("logIndex", 0)))
        hashes = tuple(NodeHash(decoded(each, "a hash of the proof")) for each in proof.get("hashes", []))
        told_root = decoded(proof["rootHash"], "the root of the proof") if "rootHash" in proof else None
        key, name, is_v1 = _key_of(raw, log)
        try:
            note = open_note(raw, key)
            checkpoint = parse_checkpoint(note)
        except BadSignature as error:
            raise NotLogged(f"the checkpoint in the bundle is not signed by the log: {error!s:.200}") from error
        except (MalformedNote, MalformedCheckpoint) as error:
            raise NotLogged(f"the checkpoint in the bundle cannot be read: {error!s:.200}") from error
        if told_root not in {None, checkpoint.root}:
            raise NotLogged("the inclusion proof names another root than its checkpoint")
        try:
            nodes = full_subtrees(index, checkpoint.size, leaf_hash(body), hashes, checkpoint.root)
        except ProofInvalid as error:
            raise NotLogged(f"the inclusion proof does not lead to the signed checkpoint: {error}") from error
    return EntryInclusion(key, name, is_v1, note, checkpoint, index, body, hashes, nodes)


def entry_timestamp(entry: Mapping[str, Any], log: LoggingKey) -> EntryTimestamp | None:
    """Verify the signed entry timestamp, and that the key was valid then; `None` for an entry without one.

    Raises `NotLogged`.
    """
    with _field_by_field():
        told = (entry.get("inclusionPromise") or {}).get("signedEntryTimestamp")
        if not told:
            return None
        signature = decoded(told, "the signed entry timestamp")
        body = decoded(entry["canonicalizedBody"], "the body of a log entry")
        seconds, index = (parse_tree_size(str(entry.get(name) or 0)) for name in ("integratedTime", "logIndex"))
        at = _EPOCH + timedelta(seconds=seconds)
        statement = timestamp_statement(body, seconds, log.log_id, index)
        try:
            verify_signature(load_public_key(log.spki), statement, signature)
        except (InvalidSignature, MalformedNote) as error:
            raise NotLogged("the signed entry timestamp in the bundle is not the log's") from error
    # SPEC protobuf-specs TimeRange: both ends are inside it.
    if (log.valid_from and at < log.valid_from) or (log.valid_until and at > log.valid_until):
        raise NotLogged(f"the signed entry timestamp is of {at:%Y-%m-%dT%H:%M:%SZ}, when the log's key was not valid")
    return EntryTimestamp(statement, signature, at)


def timestamp_statement(body: bytes, integrated_time: int, log_id: bytes, index: int) -> bytes:
    """Bytes that a signed entry timestamp signs. Raises `ValueError` for numbers that JSON cannot hold exactly.

    SPEC rekor verify.go: RFC 8785 of exactly body (base64), integratedTime (seconds), logID (hex) and logIndex (through
    all trees of the log).
    """
    told: dict[str, str | int] = {
        "body": base64.b64encode(body).decode(),
        "integratedTime": integrated_time,
        "logID": log_id.hex(),
        "logIndex": index,
    }
    return rfc8785.dumps({**told})


@contextmanager
def _field_by_field() -> Iterator[None]:
    """Name the kind of damage of a field without its text, because a stranger wrote the file."""
    try:
        yield
    except NotLogged:
        raise
    except _GARBLED as error:
        told = f"{type(error).__name__}: {error!s:.80}"
        raise NotLogged(f"a log entry in the bundle lacks or garbles a field ({told})") from error


def _key_of(raw: bytes, log: LoggingKey) -> tuple[NoteKey, str, bool]:
    """The log's key under the name that the checkpoint claims, which opening the note then verifies."""
    try:
        claimed = parse_note(raw).text.split(b"\n", 1)[0].decode()
    except MalformedNote as error:
        raise NotLogged(f"the checkpoint in the bundle cannot be read: {error!s:.200}") from error
    tree = _V1_ORIGIN.fullmatch(claimed)
    key = rekor_v1_key(tree[1], log.spki) if tree else tile_log_key(claimed, log.spki)
    if key.log_id != log.log_id:
        raise NotLogged(f"the checkpoint names {claimed!r:.120}, which is no name of the log")
    return key, claimed, tree is not None
