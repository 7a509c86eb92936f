"""Proofs and tiles are exactly those of RFC 6962 and tlog-tiles."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from log_lite.tree import OutsideTree, Tree
from tests.support import rfc6962_oracle as oracle
from tlog.merkle import leaf_hash, verify_consistency, verify_inclusion
from tlog.tiles import frontier_from_tiles, parse_hash_tile, partial_width, right_edge

LEAVES = [b"leaf %d" % i for i in range(600)]
WHOLE = Tree(leaf_hash(leaf) for leaf in LEAVES)


@pytest.mark.parametrize("size", range(70))
def test_every_proof_of_a_small_tree_equals_the_recursive_definition(size: int) -> None:
    leaves = LEAVES[:size]
    assert WHOLE.root(size) == oracle.mth(leaves)
    for index in range(size):
        assert WHOLE.inclusion_proof(index, size) == oracle.path(index, leaves)
    for first in range(1, size + 1):
        assert WHOLE.consistency_proof(first, size) == oracle.proof(first, leaves)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_proofs_across_tile_edges_verify(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, len(LEAVES)))
    first, index = data.draw(st.integers(1, size)), data.draw(st.integers(0, size - 1))
    root = WHOLE.root(size)
    verify_inclusion(index, size, WHOLE.leaf(index), WHOLE.inclusion_proof(index, size), root)
    verify_consistency(first, size, WHOLE.consistency_proof(first, size), WHOLE.root(first), root)


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 511, 512, 513, 600])
def test_tiles_of_a_size_fold_to_its_root(size: int) -> None:
    edge = {
        level: parse_hash_tile(WHOLE.tile(level, index, width, size), width) for level, index, width in right_edge(size)
    }
    assert frontier_from_tiles(size, edge).root() == WHOLE.root(size)


def test_growing_does_not_change_what_was_published() -> None:
    tree = Tree()
    roots = []
    for leaf in LEAVES[:300]:
        tree.extend([leaf_hash(leaf)])
        roots.append(tree.root())
    assert [tree.root(size) for size in range(1, 301)] == roots
    assert Tree().root() == oracle.mth([])


@pytest.mark.parametrize(
    ("level", "index", "width", "size"),
    [
        (0, 0, 256, 255),
        (0, 1, 1, 256),
        (0, 0, 0, 10),
        (0, 0, 257, 600),
        (1, 0, 1, 255),
        (0, 2, 89, 600),
        (0, 0, 1, 601),
    ],
)
def test_tiles_outside_the_tree_are_refused(level: int, index: int, width: int, size: int) -> None:
    assert len(WHOLE.tile(0, 2, partial_width(0, 600), 600)) == 88 * 32, "control: the real partial tile"
    with pytest.raises(OutsideTree):
        WHOLE.tile(level, index, width, size)


def test_questions_outside_the_tree_are_refused() -> None:
    WHOLE.inclusion_proof(599, 600)
    for ask in (
        lambda: WHOLE.inclusion_proof(600, 600),
        lambda: WHOLE.inclusion_proof(0, 601),
        lambda: WHOLE.inclusion_proof(-1, 5),
        lambda: WHOLE.consistency_proof(5, 4),
        lambda: WHOLE.consistency_proof(5, 601),
        lambda: WHOLE.root(601),
        lambda: WHOLE.leaf(600),
    ):
        with pytest.raises(OutsideTree):
            ask()
    with pytest.raises(ValueError, match="32 bytes"):
        Tree([b"short"])
