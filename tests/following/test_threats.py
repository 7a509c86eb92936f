"""One test per threat: what a log, or another server in its place, can do; we notice, keep the evidence and stay put.

The table is threats 1 to 18; each test opens with the honest log as its control case.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from msgspec.structs import replace

from alerts.alert import Severity
from monitor.following.follower import FollowLimits
from monitor.http_fetcher import NotFound, Refused, WrongContent
from monitor.logs.rekor_v2 import RekorV2Source
from monitor.model.errors import FetchFailed, LogMisbehaved, MalformedEntries, NotShown
from monitor.model.log_source import LogApi, read_head
from monitor.proof.evidence import conclude
from tests.support.harness import KINDS, NOW, Watch, watch
from tests.support.misbehaving_log import (
    CtRfc6962Log,
    CtStaticLog,
    MisbehavingLog,
    RekorV1Log,
    RekorV2Log,
    b64,
    ecdsa_key,
    ed25519_key,
    spki_of,
)
from tlog.cosignature import WitnessKey, cosigned_message
from tlog.note import tile_log_key

kinds = pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.api)
tiled = pytest.mark.parametrize("kind", [RekorV2Log, CtStaticLog], ids=lambda k: k.api)


def misbehaves(seen: Watch, kind: str) -> LogMisbehaved:
    """Follow; expect exactly this misbehaviour, its evidence and its one alert stored, and the position unmoved."""
    before, found = seen.position, seen.found()
    with pytest.raises(LogMisbehaved) as caught:
        seen.follow()
    assert caught.value.kind == kind
    assert [e.kind for e in seen.state.evidence.values()] == [kind]
    assert [a.kind for a in seen.state.outbox.values() if a.kind.startswith("log-")] == [kind]
    assert seen.position.frontier == before.frontier
    assert seen.found() == found
    if kind != "log-head-refused":
        # Everything the log signed is history, above all what contradicts it.
        shown = caught.value.evidence
        signed = [read_head(raw, LogApi(shown.api), shown.key_name, shown.spki) for raw in shown.heads]
        assert {(each.size, each.root) for each in signed} <= {(each.size, each.root) for each in seen.state.heads}
    return caught.value


@kinds
def test_1_a_rollback_to_an_honest_older_head_is_a_lagging_replica(kind: type[MisbehavingLog]) -> None:
    seen = watch(kind, 100)
    seen.log.rewind_to(60)
    report = seen.follow()
    assert report.lagging
    assert report.head.size == 60
    assert seen.position.head.head.size == 100
    assert seen.state.evidence == {}


def test_1_a_replica_too_far_behind_to_prove_anything_stops_nothing() -> None:
    seen = watch(RekorV1Log, 60)
    seen.log.grow(40)
    seen.follow()
    seen.log.leaves = seen.log.leaves[:60]
    assert seen.follow().lagging
    assert seen.position.head.head.size == 100


@kinds
def test_1_a_rollback_to_a_head_of_another_history_is_a_fork(kind: type[MisbehavingLog]) -> None:
    seen = watch(kind, 100)
    seen.log.rewrite_from(10)
    seen.log.rewind_to(60)
    # The proof the log gives is out of its new history; only its older head is at hand to contradict.
    with pytest.raises(LogMisbehaved) as caught:
        seen.follow()
    assert caught.value.kind in {"log-forked", "log-inconsistent"}
    assert seen.position.head.head.size == 100


@kinds
def test_2_two_roots_for_one_size_are_a_fork_that_anybody_can_check(kind: type[MisbehavingLog]) -> None:
    seen = watch(kind, 100)
    seen.log.rewrite_from(99)
    caught = misbehaves(seen, "log-forked")
    assert conclude(caught.evidence).transferable
    assert caught.evidence.sizes == (100, 100)


@kinds
@pytest.mark.parametrize("size", [100, 128, 1])
def test_3_history_rewritten_while_growing_is_a_fork_that_anybody_can_check(
    kind: type[MisbehavingLog], size: int
) -> None:
    seen = watch(kind, size)
    seen.log.rewrite_from(0)
    seen.log.grow(50)
    caught = misbehaves(seen, "log-forked")
    assert conclude(caught.evidence).transferable
    assert caught.evidence.sizes == (size, size + 50)


def test_2_a_split_view_shows_in_the_heads_that_come_with_entries() -> None:
    seen = watch(RekorV1Log, 100)
    seen.log.grow(20)
    forked = RekorV1Log(seen.log.leaves)
    forked.rewrite_from(110)

    def other_view(raw: bytes) -> bytes:
        entries = json.loads(raw)
        for entry in entries:
            for value in entry.values():
                value["verification"]["inclusionProof"]["checkpoint"] = forked.head_note(120).decode()
        return json.dumps(entries).encode()

    seen.log.edit("retrieve", other_view)
    with pytest.raises(LogMisbehaved) as caught:
        seen.follow()
    assert caught.value.kind == "log-forked"
    assert conclude(caught.value.evidence).transferable
    assert len([head for head in seen.state.heads if head.size == 120]) == 2


def test_2_an_older_head_that_comes_with_entries_is_no_split_view() -> None:
    seen = watch(RekorV1Log, 100)
    old = RekorV1Log(seen.log.leaves)
    seen.log.grow(20)

    def older_view(raw: bytes) -> bytes:
        entries = json.loads(raw)
        for entry in entries:
            for value in entry.values():
                value["verification"]["inclusionProof"] |= {"checkpoint": old.head_note(90).decode(), "treeSize": 90}
        return json.dumps(entries).encode()

    seen.log.edit("retrieve", older_view)
    assert seen.follow().entries == 20
    assert [head.size for head in seen.state.heads] == [100, 120, 90]


@kinds
def test_3_the_same_fork_seen_again_is_told_once(kind: type[MisbehavingLog]) -> None:
    seen = watch(kind, 100)
    seen.log.rewrite_from(50)
    for _ in range(3):
        seen.log.grow(10)
        with pytest.raises(LogMisbehaved):
            seen.follow()
        seen.restart()
    assert len(seen.state.evidence) == 1
    assert len([a for a in seen.state.outbox.values() if a.kind == "log-forked"]) == 1


@kinds
def test_4_a_hidden_entry_is_blamed_only_when_it_stays_hidden(kind: type[MisbehavingLog]) -> None:
    seen = watch(kind, 100)
    seen.log.grow(40)
    seen.log.hide_leaf(120)
    tiles = kind in {RekorV2Log, CtStaticLog}
    for _ in range(2):
        with pytest.raises(NotShown):
            seen.follow()
        assert seen.state.evidence == {}
    # A tile holds its entries together: hiding one hides them all.
    assert seen.position.frontier.size == (100 if tiles else 120)
    assert misbehaves(seen, "log-entry-missing").evidence.sizes == ((100 if tiles else 120), 140)


@kinds
def test_4_an_entry_that_shows_up_late_is_read_and_nobody_is_blamed(kind: type[MisbehavingLog]) -> None:
    seen = watch(kind, 100)
    seen.log.grow(40)
    seen.log.fail("retrieve|entries|data", FetchFailed("not there yet"), times=1)
    with pytest.raises(FetchFailed):
        seen.follow()
    assert seen.follow().backlog == 0
    assert seen.state.evidence == {}
    seen.check()


@kinds
@pytest.mark.parametrize("index", [100, 117, 139])
def test_5_a_swapped_entry_is_named_and_everything_before_it_is_kept(kind: type[MisbehavingLog], index: int) -> None:
    seen = watch(kind, 100)
    seen.log.grow(40)
    seen.log.swap_leaf(index, seen.log.leaf(999_999))
    with pytest.raises(LogMisbehaved) as caught:
        seen.follow()
    assert caught.value.kind == "log-entries-not-in-tree"
    assert caught.value.evidence.leaves == ((index, seen.log.leaf(999_999)),)
    assert not conclude(caught.value.evidence).transferable
    assert seen.position.frontier.size == index
    assert seen.found() == list(range(0, index, 7))
    seen.check()
    seen.log.honest()
    seen.follow()
    assert seen.found() == list(range(0, 140, 7))


@kinds
def test_5_a_wrong_entry_from_a_bad_cache_is_asked_for_again(kind: type[MisbehavingLog]) -> None:
    seen = watch(kind, 100)
    seen.log.grow(40)
    seen.log.swap_leaf(110, seen.log.leaf(999_999))
    seen.meanwhile = seen.log.honest
    seen.follow()
    assert seen.found() == list(range(0, 140, 7))
    assert seen.state.evidence == {}
    seen.check()


@kinds
def test_6_and_7_a_head_signed_by_another_key_is_refused(kind: type[MisbehavingLog]) -> None:
    seen = watch(kind, 100)
    seen.log.grow(5)
    seen.log.sign_with(ed25519_key(99) if kind is RekorV2Log else ecdsa_key(99))
    misbehaves(seen, "log-head-refused")
    assert seen.position.head.head.size == 100


@pytest.mark.parametrize("kind", [RekorV1Log, RekorV2Log, CtStaticLog], ids=lambda k: k.api)
def test_6_a_head_of_another_tree_under_the_same_key_is_refused(kind: type[MisbehavingLog]) -> None:
    seen = watch(kind, 100)
    seen.log.grow(5)
    seen.log.wrong_origin("rekor.example.org - 42")
    misbehaves(seen, "log-head-refused")


def test_7_one_garbled_answer_is_asked_for_again() -> None:
    seen = watch(RekorV2Log, 100)
    seen.log.grow(5)
    seen.log.sign_with(ed25519_key(99))
    seen.meanwhile = seen.log.honest
    assert seen.follow().entries == 5


@kinds
def test_8_a_replayed_head_is_no_error_and_shows_in_the_report(kind: type[MisbehavingLog]) -> None:
    seen = watch(kind, 100)
    seen.log.shown_size = 100
    seen.log.grow(10)
    report = seen.follow()
    assert (report.entries, report.head.size, report.lagging) == (0, 100, False)


SHAPES: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda raw: raw[:-1],
    "padded": lambda raw: raw + b"\0",
    "doubled": lambda raw: raw + raw,
    "empty": lambda _: b"",
    "a web page": lambda _: b"<!doctype html><title>Sign in</title>",
    "oversized": lambda raw: raw + b"\0" * (40 * 1024 * 1024),
}


@tiled
@pytest.mark.parametrize("what", ["tile/(entries|data)/", r"tile/\d+/"])
@pytest.mark.parametrize("shape", SHAPES)
def test_9_a_tile_of_any_other_length_is_no_answer(kind: type[MisbehavingLog], what: str, shape: str) -> None:
    seen = watch(kind, 300)
    seen.log.grow(300)
    seen.log.edit(what, SHAPES[shape])
    for _ in range(2):
        with pytest.raises(FetchFailed):
            seen.follow()
        assert seen.state.evidence == {}
    seen.log.honest()
    assert seen.follow().backlog == 0
    assert seen.found() == list(range(0, 600, 7))


@tiled
def test_9_entries_that_stay_garbled_are_entries_kept_from_us(kind: type[MisbehavingLog]) -> None:
    seen = watch(kind, 300)
    seen.log.grow(300)
    seen.log.edit("tile/(entries|data)/", SHAPES["truncated"])
    for _ in range(4):
        with pytest.raises(MalformedEntries) as caught:
            seen.follow()
        assert caught.value.reason == "malformed"
    assert seen.state.evidence == {}
    seen.now += timedelta(minutes=6)
    misbehaves(seen, "log-entry-missing")


@tiled
def test_9_partial_tiles_may_vanish_once_the_full_one_is_there(kind: type[MisbehavingLog]) -> None:
    seen = watch(kind, 300)
    seen.log.grow(100)
    seen.log.shown_size = 400
    seen.log.grow(200)
    seen.log.fail(r"\.p/", Refused("HTTP 404", 404))
    with pytest.raises(FetchFailed):
        seen.follow()
    seen.log.failures = []
    seen.log.hidden = set(range(512, 600))
    seen.log.shown_size = 510
    seen.log.fail(r"tile/(\d|entries|data)/001\.p/", _gone())
    seen.follow()
    assert seen.found() == list(range(0, 510, 7))


@tiled
def test_10_a_partial_tile_that_the_full_tile_does_not_continue_is_a_fork(kind: type[MisbehavingLog]) -> None:
    seen = watch(kind, 250)
    seen.log.rewrite_from(249)
    seen.log.grow(50)
    assert conclude(misbehaves(seen, "log-forked").evidence).transferable


PROOF_SHAPES: dict[str, Callable[[list[str]], list[str]]] = {
    "extra": lambda hashes: [*hashes, hashes[0]],
    "missing": lambda hashes: hashes[:-1],
    "reordered": lambda hashes: hashes[::-1],
    "empty": lambda _: [],
}


@pytest.mark.parametrize("kind", [RekorV1Log, CtRfc6962Log], ids=lambda k: k.api)
@pytest.mark.parametrize("shape", PROOF_SHAPES)
def test_11_a_malformed_proof_moves_nothing_and_is_a_record_not_proof(kind: type[MisbehavingLog], shape: str) -> None:
    seen = watch(kind, 100)
    seen.log.grow(5)
    field = "hashes" if kind is RekorV1Log else "consistency"

    def change(raw: bytes) -> bytes:
        document = json.loads(raw)
        document[field] = PROOF_SHAPES[shape](document[field])
        return json.dumps(document).encode()

    seen.log.edit("log/proof|sth-consistency", change)
    caught = misbehaves(seen, "log-inconsistent")
    assert len(seen.pauses) == len(seen.limits.pauses)
    assert not conclude(caught.evidence).transferable


@pytest.mark.parametrize("kind", [RekorV1Log, CtRfc6962Log], ids=lambda k: k.api)
def test_11_a_proof_hash_of_another_length_is_no_answer(kind: type[MisbehavingLog]) -> None:
    seen = watch(kind, 100)
    seen.log.grow(5)
    seen.log.edit("proof|consistency", lambda _: b'{"hashes":["00"],"consistency":["AAAA"]}')
    with pytest.raises(FetchFailed) as caught:
        seen.follow()
    assert not isinstance(caught.value, NotShown)


def test_12_a_rotated_shard_is_followed_to_its_end() -> None:
    seen = watch(RekorV1Log, 100)
    assert isinstance(seen.log, RekorV1Log)
    seen.log.grow(25)
    seen.log.active = False
    assert seen.follow().entries == 25
    assert seen.position.head.head.final
    seen.check()


def test_12_a_shard_that_vanished_is_blamed_when_it_stays_gone() -> None:
    seen = watch(RekorV1Log, 100)
    assert isinstance(seen.log, RekorV1Log)
    seen.log.vanished = True
    for _ in range(2):
        with pytest.raises(NotShown):
            seen.follow()
    misbehaves(seen, "log-shard-vanished")


def test_13_a_retired_shard_that_grows_is_blamed() -> None:
    seen = watch(RekorV1Log, 100)
    assert isinstance(seen.log, RekorV1Log)
    seen.log.active = False
    seen.follow()
    seen.log.grow(1)
    caught = misbehaves(seen, "log-unfrozen")
    assert not conclude(caught.evidence).transferable


def test_13_a_retired_shard_with_another_root_is_a_fork() -> None:
    seen = watch(RekorV1Log, 100)
    assert isinstance(seen.log, RekorV1Log)
    seen.log.active = False
    seen.follow()
    seen.log.rewrite_from(99)
    misbehaves(seen, "log-forked")


def test_14_growth_after_a_freeze_is_proof_against_the_log() -> None:
    seen = watch(RekorV2Log, 100)
    seen.log.freeze()
    seen.follow()
    assert seen.position.head.head.final
    seen.log.final = False
    seen.follow()
    assert seen.position.head.head.final
    seen.log.grow(1)
    assert conclude(misbehaves(seen, "log-unfrozen").evidence).transferable


def test_15_cosignatures_and_unknown_lines_in_any_order_are_accepted_in_rekor_v2() -> None:
    seen = watch(RekorV2Log, 100)
    assert isinstance(seen.log, RekorV2Log)
    seen.log.extra_signatures = ["— witness.example.org AAAAAAAAAAAA\n", "— other.example.org BBBBBBBBBBBB\n"]
    seen.log.grow(5)
    assert seen.follow().entries == 5


def test_15_witnesses_count_only_when_their_cosignature_verifies() -> None:
    log = RekorV2Log()
    log.grow(5)
    good, bad = ed25519_key(21), ed25519_key(22)
    log.extra_signatures = [
        cosignature("good.example.org", good, log.note_text(log.host, 5)),
        cosignature("bad.example.org", bad, b"another text\n"),
    ]
    key = tile_log_key(log.host, spki_of(log.log_key))
    witnesses = [witness_key("good.example.org", good), witness_key("bad.example.org", bad)]
    source = RekorV2Source(log.source().identity, log, key, witnesses)
    assert source.latest().cosigned_by == ("good.example.org",)


def test_15_a_second_signature_is_refused_in_rekor_v1() -> None:
    seen = watch(RekorV1Log, 100)
    seen.log.grow(5)
    line = "— witness.example.org AAAAAAAAAAAA\\n"
    seen.log.edit("api/v1/log$", lambda raw: raw.replace(b'", "treeID": "119', f'{line}", "treeID": "119'.encode()))
    with pytest.raises(FetchFailed, match="one signature"):
        seen.follow()


def test_16_a_head_signed_in_the_future_is_told_once_a_day_and_stops_nothing() -> None:
    seen = watch(CtRfc6962Log, 10)
    assert [a for a in seen.state.outbox.values() if a.kind == "log-clock"] == []  # the control case
    seen.log.timestamp = int(NOW.timestamp() * 1000) + 3_600_000
    for _ in range(2):
        seen.log.grow(5)
        assert seen.follow().entries == 5
    assert [a.severity for a in seen.state.outbox.values() if a.kind == "log-clock"] == [Severity.WARN]


@kinds
def test_7_growth_after_the_keys_time_is_told_once_and_stops_nothing(kind: type[MisbehavingLog]) -> None:
    seen = watch(kind, 10)
    signed_at = datetime.fromtimestamp(seen.log.timestamp / 1000, UTC)
    for until, told in ((NOW + timedelta(days=1), 0), (signed_at - timedelta(days=1), 1)):
        seen.follower._identity = replace(seen.follower._identity, valid_until=until)
        seen.follow()
        for _ in range(2):
            seen.log.grow(5)
            assert seen.follow().entries == 5
        assert len([a for a in seen.state.outbox.values() if a.kind == "log-key-expired"]) == told


def test_16_a_virtual_index_is_never_taken_for_a_local_one() -> None:
    log = RekorV1Log(offset=4_163_431)
    log.grow(50)
    seen = Watch(log, limits=FollowLimits(batch_entries=64)).begin()
    assert seen.found() == list(range(0, 50, 7))


@kinds
@pytest.mark.parametrize(
    "answer",
    [b"", b"null", b"{}", b"[]", b"<html>", b"[" * 100_000, b'{"consistency":[1]}', b"\xff\xfe", b'{"entries":[{}]}'],
)
def test_17_any_other_answer_is_no_answer(kind: type[MisbehavingLog], answer: bytes) -> None:
    seen = watch(kind, 100)
    seen.log.grow(50)
    for path in (".*", "proof|consistency|tile/0", "retrieve|get-entries|tile/entries|tile/data"):
        seen.log.edits = []
        seen.log.edit(path, lambda _: answer)
        with pytest.raises(FetchFailed):
            seen.follow()
    seen.log.honest()
    assert seen.follow().backlog == 0


def test_17_a_redirect_is_not_followed() -> None:
    seen = watch(RekorV2Log, 100)
    seen.log.fail("checkpoint", WrongContent("redirected; not followed"))
    with pytest.raises(FetchFailed) as caught:
        seen.follow()
    assert caught.value.reason == "wrong-content"


@pytest.mark.parametrize("change", ["duplicate", "unasked", "wrong-uuid", "wrong-tree", "not-base64"])
def test_18_entries_that_are_not_what_was_asked_for_are_no_answer(change: str) -> None:
    seen = watch(RekorV1Log, 100)
    seen.log.grow(10)

    def spoil(raw: bytes) -> bytes:
        entries = json.loads(raw)
        uuid, entry = next(iter(entries[0].items()))
        match change:
            case "duplicate":
                entries.append(entries[0])
            case "unasked":
                entry["logIndex"] = 5
            case "wrong-uuid":
                entries[0] = {"zz": entry}
            case "wrong-tree":
                entries[0] = {"0" * 15 + "1" + uuid[16:]: entry}
            case "not-base64":
                entry["body"] = "*"
        return json.dumps(entries).encode()

    seen.log.edit("retrieve", spoil)
    with pytest.raises(FetchFailed) as caught:
        seen.follow()
    assert not isinstance(caught.value, NotShown)
    assert seen.position.frontier.size == 100


def test_18_entries_served_in_any_order_are_put_in_order() -> None:
    seen = watch(RekorV1Log, 100)
    assert isinstance(seen.log, RekorV1Log)
    for shuffle in (True, False):
        seen.log.shuffle = shuffle
        seen.log.grow(15)
        seen.follow()
    seen.check()


def witness_key(name: str, key: ed25519.Ed25519PrivateKey) -> WitnessKey:
    raw = key.public_key().public_bytes_raw()
    return WitnessKey(name, sha256(name.encode() + b"\n\x04" + raw).digest()[:4], raw)


def cosignature(name: str, key: ed25519.Ed25519PrivateKey, text: bytes) -> str:
    time = 1_900_000_000
    blob = witness_key(name, key).key_id + time.to_bytes(8, "big") + key.sign(cosigned_message(text, time))
    return f"— {name} {b64(blob)}\n"


def _gone() -> Exception:
    return NotFound("HTTP 404", 404)
