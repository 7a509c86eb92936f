"""Node coordinates: the hashes that a verified inclusion proof fixes permanently.

A full subtree never changes again, so its root is a constant of the log at a known place. Two proofs that verify
against signed roots of one log and give two hashes for one place show a fork without a request to the log. Every
user's bundle is such a proof.
"""

from collections.abc import Mapping, Sequence

from tlog.merkle import Frontier, NodeHash, check_inclusion_proof, node_hash, verify_inclusion

# Place of a full subtree, (level, index): it spans the leaves [index << level, (index + 1) << level).
Coordinate = tuple[int, int]


def full_subtrees(
    leaf_index: int, tree_size: int, leaf_hash: bytes, proof: Sequence[bytes], root: bytes
) -> dict[Coordinate, NodeHash]:
    """Verify an inclusion proof and return the root of every full subtree it fixes, the leaf itself included.

    Ragged subtrees (those that reach past the last leaf) are left out: the next append changes them. Raises
    `ProofInvalid`. The result speaks of the log only if its key signed `root` at `tree_size`.
    """
    verify_inclusion(leaf_index, tree_size, leaf_hash, proof, root)
    inner = check_inclusion_proof(leaf_index, tree_size, proof)
    found: dict[Coordinate, NodeHash] = {}

    def fix(level: int, index: int, value: bytes) -> None:
        if (index + 1) << level <= tree_size:
            found[level, index] = NodeHash(value)

    fix(0, leaf_index, leaf_hash)
    node: bytes = leaf_hash
    for level, sibling in enumerate(proof[:inner]):
        index = leaf_index >> level
        fix(level, index ^ 1, sibling)
        node = node_hash(sibling, node) if index & 1 else node_hash(node, sibling)
        fix(level + 1, index >> 1, node)
    # On the right border a level without a left sibling adds no hash: the ragged node stands for its parent as well.
    level = inner
    for sibling in proof[inner:]:
        while not (leaf_index >> level) & 1:
            level += 1
        index = leaf_index >> level
        fix(level, index ^ 1, sibling)
        node = node_hash(sibling, node)
        level += 1
        fix(level, index >> 1, node)
    return found


def frontier_nodes(frontier: Frontier) -> dict[Coordinate, NodeHash]:
    """Places of a frontier's subtrees, with their roots. They speak of the log only if the frontier was proven."""
    found: dict[Coordinate, NodeHash] = {}
    start = 0
    levels = (level for level in range(frontier.size.bit_length() - 1, -1, -1) if frontier.size >> level & 1)
    for level, value in zip(levels, frontier.hashes, strict=True):
        found[level, start >> level] = NodeHash(value)
        start += 1 << level
    return found


def conflicts(known: Mapping[Coordinate, bytes], seen: Mapping[Coordinate, bytes]) -> tuple[Coordinate, ...]:
    """Return the places for which the two give different hashes: each one shows a fork. Lowest level first."""
    return tuple(sorted(place for place, value in seen.items() if known.get(place, value) != value))
