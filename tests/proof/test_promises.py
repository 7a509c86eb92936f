"""Promises a log signed: only the log's own key makes one, and only what the log owes by now is held against it."""

import base64
import json
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from monitor.crosscheck.promise_audit import PromiseResult, PromiseStatus, hold, is_of
from monitor.http_fetcher import Refused
from monitor.model.errors import FetchFailed, Lagging, PromiseKind, PromiseStatement
from monitor.model.inclusion_promise import (
    MAX_STATEMENT,
    BadPromise,
    InclusionPromise,
    pack_timestamp,
    read_promise,
    set_of,
    unpack_timestamp,
)
from monitor.model.log_source import PromisingSource
from monitor.proof.evidence import conclude
from tests.support.misbehaving_log import (
    CtRfc6962Log,
    CtStaticLog,
    MisbehavingLog,
    RekorV1Log,
    RekorV2Log,
    ct_leaf,
    ecdsa_key,
    ed25519_key,
    merkle_tree_leaf,
    sign,
    spki_of,
)
from tests.support.promises import indexed_leaf, promised, signed_sct, signed_set

KEY = ecdsa_key(7)
SPKI = spki_of(KEY)
LATE = datetime(2031, 3, 1, tzinfo=UTC)
PROMISING: list[type[MisbehavingLog]] = [RekorV1Log, CtRfc6962Log, CtStaticLog]
promising = pytest.mark.parametrize("kind", PROMISING, ids=lambda k: k.api)


def promise_of(log: MisbehavingLog, number: int, index: int) -> InclusionPromise:
    """The log's promise to have this entry at this index of its (first) tree."""
    if isinstance(log, RekorV1Log):
        return promised(log, signed_set(log.log_key, log.leaf(number), log.offset + index))
    return promised(log, signed_sct(log.log_key, indexed_leaf(number, index)))


def with_entries(kind: type[MisbehavingLog], count: int) -> MisbehavingLog:
    """A log whose entries are all promised: CT leaves name their own index."""
    log = kind()
    log.append(*(log.leaf(n) if kind is RekorV1Log else indexed_leaf(n, n) for n in range(count)))
    return log


def held(log: MisbehavingLog, promise: InclusionPromise, signed_at: datetime | None = LATE) -> PromiseResult:
    source = log.source()
    assert isinstance(source, PromisingSource)
    head = source.latest()
    assert is_of(promise, source, head)
    return hold(promise, source, head, promise.due(LATE - timedelta(days=2)), signed_at)


# -- what is a promise


def test_a_signed_entry_timestamp_is_read_whole() -> None:
    promise = read_promise(signed_set(KEY, b'{"a":1}', 904262, at=1_689_177_396), SPKI)
    assert (promise.leaf, promise.index) == (b'{"a":1}', 904262)
    assert promise.at == datetime(2023, 7, 12, 15, 56, 36, tzinfo=UTC)
    assert promise.leaf_hash == sha256(b'\x00{"a":1}').digest()
    assert promise.log_id == sha256(SPKI).hexdigest()


def test_a_certificate_timestamp_promises_the_leaf_it_signs() -> None:
    leaf = merkle_tree_leaf(ct_leaf(3))
    promise = read_promise(signed_sct(KEY, leaf), SPKI)
    assert (promise.leaf, promise.index) == (leaf, None)
    assert promise.at == datetime.fromtimestamp(1_700_000_000.003, UTC)
    assert read_promise(signed_sct(KEY, indexed_leaf(3, 2**40 - 1)), SPKI).index == 2**40 - 1


def test_one_promise_has_one_id_however_often_it_is_signed() -> None:
    once, again = (read_promise(signed_set(KEY, b"x", 5), SPKI) for _ in range(2))
    assert once.signed != again.signed, "control: ECDSA signs anew"
    assert once.id == again.id
    others = [signed_set(KEY, b"y", 5), signed_set(KEY, b"x", 6)]
    assert len({once.id, *(read_promise(each, SPKI).id for each in others)}) == 3


