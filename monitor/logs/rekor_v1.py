"""Rekor v1: one source per tree (the active one, and each inactive shard), over the REST API.

An entry has two indexes: the *virtual* one counts through all shards, and the API takes it; the *local* one is the
leaf's place in its tree. Everything above this module speaks local indexes only.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final, NamedTuple, TypeVar

import msgspec
import pybase64
from msgspec import Struct
from typing_extensions import override

from monitor.http_fetcher import MIB, Expect, Fetcher, Refused, TooLarge, denied
from monitor.logs.request_size import FewerAtOnce, by_hash, frontier_beside
from monitor.logs.tile_tree import from_millis, head_of, missing_entries, read_checkpoint
from monitor.model.errors import FetchFailed, Lagging, NotShown
from monitor.model.inclusion_promise import BadPromise, InclusionPromise, pack_timestamp, unpack_timestamp
from monitor.model.log_source import LogEntry, LogIdentity, PromiseAnswer, PromisedRange, PromisingSource, SignedHead
from monitor.proof.trusted_head import prove_pair
from tlog.merkle import HASH_SIZE, MAX_TREE_SIZE, Frontier, NodeHash, ProofInvalid, leaf_hash, verify_inclusion
from tlog.note import NoteKey

# SPEC rekor entries.go: more than 10 in one request is refused.
MAX_PER_REQUEST: Final = 10
_MAX_ENTRIES_ANSWER: Final = 64 * MIB
_MAX_INFO_ANSWER: Final = 4 * MIB
_MAX_SIGHTINGS: Final = 8
_MAX_PROOF_ANSWER: Final = 64 * 1024
_UUID: Final = re.compile(r"(?:([0-9a-f]{16}))?([0-9a-f]{64})")
_HEX_HASH: Final = re.compile(r"[0-9a-f]{64}")
_T = TypeVar("_T")


class _LogInfoTree(msgspec.Struct):
    rootHash: str  # noqa: N815  the API's names
    treeSize: int  # noqa: N815
    signedTreeHead: str  # noqa: N815
    treeID: str  # noqa: N815


class _LogInfo(_LogInfoTree):
    inactiveShards: list[_LogInfoTree] | None = None  # noqa: N815


class _Proof(msgspec.Struct):
    hashes: list[str]


class _InclusionProof(msgspec.Struct):
    logIndex: int  # noqa: N815  local
    treeSize: int  # noqa: N815
    hashes: list[str]
    checkpoint: str = ""


class _Verification(msgspec.Struct):
    signedEntryTimestamp: str | None = None  # noqa: N815
    inclusionProof: _InclusionProof | None = None  # noqa: N815


class _RekorEntry(msgspec.Struct):
    body: str
    logIndex: int  # noqa: N815  virtual
    integratedTime: int | None = None  # noqa: N815
    verification: _Verification | None = None


class _Served(NamedTuple):
    entry: _RekorEntry
    body: bytes


class ShardInfo(Struct, frozen=True):
    """One tree of a Rekor v1 log: `offset` is the virtual index of its first leaf, `size` as the API claims it."""

    tree_id: str
    active: bool
    offset: int
    size: int
    head: bytes


def shards(fetcher: Fetcher) -> list[ShardInfo]:
    """Every tree that the log names, oldest first. The list is not signed, so it only suggests trees to follow."""
    info = _log_info(fetcher)
    found, offset = [], 0
    for tree in info.inactiveShards or []:
        found.append(ShardInfo(tree.treeID, False, offset, tree.treeSize, tree.signedTreeHead.encode()))
        offset += tree.treeSize
    return [*found, ShardInfo(info.treeID, True, offset, info.treeSize, info.signedTreeHead.encode())]


class RekorV1Source(PromisingSource):
    """One tree of a Rekor v1 log. Implements `monitor.model.log_source.LogSource`.

    `tree_id` is the decimal tree ID in the origin. `offset` pins the virtual index of leaf 0; otherwise it is the sum
    of the sizes of the shards before it, as the API lists them.
    """

    def __init__(
        self, identity: LogIdentity, fetcher: Fetcher, key: NoteKey, *, tree_id: str, offset: int | None = None
    ) -> None:
        self._identity, self._fetcher, self._key = identity, fetcher, key
        self._tree_id, self._offset = tree_id, offset
        self._seen: dict[int, SignedHead] = {}
        self._fewer = FewerAtOnce(MAX_PER_REQUEST)

    @override
    @property
    def identity(self) -> LogIdentity:
        return self._identity

    @override
    def latest(self) -> SignedHead:
        """An inactive shard's head is final."""
        info = _log_info(self._fetcher)
        offset = 0
        for tree in info.inactiveShards or []:
            if tree.treeID == self._tree_id:
                return self._head(tree, offset, final=True)
            offset += tree.treeSize
        if info.treeID != self._tree_id:
            raise NotShown(
                self._identity.evidence(
                    "log-shard-vanished",
                    f"tree {self._tree_id} is neither active nor among the inactive shards the log lists",
                    event=self._tree_id,
                )
            )
        return self._head(info, offset, final=False)

    @override
    def consistency_proof(self, size1: int, size2: int) -> Sequence[NodeHash]:
        """The answer's `rootHash` is ignored: it is the newest root, not the root at `size2`."""
        if size1 == size2:
            return []
        try:
            raw = self._fetcher.get(
                f"api/v1/log/proof?firstSize={size1}&lastSize={size2}&treeID={self._tree_id}",
                max_bytes=_MAX_PROOF_ANSWER,
                expect=Expect.JSON,
            )
        except Refused as error:
            if denied(error):
                # SPEC rekor tlog.go, 400: "the tree size requested was greater than what is currently observable".
                raise Lagging(f"{self._identity.log}: no proof to size {size2} here: {error}") from error
            raise
        return [NodeHash(_hash(value)) for value in _parse(raw, _Proof, "consistency proof").hashes]

    @override
    def frontier(self, size: int, head: SignedHead) -> Frontier:
        """Read off the inclusion proof of the last leaf below `size`, or off a consistency proof."""
        return frontier_beside(size, self, head, lambda index: self._shown(index, head))

    @override
    def promised_range(self, head: SignedHead) -> PromisedRange:
        """A signed entry timestamp counts through all trees of the log."""
        if self._offset is None:
            self.latest()
        offset = self._offset or 0
        return PromisedRange(offset, offset + head.size if head.final else None)

    @override
    def place_of(self, promise: InclusionPromise, head: SignedHead) -> PromiseAnswer:
        first = self.promised_range(head).start
        return self._shown((promise.index or 0) - first, head)

    def _shown(self, index: int, head: SignedHead) -> PromiseAnswer:
        """Leaf at an index of this tree, with the head of its inclusion proof, proven consistent with `head`."""
        served = self._retrieve(index, index + 1).get(index)
        proof = served.entry.verification.inclusionProof if served and served.entry.verification else None
        if served is None or proof is None:
            raise missing_entries(self._identity, index, head, "not in the answer, or without an inclusion proof")
        read = read_checkpoint(proof.checkpoint.encode(), self._key, self._identity)
        leaf = leaf_hash(served.body)
        hashes = tuple(NodeHash(_hash(value)) for value in proof.hashes)
        try:
            if proof.logIndex != index or proof.treeSize != read.checkpoint.size:
                raise ProofInvalid(f"proof is for leaf {proof.logIndex} of {proof.treeSize}, not for {index}")  # noqa: TRY301
            verify_inclusion(index, read.checkpoint.size, leaf, hashes, read.checkpoint.root)
        except ProofInvalid as error:
            raise NotShown(
                self._identity.evidence(
                    "log-entries-not-in-tree",
                    f"the inclusion proof of entry {index} fails: {error}",
                    heads=(read.checkpoint.raw,),
                    sizes=(index, read.checkpoint.size),
                    proof=hashes,
                    leaves=((index, served.body),),
                    event=f"inclusion {index}",
                )
            ) from error
        shown = head_of(read, self._identity)
        # The head that came with the entry may be larger or smaller than `head`. Its unsigned mark "final" is ignored.
        prove_pair(self, replace(head, final=False), shown)
        try:
            promised = unpack_timestamp(_packed(served.entry), served.body, self._identity.spki).signed
        except BadPromise:
            promised = None
        return PromiseAnswer(index, served.body, shown, hashes, promised)

    @override
    def entries(self, start: int, end: int, head: SignedHead) -> Sequence[LogEntry]:
        """At most ten entries, up to the first one that the server left out."""
        wanted = min(end - start, MAX_PER_REQUEST)
        try:
            served = self._fewer.ask(wanted, lambda count: self._retrieve(start, start + count))
        except TooLarge as error:
            return [by_hash(start, self, head, error)]
        if start not in served:
            # SPEC rekor entries.go: missing items are silently omitted from a 200 answer.
            raise missing_entries(self._identity, start, head, "left out of a complete answer")
        found = []
        for index in range(start, min(end, start + MAX_PER_REQUEST)):
            if index not in served:
                break
            entry, body = served[index]
            at = _time(entry.integratedTime)
            found.append(LogEntry(body, integrated_time=at, timestamp=_packed(entry)))
        return found

    @override
    def sightings(self) -> Sequence[SignedHead]:
        """Every entry comes with the head its inclusion proof leads to."""
        seen, self._seen = self._seen, {}
        return list(seen.values())

    def _keep_sighting(self, entry: _RekorEntry) -> None:
        proof = entry.verification.inclusionProof if entry.verification else None
        if proof is None or not proof.checkpoint or len(self._seen) >= _MAX_SIGHTINGS or proof.treeSize in self._seen:
            return
        read = read_checkpoint(proof.checkpoint.encode(), self._key, self._identity)
        self._seen[proof.treeSize] = head_of(read, self._identity)

    def _head(self, tree: _LogInfoTree, offset: int, *, final: bool) -> SignedHead:
        raw = tree.signedTreeHead.encode()
        read = read_checkpoint(raw, self._key, self._identity)
        if len(read.note.signatures) != 1:
            # SPEC rekor SignedNote.Verify: every signature line must be by the log's key, so there is exactly one.
            raise FetchFailed(f"{self._identity.log}: a Rekor v1 tree head has one signature, this one has more")
        if read.checkpoint.size != tree.treeSize or read.checkpoint.root.hex() != tree.rootHash:
            raise FetchFailed(f"{self._identity.log}: the tree head's JSON and its signed note disagree")
        if self._offset is None:
            self._offset = offset
        return replace(head_of(read, self._identity), final=final)

    def _retrieve(self, start: int, end: int) -> dict[int, _Served]:
        """Fetch local indexes `[start, end)`, at most ten; by local index, after a check of the index in each entry."""
        if self._offset is None:
            self.latest()
        offset = self._offset or 0
        wanted = range(start, min(end, start + MAX_PER_REQUEST))
        raw = self._fetcher.post_json(
            "api/v1/log/entries/retrieve",
            {"logIndexes": [offset + index for index in wanted]},
            max_bytes=_MAX_ENTRIES_ANSWER,
        )
        served: dict[int, _Served] = {}
        for item in _parse(raw, list[dict[str, _RekorEntry]], "entries"):
            # SPEC rekor entries.go: answers have no reliable order; the index inside each identifies it.
            for uuid, entry in item.items():
                index = entry.logIndex - offset
                if index not in wanted or index in served:
                    raise FetchFailed(f"{self._identity.log}: entry {entry.logIndex} was not asked for, or came twice")
                body = _body(entry)
                self._check_uuid(uuid, body, index)
                self._keep_sighting(entry)
                served[index] = _Served(entry, body)
        return served

    def _check_uuid(self, uuid: str, body: bytes, index: int) -> None:
        # SPEC rekor sharding.go: entry UUID = 16 hex digits of tree ID, then 64 of the leaf hash.
        match = _UUID.fullmatch(uuid.lower())
        if not match:
            raise FetchFailed(f"{self._identity.log}: not an entry UUID: {uuid!r:.100}")
        if match[1] is not None and int(match[1], 16) != int(self._tree_id):
            raise FetchFailed(f"{self._identity.log}: entry {index} is of tree {int(match[1], 16)}")
        if match[2] != leaf_hash(body).hex():
            raise NotShown(
                self._identity.evidence(
                    "log-entries-not-in-tree",
                    f"the body of entry {index} does not hash to its own UUID",
                    sizes=(index,),
                    leaves=((index, body),),
                    event=f"uuid {index}",
                )
            )


