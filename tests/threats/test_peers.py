"""Comparing heads with a peer: every relation there can be, and a peer that lies is believed in nothing it says."""

import asyncio
import base64
import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from monitor.crosscheck.peer_documents import (
    MAX_CHECKPOINTS,
    MAX_DOCUMENT,
    VERDICTS_TYPE,
    NoPeer,
    latest_heads,
    read_offers,
)
from monitor.crosscheck.peer_exchange import BURST, PATH, Allowance, Peers, allowance_of, ask_peer, peers_router
from monitor.crosscheck.peers import MAX_HEAD_SIZE, Relation, Verdict, judge
from monitor.following.follower import baseline
from monitor.http_fetcher import Expect, Unreachable
from monitor.model.errors import Evidence, FetchFailed, OwnFault
from monitor.model.heads import SignedHead, TrustedHead
from monitor.model.log_source import LogSource
from monitor.proof.evidence import conclude, to_document, verify_evidence
from tests.monitor.harness import KINDS, NOW
from tests.support.memory_state import MemoryState
from tests.support.misbehaving_log import MisbehavingLog, RekorV1Log, RekorV2Log, ecdsa_key, ed25519_key

kinds = pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.api)
SEEN = 100


@dataclass
class PeerMemory(MemoryState):
    """The in-memory state with the history asked by size."""

    def heads_at(self, log: str, size: int) -> Sequence[SignedHead]:
        return [head for head in self.heads if (head.log, head.size) == (log, size)]

    def evidence_of(self, log: str) -> Sequence[Evidence]:
        return [each for each in reversed(self.evidence.values()) if each.log == log and conclude(each).transferable]


@dataclass
class House:
    """One installation that trusts the head of its log, and the face that log shows to it."""

    log: MisbehavingLog
    state: PeerMemory = field(default_factory=PeerMemory)

    def __post_init__(self) -> None:
        self.source: LogSource = self.log.source()
        baseline(self.source, self.state, "head")

    def judge(self, raw: bytes) -> Verdict:
        return judge(raw, self.source, self.state, NOW)


def house(kind: type[MisbehavingLog], size: int = SEEN) -> House:
    log = kind()
    log.grow(size)
    return House(log)


def face(log: MisbehavingLog, size: int, *, rewritten_from: int | None = None) -> bytes:
    """A head of this size as the same log signs it for somebody else, of the same history or another."""
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
    assert ours.judge(face(ours.log, SEEN)).relation is Relation.SAME


@kinds
@pytest.mark.parametrize("size", [1, 64, 99])
def test_an_older_head_of_the_same_history_comes_with_its_proof(kind: type[MisbehavingLog], size: int) -> None:
    ours = house(kind)
    verdict = ours.judge(face(ours.log, size))
    assert verdict.relation is Relation.OLDER
    assert verdict.compared is not None
    assert verdict.compared.size == SEEN
    assert verdict.proof
    assert ours.state.evidence == {}


@kinds
def test_a_newer_head_goes_on_record_and_is_compared_with_what_the_log_shows_now(kind: type[MisbehavingLog]) -> None:
    ours = house(kind)
    newer = face(ours.log, 130)
    verdict = ours.judge(newer)
    assert (verdict.relation, verdict.proof) == (Relation.NEWER, ())
    assert ours.state.heads[-1].size == 130
    ours.log.grow(50)
    verdict = ours.judge(newer)
    assert verdict.relation is Relation.NEWER
    assert verdict.compared is not None
    assert verdict.compared.size == 150
    assert verdict.proof
    ours.log.fail("", Unreachable("gone"))
    assert ours.judge(newer).relation is Relation.NEWER
    assert ours.state.evidence == {}


