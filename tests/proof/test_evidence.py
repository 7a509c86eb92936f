"""Evidence files verify offline, say how strong they are, and fall apart when anybody touches them."""

import base64
import copy
import json
from typing import Any

import pytest

from monitor.model.errors import Evidence, LogMisbehaved
from monitor.proof.evidence import NotEvidence, check_evidence, conclude, event_id, from_document, to_document
from tests.support.harness import KINDS, watch
from tests.support.misbehaving_log import MisbehavingLog, RekorV1Log, RekorV2Log, ecdsa_key, ed25519_key, spki_of

kinds = pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.api)


def forked(kind: type[MisbehavingLog], size: int = 100, grown: int = 50) -> Evidence:
    seen = watch(kind, size)
    seen.log.rewrite_from(size // 2)
    seen.log.grow(grown)
    with pytest.raises(LogMisbehaved) as caught:
        seen.follow()
    return caught.value.evidence


def as_file(document: dict[str, Any]) -> bytes:
    return json.dumps(document).encode()


@kinds
@pytest.mark.parametrize(("size", "grown"), [(100, 0), (100, 50), (64, 50), (1, 7)])
def test_a_fork_is_proof_to_anybody_who_knows_the_key(kind: type[MisbehavingLog], size: int, grown: int) -> None:
    evidence = forked(kind, size, grown)
    document = to_document(evidence)
    assert document["strength"] == "transferable"
    conclusion = check_evidence(as_file(document)).conclusion
    assert conclusion.transferable
    assert len(conclusion.sentences) == 3
    assert from_document(document) == evidence


@kinds
def test_a_swapped_entry_is_a_record_and_says_so(kind: type[MisbehavingLog]) -> None:
    seen = watch(kind, 100)
    seen.log.grow(10)
    seen.log.swap_leaf(105, seen.log.leaf(4711))
    with pytest.raises(LogMisbehaved) as caught:
        seen.follow()
    document = to_document(caught.value.evidence)
    assert document["strength"] == "record"
    conclusion = check_evidence(as_file(document)).conclusion
    assert not conclusion.transferable
    assert conclusion.sentences[-1].startswith("Record only")


@kinds
def test_a_head_by_another_key_is_a_record_and_says_so(kind: type[MisbehavingLog]) -> None:
    seen = watch(kind, 100)
    seen.log.sign_with(ed25519_key(99) if kind is RekorV2Log else ecdsa_key(99))
    with pytest.raises(LogMisbehaved) as caught:
        seen.follow()
    assert not check_evidence(as_file(to_document(caught.value.evidence))).conclusion.transferable


def test_an_honest_pair_of_heads_never_passes_for_a_fork() -> None:
    log = RekorV2Log()
    log.grow(60)
    small = log.source().latest()
    log.grow(60)
    large, identity = log.source().latest(), log.source().identity
    proof = tuple(log.oracle().consistency_proof(60, 120))
    for attempt in (proof, proof[:-1], proof[::-1], ()):
        evidence = Evidence(
            log="v2",
            api=identity.api,
            kind="log-forked",
            detail="a lie",
            spki=identity.spki,
            key_name=identity.key_name,
            heads=(small.raw, large.raw),
            sizes=(60, 120),
            proof=attempt,
        )
        assert not conclude(evidence).transferable


def _flip(text: str) -> str:
    raw = bytearray(base64.b64decode(text))
    raw[len(raw) // 2] ^= 1
    return base64.b64encode(raw).decode()


def test_nothing_in_a_file_can_be_changed_unnoticed() -> None:
    good = to_document(forked(RekorV2Log))
    assert check_evidence(as_file(good)).conclusion.transferable  # the control case
    changes: dict[str, Any] = {
        "a head": lambda d: d["heads"].__setitem__(0, _flip(d["heads"][0])),
        "another key": lambda d: d["key"].__setitem__("spki", base64.b64encode(spki_of(ed25519_key(8))).decode()),
        "another name": lambda d: d["key"].__setitem__("name", "other.example.org"),
        "another protocol": lambda d: d.__setitem__("api", "ct-rfc6962"),
        "an unknown protocol": lambda d: d.__setitem__("api", "rekor-v3"),
        "another id": lambda d: d.__setitem__("id", "0" * 32),
        "another kind": lambda d: d.__setitem__("kind", "log-unfrozen"),
        "another event": lambda d: d.__setitem__("event", "x"),
        "no heads": lambda d: d.pop("heads"),
        "a number for a head": lambda d: d["heads"].__setitem__(0, 7),
        "not base64": lambda d: d["proof"].__setitem__(0, "*"),
        "another version": lambda d: d.__setitem__("version", 2),
        "another media type": lambda d: d.__setitem__("mediaType", "application/json"),
    }
    for change in changes.values():
        bad = copy.deepcopy(good)
        change(bad)
        with pytest.raises(NotEvidence):
            check_evidence(as_file(bad))
    weaker = copy.deepcopy(good)
    weaker["proof"][0] = _flip(weaker["proof"][0])
    assert not check_evidence(as_file(weaker)).conclusion.transferable


@pytest.mark.parametrize("raw", [b"", b"{}", b"[]", b"null", b"[" * 100_000, b"\xff", b" " * (17 * 1024 * 1024)])
def test_any_other_file_is_no_evidence(raw: bytes) -> None:
    with pytest.raises(NotEvidence):
        check_evidence(raw)


def test_even_odd_evidence_is_kept_as_a_record() -> None:
    evidence = Evidence("v2", "rekor-v2", "log-inconsistent", "odd", b"no key", "name", (b"no head",), event="x")
    document = to_document(evidence)
    assert document["strength"] == "record"
    assert from_document(document) == evidence
    with pytest.raises(NotEvidence):
        check_evidence(as_file(document))


def test_heads_of_two_trees_under_one_key_cannot_contradict() -> None:
    logs = []
    for tree_id in ("17", "18"):
        log = RekorV1Log()
        log.tree_id = tree_id
        log.grow(10 if tree_id == "17" else 12)
        logs.append(log)
    identity = logs[0].source().identity
    heads = tuple(log.source().latest().raw for log in logs)
    with pytest.raises(NotEvidence, match="different logs"):
        conclude(Evidence("v1", identity.api, "log-forked", "", identity.spki, identity.key_name, heads))


def test_what_happened_has_one_id_however_often_it_was_signed() -> None:
    assert event_id(forked(RekorV1Log)) == event_id(forked(RekorV1Log, grown=70))
    assert event_id(forked(RekorV1Log)) != event_id(forked(RekorV1Log, size=90))
    assert event_id(forked(RekorV1Log)) != event_id(forked(RekorV2Log))