def test_a_time_in_the_future_buys_the_log_no_time() -> None:
    seen = datetime(2031, 3, 1, tzinfo=UTC)
    honest = read_promise(signed_set(KEY, b"x", 5, at=int(seen.timestamp()) - 60), SPKI)
    ahead = read_promise(signed_set(KEY, b"x", 5, at=int(seen.timestamp()) + 10**8), SPKI)
    assert honest.due(seen) == honest.at + timedelta(hours=1)
    assert ahead.due(seen) == seen + timedelta(hours=1)
    sct = read_promise(signed_sct(KEY, merkle_tree_leaf(ct_leaf(0))), SPKI)
    assert sct.due(seen) == sct.at + timedelta(days=1)


BODY = base64.b64encode(b"leaf").decode()
TOLD: dict[str, Any] = {"body": BODY, "integratedTime": 5, "logID": sha256(SPKI).hexdigest(), "logIndex": 7}
ODD: dict[str, bytes] = {
    "not JSON": b"{",
    "a list": b"[]",
    "nesting": b"[" * 100_000,
    "not UTF-8": b"\xff",
    "a field too many": rfc8785.dumps({**TOLD, "more": 1}),
    "a field too few": rfc8785.dumps({name: TOLD[name] for name in ("body", "logID", "logIndex")}),
    "another order": json.dumps(dict(reversed(TOLD.items())), separators=(",", ":")).encode(),
    "spaces": json.dumps(TOLD).encode(),
    "a field twice": rfc8785.dumps(dict(TOLD)).replace(b'"logIndex":7', b'"logIndex":7,"logIndex":7'),
    "a number in another spelling": rfc8785.dumps(dict(TOLD)).replace(b"7}", b"7.0}"),
    "a fraction": rfc8785.dumps({**TOLD, "logIndex": 7.5}),
    "below zero": rfc8785.dumps({**TOLD, "logIndex": -1}),
    "a text for a number": rfc8785.dumps({**TOLD, "logIndex": "7"}),
    "true for a number": rfc8785.dumps({**TOLD, "logIndex": True}),
    "no base64": rfc8785.dumps({**TOLD, "body": "*"}),
    "base64 with stray bits": rfc8785.dumps({**TOLD, "body": "bGVhZh=="}),
    "another log's id": rfc8785.dumps({**TOLD, "logID": "0" * 64}),
    "the id in capitals": rfc8785.dumps({**TOLD, "logID": sha256(SPKI).hexdigest().upper()}),
}


@pytest.mark.parametrize("odd", ODD)
def test_odd_json_is_no_promise_even_when_the_log_signed_it(odd: str) -> None:
    control = rfc8785.dumps(dict(TOLD))
    assert read_promise(PromiseStatement(PromiseKind.SET, control, sign(KEY, control)), SPKI).index == 7
    with pytest.raises(BadPromise):
        read_promise(PromiseStatement(PromiseKind.SET, ODD[odd], sign(KEY, ODD[odd])), SPKI)


@given(st.binary(max_size=200), st.binary(max_size=80), st.sampled_from([*PromiseKind, "other"]))
def test_no_bytes_raise_anything_else(statement: bytes, signature: bytes, kind: str) -> None:
    with pytest.raises(BadPromise):
        read_promise(PromiseStatement(kind, statement, signature), SPKI)


def test_nothing_but_the_logs_own_key_makes_a_promise() -> None:
    for other in (ecdsa_key(8), ed25519_key(5)):
        stranger = signed_set(other, b"leaf", 7)
        with pytest.raises(BadPromise, match="another log"):
            read_promise(stranger, SPKI)
        with pytest.raises(BadPromise, match="did not sign"):
            read_promise(replace(signed_set(KEY, b"leaf", 7), signature=sign(other, stranger.statement)), SPKI)
    with pytest.raises(BadPromise, match="did not sign"):
        read_promise(signed_sct(ecdsa_key(8), merkle_tree_leaf(ct_leaf(0))), SPKI)
    good = signed_set(KEY, b"leaf", 7)
    with pytest.raises(BadPromise, match="did not sign"):
        read_promise(set_of(b"leaf", 1_700_000_000, sha256(SPKI).digest(), 8, good.signature), SPKI)
    with pytest.raises(BadPromise):
        read_promise(replace(good, kind="ct-sct"), SPKI)
    with pytest.raises(BadPromise, match="no such kind"):
        read_promise(replace(good, kind="other"), SPKI)
    with pytest.raises(BadPromise, match="longer"):
        read_promise(signed_set(KEY, b"x" * MAX_STATEMENT, 7), SPKI)