@kinds
@pytest.mark.parametrize("size", [64, 70, SEEN, 110, 128])
def test_another_history_is_a_contradiction_that_anybody_can_check(kind: type[MisbehavingLog], size: int) -> None:
    ours = house(kind)
    ours.log.grow(50)
    assert ours.judge(face(ours.log, size)).relation in {Relation.SAME, Relation.OLDER, Relation.NEWER}
    verdict = ours.judge(face(ours.log, size, rewritten_from=60))
    assert verdict.relation is Relation.CONTRADICTION
    (evidence,) = ours.state.evidence.values()
    assert evidence == verdict.evidence
    assert verify_evidence(json.dumps(to_document(evidence)).encode()).transferable
    assert [alert.kind for alert in ours.state.outbox.values()] == ["log-forked"]
    ours.judge(face(ours.log, size, rewritten_from=60))
    assert len(ours.state.outbox) == 1, "one fork is told once"


@kinds
def test_our_own_history_contradicts_without_asking_the_log(kind: type[MisbehavingLog]) -> None:
    ours = house(kind)
    ours.log.grow(20)
    ours.state.record_head(ours.source.latest())
    ours.log.fail("", Unreachable("the log has its reasons"))
    assert ours.judge(face(ours.log, SEEN + 20)).relation is Relation.NEWER
    assert ours.judge(face(ours.log, SEEN + 20, rewritten_from=110)).relation is Relation.CONTRADICTION


@kinds
def test_a_log_that_gives_no_proof_leaves_it_undecided_and_nobody_blamed(kind: type[MisbehavingLog]) -> None:
    ours = house(kind)
    other = face(ours.log, 70, rewritten_from=60)
    ours.log.fail("", Unreachable("gone"))
    assert ours.judge(other).relation is Relation.UNDECIDED
    assert ours.judge(face(ours.log, 70)).relation is Relation.UNDECIDED
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
    assert verdict.relation is Relation.CONTRADICTION
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
    assert ours.judge(honest).relation is Relation.OLDER
    asked = len(ours.log.asked)
    lies = [b"", b"garbage", honest[:-5], honest.replace(b"90", b"91"), honest + b"\0" * MAX_HEAD_SIZE]
    for lie in [*lies, _other_key(ours.log)]:
        assert ours.judge(lie).relation is Relation.NOT_SIGNED
    assert ours.log.asked[asked:] == [], "nobody makes us ask the log without its signature"
    assert ours.state.evidence == {}
    assert ours.state.outbox == {}


def test_a_head_of_another_tree_under_the_same_key_says_nothing_about_this_one() -> None:
    ours = house(RekorV1Log)
    other = copy.deepcopy(ours.log)
    assert isinstance(other, RekorV1Log)
    other.tree_id = "42"
    assert ours.judge(other.head_note(SEEN)).relation is Relation.NOT_SIGNED


# -- two installations


