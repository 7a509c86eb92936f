"""Comparing heads with a peer: every relation there can be, and a peer that lies is believed in nothing it says."""

import base64
import copy
import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from msgspec.structs import replace

from monitor.crosscheck.peers import (
    MAX_CHECKPOINTS,
    MAX_DOCUMENT,
    MAX_HEAD_SIZE,
    PATH,
    NoPeer,
    PeerComparison,
    PeerRelation,
    checkpoints_document,
    compare_offered,
    compare_with_peer,
    read_checkpoints,
)
from monitor.following.follower import baseline
from monitor.http_fetcher import Expect, Unreachable
from monitor.model.errors import OwnFault
from monitor.model.log_source import LogSource, SignedHead, TrustedHead
from monitor.proof.evidence import check_evidence, to_document
from tests.support.harness import KINDS, NOW
from tests.support.memory_state import MemoryState
from tests.support.misbehaving_log import MisbehavingLog, RekorV1Log, RekorV2Log, ecdsa_key, ed25519_key

kinds = pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.api)
SEEN = 100


@dataclass
class PeerMemory(MemoryState):
    """The in-memory state with the history asked by size."""

    def heads_at(self, log: str, size: int) -> Sequence[SignedHead]:
        return [head for head in self.heads if (head.log, head.size) == (log, size)]


@dataclass
class House:
    """One installation that trusts the head of its log, and the face that log shows to it."""

    log: MisbehavingLog
    state: PeerMemory = field(default_factory=PeerMemory)

    def __post_init__(self) -> None:
        self.source: LogSource = self.log.source()
        baseline(self.source, self.state, "head")

    def judge(self, raw: bytes) -> PeerComparison:
        return compare_offered(raw, self.source, self.state, NOW)


def house(kind: type[MisbehavingLog], size: int = SEEN) -> House:
    log = kind()
    log.grow(size)
    return House(log)


def face(log: MisbehavingLog, size: int, *, rewritten_from: int | None = None) -> bytes:
    """A head of this size as the same log signs it for another reader, of the same history or another."""
    other = copy.deepcopy(log)
    other.honest()
    if size > len(other.leaves):
        other.grow(size - len(other.leaves))
    if rewritten_from is not None:
        other.rewrite_from(rewritten_from)
    other.rewind_to(size)
    return other.source().latest().raw


@kinds
def test_the_same_tree_is_the_same_however_often_it_is_signed(kind: type[MisbehavingLog]) -> None:
    ours = house(kind)
    ours.log.timestamp += 60_000
    assert ours.judge(face(ours.log, SEEN)).relation is PeerRelation.SAME


@kinds
@pytest.mark.parametrize("size", [1, 64, 99])
def test_an_older_head_of_the_same_history_comes_with_its_proof(kind: type[MisbehavingLog], size: int) -> None:
    ours = house(kind)
    verdict = ours.judge(face(ours.log, size))
    assert verdict.relation is PeerRelation.OLDER
    assert verdict.heads is not None
    assert verdict.heads.compared.size == SEEN
    assert verdict.heads.proof
    assert ours.state.evidence == {}


@kinds
def test_a_newer_head_goes_on_record_and_is_compared_with_what_the_log_shows_now(kind: type[MisbehavingLog]) -> None:
    ours = house(kind)
    newer = face(ours.log, 130)
    verdict = ours.judge(newer)
    assert verdict.relation is PeerRelation.NEWER
    assert verdict.heads is not None
    assert verdict.heads.proof == ()
    assert ours.state.heads[-1].size == 130
    ours.log.grow(50)
    verdict = ours.judge(newer)
    assert verdict.relation is PeerRelation.NEWER
    assert verdict.heads is not None
    assert verdict.heads.compared.size == 150
    assert verdict.heads.proof
    ours.log.fail("", Unreachable("gone"))
    assert ours.judge(newer).relation is PeerRelation.NEWER
    assert ours.state.evidence == {}


@kinds
@pytest.mark.parametrize("size", [64, 70, SEEN, 110, 128])
def test_another_history_is_a_contradiction_that_anybody_can_check(kind: type[MisbehavingLog], size: int) -> None:
    ours = house(kind)
    ours.log.grow(50)
    assert ours.judge(face(ours.log, size)).relation in {PeerRelation.SAME, PeerRelation.OLDER, PeerRelation.NEWER}
    verdict = ours.judge(face(ours.log, size, rewritten_from=60))
    assert verdict.relation is PeerRelation.CONTRADICTION
    (evidence,) = ours.state.evidence.values()
    assert verdict.heads is not None
    assert evidence == verdict.heads.evidence
    assert check_evidence(json.dumps(to_document(evidence)).encode()).conclusion.transferable
    assert [alert.kind for alert in ours.state.outbox.values()] == ["log-forked"]
    ours.judge(face(ours.log, size, rewritten_from=60))
    assert len(ours.state.outbox) == 1, "one fork is told once"


