"""Two installations compare the heads that a log signed for each of them: a split view shows when both are compared.

`GET /api/checkpoints` shows the newest signed head of every followed tree; `signwatch peers compare` fetches that
document from another installation and compares each head with the trusted one here. Only the log's signature counts: a
head that the log's key did not sign says nothing.
"""

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from typing import Any, Final, Protocol

import msgspec

from alerts.alert import Alert
from monitor.http_fetcher import MIB, Expect, Fetcher
from monitor.model.errors import Evidence, FetchFailed, OwnFault
from monitor.model.heads import Position, SignedHead
from monitor.model.log_source import LogApi, LogIdentity, LogSource
from monitor.proof.consistency import HeadComparison, HeadRelation, compare
from monitor.proof.evidence import read_head
from monitor.raising.log_alerts import alert_of_evidence
from tlog.note import MAX_NOTE_SIZE

PATH: Final = "/api/checkpoints"
MEDIA_TYPE: Final = "application/vnd.signwatch.checkpoints+json"
VERSION: Final = 1
# A head that sixteen witnesses cosigned with post-quantum keys is 100 kB long.
MAX_DOCUMENT: Final = 8 * MIB
MAX_CHECKPOINTS: Final = 64
MAX_HEAD_SIZE: Final = MAX_NOTE_SIZE
_MAX_TEXT: Final = 500


class NoPeer(FetchFailed):
    """The other installation sent no document of checkpoints, or one of another version."""


class PeerRelation(StrEnum):
    """How a peer's head relates to ours: `monitor.proof.consistency.HeadRelation`, or why it was not compared."""

    SAME = HeadRelation.SAME
    OLDER = HeadRelation.OLDER
    NEWER = HeadRelation.NEWER
    CONTRADICTION = HeadRelation.CONTRADICTION
    UNPROVEN = HeadRelation.UNPROVEN
    NOT_SIGNED = "not-signed-by-this-log"
    UNKNOWN_LOG = "unknown-log"


@dataclass(frozen=True, slots=True)
class PeerComparison:
    """Result for one head of a peer. `offered` and `heads` are absent where the head could not be compared."""

    log: str
    relation: PeerRelation
    detail: str
    offered: SignedHead | None = None
    heads: HeadComparison | None = None

    def document(self) -> dict[str, Any]:
        """Plain JSON types for scripts."""
        proof = self.heads.proof if self.heads else ()
        return {
            "log": self.log,
            "relation": self.relation.value,
            "detail": self.detail,
            "size": self.offered.size if self.offered else None,
            "compared_size": self.heads.compared.size if self.heads else None,
            "proof": [base64.b64encode(node).decode() for node in proof],
        }


class PeerState(Protocol):
    """Part of the state that comparing uses; see `monitor.model.state.State` for the guarantees."""

    def position(self, log: str) -> Position | None:
        """Position up to which this log is followed."""

    def heads_at(self, log: str, size: int) -> Sequence[SignedHead]:
        """Every recorded head of this size."""

    def record_head(self, head: SignedHead) -> None:
        """Append a head to the history."""

    def keep_evidence(self, evidence: Evidence, alerts: Sequence[Alert]) -> bool:
        """Store evidence, then its alerts."""


class _Checkpoint(msgspec.Struct):
    api: str
    origin: str
    key: str
    head: str
    log: str = ""


class _Document(msgspec.Struct):
    mediaType: str  # noqa: N815
    version: int
    checkpoints: list[_Checkpoint]


@dataclass(frozen=True, slots=True)
class OfferedHead:
    """One head in a peer's document: the log it claims (protocol, origin, hex SHA-256 of the key's SPKI), its bytes."""

    api: str
    origin: str
    key: str
    raw: bytes

    def is_of(self, identity: LogIdentity) -> bool:
        """True if it claims this very tree. Names differ between installations; keys and origins do not."""
        same_origin = identity.api is LogApi.CT_RFC6962 or self.origin == identity.origin
        return self.api == identity.api and self.key == key_fingerprint(identity) and same_origin


def key_fingerprint(identity: LogIdentity) -> str:
    """Hex SHA-256 of the log's key."""
    return sha256(identity.spki).hexdigest()


def checkpoints_document(state: PeerState, sources: Sequence[LogSource]) -> dict[str, Any]:
    """Document of the newest trusted head of each followed tree, as the log signed it; at most `MAX_CHECKPOINTS`."""
    checkpoints = []
    for identity in (source.identity for source in sources[:MAX_CHECKPOINTS]):
        position = state.position(identity.log)
        if position is None:
            continue
        head = position.head.head
        checkpoints.append(
            {
                "log": identity.log,
                "api": identity.api.value,
                "origin": identity.origin,
                "key": key_fingerprint(identity),
                "size": head.size,
                "root": head.root.hex(),
                "head": base64.b64encode(head.raw).decode(),
            }
        )
    return {"mediaType": MEDIA_TYPE, "version": VERSION, "checkpoints": checkpoints}


