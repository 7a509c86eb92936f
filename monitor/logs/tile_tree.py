"""Reads the files of a log: a note becomes a `SignedHead`, and hash tiles become Merkle nodes.

A note needs the pinned key and the expected origin. Tiles give consistency proofs and frontiers without a proof server.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from typing import Final

from cryptography.exceptions import InvalidSignature
from msgspec import Struct
from typing_extensions import override

from monitor.http_fetcher import Expect, Fetcher, NotFound, Refused, denied
from monitor.model.errors import FetchFailed, Lagging, MalformedEntries, NotShown
from monitor.model.log_source import FROZEN, LogIdentity, LogSource, PromiseAnswer, SignedHead
from monitor.proof.trusted_head import check_frontier_in_head
from tlog.cosignature import WitnessKey, verify_cosignature
from tlog.merkle import (
    Frontier,
    LeafHash,
    NodeHash,
    ProofInvalid,
    consistency_ranges,
    inclusion_ranges,
    leaf_hash,
    range_root,
    subtree_root,
    verify_inclusion,
)
from tlog.note import (
    BadSignature,
    Checkpoint,
    MalformedCheckpoint,
    MalformedNote,
    Note,
    NoteKey,
    open_note,
    parse_checkpoint,
    parse_note,
)
from tlog.tiles import (
    FULL_TILE_SIZE,
    TILE_WIDTH,
    MalformedTile,
    ShortBundle,
    frontier_from_tiles,
    parse_hash_tile,
    right_edge,
    tile_path,
)

_TIMESTAMP: Final = "Timestamp: "


class ReadNote(Struct, frozen=True):
    """A note the pinned key signed, and the checkpoint in it, origin compared."""

    note: Note
    checkpoint: Checkpoint


def read_checkpoint(raw: bytes, key: NoteKey, identity: LogIdentity) -> ReadNote:
    """Open a served checkpoint. Raises `FetchFailed` for other bytes, `NotShown` when another key or log signed it."""
    try:
        note = open_note(raw, key)
        checkpoint = parse_checkpoint(note)
    except BadSignature as error:
        # A note that parses is no network fault: the server serves tree heads that the log's key did not sign.
        raise refused_head(identity, raw, f"{error}{_other_origin(raw, key)}") from error
    except (MalformedNote, MalformedCheckpoint) as error:
        raise FetchFailed(f"{identity.log}: the checkpoint served cannot be read: {error}") from error
    check_origin(checkpoint, identity)
    return ReadNote(note, checkpoint)


def _other_origin(raw: bytes, key: NoteKey) -> str:
    """The origin of a note that the pinned key signed under an unexpected name, with the setting for it.

    Empty if the key did not sign, and for Ed25519 keys of tiled logs, whose key id hashes the name. The operator must
    decide whether the name is this log's, because one key may sign for several logs.
    """
    note = parse_note(raw)
    for line in note.signatures:
        if line.key_id == key.key_id and line.name != key.name:
            with suppress(InvalidSignature):
                key.verify(note.text, line.blob)
                origin = note.text.partition(b"\n")[0].decode("utf-8", "replace")
                return f"; the pinned key signed it for origin {origin!r:.120}: if that is this log, set its `origin`"
    return ""


def check_origin(checkpoint: Checkpoint, identity: LogIdentity) -> None:
    """Compare a signed checkpoint's origin with the one expected. Raises `NotShown`."""
    if checkpoint.origin != identity.origin:
        # One key may sign for several trees; a head of another tree says nothing about this one.
        why = f"signed for origin {checkpoint.origin!r:.120}, not {identity.origin!r}"
        raise refused_head(identity, checkpoint.raw, why)


def refused_head(identity: LogIdentity, raw: bytes, why: str) -> NotShown:
    """Make the error for a well-formed tree head that is not this log's."""
    detail = f"the tree head served is not signed as this log's: {why}"
    return NotShown(identity.evidence("log-head-refused", detail, heads=(raw,), event=why))


