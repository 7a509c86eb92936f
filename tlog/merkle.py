"""Merkle tree proofs as RFC 6962 section 2.1 defines them, for SHA-256.

Leaf and interior hashes are domain separated, so no interior node can pass for a leaf. A proof that verifies says
exactly one thing: *if* the root is right, the statement holds. Whether the root is right (a signed tree head by the
expected key) is not checked here.
"""

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Final, NewType, cast

LeafHash = NewType("LeafHash", bytes)
RootHash = NewType("RootHash", bytes)
NodeHash = NewType("NodeHash", bytes)

HASH_SIZE: Final = 32
MAX_TREE_SIZE: Final = (1 << 63) - 1

# RFC 6962 2.1: "The hash of an empty list is the hash of an empty string".
EMPTY_ROOT: Final = RootHash(sha256(b"").digest())


class ProofInvalid(Exception):
    """A proof does not prove its claim, or is malformed."""


def leaf_hash(data: bytes) -> LeafHash:
    """Hash of one leaf, 32 bytes (RFC 6962 2.1: ``SHA-256(0x00 || d(0))``)."""
    return LeafHash(sha256(b"\x00" + data).digest())


def leaf_hashes(leaves: Iterable[bytes]) -> list[LeafHash]:
    """`leaf_hash` of each of many leaves, without a call for each: a follower hashes every byte of a log.

    Going on from the hash of the prefix spares copying every leaf behind a zero byte.
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

    Returns the number of hashes in its inner part. Raises `ProofInvalid` when it is no list or tuple of exactly as many
    32-byte hashes as the two numbers demand.
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