class Wire:
    """A `Fetcher` that speaks to an application in this process."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    def request(self, method: str, **content: Any) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(app=self._app)
            async with httpx.AsyncClient(transport=transport, base_url="http://peer") as client:
                return await client.request(method, PATH, **content)

        return asyncio.run(ask())

    def post(self, **content: Any) -> httpx.Response:
        return self.request("POST", **content)

    def get(self, path: str, *, max_bytes: int, expect: Expect) -> bytes:
        assert path == PATH
        return self._checked(self.request("GET").content, max_bytes)

    def post_json(self, path: str, document: Any, *, max_bytes: int) -> bytes:
        assert path == PATH
        answer = self.post(json=document)
        if answer.status_code != 200:
            raise Unreachable(answer.text)
        return self._checked(answer.content, max_bytes)

    @staticmethod
    def _checked(body: bytes, max_bytes: int) -> bytes:
        assert len(body) <= max_bytes
        return body


def peers_of(ours: House, allowance: Allowance | None = None) -> Peers:
    return Peers(ours.state, lambda: [ours.source], clock=lambda: NOW, allowance=allowance or allowance_of(lambda: 0.0))


def app_of(peers: Peers) -> FastAPI:
    app = FastAPI()
    app.include_router(peers_router(peers))
    return app


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
    (compared,) = ask_peer(Wire(app_of(peers_of(theirs))), [ours.source], ours.state, NOW)
    assert (compared.theirs.relation, compared.ours) == (Relation.OLDER, Relation.NEWER)
    (compared,) = ask_peer(Wire(app_of(peers_of(ours))), [theirs.source], theirs.state, NOW)
    assert (compared.theirs.relation, compared.ours) == (Relation.NEWER, Relation.OLDER)


@kinds
def test_one_comparison_leaves_the_evidence_of_a_split_view_on_both_sides(kind: type[MisbehavingLog]) -> None:
    ours, theirs = split(kind)
    theirs.log.grow(40)
    (compared,) = ask_peer(Wire(app_of(peers_of(theirs))), [ours.source], ours.state, NOW)
    assert compared.theirs.relation is Relation.CONTRADICTION
    for each in (ours, theirs):
        (evidence,) = each.state.evidence.values()
        assert verify_evidence(json.dumps(to_document(evidence)).encode()).transferable
        assert [alert.kind for alert in each.state.outbox.values()] == ["log-forked"]


def test_a_peers_evidence_counts_where_the_log_gives_us_no_proof() -> None:
    ours, theirs = split(RekorV2Log)
    theirs.log.grow(40)
    ours.log.fail("", Unreachable("gone"))
    (compared,) = ask_peer(Wire(app_of(peers_of(theirs))), [ours.source], ours.state, NOW)
    assert (compared.theirs.relation, compared.ours) == (Relation.CONTRADICTION, Relation.CONTRADICTION)
    assert len(ours.state.evidence) == len(ours.state.outbox) == 1


def forge(evidence: Evidence, ours: House) -> dict[str, Evidence]:
    """Lies a peer can tell with evidence; none of them is a contradiction by the log."""
    honest = [face(ours.log, size) for size in (70, 130)]
    return {
        "two honest heads": replace(evidence, heads=(honest[0], honest[1]), proof=(), prefix=()),
        "one head": replace(evidence, heads=evidence.heads[:1]),
        "garbage": replace(evidence, heads=(b"garbage", b"more")),
        "by a key of its own": replace(evidence, heads=(_other_key(ours.log), honest[1])),
        "another proof": replace(evidence, heads=(honest[0], honest[1]), proof=evidence.proof[::-1]),
    }


LIES = ["two honest heads", "one head", "garbage", "by a key of its own", "another proof"]


class LyingPeer:
    """Shows an honest head, and calls ours a contradiction with evidence of its own making."""

    def __init__(self, shown: bytes, evidence: dict[str, Any] | None, *, checkpoints: bytes | None = None) -> None:
        self.shown, self.evidence, self.checkpoints = shown, evidence, checkpoints

    def get(self, path: str, *, max_bytes: int, expect: Expect) -> bytes:
        return self.shown

    def post_json(self, path: str, document: Any, *, max_bytes: int) -> bytes:
        if self.checkpoints is not None:
            return self.checkpoints
        verdict = {"log": "v2", "relation": "contradiction", "detail": "it lied!", "evidence": self.evidence}
        return json.dumps({"mediaType": VERDICTS_TYPE, "version": 1, "verdicts": [verdict]}).encode()


@pytest.fixture
def forked() -> Evidence:
    """Real evidence of a split view, as an honest peer would send it."""
    ours, theirs = split(RekorV2Log)
    ours.judge(theirs.source.latest().raw)
    (evidence,) = ours.state.evidence.values()
    return evidence


@pytest.mark.parametrize("lie", LIES)
def test_a_peer_that_invents_evidence_is_not_believed(forked: Evidence, lie: str) -> None:
    control, ours = house(RekorV2Log, 130), house(RekorV2Log, 130)
    shown = json.dumps(latest_heads(ours.state, [ours.source])).encode()
    (compared,) = ask_peer(LyingPeer(shown, to_document(forked)), [control.source], control.state, NOW)
    assert compared.theirs.relation is Relation.CONTRADICTION
    assert len(control.state.evidence) == 1

    peer = LyingPeer(shown, to_document(forge(forked, ours)[lie]))
    (compared,) = ask_peer(peer, [ours.source], ours.state, NOW)
    assert (compared.theirs.relation, compared.ours) == (Relation.SAME, "contradiction")
    assert ours.state.evidence == {}
    assert ours.state.outbox == {}


def test_one_fork_told_in_many_disguises_is_one_event_in_our_words(forked: Evidence) -> None:
    ours = house(RekorV2Log, 130)
    shown = json.dumps(latest_heads(ours.state, [ours.source])).encode()
    for number in range(5):
        disguised = replace(forked, event=f"event {number}", detail="<script>", log=f"log {number}", trust_root="x")
        ask_peer(LyingPeer(shown, to_document(disguised)), [ours.source], ours.state, NOW)
    (evidence,) = ours.state.evidence.values()
    assert evidence.log == ours.source.identity.log
    assert "script" not in evidence.detail
    assert len(ours.state.outbox) == 1


@pytest.mark.parametrize(
    "answer", [b"", b"[]", b"{}", b"\xff", b'{"mediaType":"x","version":1,"verdicts":[]}', b"[" * 9999]
)
def test_a_peer_that_will_not_judge_is_judged_all_the_same(answer: bytes) -> None:
    ours = house(RekorV2Log)
    shown = json.dumps(latest_heads(ours.state, [ours.source])).encode()
    (compared,) = ask_peer(LyingPeer(shown, None, checkpoints=answer), [ours.source], ours.state, NOW)
    assert (compared.theirs.relation, compared.ours) == (Relation.SAME, "")


def checkpoints(**changes: Any) -> dict[str, Any]:
    ours = house(RekorV2Log)
    return latest_heads(ours.state, [ours.source]) | changes


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
def test_a_document_that_is_none_is_refused_by_both_sides(wrong: str) -> None:
    assert len(read_offers(json.dumps(_with()).encode())) == 1
    with pytest.raises(NoPeer):
        read_offers(DOCUMENTS[wrong])
    ours = house(RekorV2Log)
    client = Wire(app_of(peers_of(ours)))
    assert client.post(json=_with()).json()["verdicts"][0]["relation"] == "same"
    asked = len(ours.log.asked)
    answer = client.post(content=DOCUMENTS[wrong])
    assert answer.status_code == (413 if wrong == "too long" else 400)
    assert len(ours.log.asked) == asked
    with pytest.raises(FetchFailed):
        ask_peer(LyingPeer(DOCUMENTS[wrong], None), [ours.source], ours.state, NOW)


def test_a_log_that_is_not_followed_here_is_said_to_be_unknown() -> None:
    client = Wire(app_of(peers_of(house(RekorV1Log))))
    for changes in ({"api": "rekor-v1"}, {"key": "00" * 32}, {"origin": "elsewhere"}, {}):
        (verdict,) = client.post(json=_with(**changes)).json()["verdicts"]
        assert verdict["relation"] == "unknown-log"


def test_whoever_asks_too_much_is_told_when_to_come_back() -> None:
    seconds = [0.0]
    ours = house(RekorV2Log)
    client = Wire(app_of(peers_of(ours, allowance_of(lambda: seconds[0]))))
    many = checkpoints(checkpoints=checkpoints()["checkpoints"] * MAX_CHECKPOINTS)
    for _ in range(BURST // MAX_CHECKPOINTS):
        assert client.post(json=many).status_code == 200
    refused = client.post(json=many)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "60")
    seconds[0] += MAX_CHECKPOINTS
    assert client.post(json=many).status_code == 200


def test_an_allowance_never_saves_up_more_than_its_burst() -> None:
    seconds = [0.0]
    allowance = Allowance(2.0, 10, lambda: seconds[0])
    assert allowance.take(10)
    assert not allowance.take()
    seconds[0] += 1
    assert [allowance.take() for _ in range(3)] == [True, True, False]
    seconds[0] += 1000
    assert not allowance.take(11)
    assert allowance.take(10)


def test_damage_of_our_own_is_nobody_elses_contradiction() -> None:
    ours = house(RekorV2Log)
    assert ours.judge(face(ours.log, 70)).relation is Relation.OLDER
    position = ours.state.positions["v2"]
    damaged = replace(position.head.head, raw=b"damaged")
    ours.state.positions["v2"] = replace(position, head=TrustedHead(damaged))
    with pytest.raises(OwnFault, match="stored head"):
        ours.judge(face(ours.log, 70))
    assert ours.state.evidence == {}
