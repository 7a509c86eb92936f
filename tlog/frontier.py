"""The compact range of `[0, n)`: the fewest subtree hashes that stand for every leaf of a log so far.

A frontier is how a log is followed without keeping it: at most 64 hashes, one per set bit of the size, from the
largest (left) subtree to the smallest. Appending leaves and folding to the root are the only operations, so a
position that is stored together with its frontier can always be proven to be a prefix of a later tree head.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256

from tlog.merkle import (
    EMPTY_ROOT,
    HASH_SIZE,
    MAX_TREE_SIZE,
    RootHash,
    check_inclusion_proof,
    node_hash,
)


class MalformedFrontier(ValueError):
    """Size and hashes do not fit together: a damaged state, never a first start."""


@dataclass(frozen=True, slots=True)
class Frontier:
    """Subtree hashes of `[0, size)`, largest subtree first; each 32 bytes, one per set bit of `size`."""

    size: int = 0
    hashes: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.size, int) or isinstance(self.size, bool) or not 0 <= self.size <= MAX_TREE_SIZE:
            raise MalformedFrontier("size is not a whole number from 0 to 2^63-1")
        if not isinstance(self.hashes, tuple):
            raise MalformedFrontier("the hashes are not a tuple")
        if len(self.hashes) != self.size.bit_count():
            raise MalformedFrontier(
                f"a frontier of size {self.size} has {self.size.bit_count()} hashes, not {len(self.hashes)}"
            )
        for each in self.hashes:
            _check_hash(each)

    def root(self) -> RootHash:
        """Root hash of the tree with exactly these leaves (RFC 6962 2.1)."""
        if not self.hashes:
            return EMPTY_ROOT
        root = self.hashes[-1]
        for left in reversed(self.hashes[:-1]):
            root = node_hash(left, root)
        return RootHash(root)

    def extended(self, leaf_hashes: Iterable[bytes]) -> "Frontier":
        """Return the frontier after appending these leaf hashes, in order.

        Raises `MalformedFrontier` for a hash that is not 32 bytes: interior nodes would hide its length.
        """
        size, hashes = self.size, list(self.hashes)
        for leaf in leaf_hashes:
            _check_hash(leaf)
            hashes.append(leaf)
            # Each trailing one bit of the old size is a full left subtree of the same height, ready to merge.
            carry = size
            while carry & 1:
                right = hashes.pop()
                hashes.append(node_hash(hashes.pop(), right))
                carry >>= 1
            size += 1
        return Frontier(size, tuple(hashes))

    def stitched(self, level: int, subtree_root: bytes) -> "Frontier":
        """Return the frontier after appending a full subtree of `2**level` leaves by its root alone.

        Raises `MalformedFrontier` when the size is no multiple of `2**level`: only aligned subtrees stitch.
        """
        _check_hash(subtree_root)
        if not 0 <= level < MAX_TREE_SIZE.bit_length():
            raise MalformedFrontier(f"no subtree of a log is at level {level}")
        if self.size & ((1 << level) - 1):
            raise MalformedFrontier(f"a subtree of 2^{level} leaves does not align with size {self.size}")
        hashes = [*self.hashes, subtree_root]
        carry = self.size >> level
        while carry & 1:
            right = hashes.pop()
            hashes.append(node_hash(hashes.pop(), right))
            carry >>= 1
        return Frontier(self.size + (1 << level), tuple(hashes))

    def to_bytes(self) -> bytes:
        """Concatenate the hashes, for storage beside the size."""
        return b"".join(self.hashes)

    @classmethod
    def from_bytes(cls, size: int, raw: bytes) -> "Frontier":
        """Read what `to_bytes` wrote; raises `MalformedFrontier` when size and bytes disagree."""
        if not isinstance(raw, bytes) or len(raw) % HASH_SIZE:
            raise MalformedFrontier("the stored hashes are no whole number of hashes")
        return cls(size, tuple(raw[i : i + HASH_SIZE] for i in range(0, len(raw), HASH_SIZE)))


def frontier_before(leaf_index: int, tree_size: int, proof: Sequence[bytes]) -> Frontier:
    """Frontier of `[0, leaf_index)`, read from a *verified* inclusion proof of the leaf at `leaf_index`.

    The left siblings on a leaf's path are exactly the subtrees to its left. Verify the proof against a signed root
    first: this function only picks hashes. Raises `ProofInvalid` when it cannot be a proof for this leaf and size.
    """
    inner = check_inclusion_proof(leaf_index, tree_size, proof)
    left = [proof[level] for level in range(inner) if (leaf_index >> level) & 1]
    left.extend(proof[inner:])
    return Frontier(leaf_index, tuple(reversed(left)))


def subtree_root(leaf_hashes: Sequence[bytes]) -> bytes:
    """Root of a full subtree: the number of leaf hashes must be a power of two.

    Level by level over a list, hashing without a call of our own for each node, is the fastest plain form measured:
    a follower hashes as many nodes as entries.
    """
    level = list(leaf_hashes)
    if not level or len(level) & (len(level) - 1):
        raise ValueError(f"{len(level)} leaves are no full subtree")
    while len(level) > 1:
        pairs = iter(level)
        level = [sha256(b"\x01" + left + right).digest() for left, right in zip(pairs, pairs, strict=True)]
    return level[0]


def aligned_subtrees(start: int, leaf_hashes: Sequence[bytes]) -> tuple[tuple[int, bytes], ...]:
    """Cut leaves `[start, start + n)` into the fewest aligned full subtrees: `(level, root)`, left to right."""
    found = []
    at, end = start, start + len(leaf_hashes)
    while at < end:
        fits = (end - at).bit_length() - 1
        level = min(fits, (at & -at).bit_length() - 1) if at else fits
        found.append((level, subtree_root(leaf_hashes[at - start : at - start + (1 << level)])))
        at += 1 << level
    return tuple(found)


def _check_hash(value: object) -> None:
    if not isinstance(value, bytes) or len(value) != HASH_SIZE:
        raise MalformedFrontier(f"a hash is not {HASH_SIZE} bytes")