def missing_entries(identity: LogIdentity, index: int, head: SignedHead, why: str) -> NotShown:
    """Make the error for an entry that a signed head covers and the server claims not to have."""
    detail = f"entry {index} is below the signed size {head.size}, but is not served: {why}"
    return NotShown(
        identity.evidence("log-entry-missing", detail, heads=(head.raw,), sizes=(index, head.size), event=str(index))
    )


def malformed_entries(identity: LogIdentity, index: int, head: SignedHead, why: str) -> MalformedEntries:
    """Make the error for an answer that should hold an entry and has the wrong length or shape."""
    return MalformedEntries(missing_entries(identity, index, head, why).evidence)


def head_of(read: ReadNote, identity: LogIdentity, witnesses: Sequence[WitnessKey] = ()) -> SignedHead:
    """Make the `SignedHead` of an opened checkpoint: freeze line, time line, witnesses whose cosignature verifies."""
    extensions = read.checkpoint.extensions
    cosigned = list(_cosigned(read.note, witnesses))
    return SignedHead(
        log=identity.log,
        size=read.checkpoint.size,
        root=read.checkpoint.root,
        raw=read.checkpoint.raw,
        timestamp=_timestamp(extensions),
        final=any(line.startswith(FROZEN) for line in extensions),
        cosigned_by=tuple(name for name, _ in cosigned),
        cosigned_at=tuple(at for _, at in cosigned),
    )


def _cosigned(note: Note, witnesses: Sequence[WitnessKey]) -> Iterator[tuple[str, datetime]]:
    for witness in witnesses:
        seen = verify_cosignature(note, witness)
        # A cosignature with an impossible time does not count.
        if seen is not None and (at := from_millis(seen.time * 1000)) is not None:
            yield witness.name, at


def from_millis(milliseconds: int) -> datetime | None:
    """Return a time given in milliseconds since the epoch, or `None` when no calendar holds it."""
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (OverflowError, OSError, ValueError):
        return None


