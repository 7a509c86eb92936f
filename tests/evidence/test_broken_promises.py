"""A broken promise convinces every reader with the log's key, when it can; and nothing in its file can be changed."""

import base64
import copy
import json
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import pytest
from msgspec.structs import replace

from monitor.crosscheck.promise_audit import hold
from monitor.model.errors import Evidence
from monitor.model.log_source import PromisingSource, SignedHead
from monitor.proof.evidence import NotEvidence, check_evidence, event_id, from_document, to_document
from tests.evidence import independent_reader
from tests.evidence.independent_reader import ShowsNothing
from tests.evidence.test_independent_reader import verdicts
from tests.proof.test_promises import LATE, PROMISING, promise_of, with_entries
from tests.support.memory_state import MemoryState
from tests.support.misbehaving_log import MisbehavingLog, RekorV1Log, b64, ecdsa_key, spki_of
from tests.support.promises import promised, signed_set

kinds = pytest.mark.parametrize("kind", PROMISING, ids=lambda k: k.api)


class Kept(MemoryState):
    """What a peer's evidence is kept in."""

    def heads_at(self, log: str, size: int) -> Sequence[SignedHead]:
        return [head for head in self.heads if (head.log, head.size) == (log, size)]

    def evidence_of(self, log: str) -> Sequence[Evidence]:
        return [each for each in self.evidence.values() if each.log == log]


def broken(log: MisbehavingLog, number: int = 4711, index: int = 40) -> Evidence:
    source, promise = log.source(), promise_of(log, number, index)
    assert isinstance(source, PromisingSource)
    told = hold(promise, source, source.latest(), promise.at, LATE)
    assert told.evidence is not None
    return told.evidence


def both(document: dict[str, Any]) -> set[object]:
    """What the two readers make of a file: refused, a record, or proof."""
    raw = json.dumps(document).encode()
    told: list[object] = []
    for read, refuses in (
        (lambda r: check_evidence(r).conclusion.transferable, NotEvidence),
        (independent, ShowsNothing),
    ):
        try:
            told.append(read(raw))
        except refuses:
            told.append("refused")
    return set(told)


def independent(raw: bytes) -> bool:
    return independent_reader.read(raw) is not None


@kinds
def test_both_readers_are_convinced_by_an_index_with_two_entries(kind: type[MisbehavingLog]) -> None:
    evidence = broken(with_entries(kind, 100))
    document = to_document(evidence)
    assert document["strength"] == "transferable"
    assert from_document(document) == evidence
    assert verdicts(document) == (True, True)
    with pytest.raises(ShowsNothing, match="not the log's"):
        independent_reader.read(json.dumps(document).encode(), "0" * 64)


@kinds
def test_both_readers_call_an_absence_a_record(kind: type[MisbehavingLog]) -> None:
    document = to_document(broken(with_entries(kind, 100), 100, 100))
    assert document["strength"] == "record"
    assert both(document) == {False}
    assert document["shows"][-1].startswith("Record only: the log does not show")


def test_both_readers_want_the_logs_own_word_for_the_other_entry_of_rekor() -> None:
    log = with_entries(RekorV1Log, 100)
    assert isinstance(log, RekorV1Log)
    log.timestamps = False
    assert both(to_document(broken(log))) == {False}


def test_an_honest_log_of_two_trees_cannot_be_framed() -> None:
    """Index 45 of the log and leaf 45 of its second tree are two entries, and neither is a lie."""
    log = with_entries(RekorV1Log, 100)
    assert isinstance(log, RekorV1Log)
    log.offset = 40
    lie = broken(log, 4711, 5)
    first = promised(log, signed_set(log.log_key, log.leaf(123), 45))
    source = log.source()
    other = source.place_of(promise_of(log, 45, 45), source.latest())
    assert other.promised is not None
    forged = replace(
        lie,
        event=first.id,
        leaves=((other.index, other.leaf),),
        proof=other.proof,
        promises=(first.signed, other.promised),
    )
    assert both(to_document(forged)) == {False}
    assert both(to_document(replace(forged, promises=(first.signed,)))) == {False}


