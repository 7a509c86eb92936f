"""Certificate Transparency as static files (C2SP static-ct-api): checkpoint, hash tiles, data tiles."""

from collections.abc import Sequence
from functools import partial
from typing import Final

from typing_extensions import override

from monitor.http_fetcher import MIB, Expect, Fetcher, TooLarge
from monitor.logs.tile_tree import (
    TileLogSource,
    TileTree,
    check_origin,
    fetch_tile,
    from_millis,
    proven,
    refused_head,
)
from monitor.model.errors import FetchFailed
from monitor.model.inclusion_promise import InclusionPromise
from monitor.model.log_source import LogEntry, LogIdentity, PromiseAnswer, PromisedRange, PromisingSource, SignedHead
from tlog.note import MAX_NOTE_SIZE, BadSignature, MalformedCheckpoint, MalformedNote, NoteKey
from tlog.static_ct import TileLeaf, open_ct_checkpoint, parse_data_tile, parse_data_tile_start
from tlog.tiles import TILE_WIDTH, MalformedTile, data_path

# The only limit of an entry is the certificate's 2^24 bytes, twice for a precertificate: one entry always fits.
_MAX_DATA_TILE: Final = 64 * MIB


class CtStaticSource(TileLogSource, PromisingSource):
    """One static CT log. Implements `monitor.model.log_source.LogSource`."""

    def __init__(self, identity: LogIdentity, fetcher: Fetcher, key: NoteKey) -> None:
        super().__init__(identity, fetcher)
        self._key = key

    @override
    def latest(self) -> SignedHead:
        raw = self._fetcher.get("checkpoint", max_bytes=MAX_NOTE_SIZE, expect=Expect.TEXT)
        try:
            checkpoint, milliseconds = open_ct_checkpoint(raw, self._key)
        except BadSignature as error:
            raise refused_head(self._identity, raw, str(error)) from error
        except (MalformedNote, MalformedCheckpoint) as error:
            raise FetchFailed(f"{self._identity.log}: the checkpoint served cannot be read: {error}") from error
        check_origin(checkpoint, self._identity)
        return SignedHead(
            self._identity.log, checkpoint.size, checkpoint.root, raw, timestamp=from_millis(milliseconds)
        )

    @override
    def entries(self, start: int, end: int, head: SignedHead) -> Sequence[LogEntry]:
        """Entries of one data tile. `extra` is an RFC 6962 chain without the issuers.

        A data tile names issuers by fingerprint; only the precertificate itself is there in full. A tile cannot be
        requested in parts: the entries of a tile that lie beyond the cap are taken by their hash from the hash tile.
        """
        end = min(end, (start // TILE_WIDTH + 1) * TILE_WIDTH)
        try:
            return self._in_data_tile(start, end, head)
        except TooLarge as error:
            return self._in_long_tile(error, start, end, head)

    def _in_long_tile(self, error: TooLarge, start: int, end: int, head: SignedHead) -> Sequence[LogEntry]:
        """Entries within the cap as they are, the others by hash. Raises `error` when the tile is garbled."""
        index, offset = divmod(start, TILE_WIDTH)
        try:
            leaves = parse_data_tile_start(error.start, min(TILE_WIDTH, head.size - index * TILE_WIDTH))
        except MalformedTile:
            raise error from None
        if offset < len(leaves):
            return [_entry(leaf) for leaf in leaves[offset : end - index * TILE_WIDTH]]
        return [LogEntry(b"", unread=each) for each in self._tree(head.size).leaf_hashes(start, end)]

    def _in_data_tile(self, start: int, end: int, head: SignedHead) -> Sequence[LogEntry]:
        index, offset = divmod(start, TILE_WIDTH)
        width = min(TILE_WIDTH, head.size - index * TILE_WIDTH)
        with self._reading(start, head):
            raw, served = fetch_tile(
                self._fetcher,
                partial(data_path, index),
                width,
                prefix="",
                max_bytes=_MAX_DATA_TILE,
                expect=Expect.GZIP_ALLOWED,
            )
            leaves = parse_data_tile(raw, served)
        return [_entry(leaf) for leaf in leaves[offset : min(width, end - index * TILE_WIDTH)]]

    @override
    def promised_range(self, head: SignedHead) -> PromisedRange:
        return PromisedRange(0, None)

    @override
    def place_of(self, promise: InclusionPromise, head: SignedHead) -> PromiseAnswer:
        """SPEC static-ct-api: every SCT of such a log holds the leaf's index."""
        index = promise.index
        if index is None:
            raise FetchFailed(f"{self._identity.log}: a promise without an index cannot be looked up in tiles")
        leaf = self._in_data_tile(index, index + 1, head)[0].leaf
        proof = tuple(self._tree(head.size).inclusion_proof(index, head.size))
        return proven(PromiseAnswer(index, leaf, head, proof), self._identity, "the tiles' proof")

    @override
    def _tree(self, size: int) -> TileTree:
        return TileTree(self._fetcher, "", size)


def _entry(leaf: TileLeaf) -> LogEntry:
    return LogEntry(leaf.merkle_tree_leaf(), extra=_extra(leaf.precertificate))


def _extra(precertificate: bytes) -> bytes:
    # SPEC RFC 6962 3.1, PrecertChainEntry: the precertificate, then its chain, which a data tile does not hold.
    return len(precertificate).to_bytes(3, "big") + precertificate + b"\0\0\0" if precertificate else b""
