"""Certificate Transparency over the RFC 6962 API, as Fulcio's CT log speaks it."""

from collections.abc import Sequence
from typing import Final, TypeVar
from urllib.parse import quote

import msgspec
import pybase64
from typing_extensions import override

from monitor.http_fetcher import MIB, Expect, Fetcher, NotFound, Refused, TooLarge, denied
from monitor.logs.request_size import FewerAtOnce, by_hash, frontier_beside
from monitor.logs.tile_tree import from_millis, missing_entries, proven, refused_head
from monitor.model.errors import FetchFailed, Lagging, NotShown
from monitor.model.inclusion_promise import InclusionPromise
from monitor.model.log_source import (
    LogEntry,
    LogIdentity,
    PromiseAnswer,
    PromisedRange,
    PromisingSource,
    SignedHead,
    read_sth,
)
from tlog.ct import MalformedCt
from tlog.merkle import HASH_SIZE, Frontier, NodeHash, leaf_hash
from tlog.note import BadSignature

# SPEC RFC 6962 4.6: a log may restrict how many entries it returns; CTFE's default is 1000.
MAX_PER_REQUEST: Final = 1000
_MAX_ENTRIES_ANSWER: Final = 64 * MIB
_MAX_SMALL_ANSWER: Final = 64 * 1024
_T = TypeVar("_T")


class _Consistency(msgspec.Struct):
    consistency: list[str]


class _GetEntriesItem(msgspec.Struct):
    leaf_input: str
    extra_data: str = ""


class _Entries(msgspec.Struct):
    entries: list[_GetEntriesItem]


class _EntryAndProof(msgspec.Struct):
    leaf_input: str
    audit_path: list[str] | None = None


class _ProofByHash(msgspec.Struct):
    leaf_index: int
    audit_path: list[str] | None = None


