"""Two installations with their databases, talking over HTTP: what one of them can prove, the other can prove after."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from monitor.config import WebConfig
from monitor.crosscheck.bundle_check import CrossCheck, Standing
from monitor.crosscheck.peer_documents import Comparison
from monitor.crosscheck.peer_exchange import Peers, allowance_of, ask_peer, peers_router
from monitor.crosscheck.peers import Relation
from monitor.daemon.web import WebServer
from monitor.following.follower import Follower, baseline
from monitor.http_fetcher import HttpFetcher
from monitor.model.errors import Evidence
from monitor.model.log_source import LogSource
from monitor.proof.evidence import from_document, to_document, verify_evidence
from monitor.store.fsck import fsck
from monitor.store.reading import Reading
from monitor.store.store import Store
from tests.monitor.harness import NOW, EverythingIsNews, NumberScanner
from tests.scanning.test_cross_check import KINDS, view
from tests.support.misbehaving_log import MisbehavingLog
from tests.threats.site import new_database


@dataclass
class Installation:
    """One Signwatch that followed its log to the end; `url` is where it answers."""

    store: Store
    source: LogSource
    url: str

    def asks(self, other: "Installation") -> Comparison:
        with closing(HttpFetcher(other.url)) as fetcher:
            (compared,) = ask_peer(fetcher, [self.source], self.store, NOW)
        return compared

    def evidence(self) -> list[dict[str, Any]]:
        return [dict(each.document) for each in Reading(self.store.database).evidence(9)]

    def alerts(self) -> list[str]:
        """Kinds of alerts about the log itself, not about what stands in it."""
        kinds = [each.alert.kind for each in Reading(self.store.database).alerts(1000)]
        return [kind for kind in kinds if kind.startswith("log-")]

    def keep(self, evidence: Evidence) -> None:
        self.store.keep_evidence(evidence, [])


@contextmanager
def installation(folder: Path, log: MisbehavingLog) -> Iterator[Installation]:
    store, source = new_database(folder), log.source()
    baseline(source, store, 0)
    Follower(source, store, NumberScanner(), EverythingIsNews(), clock=lambda: NOW, pause=lambda _: None).run_pass()
    app = FastAPI()
    peers = Peers(store, lambda: [source], clock=lambda: NOW, allowance=allowance_of(lambda: 0.0))
    app.include_router(peers_router(peers))
    server = WebServer(app, WebConfig("127.0.0.1", 0))
    server.start()
    try:
        yield Installation(store, source, server.url)
        assert fsck(store.database) == []
    finally:
        server.stop()
        store.close()


@dataclass
class Town:
    """Two installations that follow the same history, and the one that a signer was shown."""

    here: Installation
    there: Installation
    public: MisbehavingLog
    hidden: MisbehavingLog

    def shown_a_bundle(self, who: Installation) -> dict[str, Any]:
        """`check-bundle`, offline, with what the signer got: heads alone prove nothing, their nodes do."""
        told = CrossCheck(who.store, lambda: NOW).check(view(self.hidden, 20))
        assert told.standing is Standing.CONTRADICTION
        (kept,) = who.evidence()
        assert kept["secondProof"], "it is two proofs that contradict each other"
        return kept


@pytest.fixture
def town(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Town]:
    public, hidden = request.param(), request.param()
    public.grow(100)
    hidden.grow(100)
    hidden.rewrite_from(20)
    hidden.grow(30)
    with ExitStack() as parts:
        here = parts.enter_context(installation(tmp_path / "here.db", public))
        there = parts.enter_context(installation(tmp_path / "there.db", public))
        yield Town(here, there, public, hidden)


towns = pytest.mark.parametrize("town", KINDS, ids=lambda k: k.api, indirect=True)


@towns
@pytest.mark.parametrize("asking", ["who knows", "who does not"])
def test_a_split_view_found_in_a_bundle_is_handed_on_whoever_asks(town: Town, asking: str) -> None:
    control = town.here.asks(town.there)
    assert (control.theirs.relation, control.ours) == (Relation.SAME, Relation.SAME)
    known = town.shown_a_bundle(town.there)
    compared = town.here.asks(town.there) if asking == "who does not" else town.there.asks(town.here)
    if asking == "who does not":
        assert compared.theirs.relation is Relation.CONTRADICTION
    else:
        assert compared.ours == Relation.CONTRADICTION
    (received,) = town.here.evidence()
    assert verify_evidence(json.dumps(received).encode()).transferable
    assert (received["heads"], received["secondProof"]) == (known["heads"], known["secondProof"])
    assert town.here.alerts() == ["log-forked"]
    town.here.asks(town.there)
    town.there.asks(town.here)
    assert [town.here.alerts(), town.there.alerts()] == [["log-forked"]] * 2, "told once, however often it is shown"


@towns
def test_two_bundles_that_contradict_each_other_convince_a_peer_that_followed_neither(town: Town) -> None:
    """Both leaves and both proofs travel; the frontier plays no part."""
    public, hidden = view(town.public, 3), view(town.hidden, 25)
    evidence = Evidence(
        log=town.there.source.identity.log,
        api=public.identity.api,
        kind="log-forked",
        detail="two bundles",
        spki=public.identity.spki,
        key_name=public.identity.key_name,
        heads=(public.head.raw, hidden.head.raw),
        sizes=(public.head.size, hidden.head.size),
        proof=tuple(public.proof),
        second_proof=tuple(hidden.proof),
        leaves=((public.index, public.leaf), (hidden.index, hidden.leaf)),
        event="two bundles",
    )
    town.there.keep(evidence)
    assert town.here.asks(town.there).theirs.relation is Relation.CONTRADICTION
    (received,) = town.here.evidence()
    assert [leaf["index"] for leaf in received["leaves"]] == [3, 25]
    assert received["detail"] != "two bundles", "told in our words"


@towns
def test_evidence_that_was_spoiled_on_the_way_is_not_believed(town: Town) -> None:
    good = from_document(town.shown_a_bundle(town.there))
    index, leaf = good.leaves[-1]
    spoiled = {
        "another leaf": replace(good, leaves=((index, leaf + b" "),)),
        "another index": replace(good, leaves=((index + 1, leaf),)),
        "no leaf": replace(good, leaves=()),
        "more leaves": replace(good, leaves=(*good.leaves, (0, b"x"), (1, b"y"))),
        "a proof too short": replace(good, second_proof=good.second_proof[:-1]),
        "another prefix": replace(good, prefix=good.prefix[::-1]),
        "a negative size": replace(good, sizes=(-1, good.sizes[1])),
    }
    for name, evidence in spoiled.items():
        peer = _Peer(town.there, evidence)
        (compared,) = ask_peer(peer, [town.here.source], town.here.store, NOW)
        assert compared.theirs.relation is Relation.SAME, name
    assert town.here.evidence() == []
    (compared,) = ask_peer(_Peer(town.there, good), [town.here.source], town.here.store, NOW)
    assert compared.theirs.relation is Relation.CONTRADICTION, "control"


class _Peer:
    """Passes on what a real installation answers, with evidence of its own choice beside the head."""

    def __init__(self, real: Installation, evidence: Evidence) -> None:
        self._real, self._evidence = real, evidence

    def get(self, path: str, **wanted: Any) -> bytes:
        with closing(HttpFetcher(self._real.url)) as fetcher:
            document = json.loads(fetcher.get(path, **wanted))
        document["checkpoints"][0]["evidence"] = to_document(self._evidence)
        return json.dumps(document).encode()

    def post_json(self, path: str, document: Any, *, max_bytes: int) -> bytes:
        with closing(HttpFetcher(self._real.url)) as fetcher:
            answers = json.loads(fetcher.post_json(path, document, max_bytes=max_bytes))
        answers["verdicts"][0].pop("evidence", None)
        return json.dumps(answers).encode()
