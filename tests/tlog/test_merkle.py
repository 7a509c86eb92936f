"""RFC 6962 proofs: what verifies is true, and nothing else verifies."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import rfc6962_oracle as oracle
from tests.tlog import vectors
from tests.tlog.refusal import refused
from tlog.merkle import (
    EMPTY_ROOT,
    MAX_TREE_SIZE,
    ProofInvalid,
    leaf_hash,
    leaf_hashes,
    prefix_root,
    root_from_inclusion_proof,
    verify_consistency,
    verify_inclusion,
)

LEAVES = [b"leaf %d" % index for index in range(600)]
SMALL = 70
SPOTS = (127, 128, 129, 255, 256, 257, 511, 512, 513)


def flipped(value: bytes, bit: int) -> bytes:
    return bytes([*value[: bit // 8], value[bit // 8] ^ (1 << bit % 8), *value[bit // 8 + 1 :]])


def test_the_oracle_and_the_fast_code_give_the_hand_computed_hashes() -> None:
    known = vectors.merkle()
    leaves = [bytes.fromhex(each) for each in known["leaves"]]
    assert [leaf_hash(each).hex() for each in leaves] == known["leaf_hashes"]
    assert [oracle.mth(leaves[:size]).hex() for size in range(8)] == known["roots"]
    assert [each.hex() for each in leaf_hashes(leaves)] == known["leaf_hashes"]
    assert EMPTY_ROOT.hex() == known["roots"][0]


@pytest.mark.parametrize("case", vectors.merkle()["inclusion"], ids=lambda c: f"leaf{c['leaf']}-of-{c['size']}")
def test_hand_computed_inclusion_proofs_verify(case: dict[str, Any]) -> None:
    known = vectors.merkle()
    proof = [bytes.fromhex(each) for each in case["proof"]]
    leaf, root = bytes.fromhex(known["leaf_hashes"][case["leaf"]]), bytes.fromhex(known["roots"][case["size"]])
    verify_inclusion(case["leaf"], case["size"], leaf, proof, root)
    assert oracle.path(case["leaf"], [bytes.fromhex(each) for each in known["leaves"][: case["size"]]]) == proof


@pytest.mark.parametrize("case", vectors.merkle()["consistency"], ids=lambda c: f"{c['size1']}-to-{c['size2']}")
def test_hand_computed_consistency_proofs_verify(case: dict[str, Any]) -> None:
    known = vectors.merkle()
    proof = [bytes.fromhex(each) for each in case["proof"]]
    roots = [bytes.fromhex(known["roots"][case[size]]) for size in ("size1", "size2")]
    verify_consistency(case["size1"], case["size2"], proof, *roots)
    assert oracle.proof(case["size1"], [bytes.fromhex(each) for each in known["leaves"][: case["size2"]]]) == proof


def test_every_leaf_of_every_small_tree_is_proven_as_the_rfc_defines_it() -> None:
    for size in range(1, SMALL + 1):
        leaves, root = LEAVES[:size], oracle.mth(LEAVES[:size])
        for index in range(size):
            verify_inclusion(index, size, leaf_hash(leaves[index]), oracle.path(index, leaves), root)


def test_every_prefix_of_every_small_tree_is_proven_as_the_rfc_defines_it() -> None:
    roots = [oracle.mth(LEAVES[:size]) for size in range(SMALL + 1)]
    for size2 in range(1, SMALL + 1):
        for size1 in range(1, size2 + 1):
            proof = oracle.proof(size1, LEAVES[:size2]) if size1 < size2 else []
            verify_consistency(size1, size2, proof, roots[size1], roots[size2])


@pytest.mark.parametrize("size", SPOTS)
def test_trees_around_tile_edges_are_proven_as_the_rfc_defines_it(size: int) -> None:
    leaves, root = LEAVES[:size], oracle.mth(LEAVES[:size])
    for index in {0, 1, 127, 128, 254, 255, 256, size // 2, size - 2, size - 1} & set(range(size)):
        verify_inclusion(index, size, leaf_hash(leaves[index]), oracle.path(index, leaves), root)
    for prefix in {1, 2, 127, 128, 255, 256, size // 2, size - 1} & set(range(1, size)):
        verify_consistency(prefix, size, oracle.proof(prefix, leaves), oracle.mth(leaves[:prefix]), root)


def test_a_proof_places_its_leaf_at_one_index_only() -> None:
    for size in range(2, 34):
        leaves, root = LEAVES[:size], oracle.mth(LEAVES[:size])
        for index in range(size):
            proof, leaf = oracle.path(index, leaves), leaf_hash(leaves[index])
            verify_inclusion(index, size, leaf, proof, root)
            for other in set(range(size)) - {index}:
                with pytest.raises(ProofInvalid):
                    verify_inclusion(other, size, leaf, proof, root)


def test_a_consistency_proof_starts_from_one_size_only() -> None:
    roots = [oracle.mth(LEAVES[:size]) for size in range(34)]
    for size2 in range(2, 34):
        for size1 in range(1, size2):
            proof = oracle.proof(size1, LEAVES[:size2])
            for other in set(range(1, size2 + 1)) - {size1}:
                with pytest.raises(ProofInvalid):
                    verify_consistency(other, size2, proof, roots[other], roots[size2])


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_flipping_any_one_bit_breaks_an_inclusion_proof(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 300))
    index = data.draw(st.integers(0, size - 1))
    leaf, root, proof = leaf_hash(LEAVES[index]), oracle.mth(LEAVES[:size]), oracle.path(index, LEAVES[:size])
    verify_inclusion(index, size, leaf, proof, root)
    parts = [leaf, root, *proof]
    which, bit = data.draw(st.integers(0, len(parts) - 1)), data.draw(st.integers(0, 255))
    parts[which] = flipped(parts[which], bit)
    with pytest.raises(ProofInvalid):
        verify_inclusion(index, size, parts[0], parts[2:], parts[1])


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_flipping_any_one_bit_breaks_a_consistency_proof(data: st.DataObject) -> None:
    size2 = data.draw(st.integers(1, 300))
    size1 = data.draw(st.integers(1, size2))
    proof = oracle.proof(size1, LEAVES[:size2])
    parts = [oracle.mth(LEAVES[:size1]), oracle.mth(LEAVES[:size2]), *proof]
    verify_consistency(size1, size2, proof, parts[0], parts[1])
    which, bit = data.draw(st.integers(0, len(parts) - 1)), data.draw(st.integers(0, 255))
    parts[which] = flipped(parts[which], bit)
    with pytest.raises(ProofInvalid):
        verify_consistency(size1, size2, parts[2:], parts[0], parts[1])


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_proof_with_a_hash_more_less_or_moved_is_refused(data: st.DataObject) -> None:
    size = data.draw(st.integers(3, 300))
    index = data.draw(st.integers(0, size - 1))
    root, proof = oracle.mth(LEAVES[:size]), oracle.path(index, LEAVES[:size])
    at = data.draw(st.integers(0, len(proof) - 1))
    longer = [*proof[:at], proof[at], *proof[at:]]
    shorter = [*proof[:at], *proof[at + 1 :]]
    moved = [*proof[1:], proof[0]] if len(proof) > 1 else [root]
    for wrong in (longer, shorter, moved):
        with pytest.raises(ProofInvalid):
            verify_inclusion(index, size, leaf_hash(LEAVES[index]), wrong, root)


LEAF, PROOF, ROOT = leaf_hash(LEAVES[4]), oracle.path(4, LEAVES[:7]), oracle.mth(LEAVES[:7])
ROOT1, STEPS = oracle.mth(LEAVES[:3]), oracle.proof(3, LEAVES[:7])
HOSTILE: list[tuple[str, object]] = [
    ("nothing", None),
    ("text", "0"),
    ("float", 4.0),
    ("nan", float("nan")),
    ("bool", True),
    ("negative", -1),
    ("2^63", 1 << 63),
    ("2^64-1", (1 << 64) - 1),
    ("unprintably huge", 10**5000),
    ("bytes", b"\x04"),
    ("list", []),
    ("dict", {}),
    ("object", object()),
]
HOSTILE_HASHES: list[tuple[str, object]] = [
    ("nothing", None),
    ("empty", b""),
    ("31 bytes", bytes(31)),
    ("33 bytes", bytes(33)),
    ("64 bytes", bytes(64)),
    ("text of 32", "0" * 32),
    ("bytearray", bytearray(LEAF)),
    ("memoryview", memoryview(LEAF)),
    ("number", 7),
    ("list of numbers", list(LEAF)),
]
HOSTILE_PROOFS: list[tuple[str, object]] = [
    ("nothing", None),
    ("text", "abc"),
    ("bytes", b"".join(PROOF)),
    ("bytearray", bytearray(b"".join(PROOF))),
    ("memoryview", memoryview(b"".join(PROOF))),
    ("number", 3),
    ("generator", (each for each in PROOF)),
    ("set", set(PROOF)),
    ("dict", dict.fromkeys(PROOF)),
    ("range", range(len(PROOF))),
    ("list of text", [each.hex() for each in PROOF]),
    ("list of nothing", [None] * len(PROOF)),
    ("list of lists", [list(each) for each in PROOF]),
    ("one hash short", [*PROOF[:-1], PROOF[-1][:31]]),
    ("one hash long", [PROOF[0] + b"\x00", *PROOF[1:]]),
    ("empty", []),
    ("an empty hash in front", [b"", *PROOF]),
    ("ten thousand hashes", [ROOT] * 10_000),
]


def every_row_is_refused(
    verify: Callable[..., object], arguments: list[Any], position: int, table: list[tuple[str, object]]
) -> None:
    verify(*arguments)  # the control case
    for name, value in table:
        wrong = [*arguments[:position], value, *arguments[position + 1 :]]
        refused(f"argument {position} as {name} was accepted", ProofInvalid, verify, *wrong)


@pytest.mark.parametrize(
    ("position", "table"),
    [(0, HOSTILE), (1, HOSTILE), (2, HOSTILE_HASHES), (3, HOSTILE_PROOFS), (4, HOSTILE_HASHES)],
    ids=["index", "size", "leaf", "proof", "root"],
)
def test_inclusion_answers_any_malformed_argument_with_proof_invalid(
    position: int, table: list[tuple[str, object]]
) -> None:
    every_row_is_refused(verify_inclusion, [4, 7, LEAF, PROOF, ROOT], position, table)


@pytest.mark.parametrize(
    ("position", "table"),
    [(0, HOSTILE), (1, HOSTILE), (2, HOSTILE_PROOFS), (3, HOSTILE_HASHES), (4, HOSTILE_HASHES)],
    ids=["size1", "size2", "proof", "root1", "root2"],
)
def test_consistency_answers_any_malformed_argument_with_proof_invalid(
    position: int, table: list[tuple[str, object]]
) -> None:
    every_row_is_refused(verify_consistency, [3, 7, STEPS, ROOT1, ROOT], position, table)


@given(
    st.lists(st.one_of(st.none(), st.integers(), st.binary(max_size=40), st.text(max_size=4)), max_size=6), st.data()
)
@settings(max_examples=100, deadline=None)
def test_no_input_raises_anything_else(proof: list[Any], data: st.DataObject) -> None:
    anything = st.one_of(
        st.none(), st.booleans(), st.integers(-3, 9), st.integers(), st.binary(max_size=33), st.floats()
    )
    first, second, third, fourth = (data.draw(anything) for _ in range(4))
    for verify, arguments in (
        (verify_inclusion, (first, second, third, proof, fourth)),
        (verify_consistency, (first, second, proof, third, fourth)),
    ):
        try:
            verify(*arguments)
        except ProofInvalid:
            continue


def test_no_leaf_is_in_the_empty_tree_and_none_behind_the_end() -> None:
    verify_inclusion(0, 1, LEAF, [], LEAF)
    for index, size in ((0, 0), (1, 0), (1, 1), (7, 7), (8, 7), (MAX_TREE_SIZE, MAX_TREE_SIZE)):
        with pytest.raises(ProofInvalid):
            verify_inclusion(index, size, LEAF, [], LEAF)


def test_the_largest_tree_has_its_proofs_too() -> None:
    root = root_from_inclusion_proof(MAX_TREE_SIZE - 1, MAX_TREE_SIZE, LEAF, [ROOT] * 62)
    verify_inclusion(MAX_TREE_SIZE - 1, MAX_TREE_SIZE, LEAF, [ROOT] * 62, root)


def test_equal_sizes_compare_roots_and_need_an_empty_proof() -> None:
    verify_consistency(7, 7, [], ROOT, ROOT)
    verify_consistency(7, 7, (), ROOT, ROOT)
    verify_consistency(1, 1, [], b"any two equal roots", b"any two equal roots")
    for proof, root2 in (([], ROOT1), ([ROOT], ROOT), (PROOF, ROOT), ([b""], ROOT)):
        with pytest.raises(ProofInvalid):
            verify_consistency(7, 7, proof, ROOT, root2)


def test_a_consistency_proof_shows_the_first_root_whatever_anybody_claims_it_is() -> None:
    for size2 in range(2, 40):
        for size1 in range(1, size2):
            proof, root2 = oracle.proof(size1, LEAVES[:size2]), oracle.mth(LEAVES[:size2])
            if size1 & (size1 - 1):
                assert prefix_root(size1, size2, proof, root2) == oracle.mth(LEAVES[:size1])
                refused(
                    "a bit of the proof",
                    ProofInvalid,
                    prefix_root,
                    size1,
                    size2,
                    [flipped(proof[0], 3), *proof[1:]],
                    root2,
                )
            else:  # the proof starts from the first root and so leaves it out
                refused("a power of two", ProofInvalid, prefix_root, size1, size2, proof, root2)


@pytest.mark.parametrize(
    ("position", "table"),
    [(0, HOSTILE), (1, HOSTILE), (2, HOSTILE_PROOFS), (3, HOSTILE_HASHES)],
    ids=["size1", "size2", "proof", "root2"],
)
def test_the_first_root_is_never_read_from_malformed_arguments(position: int, table: list[tuple[str, object]]) -> None:
    every_row_is_refused(prefix_root, [3, 7, STEPS, ROOT], position, table)


def test_an_empty_first_tree_proves_nothing_and_is_refused() -> None:
    verify_consistency(1, 1, [], ROOT, ROOT)
    for size2 in (0, 1, 7):
        for proof in ([], [ROOT]):
            with pytest.raises(ProofInvalid):
                verify_consistency(0, size2, proof, EMPTY_ROOT, EMPTY_ROOT)


def test_a_log_cannot_shrink() -> None:
    verify_consistency(3, 7, STEPS, ROOT1, ROOT)
    with pytest.raises(ProofInvalid):
        verify_consistency(7, 3, STEPS, ROOT, ROOT1)


def test_an_interior_node_cannot_pass_for_a_leaf() -> None:
    left, right = leaf_hash(b"a"), leaf_hash(b"b")
    root = oracle.mth([b"a", b"b"])
    verify_inclusion(0, 2, left, [right], root)
    assert leaf_hash(left + right) != root
