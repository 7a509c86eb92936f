"""A log as the monitor sees it: tree heads by their state of trust, entries, and the required freshness of heads.

`LogSource` is asked of a log of any protocol. Protocol quirks stay inside the adapters in `monitor/logs/`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, runtime_checkable

import msgspec
from msgspec import Struct

from monitor.model.errors import Evidence, PromiseKind, PromiseStatement
from sigstore_entries.signing import EntryRef, Unreadable
from tlog.merkle import (
    EMPTY_ROOT,
    MAX_TREE_SIZE,
    Frontier,
    LeafHash,
    NodeHash,
    RootHash,
    leaf_hashes,
)

if TYPE_CHECKING:
    from monitor.model.inclusion_promise import InclusionPromise
    from tlog.ct import TreeHead

# rekor-tiles freeze-checkpoint: the operator re-signs the last head with this extension line.
FROZEN: Final = "Log frozen — "
CLOCK_SKEW: Final = timedelta(minutes=10)
"""Greatest difference of two honest clocks."""
# Number of growths of a log before its past is used for a prediction.
_GROWTHS: Final = 8
# A silence is unusual if it is this many times as long as the longest before it, and this many entries would usually
# have come.
_LONGER: Final = 3
_MISSED: Final = 10
# SPEC RFC 6962 3.5: a log signs a new head at least once per maximum merge delay, new entries or none. 24 hours is
# the longest delay that a client's policy accepts.
_LONGEST_MERGE_DELAY: Final = timedelta(hours=24)

_POLLS_MISSED: Final = 5
_LEAST_PAUSE: Final = timedelta(minutes=2)

Growth = Sequence[tuple[datetime, int]]
"""When heads were first seen, and their sizes, oldest first."""


class Freshness(Struct, frozen=True):
    """Time for which a log may show no new head.

    `busy`: the log must grow within this time; with `None` its past decides.

    `poll` is the time between two passes.
    """

    stale_after: timedelta
    busy: bool | None = None
    poll: timedelta = timedelta(seconds=30)

    @property
    def longest_pause(self) -> timedelta:
        """Longest time between two successful passes in which the log still counts as watched."""
        return max(self.poll * _POLLS_MISSED, _LEAST_PAUSE)

    def is_silent(self, fresh: datetime, now: datetime) -> bool:
        """True if the log counts as busy and has shown no new head for too long."""
        return now - fresh > self.stale_after

    def is_unusual(self, fresh: datetime, now: datetime, growth: Callable[[], Growth], *, signs_time: bool) -> bool:
        """True if the silence since `fresh` suggests that the log or a cache hides new heads.

        `signs_time`: heads of this log carry the time they were signed at, and are signed anew without new entries.
        """
        if not self.is_silent(fresh, now):
            return False
        if self.busy is not None:
            return self.busy
        return (signs_time and now - fresh > _LONGEST_MERGE_DELAY) or is_unusual_silence(growth(), now - fresh)


def is_unusual_silence(growth: Growth, silence: timedelta) -> bool:
    """True if a log with this growth would have grown within `silence`. False if too little is known."""
    grown: list[tuple[datetime, int]] = []
    for at, size in growth:
        if not grown or size > grown[-1][1]:
            grown.append((at, size))
    if len(grown) <= _GROWTHS:
        return False
    (first, first_size), (last, last_size) = grown[0], grown[-1]
    longest = max(later - earlier for (earlier, _), (later, _) in pairwise(grown))
    if longest <= timedelta(0) or last <= first:
        return False
    missed = (last_size - first_size) * (silence / (last - first))
    return silence > _LONGER * longest and missed >= _MISSED


@dataclass(frozen=True, slots=True)
class SignedHead:
    """A tree head signed by the log's pinned key. `raw` is the evidence: the note, or the STH's JSON, as served.

    `timestamp` is the log's time of signing, if the format has one. `final` means that the operator declared the log
    frozen. `cosigned_by` names witnesses with verified cosignatures, `cosigned_at` their times. A further
    cosignature does not make another head.
    """

    log: str
    size: int
    root: RootHash
    raw: bytes
    timestamp: datetime | None = None
    final: bool = False
    cosigned_by: tuple[str, ...] = ()
    cosigned_at: tuple[datetime, ...] = field(default=(), compare=False)


class TrustedHead(Struct, frozen=True):
    """A signed head proven consistent with all heads this monitor trusted before."""

    head: SignedHead


class TimedEntry(NamedTuple):
    """The time at which a log claims to have taken in an entry, with the entry's index."""

    entry: int
    at: datetime