def test_numbers_that_json_cannot_hold_are_refused() -> None:
    with pytest.raises(BadPromise):
        set_of(b"x", 0, bytes(32), 2**60, b"")


@pytest.mark.parametrize(
    "odd", [(None, 1, 2), ("", 1, 2), ("*", 1, 2), ("AAAA", -1, 2), ("AAAA", 1, None), ("AAAA", 1, 10**30)]
)
def test_a_timestamp_served_without_sense_is_left_out(odd: tuple[str | None, int, int | None]) -> None:
    assert pack_timestamp(*odd) == b""
    with pytest.raises(BadPromise, match="no signed entry timestamp"):
        unpack_timestamp(b"", b"leaf", SPKI)


def test_the_timestamp_served_with_an_entry_is_its_promise() -> None:
    log = RekorV1Log(offset=40)
    log.grow(5)
    source = log.source()
    (entry,) = source.entries(3, 4, source.latest())
    promise = unpack_timestamp(entry.timestamp, entry.leaf, SPKI)
    assert (promise.leaf, promise.index) == (log.leaves[3], 43)
    with pytest.raises(BadPromise, match="did not sign"):
        unpack_timestamp(entry.timestamp, b"another body", SPKI)


# -- what is made of it


@promising
@pytest.mark.parametrize("index", [0, 5, 63, 64, 99])
def test_19_a_promise_that_was_kept_is_found_kept(kind: type[MisbehavingLog], index: int) -> None:
    log = with_entries(kind, 100)
    told = held(log, promise_of(log, index, index))
    assert (told.status, told.evidence) == (PromiseStatus.KEPT, None)


def test_19_a_certificate_without_an_index_is_found_by_its_hash() -> None:
    log = CtRfc6962Log()
    log.grow(70)
    promise = promised(log, signed_sct(log.log_key, log.leaf(33)))
    assert held(log, promise).status is PromiseStatus.KEPT


def test_19_a_promise_is_looked_for_in_the_tree_that_its_index_falls_into() -> None:
    log = RekorV1Log(offset=40)
    log.grow(10)
    source, promise = log.source(), promise_of(log, 4, 4)
    assert promise.index == 44
    assert held(log, promise).status is PromiseStatus.KEPT
    before = promised(log, signed_set(log.log_key, b"x", 39))
    after = promised(log, signed_set(log.log_key, b"x", 50))
    head = source.latest()
    assert [is_of(each, source, head) for each in (before, promise, after)] == [False, True, True]
    log.active = False
    final = source.latest()
    assert [is_of(each, source, final) for each in (before, promise, after)] == [False, True, False]


@promising
def test_19_an_index_promised_to_one_entry_and_given_to_another_is_proof(kind: type[MisbehavingLog]) -> None:
    log = with_entries(kind, 100)
    told = held(log, promise_of(log, 4711, 40), signed_at=None)
    assert told.status is PromiseStatus.BROKEN, "no waiting: the log's own signatures contradict each other"
    assert told.evidence is not None
    assert conclude(told.evidence).transferable


def test_19_another_entry_without_its_own_timestamp_is_no_proof() -> None:
    """The index counts through all trees, and where a tree begins is signed nowhere."""
    log = with_entries(RekorV1Log, 100)
    assert isinstance(log, RekorV1Log)
    log.timestamps = False
    told = held(log, promise_of(log, 4711, 40), signed_at=None)
    assert told.status is PromiseStatus.NOT_SHOWN
    assert told.evidence is not None
    conclusion = conclude(told.evidence)
    assert not conclusion.transferable
    assert any("if this tree begins at index 0" in sentence for sentence in conclusion.sentences)