def read_checkpoints(raw: bytes) -> list[OfferedHead]:
    """Read a document of checkpoints. Raises `NoPeer`; nothing in it is verified yet."""
    if len(raw) > MAX_DOCUMENT:
        raise NoPeer(f"a document of {len(raw)} bytes is longer than {MAX_DOCUMENT}")
    try:
        document = msgspec.json.decode(raw, type=_Document)
        offers = [_offered(each) for each in document.checkpoints]
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise NoPeer(f"not a document of checkpoints: {error!s:.200}") from error
    if document.mediaType != MEDIA_TYPE or document.version != VERSION:
        raise NoPeer(f"not version {VERSION} of {MEDIA_TYPE}")
    if len(offers) > MAX_CHECKPOINTS:
        raise NoPeer(f"{len(offers)} checkpoints; at most {MAX_CHECKPOINTS} are compared at once")
    return offers


def _offered(each: _Checkpoint) -> OfferedHead:
    if any(len(text) > _MAX_TEXT for text in (each.api, each.origin, each.key, each.log)):
        raise ValueError(f"a name in it is longer than {_MAX_TEXT} characters")
    if len(each.head) > MAX_HEAD_SIZE * 4 // 3 + 4:
        raise ValueError(f"a head in it is longer than {MAX_HEAD_SIZE} bytes")
    try:
        raw = base64.b64decode(each.head, validate=True)
    except binascii.Error as error:
        raise ValueError("a head in it is not base64") from error
    return OfferedHead(each.api, each.origin, each.key, raw)


def read_offered(raw: bytes, identity: LogIdentity) -> SignedHead:
    """Read a head offered as this log's. Raises `ValueError` unless the log's pinned key signed it for its origin.

    Only the signed part is taken from it: Rekor v1's unsigned statement that a shard is closed is left out.
    """
    if len(raw) > MAX_HEAD_SIZE:
        raise ValueError(f"a tree head of {len(raw)} bytes is longer than {MAX_HEAD_SIZE}")
    statement = read_head(raw, identity.api, identity.key_name, identity.spki)
    # The JSON of an RFC 6962 log names no origin; there, key and log are one.
    if identity.api is not LogApi.CT_RFC6962 and statement.origin != identity.origin:
        raise ValueError(f"signed for origin {statement.origin!r:.120}, not {identity.origin!r}")
    return SignedHead(identity.log, statement.size, statement.root, raw, final=statement.frozen)


def compare_offered(raw: bytes, source: LogSource, state: PeerState, now: datetime) -> PeerComparison:
    """Compare an offered head with the trusted one. A contradiction is kept and alerted, a newer head recorded.

    Never raises for what a peer or the log sends; `OwnFault` when the stored head is damaged.
    """
    log = source.identity.log
    position = state.position(log)
    if position is None:
        return PeerComparison(log, PeerRelation.UNKNOWN_LOG, "this log is not followed here yet")
    try:
        offered = read_offered(raw, source.identity)
    except ValueError as error:
        detail = f"not a tree head that this log's key signed: {error}"
        return PeerComparison(log, PeerRelation.NOT_SIGNED, detail)
    trusted = _signed_part(position.head.head, source.identity)
    compared = compare(source, trusted, offered, state.heads_at(log, offered.size))
    if compared.evidence is not None:
        state.keep_evidence(compared.evidence, [alert_of_evidence(compared.evidence, now)])
    elif compared.relation is HeadRelation.NEWER:
        # The log signed it, so it belongs to the log's history, no matter who brought it.
        state.record_head(offered)
    return PeerComparison(log, PeerRelation(compared.relation.value), compared.detail, offered, compared)


def _signed_part(trusted: SignedHead, identity: LogIdentity) -> SignedHead:
    try:
        return replace(read_offered(trusted.raw, identity), timestamp=trusted.timestamp)
    except ValueError as error:
        raise OwnFault(
            f"{identity.log}: the stored head is not signed by the key now pinned to the log: {error}. Nothing can be "
            "compared with it; see `signwatch fsck`."
        ) from error


def compare_with_peer(
    fetcher: Fetcher, sources: Sequence[LogSource], state: PeerState, now: Callable[[], datetime]
) -> list[PeerComparison]:
    """Fetch a peer's heads and compare each that is of a tree followed here. Raises `FetchFailed`, `OwnFault`."""
    compared = []
    for offer in read_checkpoints(fetcher.get(PATH, max_bytes=MAX_DOCUMENT, expect=Expect.JSON)):
        source = next((each for each in sources if offer.is_of(each.identity)), None)
        if source is not None:
            compared.append(compare_offered(offer.raw, source, state, now()))
    return compared
