"""Merkle nodes of a tiled log, read from its hash tiles: consistency proofs and frontiers without a proof server.

Every hash here is as served. Callers hold signed roots and verify what is built from these hashes against them.
"""

from collections.abc import Callable
from functools import partial
from typing import Final

from monitor.http_fetcher import Expect, Fetcher, NotFound, Refused, denied
from monitor.model.errors import FetchFailed, Lagging
from monitor.model.log_source import LogIdentity, SignedHead
from monitor.proof.verify import check_frontier_in_head
from tlog.frontier import Frontier, subtree_root
from tlog.merkle import LeafHash, NodeHash
from tlog.proof_ranges import consistency_ranges, inclusion_ranges, range_root
from tlog.tiles import (
    FULL_TILE_SIZE,
    TILE_WIDTH,
    MalformedTile,
    frontier_from_tiles,
    parse_hash_tile,
    right_edge,
    tile_path,
)

_TILE_HEIGHT: Final = 8


class TileTree:
    """The hash tiles of one tree as of `size` leaves. Keeps what it fetched: make a new one to ask afresh."""

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
                # A cache may hand out a newer checkpoint than it has tiles for.
                raise Lagging(f"a tile below the signed size is not there: {error}") from error
            raise
        try:
            return parse_hash_tile(raw, served)[:width]
        except MalformedTile as error:
            raise FetchFailed(f"tile {tile_path(level, index, served)}: {error}") from error


def tile_frontier(tree: TileTree, size: int, head: SignedHead, identity: LogIdentity) -> Frontier:
    """Frontier of `[0, size)` from tiles, proven to be a prefix of `head`. Raises `NotShown` when it is not."""
    frontier = tree.frontier(size)
    proof = tree.consistency_proof(size, head.size) if 0 < size < head.size else []
    check_frontier_in_head(frontier, head, proof, identity, event=f"frontier {size}")
    return frontier


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