class Position(Struct, frozen=True):
    """The verified part of a log: every leaf below `frontier.size` was hashed into a tree that is a prefix of `head`'s.

    `frontier.size <= head.size`, and a consistency proof (or equality of roots) shows that the two belong together.
    `last_timed` is
    the newest entry read so far that has a claimed time: those of the next batch are compared with it.
    """

    log: str
    frontier: Frontier
    head: TrustedHead
    last_timed: TimedEntry | None = None


_MAX_TIMESTAMP = (1 << 64) - 1


class _Sth(msgspec.Struct):
    tree_size: int
    timestamp: int
    sha256_root_hash: str
    tree_head_signature: str


def read_sth(raw: bytes, spki: bytes) -> "TreeHead":
    """Read a get-sth answer and verify its signature.

    Raises `tlog.ct.MalformedCt` when it is no tree head, `tlog.note.BadSignature` when `spki` did not sign it.
    """
    # Verifying brings `cryptography`, which a command that only reads the configuration does not need.
    from tlog.ct import MalformedCt, decode_base64, verify_tree_head  # noqa: PLC0415

    try:
        sth = msgspec.json.decode(raw, type=_Sth)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise MalformedCt(f"not a signed tree head: {error}") from error
    if not (0 <= sth.tree_size <= MAX_TREE_SIZE and 0 <= sth.timestamp <= _MAX_TIMESTAMP):
        raise MalformedCt(f"impossible tree size {sth.tree_size} or timestamp {sth.timestamp}")
    head = verify_tree_head(
        spki,
        sth.tree_size,
        sth.timestamp,
        decode_base64(sth.sha256_root_hash, "sha256_root_hash"),
        decode_base64(sth.tree_head_signature, "tree_head_signature"),
    )
    if head.size == 0 and head.root != EMPTY_ROOT:
        raise MalformedCt("a tree of size 0 has the hash of the empty string as its root")
    return head


class LogApi(StrEnum):
    """The protocols a followed log may speak."""

    REKOR_V1 = "rekor-v1"
    REKOR_V2 = "rekor-v2"
    CT_RFC6962 = "ct-rfc6962"
    CT_STATIC = "ct-static"

    @property
    def promise(self) -> PromiseKind | None:
        """Kind of promise that logs of this protocol make; `None` where they make none."""
        match self:
            case LogApi.REKOR_V1:
                return PromiseKind.SET
            case LogApi.REKOR_V2:
                return None
            case LogApi.CT_RFC6962 | LogApi.CT_STATIC:
                return PromiseKind.SCT

    @property
    def answer_entries(self) -> int:
        """Entries of one answer that nearly every server gives."""
        match self:
            case LogApi.REKOR_V1:
                return 10
            case LogApi.REKOR_V2 | LogApi.CT_STATIC:
                return 256
            case LogApi.CT_RFC6962:
                return 1000


class HeadStatement(Struct, frozen=True):
    """A tree head that the log's key signed."""

    origin: str
    size: int
    root: RootHash
    frozen: bool = False


def read_head(raw: bytes, api: LogApi, key_name: str, spki: bytes) -> HeadStatement:
    """Verify one raw tree head on its own. Raises `ValueError` when the key did not sign it, or it is no tree head."""
    # As above.
    from tlog.note import BadSignature, open_note, parse_checkpoint, rekor_v1_key, tile_log_key  # noqa: PLC0415
    from tlog.static_ct import open_ct_checkpoint, static_ct_key  # noqa: PLC0415

    try:
        match api:
            case LogApi.CT_RFC6962:
                head = read_sth(raw, spki)
                return HeadStatement(key_name, head.size, head.root)
            case LogApi.CT_STATIC:
                checkpoint, _ = open_ct_checkpoint(raw, static_ct_key(key_name, spki))
            case LogApi.REKOR_V1:
                checkpoint = parse_checkpoint(open_note(raw, rekor_v1_key(key_name, spki)))
            case LogApi.REKOR_V2:
                checkpoint = parse_checkpoint(open_note(raw, tile_log_key(key_name, spki)))
    except BadSignature as error:
        raise ValueError(str(error)) from error
    frozen = any(line.startswith(FROZEN) for line in checkpoint.extensions)
    return HeadStatement(checkpoint.origin, checkpoint.size, checkpoint.root, frozen)


CT_APIS: Final = frozenset({LogApi.CT_RFC6962, LogApi.CT_STATIC})
"""Protocols of logs that show certificates; the others show signatures."""