@kinds
def test_our_own_history_contradicts_without_asking_the_log(kind: type[MisbehavingLog]) -> None:
    ours = house(kind)
    ours.log.grow(20)
    ours.state.record_head(ours.source.latest())
    ours.log.fail("", Unreachable("the log has its reasons"))
    assert ours.judge(face(ours.log, SEEN + 20)).relation is PeerRelation.NEWER
    assert ours.judge(face(ours.log, SEEN + 20, rewritten_from=110)).relation is PeerRelation.CONTRADICTION


@kinds
def test_a_log_that_gives_no_proof_leaves_it_undecided_and_nobody_blamed(kind: type[MisbehavingLog]) -> None:
    ours = house(kind)
    other = face(ours.log, 70, rewritten_from=60)
    ours.log.fail("", Unreachable("gone"))
    assert ours.judge(other).relation is PeerRelation.UNPROVEN
    assert ours.judge(face(ours.log, 70)).relation is PeerRelation.UNPROVEN
    assert ours.state.evidence == {}
    assert ours.state.outbox == {}


def test_a_head_beyond_a_frozen_log_contradicts_it_without_any_proof() -> None:
    log = RekorV2Log()
    log.grow(SEEN)
    log.freeze()
    ours = House(log)
    log.final = False
    grown = face(log, 130)
    log.fail("", Unreachable("gone"))
    verdict = ours.judge(grown)
    assert verdict.relation is PeerRelation.CONTRADICTION
    assert [alert.kind for alert in ours.state.outbox.values()] == ["log-unfrozen"]


def _other_key(log: MisbehavingLog) -> bytes:
    other = copy.deepcopy(log)
    other.sign_with(ed25519_key(77) if isinstance(log, RekorV2Log) else ecdsa_key(77))
    other.rewrite_from(50)
    path = {"rekor-v1": "api/v1/log", "ct-rfc6962": "ct/v1/get-sth"}.get(log.api, "checkpoint")
    raw = other.get(path, max_bytes=10**6, expect=Expect.BYTES)
    signed: bytes = json.loads(raw)["signedTreeHead"].encode() if log.api == "rekor-v1" else raw
    return signed


@kinds
def test_what_the_log_did_not_sign_says_nothing_about_it(kind: type[MisbehavingLog]) -> None:
    ours = house(kind)
    honest = face(ours.log, 90)
    assert ours.judge(honest).relation is PeerRelation.OLDER
    asked = len(ours.log.asked)
    lies = [b"", b"garbage", honest[:-5], honest.replace(b"90", b"91"), honest + b"\0" * MAX_HEAD_SIZE]
    for lie in [*lies, _other_key(ours.log)]:
        assert ours.judge(lie).relation is PeerRelation.NOT_SIGNED
    assert ours.log.asked[asked:] == [], "a head without the log's signature makes us ask no log"
    assert ours.state.evidence == {}
    assert ours.state.outbox == {}


def test_a_head_of_another_tree_under_the_same_key_says_nothing_about_this_one() -> None:
    ours = house(RekorV1Log)
    other = copy.deepcopy(ours.log)
    assert isinstance(other, RekorV1Log)
    other.tree_id = "42"
    assert ours.judge(other.head_note(SEEN)).relation is PeerRelation.NOT_SIGNED


# -- two installations


class Peer:
    """A `Fetcher` that answers with one document."""

    def __init__(self, document: bytes) -> None:
        self._document = document

    def get(self, path: str, *, max_bytes: int, expect: Expect) -> bytes:
        assert path == PATH
        return self._document

    def post_json(self, path: str, document: Any, *, max_bytes: int) -> bytes:
        raise AssertionError(f"{path} is asked for nothing but its heads")


def peer_of(theirs: House) -> Peer:
    return Peer(json.dumps(checkpoints_document(theirs.state, [theirs.source])).encode())


def compared(ours: House, peer: Peer) -> list[PeerComparison]:
    return compare_with_peer(peer, [ours.source], ours.state, lambda: NOW)