def _timestamp(extensions: Sequence[str]) -> datetime | None:
    for line in extensions:
        digits = line.removeprefix(_TIMESTAMP)
        if digits != line and digits.isascii() and digits.isdigit() and len(digits) <= 20:  # noqa: PLR2004  64 bits
            return from_millis(int(digits) // 1_000_000)
    return None


_TILE_HEIGHT: Final = 8


class TileTree:
    """The hash tiles of one tree as of `size` leaves. It caches tiles: make a new one for fresh requests."""

    def __init__(self, fetcher: Fetcher, prefix: str, size: int) -> None:
        self._fetcher, self._prefix, self._size = fetcher, prefix, size
        self._tiles: dict[tuple[int, int], list[LeafHash]] = {}

    def frontier(self, size: int) -> Frontier:
        """Frontier of the first `size` leaves, from the tiles on that size's right edge; not authenticated."""
        return frontier_from_tiles(
            size, {level: self._hashes(level, index)[:width] for level, index, width in right_edge(size)}
        )

    def consistency_proof(self, size1: int, size2: int) -> list[NodeHash]:
        """Consistency proof between two sizes not above this tree's (RFC 6962 2.1.2); not verified."""
        return [range_root(start, end, self._node) for start, end in consistency_ranges(size1, size2)]

    def inclusion_proof(self, index: int, size: int) -> list[NodeHash]:
        """Inclusion proof of a leaf in the tree of a size not above this one's (RFC 6962 2.1.1); not verified."""
        return [range_root(start, end, self._node) for start, end in inclusion_ranges(index, size)]

    def leaf_hashes(self, start: int, end: int) -> list[LeafHash]:
        """Hashes of leaves `[start, end)` of one tile; not authenticated."""
        index, offset = divmod(start, TILE_WIDTH)
        return self._hashes(0, index)[offset : offset + end - start]

    def _node(self, level: int, index: int) -> bytes:
        tile_level, height = divmod(level, _TILE_HEIGHT)
        first = index << height
        tile, offset = divmod(first, TILE_WIDTH)
        return subtree_root(self._hashes(tile_level, tile)[offset : offset + (1 << height)])

    def _hashes(self, level: int, index: int) -> list[LeafHash]:
        key = (level, index)
        if key not in self._tiles:
            width = min(TILE_WIDTH, (self._size >> (_TILE_HEIGHT * level)) - index * TILE_WIDTH)
            self._tiles[key] = self._fetch(level, index, width)
        return self._tiles[key]

    def _fetch(self, level: int, index: int, width: int) -> list[LeafHash]:
        try:
            raw, served = fetch_tile(
                self._fetcher, partial(tile_path, level, index), width, prefix=self._prefix, max_bytes=FULL_TILE_SIZE
            )
        except Refused as error:
            if denied(error):
                # A cache may serve a newer checkpoint than its tiles.
                raise Lagging(f"a tile below the signed size is not there: {error}") from error
            raise
        try:
            return parse_hash_tile(raw, served)[:width]
        except MalformedTile as error:
            raise FetchFailed(f"tile {tile_path(level, index, served)}: {error}") from error


def tile_frontier(tree: TileTree, size: int, head: SignedHead, identity: LogIdentity) -> Frontier:
    """Frontier of `[0, size)` from tiles, proven to be a prefix of `head`. Raises `NotShown` when the proof fails."""
    frontier = tree.frontier(size)
    proof = tree.consistency_proof(size, head.size) if 0 < size < head.size else []
    check_frontier_in_head(frontier, head, proof, identity, event=f"frontier {size}")
    return frontier


class TileLogSource(LogSource, ABC):
    """Base of logs that are served as tiles. Proofs are built from hash tiles, so wrong tiles give wrong proofs."""

    def __init__(self, identity: LogIdentity, fetcher: Fetcher) -> None:
        self._identity, self._fetcher = identity, fetcher

    @override
    @property
    def identity(self) -> LogIdentity:
        return self._identity

    @override
    def consistency_proof(self, size1: int, size2: int) -> Sequence[NodeHash]:
        return self._tree(size2).consistency_proof(size1, size2)

    @override
    def frontier(self, size: int, head: SignedHead) -> Frontier:
        return tile_frontier(self._tree(head.size), size, head, self._identity)

    @override
    def sightings(self) -> Sequence[SignedHead]:
        """Empty: such a log shows heads in one place only."""
        return ()

    @abstractmethod
    def _tree(self, size: int) -> TileTree:
        """The hash tiles as of a size."""

    @contextmanager
    def _reading(self, start: int, head: SignedHead) -> Iterator[None]:
        """Turn a defect of the file with the entries from `start` on into an error of the log."""
        try:
            yield
        except Refused as error:
            if denied(error):
                raise missing_entries(self._identity, start, head, str(error)) from error
            raise
        except ShortBundle as error:
            raise missing_entries(self._identity, start, head, str(error)) from error
        except MalformedTile as error:
            # A file that stays defective hides its entries, as a missing file does.
            raise malformed_entries(self._identity, start, head, str(error)) from error


def proven(place: PromiseAnswer, identity: LogIdentity, what: str) -> PromiseAnswer:
    """The place, if its proof leads to its head. Raises `NotShown` when the proof fails; `what` names the proof."""
    index, head = place.index, place.head
    try:
        verify_inclusion(index, head.size, leaf_hash(place.leaf), place.proof, head.root)
    except ProofInvalid as error:
        raise NotShown(
            identity.evidence(
                "log-entries-not-in-tree",
                f"{what} of entry {index} does not lead to the signed root: {error}",
                heads=(head.raw,),
                sizes=(index, head.size),
                proof=place.proof,
                leaves=((index, place.leaf),),
                event=f"inclusion {index}",
            )
        ) from error
    return place


def fetch_tile(
    fetcher: Fetcher,
    path: Callable[[int], str],
    width: int,
    *,
    prefix: str,
    max_bytes: int,
    expect: Expect = Expect.BYTES,
) -> tuple[bytes, int]:
    """Fetch the tile or bundle that `path` names for a width; returns its bytes and the width that was served.

    SPEC tlog-tiles: partial tiles may be deleted once the full tile exists, so a client falls back to the full one.
    """
    try:
        return fetcher.get(prefix + path(width), max_bytes=max_bytes, expect=expect), width
    except NotFound:
        if width == TILE_WIDTH:
            raise
        return fetcher.get(prefix + path(TILE_WIDTH), max_bytes=max_bytes, expect=expect), TILE_WIDTH
