"""Promises in bundles: read strictly, held to the log, remembered; a bad one is its maker's lie alone."""

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from monitor.crosscheck.bundle_check import BundleRelation
from monitor.crosscheck.bundle_promises import PromiseCheck
from monitor.crosscheck.bundles import (
    BadBundle,
    BundlePromise,
    EntryWithoutProof,
    read_certificate_timestamps,
)
from monitor.model.errors import FetchFailed
from monitor.proof.evidence import check_evidence
from monitor.store.reading import Reading
from monitor.store.store import Store
from monitor.trust.trust_root import read_trust_root
from sigstore_entries.trust import CertificateAuthorities
from tests.corpus.test_real_entries import CORPUS, ENTRIES, TRUSTED_ROOT
from tests.crosscheck.test_cross_check import follow
from tests.evidence import independent_reader
from tests.proof.test_promises import with_entries
from tests.support.bundles import bundle, entries_in, entry, timestamps_in, trust_root
from tests.support.bundles import held as held_bundle
from tests.support.harness import NOW
from tests.support.misbehaving_log import RekorV1Log, RekorV2Log, b64, ecdsa_key, sign
from tests.support.promises import signed_set


def v1(count: int = 50) -> RekorV1Log:
    log = with_entries(RekorV1Log, count)
    assert isinstance(log, RekorV1Log)
    return log


def stamped(log: RekorV1Log, index: int, number: int | None = None, at: int = 1_700_000_000) -> dict[str, Any]:
    """A log entry as bundles before version 0.2 hold it: nothing but the signed entry timestamp."""
    leaf = log.leaf(index if number is None else number)
    made = entry(log, 0)
    del made["inclusionProof"]
    signature = signed_set(log.log_key, leaf, log.offset + index, at).signature
    return made | {
        "logIndex": str(log.offset + index),
        "canonicalizedBody": b64(leaf),
        "integratedTime": str(at),
        "inclusionPromise": {"signedEntryTimestamp": b64(signature)},
    }


def read(log: RekorV1Log, made: dict[str, Any]) -> BundlePromise | BadBundle | None:
    (told,) = timestamps_in(bundle(made), trust_root(log))
    return told


def promised(log: RekorV1Log, index: int, number: int | None = None) -> BundlePromise:
    told = read(log, stamped(log, index, number))
    assert isinstance(told, BundlePromise), told
    return told


def online(store: Store, log: RekorV1Log) -> PromiseCheck:
    return PromiseCheck(store, lambda: NOW, lambda _: [log.source()])


def test_an_entry_with_nothing_but_a_timestamp_is_read() -> None:
    log = v1()
    (only,) = entries_in(bundle(stamped(log, 7)), trust_root(log))
    assert isinstance(only, EntryWithoutProof)
    told = promised(log, 7)
    assert (told.promise.index, told.promise.leaf) == (7, log.leaves[7])
    assert read(log, entry(log, 7)) is None, "an entry without a timestamp makes no promise"
    first = stamped(log, 0)
    del first["logIndex"]
    assert isinstance(read(log, first), BundlePromise), "protojson leaves zero out"


BAD: dict[str, Any] = {
    "by another key": lambda log, made: {"inclusionPromise": {"signedEntryTimestamp": b64(sign(ecdsa_key(9), b"x"))}},
    "for another index": lambda log, made: {"logIndex": "8"},
    "for another body": lambda log, made: {"canonicalizedBody": b64(b"other")},
    "at another time": lambda log, made: {"integratedTime": "1700000001"},
    "of a log nobody knows": lambda log, made: {"logId": {"keyId": b64(bytes(32))}},
    "a number that is none": lambda log, made: {"logIndex": "seven"},
    "a number below zero": lambda log, made: {"logIndex": "-7"},
    "a number too large": lambda log, made: {"integratedTime": str(2**60)},
    "no base64": lambda log, made: {"inclusionPromise": {"signedEntryTimestamp": "*"}},
    "a promise that is a list": lambda log, made: {"inclusionPromise": [1]},
    "no body": lambda log, made: {"canonicalizedBody": None},
}


@pytest.mark.parametrize("bad", BAD)
def test_19_a_bad_timestamp_is_not_the_logs_lie(bad: str) -> None:
    log = v1()
    made = stamped(log, 7)
    assert isinstance(read(log, made), BundlePromise)  # the control case
    assert isinstance(read(log, made | BAD[bad](log, made)), BadBundle)


def test_a_timestamp_from_outside_the_keys_time_is_none() -> None:
    log = v1()
    (known,) = trust_root(log).logs
    at = datetime.fromtimestamp(1_700_000_000, UTC)
    for period, good in (
        ((at, at), True),
        ((at + timedelta(seconds=1), None), False),
        ((None, at - timedelta(seconds=1)), False),
    ):
        root = replace(trust_root(log), logs=(replace(known, valid_from=period[0], valid_until=period[1]),))
        (told,) = timestamps_in(bundle(stamped(log, 7)), root)
        assert isinstance(told, BundlePromise) is good


def test_a_log_that_signs_no_timestamps_has_made_none() -> None:
    log = RekorV2Log()
    log.grow(5)
    made = entry(log, 3) | {"inclusionPromise": {"signedEntryTimestamp": b64(b"x" * 64)}}
    (told,) = timestamps_in(bundle(made), trust_root(log))
    assert isinstance(told, BadBundle)
    assert "signs no entry timestamps" in str(told)