def split(kind: type[MisbehavingLog]) -> tuple[House, House]:
    """Two installations of which each was shown a history of its own."""
    ours, theirs = house(kind, 130), house(kind, SEEN)
    theirs.log.rewrite_from(60)
    theirs.state.positions.clear()
    baseline(theirs.source, theirs.state, "head")
    return ours, theirs


@kinds
def test_two_honest_views_of_different_age_are_consistent_from_both_sides(kind: type[MisbehavingLog]) -> None:
    ours, theirs = house(kind, 130), house(kind, SEEN)
    (here,), (there,) = compared(ours, peer_of(theirs)), compared(theirs, peer_of(ours))
    assert (here.relation, there.relation) == (PeerRelation.OLDER, PeerRelation.NEWER)
    assert ours.state.evidence == theirs.state.evidence == {}


@kinds
def test_each_side_that_compares_keeps_evidence_of_a_split_view(kind: type[MisbehavingLog]) -> None:
    ours, theirs = split(kind)
    # Each asks before it keeps anything, so neither sees more than the other's head.
    for_us, for_them = peer_of(theirs), peer_of(ours)
    for installation, peer in ((ours, for_us), (theirs, for_them)):
        (found,) = compared(installation, peer)
        assert found.relation in {PeerRelation.CONTRADICTION, PeerRelation.NEWER}
    (evidence,) = ours.state.evidence.values()
    assert check_evidence(json.dumps(to_document(evidence)).encode()).conclusion.transferable


def checkpoints(**changes: Any) -> dict[str, Any]:
    ours = house(RekorV2Log)
    return checkpoints_document(ours.state, [ours.source]) | changes


def _with(**changes: Any) -> dict[str, Any]:
    document = checkpoints()
    document["checkpoints"] = [document["checkpoints"][0] | changes]
    return document


DOCUMENTS: dict[str, bytes] = {
    "empty": b"",
    "not JSON": b"<html>",
    "not UTF-8": b"\xff\xfe",
    "deeply nested": b"[" * 100_000,
    "another media type": json.dumps(checkpoints(mediaType="text/plain")).encode(),
    "a newer version": json.dumps(checkpoints(version=2)).encode(),
    "a version in words": json.dumps(checkpoints(version="1")).encode(),
    "no list": json.dumps(checkpoints(checkpoints={})).encode(),
    "too many": json.dumps(checkpoints(checkpoints=checkpoints()["checkpoints"] * (MAX_CHECKPOINTS + 1))).encode(),
    "a head that is no base64": json.dumps(_with(head="*")).encode(),
    "a head that is too long": json.dumps(_with(head=base64.b64encode(bytes(MAX_HEAD_SIZE + 3)).decode())).encode(),
    "a name that is too long": json.dumps(_with(origin="x" * 501)).encode(),
    "no key": json.dumps(_with(key=None)).encode(),
    "too long": json.dumps(_with(log="x")).encode() + b" " * MAX_DOCUMENT,
}


@pytest.mark.parametrize("wrong", DOCUMENTS)
def test_another_document_is_refused_and_no_log_is_asked(wrong: str) -> None:
    assert len(read_checkpoints(json.dumps(_with()).encode())) == 1
    ours = house(RekorV2Log)
    asked = len(ours.log.asked)
    with pytest.raises(NoPeer):
        compared(ours, Peer(DOCUMENTS[wrong]))
    assert len(ours.log.asked) == asked


def test_heads_of_logs_that_are_not_followed_here_are_not_compared() -> None:
    ours = house(RekorV2Log)
    assert len(compared(ours, Peer(json.dumps(_with()).encode()))) == 1
    for changes in ({"api": "rekor-v1"}, {"key": "00" * 32}, {"origin": "elsewhere"}):
        assert compared(ours, Peer(json.dumps(_with(**changes)).encode())) == []


def test_damage_of_our_own_is_nobody_elses_contradiction() -> None:
    ours = house(RekorV2Log)
    assert ours.judge(face(ours.log, 70)).relation is PeerRelation.OLDER
    position = ours.state.positions["v2"]
    damaged = dataclasses.replace(position.head.head, raw=b"damaged")
    ours.state.positions["v2"] = replace(position, head=TrustedHead(damaged))
    with pytest.raises(OwnFault, match="stored head"):
        ours.judge(face(ours.log, 70))
    assert ours.state.evidence == {}
