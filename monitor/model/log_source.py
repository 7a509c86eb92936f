"""Questions that the monitor asks of a log of any protocol. Protocol quirks stay inside the adapters."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple, Protocol, runtime_checkable

from monitor.model.errors import SignedPromise
from monitor.model.heads import SignedHead
from monitor.model.inclusion_promise import InclusionPromise
from sigstore_entries.signing import EntryRef, Unreadable
from tlog.frontier import Frontier
from tlog.merkle import LeafHash, NodeHash, leaf_hashes


class LogApi(StrEnum):
    """The protocols a followed log may speak."""

    REKOR_V1 = "rekor-v1"
    REKOR_V2 = "rekor-v2"
    CT_RFC6962 = "ct-rfc6962"
    CT_STATIC = "ct-static"


CT_APIS: Final = frozenset({LogApi.CT_RFC6962, LogApi.CT_STATIC})
"""Protocols of logs that show certificates."""


class LogEntry(NamedTuple):
    """One entry as served. `leaf` is what is hashed into the tree, byte for byte.

    Rekor: the canonical body. CT: the MerkleTreeLeaf. `extra` is what the API adds and no hash covers (a CT chain);
    `integrated_time` is Rekor v1's claim. Both are unverified, and so is `timestamp`: what was signed beside the entry,
    for `monitor.model.inclusion_promise.unpack_timestamp`. `unread` is the leaf hash, as the log gave it, of an entry
    whose bytes exceed every cap; `leaf` is then empty.

    A tuple, because a backlog has millions: quick to make and to send to another process, and the collector forgets it.
    """

    leaf: bytes
    extra: bytes = b""
    integrated_time: datetime | None = None
    timestamp: bytes = b""
    unread: bytes = b""


def hashes_of(entries: Sequence[LogEntry]) -> list[LeafHash]:
    """Leaf hash of each entry: of its bytes, or as the log gave it for one whose bytes exceed every cap."""
    hashes = leaf_hashes(entry.leaf for entry in entries)
    for place, entry in enumerate(entries):
        if entry.unread:
            hashes[place] = LeafHash(entry.unread)
    return hashes


def unread_entry(where: EntryRef, leaf_hash: bytes) -> Unreadable:
    """The record of an entry that was taken by its leaf hash."""
    reason = f"it is too large to be fetched; its leaf hash is {leaf_hash.hex()}"
    return Unreadable(where, "beyond-cap", reason)


@dataclass(frozen=True, slots=True)
class LogIdentity:
    """What makes one log tree this one: the key pinned to it (SPKI DER) and the origin its heads must name.

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


class LogSource(Protocol):
    """One log tree. Raises `FetchFailed` when it could not ask, `NotShown` when a signed promise was not kept (yet)."""

    @property
    def identity(self) -> LogIdentity:
        """Which tree this is, and under which key."""

    def latest(self) -> SignedHead:
        """Newest tree head the log shows, its signature checked against the pinned key and its origin compared."""

    def consistency_proof(self, size1: int, size2: int) -> Sequence[NodeHash]:
        """Proof from `size1` to `size2`; not verified: the caller holds both roots."""

    def frontier(self, size: int, head: SignedHead) -> Frontier:
        """Frontier of `[0, size)`, authenticated against `head` (`size <= head.size`)."""

    def entries(self, start: int, end: int, head: SignedHead) -> Sequence[LogEntry]:
        """Entries `[start, start + n)` in order, `1 <= n <= end - start`. Unauthenticated: hash them."""

    def sightings(self) -> Sequence[SignedHead]:
        """Heads that came along with other answers since the last call, signatures checked: another view of the log.

        At most a handful; none where the protocol shows heads in one place only.
        """


@dataclass(frozen=True, slots=True)
class Place:
    """What a log shows for a promise: the leaf at `index` of its tree, proven into `head`.

    `promised` is the log's own promise of this very leaf, where one came with it, as served.
    """

    index: int
    leaf: bytes
    head: SignedHead
    proof: tuple[NodeHash, ...]
    promised: SignedPromise | None = None


@runtime_checkable
class PromisingSource(LogSource, Protocol):
    """A log tree that signs promises beside its heads."""

    def promised_range(self, head: SignedHead) -> tuple[int, int | None]:
        """Promised indexes that this tree is for: the one of its first leaf, and where the next tree takes over."""

    def place_of(self, promise: InclusionPromise, head: SignedHead) -> Place:
        """Where the promised leaf stands, or what stands at the promised index, which is below `head`.

        Raises `FetchFailed`, and `NotShown` when the log has nothing to show or cannot prove it.
        """