@pytest.mark.parametrize(
    "certificate", [b64(b"junk"), "*", 7, b64(b"\x30\x82" + b"\xff" * 40)], ids=["junk", "no base64", "a number", "cut"]
)
def test_a_certificate_nobody_can_read_promises_nothing(certificate: object) -> None:
    log = v1()
    document = json.loads(bundle(stamped(log, 7)))
    document["verificationMaterial"]["certificate"] = {"rawBytes": certificate}
    told = read_certificate_timestamps(
        held_bundle(json.dumps(document).encode()), trust_root(log), CertificateAuthorities([])
    )
    assert [type(each) for each in told] == [BadBundle]
    document["verificationMaterial"]["certificate"] = {"rawBytes": ""}
    assert (
        read_certificate_timestamps(
            held_bundle(json.dumps(document).encode()), trust_root(log), CertificateAuthorities([])
        )
        == []
    )


def test_19_a_kept_promise_of_a_bundle_is_consistent(store: Store) -> None:
    log = v1()
    assert online(store, log).check(promised(log, 7)).relation is BundleRelation.CONSISTENT
    follow(store, log)
    assert online(store, log).check(promised(log, 49)).relation is BundleRelation.CONSISTENT
    assert store.promises.tally(NOW).pending == 0


def test_19_a_broken_promise_of_a_bundle_is_evidence_told_once(store: Store) -> None:
    log = v1()
    follow(store, log)
    for _ in range(2):
        verdict = online(store, log).check(promised(log, 7, 4711))
        assert verdict.relation is BundleRelation.CONTRADICTION
    (kept,) = Reading(store.database).evidence(10)
    assert kept.document["strength"] == "transferable"
    assert store.promises.tally(NOW).broken == 1
    assert [each.alert.kind for each in Reading(store.database).alerts(100)].count("log-promise-broken") == 1


def test_19_two_bundles_promised_one_index_are_proof_without_asking_anybody(store: Store) -> None:
    log = v1()
    follow(store, log)
    offline = PromiseCheck(store, lambda: NOW)
    assert offline.check(promised(log, 60, 1)).relation is BundleRelation.NOT_COVERED
    assert offline.check(promised(log, 61, 1)).relation is BundleRelation.NOT_COVERED, "control: another index"
    verdict = offline.check(promised(log, 60, 2))
    assert verdict.relation is BundleRelation.CONTRADICTION
    (kept,) = Reading(store.database).evidence(10)
    raw = json.dumps(kept.document).encode()
    assert check_evidence(raw).conclusion.transferable
    assert "promised to two entries" in (independent_reader.read(raw) or "")
    for number in range(2):
        for part in ("statement", "signature"):
            bad = json.loads(raw)
            changed = bytearray(base64.b64decode(bad["promises"][number][part]))
            changed[len(changed) // 2] ^= 1
            bad["promises"][number][part] = b64(bytes(changed))
            with pytest.raises(independent_reader.ShowsNothing):
                independent_reader.read(json.dumps(bad).encode())


def test_19_what_is_not_shown_is_remembered_and_nobody_is_accused_by_one_question(store: Store) -> None:
    log = v1()
    follow(store, log)
    log.hide_leaf(7)
    for _ in range(5):
        verdict = online(store, log).check(promised(log, 7))
        assert (verdict.relation, verdict.unfinished) == (BundleRelation.NOT_COVERED, True)
        assert "remembered" in verdict.detail
    assert store.promises.tally(NOW).pending == 1
    assert Reading(store.database).evidence(10) == []


def test_19_a_log_that_cannot_be_asked_decides_nothing(store: Store) -> None:
    log = v1()
    log.fail(".", FetchFailed("down"))
    verdict = online(store, log).check(promised(log, 7))
    assert (verdict.relation, verdict.unfinished) == (BundleRelation.NOT_COVERED, True)
    assert "not followed here" in verdict.detail
    assert store.promises.tally(NOW).pending == 0


def test_19_a_fork_found_on_the_way_is_told_as_one(store: Store) -> None:
    log = v1()
    follow(store, log)
    log.rewrite_from(20)
    verdict = online(store, log).check(promised(log, 7))
    assert verdict.evidence is not None
    assert (verdict.relation, verdict.evidence.kind) == (BundleRelation.CONTRADICTION, "log-forked")


@pytest.mark.skipif(
    not (ENTRIES.is_file() and TRUSTED_ROOT.is_file()),
    reason=f"the folder with recorded public-log entries ({CORPUS.name} beside the repository) is not here",
)
def test_timestamps_of_the_public_log_verify() -> None:
    trust = read_trust_root(TRUSTED_ROOT.read_bytes())
    found = []
    for line in ENTRIES.read_text().splitlines():
        raw = json.dumps(json.loads(line)["tlogEntry"]).encode()
        (told,) = timestamps_in(raw, trust)
        if isinstance(told, BadBundle):
            assert "knows no log" in str(told)
        elif told is not None:
            found.append(told.promise)
    assert len(found) >= 5
    assert len({promise.index for promise in found}) == len(found)
