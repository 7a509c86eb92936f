"""A Merkle tree that builds proofs and tiles (RFC 6962 section 2.1, C2SP tlog-tiles).

The tree keeps the root of every full aligned subtree, level by level, in memory (64 bytes a leaf). This is a cache of
the leaf hashes in the database, rebuilt on each start and never stored, so the two always agree.
"""

from collections.abc import Iterable
from typing import Final

from tlog.merkle import (
    EMPTY_ROOT,
    HASH_SIZE,
    LeafHash,
    NodeHash,
    RootHash,
    consistency_ranges,
    inclusion_ranges,
    node_hash,
    range_root,
)
from tlog.tiles import TILE_WIDTH

_TILE_HEIGHT: Final = 8


class OutsideTree(ValueError):
    """An index, size or tile that this tree does not have."""


class Tree:
    """Append-only hashes of `[0, size)`. One writer may append while readers ask about sizes published before."""

    def __init__(self, leaf_hashes: Iterable[bytes] = ()) -> None:
        self._levels: list[list[bytes]] = [[]]
        self.extend(leaf_hashes)

    @property
    def size(self) -> int:
        """Number of leaves."""
        return len(self._levels[0])

    def extend(self, leaf_hashes: Iterable[bytes]) -> None:
        """Append leaf hashes, 32 bytes each, in order."""
        for leaf in leaf_hashes:
            self._append(leaf)

    def _append(self, leaf: bytes) -> None:
        if len(leaf) != HASH_SIZE:
            raise ValueError(f"a leaf hash has {HASH_SIZE} bytes, not {len(leaf)}")
        self._levels[0].append(leaf)
        level = 0
        while len(self._levels[level]) % 2 == 0:
            left, right = self._levels[level][-2:]
            level += 1
            if level == len(self._levels):
                self._levels.append([])
            self._levels[level].append(node_hash(left, right))

    def leaf(self, index: int) -> LeafHash:
        """Hash of the leaf at `index`. Raises `OutsideTree`."""
        if not 0 <= index < self.size:
            raise OutsideTree(f"leaf {index} is outside a tree of {self.size}")
        return LeafHash(self._levels[0][index])

    def root(self, size: int | None = None) -> RootHash:
        """Root of the first `size` leaves, default all. Raises `OutsideTree`."""
        size = self._checked_size(self.size if size is None else size)
        return EMPTY_ROOT if size == 0 else RootHash(range_root(0, size, self._node))

    def inclusion_proof(self, index: int, size: int) -> list[NodeHash]:
        """Audit path of the leaf at `index` in the tree of `size` leaves, leaf upwards. Raises `OutsideTree`."""
        self._checked_size(size)
        if not 0 <= index < size:
            raise OutsideTree(f"leaf {index} is outside a tree of {size}")
        return [range_root(start, end, self._node) for start, end in inclusion_ranges(index, size)]

    def consistency_proof(self, size1: int, size2: int) -> list[NodeHash]:
        """Proof that the first `size1` leaves are a prefix of the first `size2`. Raises `OutsideTree`.

        Equal sizes, and an empty first tree, have the empty proof.
        """
        self._checked_size(size2)
        if not 0 <= size1 <= size2:
            raise OutsideTree(f"no consistency proof from size {size1} to size {size2}")
        if size1 in (0, size2):
            return []
        return [range_root(start, end, self._node) for start, end in consistency_ranges(size1, size2)]

    def tile(self, level: int, index: int, width: int, size: int) -> bytes:
        """Hash tile of `width` hashes at tile `level` in the tree of `size` leaves. Raises `OutsideTree`."""
        self._checked_size(size)
        start = index * TILE_WIDTH
        hashes = size >> (_TILE_HEIGHT * level)
        if not 1 <= width <= TILE_WIDTH or start + width > hashes:
            raise OutsideTree(f"tile {level}/{index} of width {width} is outside a tree of {size}")
        return b"".join(self._levels[_TILE_HEIGHT * level][start : start + width])

    def _node(self, level: int, index: int) -> bytes:
        return self._levels[level][index]

    def _checked_size(self, size: int) -> int:
        if not 0 <= size <= self.size:
            raise OutsideTree(f"size {size} is outside a tree of {self.size}")
        return size
