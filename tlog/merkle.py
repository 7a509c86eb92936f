"""Merkle trees as RFC 6962 section 2.1 defines them, for SHA-256: hashes, proofs, and the frontier of `[0, n)`.

Leaf and interior hashes are domain separated, so no interior node can pass for a leaf. A proof that verifies shows
that *if* the root is right, the statement holds. This module does not check that the root is right (a signed tree
head by the expected key).

A frontier (a compact range) is how a log is followed without keeping it: the fewest subtree hashes that stand for
every leaf so far, one per set bit of the size. Appending leaves and folding to the root are its only operations, so a
position that is stored together with its frontier can always be proven to be a prefix of a later tree head.

Below it are the leaf ranges whose hashes make up a proof (RFC 6962 2.1.1, 2.1.2), and the hash of such a range: from
them a log serves proofs, and a follower makes its own from tiles.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Final, NewType, cast

from msgspec import Struct

LeafHash = NewType("LeafHash", bytes)
RootHash = NewType("RootHash", bytes)
NodeHash = NewType("NodeHash", bytes)

HASH_SIZE: Final = 32
MAX_TREE_SIZE: Final = (1 << 63) - 1

# RFC 6962 2.1: "The hash of an empty list is the hash of an empty string".
EMPTY_ROOT: Final = RootHash(sha256(b"").digest())


class ProofInvalid(Exception):
    """A proof does not verify, or is malformed."""


def leaf_hash(data: bytes) -> LeafHash:
    """Hash of one leaf, 32 bytes (RFC 6962 2.1: ``SHA-256(0x00 || d(0))``)."""
    return LeafHash(sha256(b"\x00" + data).digest())


def leaf_hashes(leaves: Iterable[bytes]) -> list[LeafHash]:
    """`leaf_hash` of each of many leaves, without a call for each: a follower hashes every byte of a log.

    Copying the hash state of the prefix avoids copying each leaf behind a zero byte.
    """
    prefix = sha256(b"\x00")
    hashes = []
    for data in leaves:
        leaf = prefix.copy()
        leaf.update(data)
        hashes.append(leaf.digest())
    return cast("list[LeafHash]", hashes)


def node_hash(left: bytes, right: bytes) -> NodeHash:
    """Hash of an interior node, 32 bytes (RFC 6962 2.1: ``SHA-256(0x01 || left || right)``)."""
    return NodeHash(sha256(b"\x01" + left + right).digest())


def inclusion_proof_shape(leaf_index: int, tree_size: int) -> tuple[int, int]:
    """Numbers of hashes in the two parts of an inclusion proof, `(inner, border)`, from the leaf upwards.

    The inner part lies below the point where the paths of this leaf and of the last leaf part; above it, on the
    tree's right border, every sibling is a left one. Raises `ProofInvalid` when the leaf is not in the tree.
    """
    _check_size("tree size", tree_size)
    _check_size("leaf index", leaf_index)
    if leaf_index >= tree_size:
        raise ProofInvalid(f"leaf index {leaf_index} is outside a tree of {tree_size} leaves")
    inner = (leaf_index ^ (tree_size - 1)).bit_length()
    return inner, (leaf_index >> inner).bit_count()


def check_inclusion_proof(leaf_index: int, tree_size: int, proof: Sequence[bytes]) -> int:
    """Check that `proof` has the form of an inclusion proof for this leaf and size; no root is checked.

    Returns the number of hashes in its inner part. Raises `ProofInvalid` unless `proof` is a list or tuple
    of 32-byte hashes, exactly as many as the two numbers demand.
    """
    inner, border = inclusion_proof_shape(leaf_index, tree_size)
    _check_proof(proof)
    if len(proof) != inner + border:
        raise ProofInvalid(f"proof has {len(proof)} hashes, this leaf and tree size need {inner + border}")
    return inner


def root_from_inclusion_proof(leaf_index: int, tree_size: int, leaf_hash: bytes, proof: Sequence[bytes]) -> RootHash:
    """Compute the root that `proof` implies for the leaf at `leaf_index` in a tree of `tree_size` leaves.

    Raises `ProofInvalid` when the input cannot be an inclusion proof (RFC 6962 2.1.1): index outside the tree, or
    any hash not 32 bytes, or any other number of hashes than the two numbers demand.
    """
    inner = check_inclusion_proof(leaf_index, tree_size, proof)
    _check_hash("leaf hash", leaf_hash)
    node: bytes = leaf_hash
    for level, sibling in enumerate(proof[:inner]):
        node = node_hash(sibling, node) if (leaf_index >> level) & 1 else node_hash(node, sibling)
    for sibling in proof[inner:]:
        node = node_hash(sibling, node)
    return RootHash(node)


def verify_inclusion(leaf_index: int, tree_size: int, leaf_hash: bytes, proof: Sequence[bytes], root: bytes) -> None:
    """Check that the leaf is at `leaf_index` of the tree with this size and root.

    Hashes are 32 bytes, the proof is ordered from the leaf upwards. Returns `None`; raises `ProofInvalid` on
    anything else, malformed input included.
    """
    _check_hash("root", root)
    if root_from_inclusion_proof(leaf_index, tree_size, leaf_hash, proof) != root:
        raise ProofInvalid(f"inclusion proof of leaf {leaf_index} does not lead to the root of size {tree_size}")


def verify_consistency(size1: int, size2: int, proof: Sequence[bytes], root1: bytes, root2: bytes) -> None:
    """Check that the tree of `size1` leaves is a prefix of the tree of `size2` leaves (RFC 6962 2.1.2).

    Returns `None`; raises `ProofInvalid` on anything else, malformed input included. An empty first tree proves
    nothing and is refused. Equal sizes need an empty proof and equal roots.
    """
    _check_size("first tree size", size1)
    _check_size("second tree size", size2)
    if not isinstance(root1, bytes) or not isinstance(root2, bytes):
        raise ProofInvalid("a root is not a byte string")
    _check_proof(proof)
    if size1 > size2:
        raise ProofInvalid(f"the first tree ({size1} leaves) is larger than the second ({size2})")
    if size1 == 0:
        raise ProofInvalid("every tree extends the empty tree: there is nothing to prove")
    if size1 == size2:
        if proof:
            raise ProofInvalid("trees of equal size need an empty proof")
        if root1 != root2:
            raise ProofInvalid(f"two different roots for the same size {size1}")
        return
    computed1, computed2 = _roots_from_consistency_proof(size1, size2, proof, root1)
    if computed1 != root1:
        raise ProofInvalid(f"consistency proof does not lead to the first root (size {size1})")
    if computed2 != root2:
        raise ProofInvalid(f"consistency proof does not lead to the second root (size {size2})")


def prefix_root(size1: int, size2: int, proof: Sequence[bytes], root2: bytes) -> RootHash:
    """Root of the first `size1` leaves of the tree with `root2`, as a consistency proof into that tree shows it.

    The result is as certain as `root2`, and independent of any root claimed for the first tree: two signed heads that
    disagree with it cannot both be of one log. Raises `ProofInvalid` when the proof does not lead to `root2`, and when
    `size1` is a power of two, because then the proof leaves that very hash out.
    """
    _check_size("first tree size", size1)
    _check_size("second tree size", size2)
    _check_hash("second root", root2)
    _check_proof(proof)
    if not 0 < size1 < size2 or size1 & (size1 - 1) == 0 or not proof:
        raise ProofInvalid(f"a proof from size {size1} to {size2} does not carry its first root")
    computed1, computed2 = _roots_from_consistency_proof(size1, size2, proof, proof[0])
    if computed2 != root2:
        raise ProofInvalid(f"consistency proof does not lead to the second root (size {size2})")
    return RootHash(computed1)


def _roots_from_consistency_proof(size1: int, size2: int, proof: Sequence[bytes], root1: bytes) -> tuple[bytes, bytes]:
    # The proof is an inclusion proof of the node that covers the last full subtree of the first tree: leaf
    # size1 - 1, lifted by the number of levels that subtree is high.
    inner, border = inclusion_proof_shape(size1 - 1, size2)
    lift = (size1 & -size1).bit_length() - 1
    inner -= lift
    if size1 == 1 << lift:
        # The first tree is that subtree, so its root is the seed and the proof does not repeat it.
        _check_hash("first root", root1)
        seed, path = root1, proof
    else:
        if not proof:
            raise ProofInvalid("empty proof between trees of different sizes")
        seed, path = proof[0], proof[1:]
    if len(path) != inner + border:
        raise ProofInvalid(f"proof has {len(proof)} hashes, sizes {size1} and {size2} need another number")
    node1 = node2 = seed
    position = (size1 - 1) >> lift
    for level, sibling in enumerate(path[:inner]):
        if (position >> level) & 1:
            node1 = node_hash(sibling, node1)
            node2 = node_hash(sibling, node2)
        else:
            node2 = node_hash(node2, sibling)
    for sibling in path[inner:]:
        node1 = node_hash(sibling, node1)
        node2 = node_hash(sibling, node2)
    return node1, node2


def _check_size(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_TREE_SIZE:
        # The value stays out of the message: Python refuses to print integers of more than 4300 digits.
        raise ProofInvalid(f"{name} is not a whole number from 0 to 2^63-1")


def _check_hash(name: str, value: object) -> None:
    if not isinstance(value, bytes) or len(value) != HASH_SIZE:
        raise ProofInvalid(f"{name} is not a {HASH_SIZE}-byte string")


def _check_proof(proof: object) -> None:
    # Other sequences may be views of bytes (memoryview), or may change between this check and their use.
    if not isinstance(proof, list | tuple):
        raise ProofInvalid("proof is not a list of hashes")
    for position, sibling in enumerate(proof):
        _check_hash(f"proof hash {position}", sibling)


class MalformedFrontier(ValueError):
    """Size and hashes do not fit together, because the state is damaged."""


class Frontier(Struct, frozen=True):
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
            _check_subtree_hash(each)

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
            _check_subtree_hash(leaf)
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
        _check_subtree_hash(subtree_root)
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


def _check_subtree_hash(value: object) -> None:
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
    """A size whose consistency proof to `tree_size` gives the frontier of `[0, size)`; `None` if the tree is too small.

    A proof from a power of two leaves out that root, and a proof from the whole tree is empty: a size beside it serves.
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
