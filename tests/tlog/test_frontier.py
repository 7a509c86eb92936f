"""The compact range: a position that can be stored, continued and proven."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import rfc6962_oracle as oracle
from tlog.merkle import (
    EMPTY_ROOT,
    MAX_TREE_SIZE,
    Frontier,
    MalformedFrontier,
    ProofInvalid,
    consistency_ranges,
    frontier_before,
    frontier_of_ranges,
    leaf_hash,
    root_of_ranges,
    size_beside,
    subtree_root,
)

LEAVES = [b"leaf %d" % index for index in range(1100)]
HASHES = [leaf_hash(each) for each in LEAVES]


def test_folding_gives_the_root_the_rfc_defines_for_every_small_size() -> None:
    frontier = Frontier()
    assert frontier.root() == EMPTY_ROOT == oracle.mth([])
    for size in range(1, 71):
        frontier = frontier.extended([HASHES[size - 1]])
        assert frontier.size == size
        assert frontier.root() == oracle.mth(LEAVES[:size])


@pytest.mark.parametrize("size", [127, 128, 255, 256, 257, 511, 512, 513, 1000])
def test_folding_gives_the_root_the_rfc_defines_around_tile_edges(size: int) -> None:
    assert Frontier().extended(HASHES[:size]).root() == oracle.mth(LEAVES[:size])


@given(st.lists(st.integers(0, 300), max_size=6))
@settings(max_examples=40, deadline=None)
def test_the_result_does_not_depend_on_how_leaves_are_batched(batches: list[int]) -> None:
    frontier, position = Frontier(), 0
    for batch in batches:
        frontier = frontier.extended(HASHES[position : position + batch])
        position = min(position + batch, len(HASHES))
    assert frontier == Frontier().extended(HASHES[:position])


@given(st.integers(0, 700), st.data())
@settings(max_examples=40, deadline=None)
def test_stitching_an_aligned_subtree_equals_appending_its_leaves(start: int, data: st.DataObject) -> None:
    before = Frontier().extended(HASHES[:start])
    level = data.draw(st.integers(0, 8))
    leaves = HASHES[start : start + (1 << level)]
    if start % (1 << level):
        with pytest.raises(MalformedFrontier):
            before.stitched(level, subtree_root(leaves))
    else:
        assert before.stitched(level, subtree_root(leaves)) == before.extended(leaves)


def test_the_left_siblings_of_a_leaf_are_the_frontier_before_it() -> None:
    for size in [*range(1, 70), 255, 256, 257, 511, 513]:
        for index in range(size) if size < 70 else (0, 1, 127, 128, 254, size - 1):
            proof = oracle.path(index, LEAVES[:size])
            assert frontier_before(index, size, proof) == Frontier().extended(HASHES[:index])


def test_a_proof_of_another_shape_gives_no_frontier() -> None:
    proof = oracle.path(4, LEAVES[:7])
    assert frontier_before(4, 7, proof).size == 4
    wrong = [(4, 7, proof[:-1]), (4, 7, [*proof, proof[0]]), (7, 7, proof), (4, 0, []), (-1, 7, proof)]
    for index, size, hashes in wrong:
        with pytest.raises(ProofInvalid):
            frontier_before(index, size, hashes)
    no_proofs: list[Any] = [[*proof[:-1], b"short"], None, (each for each in proof)]
    for no_proof in no_proofs:
        with pytest.raises(ProofInvalid):
            frontier_before(4, 7, no_proof)


@given(st.integers(0, 1100))
@settings(max_examples=40, deadline=None)
def test_reading_back_what_was_written_is_the_identity(size: int) -> None:
    frontier = Frontier().extended(HASHES[:size])
    assert Frontier.from_bytes(frontier.size, frontier.to_bytes()) == frontier


def test_a_damaged_state_is_an_error_and_never_a_first_start() -> None:
    good = Frontier().extended(HASHES[:6])
    raw = good.to_bytes()
    assert Frontier.from_bytes(6, raw) == good
    for size, stored in [
        (6, b""),
        (6, raw[:-1]),
        (6, raw + b"\x00"),
        (7, raw),
        (0, raw),
        (-1, raw),
        (8, b""),
        (6, raw[:32]),
    ]:
        with pytest.raises(MalformedFrontier):
            Frontier.from_bytes(size, stored)
    for hostile in (None, "6", 6.0, True, 1 << 63, 10**5000):
        with pytest.raises(MalformedFrontier):
            Frontier(hostile, good.hashes)  # type: ignore[arg-type]
    for hashes in (None, list(good.hashes), ("x" * 32, "y" * 32), (b"", b""), (None, None)):
        with pytest.raises(MalformedFrontier):
            Frontier(6, hashes)  # type: ignore[arg-type]
    with pytest.raises(MalformedFrontier):
        Frontier.from_bytes(6, None)  # type: ignore[arg-type]


def test_only_whole_hashes_are_appended() -> None:
    good = Frontier().extended(HASHES[:2])
    assert good.extended([HASHES[2], HASHES[3]]).size == 4
    for wrong in (b"", bytes(31), bytes(33), "x" * 32, None):
        with pytest.raises(MalformedFrontier):
            good.extended([HASHES[2], wrong])  # type: ignore[list-item]
        with pytest.raises(MalformedFrontier):
            good.stitched(1, wrong)  # type: ignore[arg-type]
    for level in (-1, 2, 63, 64, 10**9):
        with pytest.raises(MalformedFrontier):
            good.stitched(level, HASHES[2])


def test_a_log_cannot_grow_past_its_largest_size() -> None:
    full = Frontier(MAX_TREE_SIZE, (HASHES[0],) * 63)
    with pytest.raises(MalformedFrontier):
        full.extended([HASHES[1]])


def test_a_subtree_is_full_or_refused() -> None:
    for level in range(9):
        assert subtree_root(HASHES[: 1 << level]) == oracle.mth(LEAVES[: 1 << level])
    for size in (0, 3, 5, 255, 257):
        with pytest.raises(ValueError, match="no full subtree"):
            subtree_root(HASHES[:size])


def test_a_consistency_proof_gives_the_frontier_of_every_size_without_any_leaf() -> None:
    for tree_size in range(1, 70):
        tree = oracle.TreeOracle(LEAVES[:tree_size])
        for size in range(1, tree_size + 1):
            beside = size_beside(size, tree_size)
            if beside is None:
                assert tree_size <= 4 or size <= 2, (size, tree_size)
                continue
            held = dict(
                zip(consistency_ranges(beside, tree_size), tree.consistency_proof(beside, tree_size), strict=True)
            )
            assert root_of_ranges(0, tree_size, held) == oracle.mth(LEAVES[:tree_size])
            assert frontier_of_ranges(size, held) == Frontier().extended(HASHES[:size])


def test_ranges_that_do_not_make_up_a_frontier_are_refused() -> None:
    with pytest.raises(KeyError):
        frontier_of_ranges(3, {(0, 2): HASHES[0]})
    assert size_beside(2**62, 2**63 - 1) == 2**62 + 1