@promising
def test_19_a_tree_that_does_not_reach_the_index_is_waited_for_until_it_is_due(kind: type[MisbehavingLog]) -> None:
    log = with_entries(kind, 100)
    promise = promise_of(log, 100, 100)
    due = promise.due(LATE - timedelta(days=2))
    assert held(log, promise, None).status is PromiseStatus.WAITING
    assert held(log, promise, due).status is PromiseStatus.WAITING
    late = held(log, promise, due + timedelta(seconds=1))
    assert late.status is PromiseStatus.NOT_SHOWN
    assert late.evidence is not None
    assert not conclude(late.evidence).transferable, "an absence cannot be signed"
    log.append(log.leaf(100) if kind is RekorV1Log else indexed_leaf(100, 100))
    assert held(log, promise).status is PromiseStatus.KEPT


def test_19_a_certificate_that_is_nowhere_is_waited_for_until_its_merge_delay_is_over() -> None:
    log = CtRfc6962Log()
    log.grow(50)
    promise = promised(log, signed_sct(log.log_key, log.leaf(4711)))
    assert held(log, promise, promise.at + timedelta(hours=24)).status is PromiseStatus.WAITING
    late = held(log, promise, promise.at + timedelta(hours=24, seconds=1))
    assert late.status is PromiseStatus.NOT_SHOWN
    assert late.evidence is not None
    assert not conclude(late.evidence).transferable


def test_19_an_entry_that_is_not_served_at_an_index_the_tree_has_is_not_shown() -> None:
    log = with_entries(RekorV1Log, 100)
    log.hide_leaf(40)
    told = held(log, promise_of(log, 40, 40), signed_at=None)
    assert told.status is PromiseStatus.NOT_SHOWN
    log.honest()
    assert held(log, promise_of(log, 40, 40)).status is PromiseStatus.KEPT


def test_19_a_swapped_entry_beside_an_honest_proof_is_not_shown() -> None:
    for kind in (CtRfc6962Log, CtStaticLog):
        log = with_entries(kind, 100)
        log.swap_leaf(40, indexed_leaf(4711, 40))
        assert held(log, promise_of(log, 40, 40)).status is PromiseStatus.NOT_SHOWN


@pytest.mark.parametrize("kind", [RekorV1Log, CtStaticLog], ids=lambda k: k.api)
def test_19_a_replica_that_is_behind_has_nothing_to_show(kind: type[MisbehavingLog]) -> None:
    log = with_entries(kind, 100)
    source, promise = log.source(), promise_of(log, 40, 40)
    assert isinstance(source, PromisingSource)
    head = source.latest()
    # Its tree of 30 entries is all it knows of.
    del log.leaves[30:]
    with pytest.raises(Lagging):
        hold(promise, source, head, promise.due(LATE), LATE)


def test_19_a_replica_that_is_behind_has_no_proof_by_hash() -> None:
    log = CtRfc6962Log()
    log.grow(100)
    source, promise = log.source(), promised(log, signed_sct(log.log_key, log.leaf(40)))
    assert isinstance(source, PromisingSource)
    head = source.latest()
    log.rewind_to(30)
    log.fail("proof-by-hash", Refused("HTTP 400: tree size too large", 400))
    with pytest.raises(Lagging):
        hold(promise, source, head, promise.due(LATE), LATE)


@promising
def test_19_an_outage_says_nothing_about_a_promise(kind: type[MisbehavingLog]) -> None:
    log = with_entries(kind, 100)
    source, promise = log.source(), promise_of(log, 40, 40)
    assert isinstance(source, PromisingSource)
    head = source.latest()
    log.fail(".", FetchFailed("down"))
    with pytest.raises(FetchFailed, match="down"):
        hold(promise, source, head, promise.due(LATE), LATE)


def test_19_rekor_v2_promises_nothing_beside_its_heads() -> None:
    assert not isinstance(RekorV2Log().source(), PromisingSource)
