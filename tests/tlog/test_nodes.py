"""Node coordinates: bundles that cannot belong to one log give it away."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import rfc6962_oracle as oracle
from tlog.merkle import ProofInvalid, leaf_hash
from tlog.nodes import Coordinate, conflicts, full_subtrees

LEAVES = [b"leaf %d" % index for index in range(300)]


def fixed_by(index: int, leaves: list[bytes]) -> dict[Coordinate, bytes]:
    proof = oracle.path(index, leaves)
    return dict(full_subtrees(index, len(leaves), leaf_hash(leaves[index]), proof, oracle.mth(leaves)))


def subtree(place: Coordinate, leaves: list[bytes]) -> bytes:
    level, index = place
    return oracle.mth(leaves[index << level : (index + 1) << level])


def test_every_hash_is_the_subtree_its_place_names() -> None:
    for size in range(1, 50):
        leaves = LEAVES[:size]
        for index in range(size):
            found = fixed_by(index, leaves)
            assert found[0, index] == leaf_hash(leaves[index])
            for (level, number), value in found.items():
                assert (number + 1) << level <= size
                assert value == subtree((level, number), leaves)


def test_a_proof_fixes_every_full_sibling_and_every_full_subtree_above_its_leaf() -> None:
    for size in range(1, 50):
        for index in range(size):
            expected = {
                (level, place)
                for level in range(7)
                for place in (index >> level, index >> level ^ 1)
                if (place + 1) << level <= size
            }
            assert set(fixed_by(index, LEAVES[:size])) == expected


@given(st.integers(1, 300), st.integers(1, 300), st.data())
@settings(max_examples=60, deadline=None)
def test_two_proofs_of_one_log_never_conflict(size1: int, size2: int, data: st.DataObject) -> None:
    first = fixed_by(data.draw(st.integers(0, size1 - 1)), LEAVES[:size1])
    second = fixed_by(data.draw(st.integers(0, size2 - 1)), LEAVES[:size2])
    assert conflicts(first, second) == ()


@given(st.integers(2, 200), st.data())
@settings(max_examples=60, deadline=None)
def test_two_views_that_differ_in_a_leaf_conflict_wherever_their_proofs_meet(size: int, data: st.DataObject) -> None:
    changed = data.draw(st.integers(0, size - 1))
    other = [*LEAVES[:changed], b"something else", *LEAVES[changed + 1 : size]]
    index = data.draw(st.integers(0, size - 1))
    honest, forked = fixed_by(index, LEAVES[:size]), fixed_by(index, other)
    meets = [place for place in honest if place[1] << place[0] <= changed < (place[1] + 1) << place[0]]
    assert conflicts(honest, forked) == tuple(sorted(meets))
    assert conflicts(honest, honest) == ()


def test_a_proof_that_does_not_verify_fixes_nothing() -> None:
    leaves = LEAVES[:9]
    proof, root = oracle.path(4, leaves), oracle.mth(leaves)
    assert full_subtrees(4, 9, leaf_hash(leaves[4]), proof, root)
    wrong_calls = [
        (5, 9, leaf_hash(leaves[4]), proof, root),
        (4, 9, leaf_hash(leaves[5]), proof, root),
        (4, 9, leaf_hash(leaves[4]), proof[:-1], root),
        (4, 9, leaf_hash(leaves[4]), proof, oracle.mth(LEAVES[:8])),
    ]
    for wrong in wrong_calls:
        with pytest.raises(ProofInvalid):
            full_subtrees(*wrong)
