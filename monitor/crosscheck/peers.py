"""Compares the heads that a log signed for two installations, which reveals a split view.

`GET /api/checkpoints` shows the newest signed head of every followed tree; `signwatch peers compare` fetches that
document from another installation and compares each head with the trusted one here. Only the log's signature counts: a
head that the log's key did not sign proves nothing.

Beside the heads go index roots (docs/search-index.md): they follow from the log's entries, so two installations with
the same history have the same one at each size. No log signs them: a difference means that one of the two installations
is wrong.
"""

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from typing import Any, Final, Protocol

import msgspec
from msgspec import Struct

from alerts.alert import Alert
from monitor.http_fetcher import MIB, Expect, Fetcher
from monitor.model.errors import Evidence, FetchFailed, OwnFault
from monitor.model.log_source import LogApi, LogIdentity, LogSource, Position, SignedHead, read_head
from monitor.proof.index_coverage import CoverageInvalid, IndexCoverage, read_coverage
from monitor.proof.trusted_head import HeadComparison, HeadRelation, compare
from monitor.raising.log_alerts import alert_of_evidence
from tlog.note import MAX_NOTE_SIZE

PATH: Final = "/api/checkpoints"
MEDIA_TYPE: Final = "application/vnd.signwatch.checkpoints+json"
VERSION: Final = 1
# A head with cosignatures of sixteen post-quantum witness keys is 100 kB long.
MAX_DOCUMENT: Final = 8 * MIB
MAX_CHECKPOINTS: Final = 64
MAX_HEAD_SIZE: Final = MAX_NOTE_SIZE
_MAX_TEXT: Final = 500
_MAX_ROOTS: Final = 128
_HASH_DIGITS: Final = 64


class NoPeer(FetchFailed):
    """The other installation sent no document of checkpoints, or one of another version."""


class PeerRelation(StrEnum):
    """Relation of a peer's head to ours: `monitor.proof.trusted_head.HeadRelation`, or why it was not compared.

    `index-…` are of search indexes.
    """

    SAME = HeadRelation.SAME
    OLDER = HeadRelation.OLDER
    NEWER = HeadRelation.NEWER
    CONTRADICTION = HeadRelation.CONTRADICTION
    UNPROVEN = HeadRelation.UNPROVEN
    NOT_SIGNED = "not-signed-by-this-log"
    UNKNOWN_LOG = "unknown-log"
    INDEX_SAME = "index-same"
    INDEX_DIFFERS = "index-differs"
    INDEX_NOT_COMPARED = "index-not-compared"
    INDEX_UNBOUND = "index-unbound"


class PeerComparison(Struct, frozen=True):
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
    """Part of the state that the comparison uses; see `monitor.model.state.State` for the guarantees."""

    def position(self, log: str) -> Position | None:
        """Position up to which this log is followed."""

    def heads_at(self, log: str, size: int) -> Sequence[SignedHead]:
        """Every recorded head of this size."""

    def record_head(self, head: SignedHead) -> None:
        """Append a head to the history."""

    def keep_evidence(self, evidence: Evidence, alerts: Sequence[Alert]) -> bool:
        """Store evidence, then its alerts."""


class SearchIndex(Protocol):
    """Search index of one log: its index roots."""

    @property
    def decoder(self) -> int:
        """Version of the decoder that found the keys."""

    @property
    def smallest(self) -> int:
        """Level of the smallest maps."""

    @property
    def size(self) -> int:
        """Entries covered."""

    def root_at(self, size: int) -> bytes | None:
        """Index root of the first `size` entries; `None` if it is unknown."""


class BoundIndex(Struct, frozen=True):
    """A search index, and the entries that it covers, up to its largest size."""

    index: SearchIndex
    coverage: IndexCoverage


IndexOf = Callable[[str], BoundIndex | None]
"""The search index of a log, by its id; `None` if the log has none."""


def no_index(_log: str) -> BoundIndex | None:
    """Answer for an installation without search indexes: always `None`."""
    return None


class OfferedIndex(msgspec.Struct):
    """Index roots in a peer's document: `(size, hexadecimal root)`."""

    decoder: int
    smallest: int
    roots: list[tuple[int, str]]
    covers: dict[str, Any] = {}


class _Checkpoint(msgspec.Struct):
    api: str
    origin: str
    key: str
    head: str
    log: str = ""
    index: OfferedIndex | None = None


class _Document(msgspec.Struct):
    mediaType: str  # noqa: N815
    version: int
    checkpoints: list[_Checkpoint]


class OfferedHead(Struct, frozen=True):
    """One head in a peer's document: its bytes, and the claimed log (protocol, origin, hex SHA-256 of the SPKI)."""

    api: str
    origin: str
    key: str
    raw: bytes
    index: OfferedIndex | None = None

    def is_of(self, identity: LogIdentity) -> bool:
        """True if the head claims to be of this tree.

        Installations may name a log differently; keys and origins are equal.
        """
        same_origin = identity.api is LogApi.CT_RFC6962 or self.origin == identity.origin
        return self.api == identity.api and self.key == key_fingerprint(identity) and same_origin


def key_fingerprint(identity: LogIdentity) -> str:
    """Hex SHA-256 of the log's key."""
    return sha256(identity.spki).hexdigest()


def checkpoints_document(
    state: PeerState, sources: Sequence[LogSource], index_of: IndexOf = no_index
) -> dict[str, Any]:
    """Document of the newest trusted head of each followed tree, as the log signed it; at most `MAX_CHECKPOINTS`.

    Each head comes with roots of the tree's search index, if there is one.
    """
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
            | _index_document(index_of(identity.log))
        )
    return {"mediaType": MEDIA_TYPE, "version": VERSION, "checkpoints": checkpoints}