class LogEntry(NamedTuple):
    """One entry as served. `leaf` are exactly the bytes that are hashed into the tree.

    Rekor: the canonical body. CT: the MerkleTreeLeaf. `extra` is added by the API and covered by no hash (a CT
    chain); `integrated_time` is Rekor v1's claim. Both are unverified, and so is `timestamp`, the signed entry
    timestamp for `monitor.model.inclusion_promise.unpack_timestamp`. `unread` is the leaf hash, as the log gave it,
    of an entry
    with bytes beyond every cap; `leaf` is then empty.

    A tuple, because a backlog has millions: a tuple is quick to make and to send to another process, and the garbage
    collector ignores it.
    """

    leaf: bytes
    extra: bytes = b""
    integrated_time: datetime | None = None
    timestamp: bytes = b""
    unread: bytes = b""


def hashes_of(entries: Sequence[LogEntry]) -> list[LeafHash]:
    """Leaf hash of each entry: of its bytes, or the log's own hash for an entry beyond every cap."""
    hashes = leaf_hashes(entry.leaf for entry in entries)
    for place, entry in enumerate(entries):
        if entry.unread:
            hashes[place] = LeafHash(entry.unread)
    return hashes


def unread_entry(where: EntryRef, leaf_hash: bytes) -> Unreadable:
    """The record of an entry of which only the leaf hash is known."""
    reason = f"it is too large to be fetched; its leaf hash is {leaf_hash.hex()}"
    return Unreadable(where, "beyond-cap", reason)


class LogIdentity(Struct, frozen=True):
    """Identity of one log tree: the key pinned to it (SPKI DER) and the origin its heads must name.

    `log` is the id as configured or discovered. `trust_root` is the fingerprint of the trust root the key came from;
    `valid_until` is when that root says the key stopped signing.
    """

    log: str
    api: LogApi
    key_name: str
    origin: str
    spki: bytes
    trust_root: str = ""
    valid_until: datetime | None = None

    def evidence(
        self,
        kind: str,
        detail: str,
        *,
        event: str,
        heads: tuple[bytes, ...] = (),
        sizes: tuple[int, ...] = (),
        proof: Sequence[bytes] = (),
        leaves: tuple[tuple[int, bytes], ...] = (),
        prefix: tuple[bytes, ...] = (),
        second_proof: Sequence[bytes] = (),
        promises: tuple[PromiseStatement, ...] = (),
    ) -> Evidence:
        """Evidence against this log, under its pinned key; the fields are those of `Evidence`."""
        return Evidence(
            log=self.log,
            api=self.api,
            kind=kind,
            detail=detail,
            spki=self.spki,
            key_name=self.key_name,
            heads=heads,
            sizes=sizes,
            proof=tuple(proof),
            leaves=leaves,
            trust_root=self.trust_root,
            prefix=prefix,
            event=event,
            second_proof=tuple(second_proof),
            promises=promises,
        )


class LogSource(Protocol):
    """One log tree.

    Raises `FetchFailed` without an answer, `NotShown` when the log does not show a part of its signed tree.
    """

    @property
    def identity(self) -> LogIdentity:
        """The tree and its pinned key."""

    def latest(self) -> SignedHead:
        """The log's newest tree head, with a verified signature by the pinned key and the right origin."""

    def consistency_proof(self, size1: int, size2: int) -> Sequence[NodeHash]:
        """Proof from `size1` to `size2`, not verified, because only the caller has both roots."""

    def frontier(self, size: int, head: SignedHead) -> Frontier:
        """Frontier of `[0, size)`, authenticated against `head` (`size <= head.size`)."""

    def entries(self, start: int, end: int, head: SignedHead) -> Sequence[LogEntry]:
        """Entries `[start, start + n)` in order, `1 <= n <= end - start`. Unauthenticated: hash them."""

    def sightings(self) -> Sequence[SignedHead]:
        """Heads in other answers since the last call, with verified signatures: perhaps another view of the log.

        At most a handful; none if the protocol shows heads in one place only.
        """


class PromiseAnswer(Struct, frozen=True):
    """A log's answer to a promise: the leaf at `index` of its tree, proven into `head`.

    `promised` is the log's own promise of exactly this leaf, as served, if the answer holds one.
    """

    index: int
    leaf: bytes
    head: SignedHead
    proof: tuple[NodeHash, ...]
    promised: PromiseStatement | None = None


class PromisedRange(NamedTuple):
    """Promised indexes `[start, stop)` of a tree; `stop` is `None` for the newest tree."""

    start: int
    stop: int | None


@runtime_checkable
class PromisingSource(LogSource, Protocol):
    """A log tree that signs promises beside its heads."""

    def promised_range(self, head: SignedHead) -> PromisedRange:
        """Promised indexes of this tree, from that of its first leaf on."""

    def place_of(self, promise: "InclusionPromise", head: SignedHead) -> PromiseAnswer:
        """Place of the promised leaf, or the leaf at the promised index, which is below `head`.

        Raises `FetchFailed`, and `NotShown` when the log shows no leaf or no valid proof.
        """