class CtRfc6962Source(PromisingSource):
    """One RFC 6962 log. Implements `monitor.model.log_source.LogSource`; the origin is the log's URL without scheme."""

    def __init__(self, identity: LogIdentity, fetcher: Fetcher) -> None:
        self._identity, self._fetcher = identity, fetcher
        self._fewer = FewerAtOnce(MAX_PER_REQUEST)

    @override
    @property
    def identity(self) -> LogIdentity:
        return self._identity

    @override
    def latest(self) -> SignedHead:
        """`raw` is the JSON as served: the signature covers its values, not its bytes."""
        raw = self._get("get-sth", _MAX_SMALL_ANSWER)
        try:
            head = read_sth(raw, self._identity.spki)
        except BadSignature as error:
            raise refused_head(self._identity, raw, str(error)) from error
        except MalformedCt as error:
            raise FetchFailed(f"{self._identity.log}: the tree head served cannot be read: {error}") from error
        return SignedHead(self._identity.log, head.size, head.root, raw, timestamp=from_millis(head.timestamp))

    @override
    def consistency_proof(self, size1: int, size2: int) -> Sequence[NodeHash]:
        if size1 == size2:
            return []
        try:
            raw = self._get(f"get-sth-consistency?first={size1}&second={size2}", _MAX_SMALL_ANSWER)
        except Refused as error:
            if denied(error):
                raise Lagging(f"{self._identity.log}: no proof to size {size2} here: {error}") from error
            raise
        return _nodes(_parse(raw, _Consistency, "consistency proof").consistency)

    @override
    def frontier(self, size: int, head: SignedHead) -> Frontier:
        """Read off the audit path of the last leaf below `size`, or off a consistency proof."""

        def place(index: int) -> PromiseAnswer:
            return self._shown(index, *self._leaf_and_path(index, head), head)

        return frontier_beside(size, self, head, place)

    @override
    def promised_range(self, head: SignedHead) -> PromisedRange:
        return PromisedRange(0, None)

    @override
    def place_of(self, promise: InclusionPromise, head: SignedHead) -> PromiseAnswer:
        """Without a promised index, the request names the leaf's hash."""
        if promise.index is not None:
            return self._shown(promise.index, *self._leaf_and_path(promise.index, head), head)
        try:
            index, path = self._path_by_hash(promise.leaf, head)
        except Refused as error:
            if denied(error):
                raise NotShown(
                    self._identity.evidence(
                        "log-promise-broken",
                        f"it has no proof for this leaf in its tree of size {head.size}: {error}",
                        heads=(head.raw,),
                        sizes=(head.size,),
                        event=promise.id,
                    )
                ) from error
            raise
        return self._shown(index, promise.leaf, path, head)

    def _shown(self, index: int, leaf: bytes, path: Sequence[NodeHash], head: SignedHead) -> PromiseAnswer:
        return proven(PromiseAnswer(index, leaf, head, tuple(path)), self._identity, "the audit path")

    @override
    def entries(self, start: int, end: int, head: SignedHead) -> Sequence[LogEntry]:
        """One answer of the log, which may hold fewer entries than requested."""
        wanted = min(end - start, MAX_PER_REQUEST)
        try:
            return self._fewer.ask(wanted, lambda count: self._entries(start, count, head))
        except TooLarge as error:
            return [by_hash(start, self, head, error)]

    def _entries(self, start: int, count: int, head: SignedHead) -> Sequence[LogEntry]:
        # SPEC RFC 6962 4.6: "start" and "end" are inclusive, and a log may return fewer entries than requested.
        try:
            raw = self._get(f"get-entries?start={start}&end={start + count - 1}", _MAX_ENTRIES_ANSWER)
        except Refused as error:
            if denied(error):
                raise missing_entries(self._identity, start, head, str(error)) from error
            raise
        served = _parse(raw, _Entries, "entries").entries
        if not served:
            raise missing_entries(self._identity, start, head, "the answer holds no entry")
        if len(served) > count:
            raise FetchFailed(f"{self._identity.log}: entries served: {len(served)}, asked for: {count}")
        return [LogEntry(_decode(e.leaf_input), extra=_decode(e.extra_data)) for e in served]

    @override
    def sightings(self) -> Sequence[SignedHead]:
        """Empty: this protocol shows heads in one place only."""
        return ()

    def _leaf_and_path(self, index: int, head: SignedHead) -> tuple[bytes, list[NodeHash]]:
        try:
            raw = self._get(f"get-entry-and-proof?leaf_index={index}&tree_size={head.size}", _MAX_ENTRIES_ANSWER)
        except Refused as error:
            if not isinstance(error, NotFound) and error.status != 405:  # noqa: PLR2004  not offered by this log
                raise
            return self._leaf_and_path_by_hash(index, head)
        found = _parse(raw, _EntryAndProof, "entry and proof")
        return _decode(found.leaf_input), _nodes(found.audit_path or [])

    def _leaf_and_path_by_hash(self, index: int, head: SignedHead) -> tuple[bytes, list[NodeHash]]:
        leaf = self._entries(index, 1, head)[0].leaf
        found, path = self._path_by_hash(leaf, head)
        if found != index:
            # A log may hold the same leaf twice; this request then finds its first index.
            raise FetchFailed(f"{self._identity.log}: entry {index} also stands at {found}; cannot start here")
        return leaf, path

    def _path_by_hash(self, leaf: bytes, head: SignedHead) -> tuple[int, list[NodeHash]]:
        wanted = quote(pybase64.b64encode(leaf_hash(leaf)).decode(), safe="")
        raw = self._get(f"get-proof-by-hash?hash={wanted}&tree_size={head.size}", _MAX_SMALL_ANSWER)
        found = _parse(raw, _ProofByHash, "proof by hash")
        return found.leaf_index, _nodes(found.audit_path or [])

    def _get(self, question: str, max_bytes: int) -> bytes:
        return self._fetcher.get(f"ct/v1/{question}", max_bytes=max_bytes, expect=Expect.JSON)


def _parse(raw: bytes, shape: type[_T], what: str) -> _T:
    try:
        return msgspec.json.decode(raw, type=shape)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise FetchFailed(f"{what}: not the JSON it should be: {error}") from error


def _nodes(values: Sequence[str]) -> list[NodeHash]:
    nodes = [NodeHash(_decode(value)) for value in values]
    if any(len(node) != HASH_SIZE for node in nodes):
        raise FetchFailed(f"a proof hash is not {HASH_SIZE} bytes")
    return nodes


def _decode(value: str) -> bytes:
    try:
        return pybase64.b64decode(value, validate=True)
    except ValueError as error:
        raise FetchFailed("a field is not base64") from error