def _index_document(bound: BoundIndex | None) -> dict[str, Any]:
    if bound is None:
        return {}
    index = bound.index
    roots = [(size, root.hex()) for size in offered_sizes(index) if (root := index.root_at(size)) is not None]
    return {
        "index": {
            "decoder": index.decoder,
            "smallest": index.smallest,
            "roots": roots,
            "covers": bound.coverage.document(),
        }
    }


def offered_sizes(index: SearchIndex) -> list[int]:
    """Sizes whose index roots are shown, largest first: the newest, then at growing distances down to the smallest.

    An installation with an index knows its root at each of these sizes up to its own, so two indexes always share one.
    """
    newest = index.size >> index.smallest
    steps = [0, *(1 << step for step in range((newest - 1).bit_length()))]
    counts = sorted({1, newest, *(newest - step for step in steps if step < newest)}, reverse=True)
    return [count << index.smallest for count in counts]


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
    if each.index is not None:
        _check_index(each.index)
    return OfferedHead(each.api, each.origin, each.key, raw, each.index)


def _check_index(index: OfferedIndex) -> None:
    if len(index.roots) > _MAX_ROOTS:
        raise ValueError(f"more than {_MAX_ROOTS} index roots for one log")
    if any(len(root) != _HASH_DIGITS or set(root) - set("0123456789abcdef") for _, root in index.roots):
        raise ValueError("an index root in it is not 64 hexadecimal digits")


def read_offered(raw: bytes, identity: LogIdentity) -> SignedHead:
    """Read a head offered as this log's. Raises `ValueError` unless the log's pinned key signed it for its origin.

    Only the signed part is used: Rekor v1's unsigned statement that a shard is closed is ignored.
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

    An answer of the peer or the log never raises an error. Raises `OwnFault` if the stored head is damaged.
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
        # The log signed it, so it belongs to the log's history, whichever way it came.
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


def _covered(offer: OfferedHead, source: LogSource, state: PeerState, now: datetime) -> str | PeerComparison:
    """Entries that an offered index covers, in words; a comparison instead if the offer does not prove them.

    Index roots at smaller sizes are of the same tree, which only grew.
    """
    log, index = source.identity.log, offer.index
    try:
        coverage = read_coverage(index.covers if index is not None else {})
        head = coverage.check(source.identity)
        if index is None or coverage.first != 0 or coverage.size != max((size for size, _ in index.roots), default=0):
            raise CoverageInvalid("it is of other entries than its index roots")  # noqa: TRY301
    except CoverageInvalid as error:
        detail = f"their search index does not show which entries of the log it covers: {error}"
        return PeerComparison(log, PeerRelation.INDEX_UNBOUND, detail)
    if coverage.head != offer.raw:
        heads = compare_offered(coverage.head, source, state, now)
        if heads.relation not in _ONE_HISTORY:
            return heads
    return f"entries 0 to {coverage.size - 1} of the tree of {head.size} with root {head.root.hex()[:16]}…"


def compare_index(log: str, ours: SearchIndex, offered: OfferedIndex, covered: str) -> PeerComparison:
    """Compare index roots at the largest common size. Neither is signed: a difference blames no log.

    `covered` says which entries the offered index covers.
    """
    if (offered.decoder, offered.smallest) != (ours.decoder, ours.smallest):
        detail = f"their search index is of decoder {offered.decoder}, ours of {ours.decoder}: update the older one"
        return PeerComparison(log, PeerRelation.INDEX_NOT_COMPARED, detail)
    common = sorted(
        ((size, root, known.hex()) for size, root in offered.roots if (known := ours.root_at(size)) is not None),
        reverse=True,
    )
    if not common:
        return PeerComparison(log, PeerRelation.INDEX_NOT_COMPARED, "the two search indexes have no size in common yet")
    size = common[0][0]
    if all(root == known for _, root, known in common):
        return PeerComparison(
            log,
            PeerRelation.INDEX_SAME,
            f"the search indexes agree up to entry {size - 1}; theirs is of {covered}, ours of "
            f"entries 0 to {ours.size - 1}",
        )
    differs = min(size for size, root, known in common if root != known)
    agrees = max((size for size, root, known in common if root == known and size < differs), default=0)
    detail = (
        f"the search indexes of entries 0 to {differs - 1} differ"
        f"{f', those of the first {agrees} agree' if agrees else ''}: one of the two installations leaves out or adds "
        f"keys of entries. Theirs is of {covered}. Run `signwatch archive verify --all` on both"
    )
    return PeerComparison(log, PeerRelation.INDEX_DIFFERS, detail)


_ONE_HISTORY: Final = frozenset({PeerRelation.SAME, PeerRelation.OLDER, PeerRelation.NEWER})


def compare_with_peer(
    fetcher: Fetcher,
    sources: Sequence[LogSource],
    state: PeerState,
    now: Callable[[], datetime],
    index_of: IndexOf = no_index,
) -> list[PeerComparison]:
    """Fetch a peer's heads and compare each that is of a tree followed here. Raises `FetchFailed`, `OwnFault`.

    Search indexes are compared if both sides have one and the heads are of one history.
    """
    compared = []
    for offer in read_checkpoints(fetcher.get(PATH, max_bytes=MAX_DOCUMENT, expect=Expect.JSON)):
        source = next((each for each in sources if offer.is_of(each.identity)), None)
        if source is None:
            continue
        heads = compare_offered(offer.raw, source, state, now())
        compared.append(heads)
        ours = index_of(source.identity.log)
        if offer.index is not None and ours is not None and heads.relation in _ONE_HISTORY:
            covered = _covered(offer, source, state, now())
            compared.append(
                covered
                if isinstance(covered, PeerComparison)
                else compare_index(source.identity.log, ours.index, offer.index, covered)
            )
    return compared
