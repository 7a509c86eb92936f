"""`verify.advance`: only proof moves a trusted head, and only two signatures that contradict each other are blamed."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.model.errors import LogMisbehaved, NotShown
from monitor.model.log_source import LogApi, LogIdentity, SignedHead, TrustedHead
from monitor.proof.trusted_head import advance, check_frontier_in_head, contradicting_prefix, sizes_to_prove
from tests.support.rfc6962_oracle import TreeOracle
from tlog.merkle import Frontier, ProofInvalid, RootHash, leaf_hash, prefix_root

LOG = LogIdentity("log", LogApi.REKOR_V2, "log.example.org", "log.example.org", b"spki")
V1 = LogIdentity("log", LogApi.REKOR_V1, "log.example.org", "log.example.org - 1", b"spki")
HONEST = TreeOracle([b"leaf %d" % i for i in range(40)])
FORKED = TreeOracle([b"leaf %d" % i for i in range(10)] + [b"other %d" % i for i in range(10, 40)])


def head(size: int, tree: TreeOracle = HONEST, *, final: bool = False) -> SignedHead:
    return SignedHead("log", size, RootHash(tree.root(size)), b"note %d" % size, final=final)


def test_the_first_head_is_taken_as_it_is() -> None:
    assert advance(None, head(5), (), LOG) == TrustedHead(head(5))


def test_a_proven_larger_head_becomes_the_trusted_one() -> None:
    for size1 in range(1, 40):
        for size2 in range(size1 + 1, 41):
            proof = HONEST.consistency_proof(size1, size2)
            assert advance(TrustedHead(head(size1)), head(size2), proof, LOG).head.size == size2


def test_everything_extends_the_empty_tree() -> None:
    assert sizes_to_prove(TrustedHead(head(0)), head(9)) is None
    assert advance(TrustedHead(head(0)), head(9), (), LOG).head.size == 9


def test_a_proven_smaller_head_is_a_lagging_replica_and_moves_nothing() -> None:
    known = TrustedHead(head(30))
    assert sizes_to_prove(known, head(12)) == (12, 30)
    assert advance(known, head(12), HONEST.consistency_proof(12, 30), LOG) == known
    assert advance(known, head(0), (), LOG) == known


def test_two_roots_for_one_size_are_a_fork() -> None:
    with pytest.raises(LogMisbehaved) as caught:
        advance(TrustedHead(head(20)), head(20, FORKED), (), LOG)
    assert caught.value.kind == "log-forked"
    assert caught.value.evidence.heads == (b"note 20", b"note 20")


@pytest.mark.parametrize(("size1", "size2"), [(20, 30), (11, 40), (30, 39), (13, 14)])
def test_an_honest_proof_out_of_another_history_convicts_the_log_at_once(size1: int, size2: int) -> None:
    with pytest.raises(LogMisbehaved) as caught:
        advance(TrustedHead(head(size1)), head(size2, FORKED), FORKED.consistency_proof(size1, size2), LOG)
    assert caught.value.kind == "log-forked"
    assert FORKED.root(size1).hex() in caught.value.evidence.detail


def test_the_same_holds_when_the_smaller_head_is_the_new_one() -> None:
    with pytest.raises(LogMisbehaved):
        advance(TrustedHead(head(30)), head(20, FORKED), HONEST.consistency_proof(20, 30), LOG)


def test_a_power_of_two_is_convicted_with_a_frontier() -> None:
    proof = FORKED.consistency_proof(16, 30)
    with pytest.raises(NotShown) as caught:
        advance(TrustedHead(head(16)), head(30, FORKED), proof, LOG)
    assert caught.value.evidence.kind == "log-inconsistent"
    frontier = Frontier().extended(leaf_hash(leaf) for leaf in FORKED.leaves[:16])
    convicted = contradicting_prefix(head(16), head(30, FORKED), frontier, proof, LOG)
    assert convicted is not None
    assert convicted.kind == "log-forked"
    honest = Frontier().extended(leaf_hash(leaf) for leaf in HONEST.leaves[:16])
    assert contradicting_prefix(head(16), head(30), honest, HONEST.consistency_proof(16, 30), LOG) is None
    assert contradicting_prefix(head(16), head(30), frontier, HONEST.consistency_proof(16, 30), LOG) is None


def _mangled(proof: list[bytes]) -> dict[str, list[bytes]]:
    return {
        "empty": [],
        "one hash too few": proof[:-1],
        "one hash too many": [*proof, proof[0]],
        "reordered": proof[::-1],
        "a bit flipped": [bytes([proof[0][0] ^ 1]) + proof[0][1:], *proof[1:]],
        "a short hash": [proof[0][:31], *proof[1:]],
        "from another size": HONEST.consistency_proof(12, 30),
    }


@pytest.mark.parametrize("name", _mangled([b"x" * 32]).keys())
def test_a_bad_proof_moves_nothing_and_blames_nobody_yet(name: str) -> None:
    good = HONEST.consistency_proof(13, 30)
    assert advance(TrustedHead(head(13)), head(30), good, LOG).head.size == 30  # the control case
    with pytest.raises(NotShown) as caught:
        advance(TrustedHead(head(13)), head(30), _mangled(good)[name], LOG)
    assert caught.value.evidence.kind == "log-inconsistent"


def test_growth_after_a_freeze_contradicts_it() -> None:
    known = TrustedHead(head(20, final=True))
    assert advance(known, head(20, final=True), (), LOG).head.final
    with pytest.raises(LogMisbehaved) as caught:
        advance(known, head(21), HONEST.consistency_proof(20, 21), LOG)
    assert caught.value.kind == "log-unfrozen"


def test_a_freeze_below_what_was_signed_contradicts_it_too() -> None:
    with pytest.raises(LogMisbehaved) as caught:
        advance(TrustedHead(head(30)), head(20, final=True), HONEST.consistency_proof(20, 30), LOG)
    assert caught.value.kind == "log-unfrozen"


def test_a_freeze_line_that_is_missing_from_an_old_copy_does_not_thaw_the_log() -> None:
    assert advance(TrustedHead(head(20, final=True)), head(20), (), LOG).head.final


def test_rekor_v1_never_signed_that_a_shard_is_inactive() -> None:
    with pytest.raises(NotShown) as caught:
        advance(TrustedHead(head(20, final=True)), head(21), HONEST.consistency_proof(20, 21), V1)
    assert caught.value.evidence.kind == "log-unfrozen"
    assert advance(TrustedHead(head(30)), head(20, final=True), HONEST.consistency_proof(20, 30), V1).head.size == 30


def test_only_the_entries_that_were_signed_pass_for_a_prefix() -> None:
    hashes = [leaf_hash(leaf) for leaf in HONEST.leaves]
    for size in range(41):
        proof = HONEST.consistency_proof(size, 40) if 0 < size < 40 else []
        check_frontier_in_head(Frontier().extended(hashes[:size]), head(40), proof, LOG, "e")
        if size > 1:
            wrong = [*hashes[: size - 2], hashes[size - 1], hashes[size - 2]]
            with pytest.raises(NotShown) as caught:
                check_frontier_in_head(Frontier().extended(wrong), head(40), proof, LOG, "e")
            assert caught.value.evidence.kind == "log-entries-not-in-tree"


def test_a_bad_proof_is_not_held_against_the_entries() -> None:
    frontier = Frontier().extended(leaf_hash(leaf) for leaf in HONEST.leaves[:13])
    good = HONEST.consistency_proof(13, 40)
    for name, bad in _mangled(good).items():
        with pytest.raises(NotShown) as caught:
            check_frontier_in_head(frontier, head(40), bad, LOG, "e")
        assert caught.value.evidence.kind == "log-inconsistent", name


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 38), st.integers(2, 40))
def test_a_proof_shows_the_root_of_the_prefix_it_is_about(size1: int, size2: int) -> None:
    size1, size2 = sorted((size1, size2))
    proof = HONEST.consistency_proof(size1, size2)
    if size1 & (size1 - 1) == 0 or size1 == size2:
        with pytest.raises(ProofInvalid):
            prefix_root(size1, size2, proof, HONEST.root(size2))
        return
    assert prefix_root(size1, size2, proof, HONEST.root(size2)) == HONEST.root(size1)
    for wrong in (FORKED.root(40), HONEST.root(size1)):
        with pytest.raises(ProofInvalid):
            prefix_root(size1, size2, proof, wrong)


def test_trust_never_shrinks() -> None:
    trusted = TrustedHead(head(1))
    sizes = [1]
    for size in (5, 3, 9, 9, 2, 40, 17):
        needed = sizes_to_prove(trusted, head(size))
        trusted = advance(trusted, head(size), HONEST.consistency_proof(*needed) if needed else (), LOG)
        sizes.append(trusted.head.size)
    assert all(a <= b for a, b in pairwise(sizes))
