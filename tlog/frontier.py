"""The compact range of `[0, n)`: the fewest subtree hashes that stand for every leaf of a log so far.

A frontier is how a log is followed without keeping it: at most 64 hashes, one per set bit of the size, from the
largest (left) subtree to the smallest. Appending leaves and folding to the root are the only operations, so a
position that is stored together with its frontier can always be proven to be a prefix of a later tree head.

The second half is the leaf ranges whose hashes make up a Merkle proof (RFC 6962 2.1.1, 2.1.2), and the hash of such a
range: from them a log serves proofs, and a follower makes its own from tiles.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from tlog.merkle import (
    EMPTY_ROOT,
    HASH_SIZE,
    MAX_TREE_SIZE,
    NodeHash,
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


def consistency_ranges(size1: int, size2: int) -> Iterator[tuple[int, int]]:
    """Leaf ranges `[start, end)` whose hashes make the consistency proof from `size1` to `size2`, in order.

    SPEC RFC 6962 2.1.2: PROOF(m, D[n]) = SUBPROOF(m, D[n], true), unrolled from the inside out.
    """
    if not 0 < size1 <= size2:
        raise ValueError(f"no consistency proof from size {size1} to {size2}")
    start, end, whole = 0, size2, True
    tail = []
    while size1 - start != end - start:
        split = _split(start, end)
        if size1 <= split:
            tail.append((split, end))
            end = split
        else:
            tail.append((start, split))
            start, whole = split, False
    if not whole:
        yield start, end
    yield from reversed(tail)


def inclusion_ranges(index: int, size: int) -> list[tuple[int, int]]:
    """Leaf ranges `[start, end)` whose hashes make the inclusion proof of a leaf, from the leaf upwards.

    SPEC RFC 6962 2.1.1: PATH(m, D[n]), unrolled from the root down.
    """
    if not 0 <= index < size:
        raise ValueError(f"no inclusion proof of leaf {index} in a tree of {size}")
    start, end, found = 0, size, []
    while end - start > 1:
        split = _split(start, end)
        if index < split:
            found.append((split, end))
            end = split
        else:
            found.append((start, split))
            start = split
    return found[::-1]


def size_beside(size: int, tree_size: int) -> int | None:
    """A size whose consistency proof to `tree_size` gives the frontier of `[0, size)`; `None` in a tree too small.

    A proof from a power of two leaves out that root, and none leads on from the whole tree: then a size beside it.
    """
    for each in (size, size + 1, size - 1, size - 2):
        if 1 < each < tree_size and each.bit_count() > 1:
            ranges = set(consistency_ranges(each, tree_size))
            if all(_is_made_of(start, end, ranges) for start, end in _blocks(size)):
                return each
    return None


def frontier_of_ranges(size: int, held: Mapping[tuple[int, int], bytes]) -> Frontier:
    """Frontier of `[0, size)` out of hashes of leaf ranges. Nothing is verified: compare `root_of_ranges` first.

    Raises `KeyError` for ranges that do not make it up.
    """
    return Frontier(size, tuple(root_of_ranges(start, end, held) for start, end in _blocks(size)))


def root_of_ranges(start: int, end: int, held: Mapping[tuple[int, int], bytes]) -> bytes:
    """Hash of leaves `[start, end)` out of hashes of ranges in it. Raises `KeyError` where one is missing.

    SPEC RFC 6962 2.1: a tree is split at the largest power of two below its size.
    """
    known = held.get((start, end))
    if known is not None:
        return known
    if end - start == 1:
        raise KeyError((start, end))
    split = _split(start, end)
    return node_hash(root_of_ranges(start, split, held), root_of_ranges(split, end, held))


def _is_made_of(start: int, end: int, ranges: Collection[tuple[int, int]]) -> bool:
    if (start, end) in ranges:
        return True
    if end - start == 1:
        return False
    split = _split(start, end)
    return _is_made_of(start, split, ranges) and _is_made_of(split, end, ranges)


def _blocks(size: int) -> Iterator[tuple[int, int]]:
    """Full subtrees of `[0, size)`, largest first: one for each bit of the size."""
    start = 0
    for level in range(size.bit_length() - 1, -1, -1):
        if (size >> level) & 1:
            yield start, start + (1 << level)
            start += 1 << level


def _split(start: int, end: int) -> int:
    return start + (1 << ((end - start - 1).bit_length() - 1))


def range_root(start: int, end: int, node: Callable[[int, int], bytes]) -> NodeHash:
    """Hash of leaves `[start, end)` of a proof. `node(level, index)` is the root of the full subtree there.

    A range of a proof starts at a multiple of its largest subtree, so it splits into full subtrees, largest first.
    """
    parts: list[bytes] = []
    while start < end:
        level = (end - start).bit_length() - 1
        parts.append(node(level, start >> level))
        start += 1 << level
    root = parts.pop()
    while parts:
        root = node_hash(parts.pop(), root)
    return NodeHash(root)
