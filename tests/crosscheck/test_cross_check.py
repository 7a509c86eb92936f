"""Bundles held against each other, against what was followed, and against the log: a split view has nowhere to hide."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.crosscheck.bundle_check import BundleRelation, BundleVerdict, CrossCheck
from monitor.crosscheck.bundles import BadBundle, BundleView
from monitor.following.follower import LogFollower, Timing, baseline
from monitor.model.errors import FetchFailed
from monitor.model.log_source import LogSource
from monitor.proof.evidence import check_evidence, to_document
from monitor.store.database import open_database
from monitor.store.fsck import fsck
from monitor.store.reading import Reading
from monitor.store.store import Store
from tests.support.bundles import bundle, entries_in, entry, trust_root, views_in
from tests.support.harness import NOW, EverythingIsNews, NumberScanner
from tests.support.misbehaving_log import MisbehavingLog, RekorV1Log, RekorV2Log, b64, ecdsa_key, ed25519_key

KINDS: list[type[MisbehavingLog]] = [RekorV1Log, RekorV2Log]
kinds = pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.api)


def follow(store: Store, log: MisbehavingLog, start: int = 0) -> None:
    source = log.source()
    if store.position(source.identity.log) is None:
        baseline(source, store, start)
    LogFollower(source, store, NumberScanner(), EverythingIsNews(), Timing(lambda: NOW, lambda _: None)).run_pass()


def views(log: MisbehavingLog, index: int, size: int | None = None) -> list[BundleView]:
    return views_in(bundle(entry(log, index, size)), trust_root(log))


def view(log: MisbehavingLog, index: int, size: int | None = None) -> BundleView:
    (only,) = views(log, index, size)
    return only


def offline(store: Store, seen: BundleView) -> BundleVerdict:
    return CrossCheck(store, lambda: NOW).check(seen)


def online(store: Store, seen: BundleView, log: MisbehavingLog) -> BundleVerdict:
    return CrossCheck(store, lambda: NOW, lambda _: log.source()).check(seen)


def split(kind: type[MisbehavingLog], size: int, fork_at: int) -> tuple[MisbehavingLog, MisbehavingLog]:
    """The log as most see it, and as the signer of entry `fork_at` was shown it; grown alike since."""
    public, hidden = kind(), kind()
    public.grow(size)
    hidden.grow(size)
    hidden.rewrite_from(fork_at)
    return public, hidden


def kept_evidence(store: Store, verdict: BundleVerdict) -> dict[str, Any]:
    """Kept, alerted once, transferable, and verified from its file alone."""
    assert verdict.relation is BundleRelation.CONTRADICTION
    (kept,) = Reading(store.database).evidence(10)
    (alert,) = Reading(store.database).alerts(10, open_only=True, ids=[kept.id])
    assert alert.alert.kind == kept.kind == "log-forked"
    conclusion = check_evidence(json.dumps(dict(kept.document)).encode()).conclusion
    assert conclusion.transferable, conclusion.sentences
    return dict(kept.document)


@kinds
@pytest.mark.parametrize("index", [0, 31, 50, 63, 64, 99])
def test_an_honest_logs_bundles_are_consistent_with_what_was_followed(
    kind: type[MisbehavingLog], index: int, store: Store
) -> None:
    log = kind()
    log.grow(100)
    follow(store, log)
    assert offline(store, view(log, index)).relation is BundleRelation.CONSISTENT
    log.grow(100)
    # Nothing known offline reaches that far; the log proves it.
    later = view(log, 100 + index // 2)
    assert offline(store, later).relation in {BundleRelation.CONSISTENT, BundleRelation.NOT_COVERED}
    told = online(store, later, log)
    assert told.relation is BundleRelation.CONSISTENT
    assert told.agreeing > 0
    assert online(store, view(log, index, 100), log).relation is BundleRelation.CONSISTENT
    assert Reading(store.database).evidence(10) == []


@kinds
@pytest.mark.parametrize("followed", [40, 64, 100])
def test_a_split_view_that_only_a_bundle_shows_is_caught_offline(
    kind: type[MisbehavingLog], followed: int, store: Store
) -> None:
    """The monitor followed the public tree; one signer was shown another, of another size."""
    public, hidden = split(kind, followed, 20)
    follow(store, public)
    hidden.grow(30)
    kept_evidence(store, offline(store, view(hidden, 20)))
    # Bundles of the public history are no worse for it.
    public.grow(7)
    assert offline(store, view(public, 20)).relation is not BundleRelation.CONTRADICTION


@kinds
@pytest.mark.parametrize(("first", "second"), [(10, 20), (20, 21), (99, 20), (63, 64), (20, 20)])
def test_two_bundles_of_two_histories_contradict_whoever_follows_nothing(
    kind: type[MisbehavingLog], first: int, second: int, store: Store
) -> None:
    public, hidden = split(kind, 100, 20)
    hidden.grow(17)
    assert offline(store, view(public, first)).relation is BundleRelation.NOT_COVERED
    document = kept_evidence(store, offline(store, view(hidden, second)))
    assert len(document["heads"]) == len(document["leaves"]) == 2
    # The other way round, and again: the same event.
    offline(store, view(hidden, second))
    assert len(Reading(store.database).evidence(10)) == 1


@kinds
def test_two_roots_of_one_size_are_a_fork_at_once(kind: type[MisbehavingLog], store: Store) -> None:
    public, hidden = split(kind, 100, 50)
    offline(store, view(public, 3))
    assert "two roots for size 100" in offline(store, view(hidden, 70)).detail
    kept_evidence(store, offline(store, view(hidden, 70)))


@kinds
def test_a_bundle_against_our_own_history_of_heads(kind: type[MisbehavingLog], store: Store) -> None:
    public, hidden = split(kind, 60, 50)
    follow(store, public)
    public.grow(40)
    follow(store, public)
    kept_evidence(store, offline(store, view(hidden, 55)))


@kinds
def test_with_the_log_at_hand_every_fork_is_caught_even_where_no_node_is_shared(
    kind: type[MisbehavingLog], store: Store
) -> None:
    public, hidden = split(kind, 90, 85)
    public.grow(40)
    follow(store, public)
    verdict = online(store, view(hidden, 2), public)
    kept_evidence(store, verdict)


@kinds
def test_the_frontier_contradicts_by_itself_while_entries_wait_to_be_read(
    kind: type[MisbehavingLog], store: Store
) -> None:
    public, hidden = split(kind, 64, 10)
    follow(store, public)
    hidden.grow(60)
    document = kept_evidence(store, offline(store, view(hidden, 70)))
    assert document["prefix"]
    assert document["secondProof"]


@kinds
def test_a_bundle_newer_than_the_log_shows_is_told_and_not_accused(kind: type[MisbehavingLog], store: Store) -> None:
    log = kind()
    log.grow(100)
    follow(store, log)
    log.grow(20)
    newer = view(log, 110)
    log.rewind_to(100)
    told = online(store, newer, log)
    assert told.relation is BundleRelation.NOT_COVERED
    assert "the log shows only 100 entries" in told.detail


@kinds
def test_a_log_that_is_down_leaves_the_question_open(kind: type[MisbehavingLog], store: Store) -> None:
    log = kind()
    log.grow(100)
    follow(store, log)
    log.grow(5)
    seen = view(log, 3)

    def down(_: BundleView) -> LogSource:
        raise FetchFailed("down")

    told = CrossCheck(store, lambda: NOW, down).check(seen)
    assert told.relation is BundleRelation.NOT_COVERED
    assert told.unfinished
    assert not online(store, seen, log).unfinished  # the control case


@kinds
def test_bundles_of_one_fork_are_one_event(kind: type[MisbehavingLog], store: Store) -> None:
    public, hidden = split(kind, 100, 20)
    hidden.grow(9)
    offline(store, view(public, 20))
    for index in (20, 40, 60, 100):
        assert offline(store, view(hidden, index)).relation is BundleRelation.CONTRADICTION
    assert len(Reading(store.database).evidence(10)) == 1


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("UPDATE node SET hash = x'00' WHERE level = 1", "does not lead to its tree nodes"),
        ("UPDATE bundle_view SET leaf = x'00'", "differs from the verified bundle"),
        ("UPDATE bundle_view SET proof = x'00'", "differs from the verified bundle"),
        ("UPDATE bundle_view SET tree = 'another'", "does not lead to its tree nodes"),
    ],
)
def test_a_view_that_was_changed_in_the_database_is_told(damage: str, told: str, empty: Path, tmp_path: Path) -> None:
    log = RekorV2Log()
    log.grow(20)
    database = open_database(str(shutil.copy(empty, tmp_path / "damaged.db")))
    store = Store(database, clock=lambda: NOW, route=lambda _: ())
    offline(store, view(log, 4))
    assert fsck(database) == []  # the control case
    with database.write() as connection:
        connection.exec_driver_sql(damage)
    (problem,) = fsck(database)
    assert told in problem
    store.close()


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_two_bundles_of_an_honest_log_ever_contradict(data: st.DataObject) -> None:
    log = RekorV2Log()
    log.grow(data.draw(st.integers(2, 70)))
    found: dict[Any, bytes] = {}
    for _ in range(4):
        size = data.draw(st.integers(1, len(log.leaves)))
        seen = view(log, data.draw(st.integers(0, size - 1)), size)
        assert all(found.setdefault(place, value) == value for place, value in seen.nodes.items())


def spoiled() -> dict[str, Any]:
    """Every way to spoil the entry of a good bundle; none of them accuses the log."""
    return {
        "no proof": lambda e: e.pop("inclusionProof"),
        "no checkpoint": lambda e: e["inclusionProof"].pop("checkpoint"),
        "another body": lambda e: e.__setitem__("canonicalizedBody", "e30="),
        "no body": lambda e: e.pop("canonicalizedBody"),
        "another index": lambda e: e["inclusionProof"].__setitem__("logIndex", "3"),
        "an index like +4": lambda e: e["inclusionProof"].__setitem__("logIndex", "+4"),
        "an index far outside": lambda e: e["inclusionProof"].__setitem__("logIndex", str(10**30)),
        "a hash too few": lambda e: e["inclusionProof"]["hashes"].pop(),
        "a hash of 31 bytes": lambda e: e["inclusionProof"]["hashes"].__setitem__(0, "A" * 40 + "A=="),
        "hashes that are no list": lambda e: e["inclusionProof"].__setitem__("hashes", 7),
        "not base64": lambda e: e.__setitem__("canonicalizedBody", "*"),
        "base64 that is no ASCII": lambda e: e.__setitem__("canonicalizedBody", "é"),
        "a lone surrogate": lambda e: e["inclusionProof"]["checkpoint"].__setitem__("envelope", "\ud800"),
        "a note by somebody else": lambda e: e["inclusionProof"]["checkpoint"].__setitem__(
            "envelope", "x\n1\nAA==\n\n— x y\n"
        ),
        "an unknown log": lambda e: e["logId"].__setitem__("keyId", "AAAA"),
        "a number for a log": lambda e: e.__setitem__("logId", 7),
        "a signature bit": lambda e: e["inclusionProof"]["checkpoint"].__setitem__(
            "envelope", e["inclusionProof"]["checkpoint"]["envelope"].replace("\n\n", "\n\n\n")
        ),
    }


@kinds
@pytest.mark.parametrize("how", spoiled())
def test_a_spoiled_entry_proves_nothing_and_spoils_no_other(kind: type[MisbehavingLog], how: str) -> None:
    log = kind()
    log.grow(20)
    good = entry(log, 4)
    bad = copy.deepcopy(good)
    spoiled()[how](bad)
    first, second, third = entries_in(bundle(good, bad, entry(log, 5)), trust_root(log))
    assert isinstance(first, BundleView)
    assert isinstance(second, BadBundle)
    assert len(str(second)) < 400
    assert isinstance(third, BundleView)
    with pytest.raises(BadBundle):
        views_in(bundle(good, bad), trust_root(log))


@kinds
def test_a_checkpoint_by_another_key_of_the_same_root_proves_nothing(kind: type[MisbehavingLog]) -> None:
    log = kind()
    log.grow(20)
    log.sign_with(ed25519_key(99) if kind is RekorV2Log else ecdsa_key(99))
    (only,) = entries_in(bundle(entry(log, 4)), trust_root(log))
    assert isinstance(only, BadBundle)


@pytest.mark.parametrize(
    ("host", "told"),
    [
        ("log2025-alpha1.rekor.sigstage.dev", "log2025-alpha1.rekor.sigstage.dev: Sigstore's staging deployment"),
        ("log.acme.example", "it is of log.acme.example: check it with the trust root of that deployment"),
        ("log\u202e.example", "it is of log\\u{202e}.example"),
    ],
)
def test_a_bundle_of_another_deployment_says_so_by_its_checkpoint(host: str, told: str) -> None:
    log = RekorV2Log()
    log.grow(9)
    log.host = host
    (only,) = entries_in(bundle(entry(log, 4)), trust_root())
    assert isinstance(only, BadBundle)
    assert told in str(only)
    assert "the trust root knows no log with key id" in str(only)


@pytest.mark.parametrize(
    "raw", [b"", b"{}", b"[]", b"null", b"7", b'"x"', b"\xff", b"[" * 100_000, b'{"verificationMaterial": 7}']
)
def test_any_other_file_is_no_bundle(raw: bytes) -> None:
    log = RekorV2Log()
    log.grow(1)
    with pytest.raises(BadBundle):
        views_in(raw, trust_root(log))


def test_a_bare_entry_is_read_like_a_bundle() -> None:
    log = RekorV2Log()
    log.grow(9)
    (only,) = views_in(json.dumps(entry(log, 4)).encode(), trust_root(log))
    assert (only.index, only.head.size) == (4, 9)


@kinds
def test_evidence_of_two_nodes_falls_apart_when_touched(kind: type[MisbehavingLog], store: Store) -> None:
    public, hidden = split(kind, 100, 20)
    hidden.grow(17)
    offline(store, view(public, 10))
    evidence = offline(store, view(hidden, 30)).evidence
    assert evidence is not None
    good = to_document(evidence)
    assert check_evidence(json.dumps(good).encode()).conclusion.transferable  # the control case
    changes: dict[str, Any] = {
        "the second proof": lambda d: d["secondProof"].__setitem__(0, d["secondProof"][1]),
        "the first proof": lambda d: d["proof"].pop(),
        "a leaf": lambda d: d["leaves"][0].__setitem__("leaf", "e30="),
        "an index": lambda d: d["leaves"][1].__setitem__("index", 31),
        "a leaf less": lambda d: d["leaves"].pop(),
        "no leaves": lambda d: d["leaves"].clear(),
        "heads the other way round": lambda d: d["heads"].reverse(),
        "one head twice": lambda d: d["heads"].__setitem__(1, d["heads"][0]),
    }
    for name, change in changes.items():
        bad = copy.deepcopy(good)
        change(bad)
        assert not check_evidence(json.dumps(bad).encode()).conclusion.transferable, name


@kinds
def test_an_honest_pair_of_bundles_never_passes_for_a_fork(kind: type[MisbehavingLog], store: Store) -> None:
    public, hidden = split(kind, 100, 20)
    hidden.grow(17)
    offline(store, view(public, 10))
    lie = offline(store, view(hidden, 30)).evidence
    assert lie is not None
    honest = to_document(lie)
    other = view(public, 30, 90)
    honest["heads"][1], honest["secondProof"] = b64(other.head.raw), [b64(node) for node in other.proof]
    honest["leaves"][1] = {"index": 30, "leaf": b64(other.leaf)}
    assert not check_evidence(json.dumps(honest).encode()).conclusion.transferable