def _log_info(fetcher: Fetcher) -> _LogInfo:
    info = _parse(fetcher.get("api/v1/log", max_bytes=_MAX_INFO_ANSWER, expect=Expect.JSON), _LogInfo, "log info")
    for tree in [info, *(info.inactiveShards or [])]:
        if not 0 <= tree.treeSize <= MAX_TREE_SIZE or not (tree.treeID.isascii() and tree.treeID.isdigit()):
            raise FetchFailed(f"log info names an impossible tree: {tree.treeID!r:.40} of size {tree.treeSize}")
    return info


def _parse(raw: bytes, shape: type[_T], what: str) -> _T:
    try:
        return msgspec.json.decode(raw, type=shape)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise FetchFailed(f"{what}: not the JSON it should be: {error}") from error


def _hash(value: str) -> bytes:
    if not _HEX_HASH.fullmatch(value):
        raise FetchFailed(f"not a hash of {HASH_SIZE} bytes in hex: {value!r:.80}")
    return bytes.fromhex(value)


def _body(entry: _RekorEntry) -> bytes:
    try:
        return pybase64.b64decode(entry.body, validate=True)
    except ValueError as error:
        raise FetchFailed(f"entry {entry.logIndex}: body is not base64") from error


def _packed(entry: _RekorEntry) -> bytes:
    signature = entry.verification.signedEntryTimestamp if entry.verification else None
    return pack_timestamp(signature, entry.logIndex, entry.integratedTime)


def _time(seconds: int | None) -> datetime | None:
    return None if not seconds else from_millis(seconds * 1000)