@kinds
def test_a_kept_promise_shows_nothing(kind: type[MisbehavingLog]) -> None:
    log = with_entries(kind, 100)
    source, kept = log.source(), promise_of(log, 40, 40)
    assert isinstance(source, PromisingSource)
    place = source.place_of(kept, source.latest())
    lie = replace(broken(log), event=kept.id, promises=(kept.signed,), leaves=((place.index, place.leaf),))
    assert both(to_document(lie)) == {"refused"}
    twice = replace(lie, promises=(kept.signed, kept.signed))
    assert both(to_document(twice)) == {"refused"}


@kinds
@pytest.mark.parametrize("what", ["proof", "record"])
def test_nothing_in_the_file_can_be_changed(kind: type[MisbehavingLog], what: str) -> None:
    log = with_entries(kind, 100)
    good = to_document(broken(log) if what == "proof" else broken(log, 100, 100))
    assert both(good) == {what == "proof"}  # the control case
    for field in ("heads", "proof"):
        for number in range(len(good[field])):
            bad = copy.deepcopy(good)
            bad[field][number] = _flipped(bad[field][number])
            assert both(bad) == {"refused"}, (field, number)
    for number in range(len(good["promises"])):
        for part in ("statement", "signature"):
            bad = copy.deepcopy(good)
            bad["promises"][number][part] = _flipped(bad["promises"][number][part])
            assert both(bad) == {"refused"}, (number, part)
        bad = copy.deepcopy(good)
        bad["promises"][number]["kind"] = "ct-sct" if kind is RekorV1Log else "rekor-set"
        assert both(bad) == {"refused"}
    changes: dict[str, Any] = {
        "no promise": {"promises": []},
        "a promise that is none": {"promises": [{"kind": "other"}]},
        "another size": {"sizes": [size + 1 for size in good["sizes"]]},
        "no size": {"sizes": []},
        "another key": {"key": {**good["key"], "spki": b64(spki_of(ecdsa_key(9)))}},
        "two heads": {"heads": good["heads"] * 2},
        "another protocol": {"api": "ct-static" if kind is RekorV1Log else "rekor-v1"},
    }
    if good["leaves"]:
        (leaf,) = good["leaves"]
        changes |= {
            "another place": {"leaves": [{**leaf, "index": leaf["index"] + 1}]},
            "another leaf": {"leaves": [{**leaf, "leaf": b64(b"other")}]},
            "no leaf": {"leaves": []},
            "two leaves": {"leaves": [leaf, leaf]},
            "no proof": {"proof": []},
            "no head": {"heads": [], "sizes": []},
        }
    for name, change in changes.items():
        assert both({**copy.deepcopy(good), **change}) == {"refused"}, name
    assert both(_named({**copy.deepcopy(good), "event": "another"})) == {"refused"}
    extra = copy.deepcopy(good)
    extra["promises"] = [*extra["promises"], good["promises"][0]]
    assert both(extra) == {"refused"}
    for field in ("id", "kind", "log", "event"):
        with pytest.raises(NotEvidence):
            check_evidence(json.dumps({**good, field: "log-forked"}).encode())


def test_the_promise_alone_names_what_happened() -> None:
    log = with_entries(RekorV1Log, 100)
    once = broken(log)
    log.append(log.leaf(100))
    assert event_id(broken(log)) == event_id(once), "the same promise, seen under another head"
    assert event_id(broken(log, 4712)) != event_id(once)


def _named(document: dict[str, Any]) -> dict[str, Any]:
    """With the id that belongs to what it says: a forger can compute that too."""
    spki = sha256(base64.b64decode(document["key"]["spki"])).hexdigest()
    parts = (document["log"], document["kind"], spki, document["event"])
    return {**document, "id": sha256("\0".join(parts).encode()).hexdigest()[:32]}


def _flipped(text: str) -> str:
    raw = bytearray(base64.b64decode(text))
    raw[len(raw) // 2] ^= 1
    return b64(bytes(raw))
