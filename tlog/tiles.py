"""Tiled logs (C2SP tlog-tiles): paths, widths, and the exact shapes of hash tiles and entry bundles."""

from typing import Final

from tlog.merkle import HASH_SIZE, MAX_TREE_SIZE, Frontier, LeafHash

TILE_WIDTH: Final = 256
FULL_TILE_SIZE: Final = TILE_WIDTH * HASH_SIZE
# Each entry is a uint16 length and that many bytes.
MAX_BUNDLE_SIZE: Final = TILE_WIDTH * (2 + 0xFFFF)
_MAX_LEVEL: Final = 7


class MalformedTile(ValueError):
    """A tile or bundle is not exactly as long as the specification says, or could not exist."""


class ShortBundle(MalformedTile):
    """A bundle or data tile ends between two entries, before as many as its width: entries were left out of it."""


def tile_path(level: int, index: int, width: int = TILE_WIDTH) -> str:
    """Path of the hash tile at `level` and `index`; `width` below 256 names a partial tile.

    This and the other paths raise `MalformedTile` for a tile that no log can have.
    """
    if not 0 <= level <= _MAX_LEVEL:
        raise MalformedTile(f"no log has tiles at level {level}")
    return f"tile/{level}/{_index_path(index)}{_partial(width)}"


def entries_path(index: int, width: int = TILE_WIDTH) -> str:
    """Path of an entry bundle (Rekor v2); for static CT data tiles see `data_path`."""
    return f"tile/entries/{_index_path(index)}{_partial(width)}"


def data_path(index: int, width: int = TILE_WIDTH) -> str:
    """Path of a static CT data tile (C2SP static-ct-api)."""
    return f"tile/data/{_index_path(index)}{_partial(width)}"


def _index_path(index: int) -> str:
    # SPEC tlog-tiles: "<N> ... MUST be a non-negative integer encoded into zero-padded 3-digit path elements. All but
    # the last path element MUST begin with an x."
    if not 0 <= index <= MAX_TREE_SIZE // TILE_WIDTH:
        raise MalformedTile(f"no log has a tile with index {index}")
    groups = [f"{index % 1000:03}"]
    while index := index // 1000:
        groups.append(f"x{index % 1000:03}")
    return "/".join(reversed(groups))


def _partial(width: int) -> str:
    # SPEC tlog-tiles: "The .p/<W> suffix is only present for partial tiles".
    _check_width(width)
    return "" if width == TILE_WIDTH else f".p/{width}"


def _check_width(width: int) -> None:
    if not 1 <= width <= TILE_WIDTH:
        raise MalformedTile(f"a tile is 1 to {TILE_WIDTH} wide, not {width}")


def partial_width(level: int, tree_size: int) -> int:
    """Width of the partial tile on the right edge at `level`; 0 when there is none."""
    return (tree_size >> (8 * level)) % TILE_WIDTH


def right_edge(tree_size: int) -> list[tuple[int, int, int]]:
    """Partial tiles `(level, index, width)` that together hold the frontier of a tree of this size."""
    return [
        (level, tree_size >> (8 * (level + 1)), width)
        for level in range(_MAX_LEVEL + 1)
        if (width := partial_width(level, tree_size))
    ]


def parse_hash_tile(raw: bytes, width: int) -> list[LeafHash]:
    """Split a hash tile into its `width` hashes of 32 bytes. Raises `MalformedTile` on any other length."""
    _check_width(width)
    if len(raw) != width * HASH_SIZE:
        raise MalformedTile(f"a tile of width {width} has {width * HASH_SIZE} bytes, not {len(raw)}")
    return [LeafHash(raw[i : i + HASH_SIZE]) for i in range(0, len(raw), HASH_SIZE)]


def parse_entry_bundle(raw: bytes, width: int) -> list[bytes]:
    """Split an entry bundle into exactly `width` entries. Raises `MalformedTile`, `ShortBundle`.

    SPEC tlog-tiles: "sequence of big-endian uint16 length-prefixed log entries"; a short, long or padded bundle is
    refused whole, because entries after a bad length cannot be told from garbage.
    """
    _check_width(width)
    entries: list[bytes] = []
    append = entries.append
    position, end = 0, len(raw)
    for _ in range(width):
        start = position + 2
        if start > end:
            short = ShortBundle if position == end else MalformedTile
            raise short(f"bundle ends after {len(entries)} of {width} entries")
        position = start + (raw[position] << 8 | raw[position + 1])
        if position > end:
            raise MalformedTile(f"entry {len(entries)} of {width} is cut short")
        append(raw[start:position])
    if position != end:
        raise MalformedTile(f"{end - position} bytes follow the last of {width} entries")
    return entries


def frontier_from_tiles(tree_size: int, tiles: dict[int, list[LeafHash]]) -> Frontier:
    """Frontier of `[0, tree_size)` from the right edge's partial tiles, by level.

    The result is only as good as the tiles: compare `Frontier.root()` with a signed root before using it.
    Raises `MalformedTile` when a tile is missing or not as wide as the size demands.
    """
    # A partial tile at level L holds hashes of full subtrees of 256^L leaves; pairs within it fold by the same carry.
    frontier_hashes: list[bytes] = []
    for level, _, width in reversed(right_edge(tree_size)):
        tile = tiles.get(level, [])
        if len(tile) != width:
            raise MalformedTile(f"the right edge at level {level} is {width} wide, not {len(tile)}")
        frontier_hashes.extend(Frontier().extended(tile).hashes)
    return Frontier(tree_size, tuple(frontier_hashes))
