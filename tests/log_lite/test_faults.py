"""Every fault shows exactly its lie over HTTP, and `none` makes the log honest again."""

import base64
import zlib
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest

from log_lite.faults.modes import MODES
from log_lite.tree import Tree
from tests.log_lite.client import KEY, LogClient, b64, hashedrekord, hashedrekord_v2
from tests.support.entries import make_ca, make_certificate
from tests.support.log_server import log_server
from tests.support.waiting import PATIENCE, wait_until
from tlog.ct import TreeHead, parse_leaf
from tlog.merkle import Frontier, ProofInvalid, leaf_hash, verify_consistency
from tlog.note import BadSignature, Checkpoint, open_note, parse_checkpoint, parse_note, rekor_v1_key
from tlog.static_ct import open_ct_checkpoint, static_ct_key
from tlog.tiles import MalformedTile, entries_path, parse_entry_bundle, parse_hash_tile, partial_width, tile_path

CA = make_ca()
SEED = 6


@pytest.fixture(scope="module")
def lying(tmp_path_factory: pytest.TempPathFactory, ct_roots: Path) -> Iterator[LogClient]:
    """A log with some entries, an inactive v1 shard and a frozen v2 shard, for this module's lies only."""
    with log_server(tmp_path_factory.mktemp("lying") / "log", ct_roots=ct_roots) as server:
        client = LogClient(server)
        client.submit_v1(b"before rotation")
        server.command("rotate")
        for n in range(SEED):
            grow(client, b"seed %d" % n)
        yield client
        client.http.close()


@pytest.fixture
def log(lying: LogClient) -> Iterator[LogClient]:
    """The same log, checked to be honest before and after each test."""
    before = [honest_head(lying, name) for name in ("v1", "v2", "ct")]
    yield lying
    lying.server.fault("none")
    for name, old in zip(("v1", "v2", "ct"), before, strict=True):
        check_grown(lying, name, old, honest_head(lying, name))


def grow(log: LogClient, artifact: bytes) -> None:
    assert log.post("/api/v1/log/entries", hashedrekord(artifact)).status_code == 201
    assert log.post("/api/v2/log/entries", hashedrekord_v2(artifact)).status_code == 201
    certificate = make_certificate(CA, san=f"{sha256(artifact).hexdigest()[:8]}@example.com", key=KEY)
    chain = [b64(der) for der in (certificate, *CA.chain)]
    assert log.post("/ct/ct/v1/add-chain", {"chain": chain}).status_code == 200


def honest_head(log: LogClient, name: str) -> tuple[int, bytes]:
    """Size and root of a signed head whose entries lead to its root."""
    head = signed_head(log, name)
    assert Frontier().extended(leaf_hash(b) for b in bodies(log, name, head.size)).root() == head.root
    return head.size, head.root


def signed_head(log: LogClient, name: str) -> Checkpoint | TreeHead:
    heads: dict[str, Callable[[], Checkpoint | TreeHead]] = {"v1": log.head_v1, "v2": log.head_v2, "ct": log.head_ct}
    return heads[name]()


def bodies(log: LogClient, name: str, size: int) -> list[bytes]:
    """Leaf bytes of `[0, size)` as served, in order of the answers."""
    if name == "ct":
        entries = log.get(f"/ct/ct/v1/get-entries?start=0&end={size - 1}").json()["entries"]
        return [base64.b64decode(e["leaf_input"]) for e in entries]
    if name == "v2":
        width = partial_width(0, size)
        return parse_entry_bundle(log.get("/" + entries_path(0, width)).content, width)
    return [base64.b64decode(entry["body"]) for _, entry in v1_entries(log, size)]


def v1_entries(log: LogClient, size: int) -> list[tuple[str, Any]]:
    offset = sum(shard["treeSize"] for shard in log.log_info()["inactiveShards"])
    found: list[tuple[str, Any]] = []
    for start in range(0, size, 10):
        indexes = list(range(offset + start, offset + min(start + 10, size)))
        answer = log.post("/api/v1/log/entries/retrieve", {"logIndexes": indexes}).json()
        found += [next(iter(item.items())) for item in answer]
    return found


def proof(log: LogClient, name: str, size1: int, size2: int) -> list[bytes]:
    if name == "v1":
        answer = log.get(f"/api/v1/log/proof?firstSize={size1}&lastSize={size2}").json()
        return [bytes.fromhex(h) for h in answer["hashes"]]
    if name == "ct":
        answer = log.get(f"/ct/ct/v1/get-sth-consistency?first={size1}&second={size2}").json()
        return [base64.b64decode(h) for h in answer["consistency"]]
    width = partial_width(0, size2)
    hashes = parse_hash_tile(log.get("/" + tile_path(0, 0, width)).content, width)
    return list(Tree(hashes).consistency_proof(size1, size2))


def check_grown(log: LogClient, name: str, old: tuple[int, bytes], new: tuple[int, bytes]) -> None:
    verify_consistency(old[0], new[0], proof(log, name, old[0], new[0]), old[1], new[1])


ALL = ["v1", "v2", "ct"]


@pytest.mark.parametrize("name", ALL)
def test_a_fork_is_complete_grows_and_contradicts_what_was_signed(log: LogClient, name: str) -> None:
    old = honest_head(log, name)
    log.server.fault("fork", "--log", name)
    forked = honest_head(log, name)
    assert forked[0] == old[0]
    assert forked[1] != old[1], "the same size with another root"
    grow(log, f"after the fork of {name}".encode())
    grown = honest_head(log, name)
    assert grown[0] == old[0] + 1, "new entries are still accepted"
    check_grown(log, name, forked, grown)
    with pytest.raises(ProofInvalid):
        check_grown(log, name, old, grown)


def test_a_fork_survives_a_restart_and_stays_the_same_fork(log: LogClient) -> None:
    log.server.fault("fork", "--log", "v2", "--index", "2")
    forked = honest_head(log, "v2")
    log.server.stop()
    log.server.start()
    assert honest_head(log, "v2") == forked


@pytest.mark.parametrize("name", ALL)
def test_rewind_shows_an_older_tree_consistently(log: LogClient, name: str) -> None:
    old = honest_head(log, name)
    log.server.fault("rewind", "--log", name, "--index", "3")
    rewound = honest_head(log, name)
    assert rewound[0] == 3 < old[0]
    grow(log, f"rewound {name}".encode())
    assert honest_head(log, name) == rewound


@pytest.mark.parametrize("name", ALL)
def test_freeze_keeps_the_head_while_entries_are_accepted(log: LogClient, name: str) -> None:
    old = honest_head(log, name)
    log.server.fault("freeze", "--log", name)
    grow(log, f"frozen {name}".encode())
    assert honest_head(log, name) == old


@pytest.mark.parametrize("name", ALL)
def test_a_hidden_entry_is_in_the_tree_and_nowhere_else(log: LogClient, name: str) -> None:
    head = signed_head(log, name)
    whole = bodies(log, name, head.size)
    log.server.fault("hide", "--log", name, "--index", "3")
    assert signed_head(log, name).root == head.root
    if name == "v2":
        width = partial_width(0, head.size)
        raw = log.get("/" + entries_path(0, width)).content
        with pytest.raises(MalformedTile):
            parse_entry_bundle(raw, width)
        assert parse_entry_bundle(raw, width - 1) == whole[:3] + whole[4:]
    else:
        assert bodies(log, name, head.size) == whole[:3] + whole[4:]
    if name == "v1":
        offset = log.log_info()["inactiveShards"][0]["treeSize"]
        for path in (f"?logIndex={offset + 3}", "/" + leaf_hash(whole[3]).hex()):
            assert log.get(f"/api/v1/log/entries{path}").status_code == 404


@pytest.mark.parametrize("name", ALL)
def test_a_swapped_entry_is_not_the_leaf_that_was_hashed(log: LogClient, name: str) -> None:
    head = signed_head(log, name)
    whole = bodies(log, name, head.size)
    log.server.fault("swap", "--log", name, "--index", "3")
    shown = bodies(log, name, head.size)
    assert shown[3] != whole[3]
    assert shown[:3] + shown[4:] == whole[:3] + whole[4:]
    assert signed_head(log, name).root == head.root
    if name == "v1":
        uuid, entry = v1_entries(log, head.size)[3]
        assert uuid.endswith(leaf_hash(whole[3]).hex())
        assert not uuid.endswith(leaf_hash(base64.b64decode(entry["body"])).hex())


@pytest.mark.parametrize("name", ALL)
def test_the_same_size_gets_another_root_with_a_valid_signature(log: LogClient, name: str) -> None:
    head = signed_head(log, name)
    log.server.fault("same-size-other-root", "--log", name)
    other = signed_head(log, name)
    assert (other.size, other.root == head.root) == (head.size, False)


@pytest.mark.parametrize("mode", ["wrong-key", "bad-signature"])
@pytest.mark.parametrize("name", ALL)
def test_heads_with_wrong_signatures_do_not_open(log: LogClient, name: str, mode: str) -> None:
    log.server.fault(mode, "--log", name)
    with pytest.raises(BadSignature):
        signed_head(log, name)
    if name == "ct":
        with pytest.raises(BadSignature):
            log.head_static_ct()


def test_the_wrong_key_is_one_that_clients_trust_for_another_log(log: LogClient) -> None:
    log.server.fault("wrong-key")
    note = log.log_info()["signedTreeHead"].encode()
    parse_checkpoint(open_note(note, rekor_v1_key("localhost", log.spki(0, "ctlogs"))))
    parse_checkpoint(open_note(log.get("/checkpoint").content, rekor_v1_key("localhost", log.spki(0))))
    open_ct_checkpoint(log.get("/ct/checkpoint").content, static_ct_key("localhost/ct", log.spki(0)))


def test_a_wrong_origin_is_signed_by_the_right_key(log: LogClient) -> None:
    log.server.fault("wrong-origin")
    assert log.head_v1().origin == f"another.invalid - {log.log_info()['treeID']}"
    assert log.head_v2().origin == "another.invalid"
    static = log.get("/ct/checkpoint").content
    assert static.startswith(b"another.invalid\n")
    with pytest.raises(BadSignature):
        open_ct_checkpoint(static, static_ct_key("localhost/ct", log.spki(0, "ctlogs")))


@pytest.mark.parametrize("prefix", ["", "/ct"])
def test_tiles_are_truncated_and_bundles_padded(log: LogClient, prefix: str) -> None:
    kind = "data" if prefix else "entries"
    tile, bundle = (log.get(f"{prefix}/tile/{part}/000.p/4").content for part in ("0", kind))
    log.server.fault("truncated-tile")
    assert log.get(f"{prefix}/tile/0/000.p/4").content == tile[:-16]
    log.server.fault("padded-bundle")
    assert log.get(f"{prefix}/tile/0/000.p/4").content == tile
    assert log.get(f"{prefix}/tile/{kind}/000.p/4").content == bundle + bytes(3)


def test_malformed_proofs_have_one_hash_too_many(log: LogClient) -> None:
    size = log.head_v1().size
    ct_size = log.head_ct().size
    good = proof(log, "v1", 3, size), proof(log, "ct", 3, ct_size)
    log.server.fault("malformed-proof")
    assert (proof(log, "v1", 3, size), proof(log, "ct", 3, ct_size)) == tuple([*p, bytes(32)] for p in good)
    with pytest.raises(ProofInvalid):
        log.check_v1(*log.entry_v1(3))


def test_an_extra_signature_follows_the_logs_own(log: LogClient) -> None:
    log.server.fault("extra-signature")
    for note in (
        log.log_info()["signedTreeHead"].encode(),
        log.get("/checkpoint").content,
        log.get("/ct/checkpoint").content,
    ):
        assert [s.name for s in parse_note(note).signatures][1:] == ["unknown.invalid"]
    assert log.head_v2().origin == "localhost", "the log's own signature still verifies"


def test_the_clock_of_the_future_is_a_day_ahead(log: LogClient) -> None:
    now = log.head_ct().timestamp
    _, entry = log.entry_v1(3)
    log.server.fault("future-time")
    assert log.head_ct().timestamp - now >= 24 * 3600 * 1000
    uuid, later = log.entry_v1(3)
    assert later["integratedTime"] - entry["integratedTime"] == 24 * 3600
    log.check_v1(uuid, later)


@pytest.mark.parametrize("name", ALL)
def test_a_stale_replica_answers_every_second_time(log: LogClient, name: str) -> None:
    size = signed_head(log, name).size
    log.server.fault("stale-replica", "--log", name)
    assert [signed_head(log, name).size for _ in range(4)] in ([size - 1, size] * 2, [size, size - 1] * 2)


@pytest.mark.parametrize("name", ALL)
def test_one_entry_is_served_under_two_indexes(log: LogClient, name: str) -> None:
    head = signed_head(log, name)
    whole = bodies(log, name, head.size)
    log.server.fault("duplicate-index", "--log", name, "--index", "2")
    assert bodies(log, name, head.size) == [*whole[:3], whole[2], *whole[4:]]


def test_retrieve_answers_backwards(log: LogClient) -> None:
    size = log.head_v1().size
    whole = bodies(log, "v1", min(size, 10))
    log.server.fault("out-of-order")
    assert bodies(log, "v1", min(size, 10)) == whole[::-1]


def test_an_inactive_shard_changes_its_root(log: LogClient) -> None:
    (before,) = log.log_info()["inactiveShards"]
    log.server.fault("inactive-shard-changed")
    (after,) = log.log_info()["inactiveShards"]
    assert (after["treeID"], after["treeSize"]) == (before["treeID"], before["treeSize"])
    assert after["rootHash"] != before["rootHash"]
    note = parse_checkpoint(open_note(after["signedTreeHead"].encode(), log.v1_key()))
    assert note.root.hex() == after["rootHash"]


def test_an_inactive_shard_vanishes_with_all_that_is_in_it(log: LogClient) -> None:
    (before,) = log.log_info()["inactiveShards"]
    tree, size = before["treeID"], before["treeSize"]
    proof_of = f"/api/v1/log/proof?firstSize=1&lastSize={size}&treeID={tree}"
    assert log.get(proof_of).status_code == 200
    log.server.fault("shard-vanished")
    assert log.log_info()["inactiveShards"] == []
    assert log.get(proof_of).status_code == 400
    retrieve = {"logIndexes": [size - 1, size]}
    (left,) = log.post("/api/v1/log/entries/retrieve", retrieve).json()
    assert next(iter(left.values()))["logIndex"] == size, "the active shard is where it was"
    log.server.fault("none")
    assert len(log.post("/api/v1/log/entries/retrieve", retrieve).json()) == 2


def test_promised_entries_are_in_no_tree(log: LogClient) -> None:
    sizes = [signed_head(log, name).size for name in ALL]
    log.server.fault("set-not-included")
    v1, v2 = log.submit_v1(b"never included"), log.submit_v2(b"never included")
    certificate = make_certificate(CA, san="never@example.com")
    sct = log.post("/ct/ct/v1/add-chain", {"chain": [b64(certificate), *map(b64, CA.chain)]}).json()
    assert log.get(f"/api/v1/log/entries/{v1['uuid']}").status_code == 404
    assert [signed_head(log, name).size for name in ALL] == sizes
    log.server.fault("none")
    grow(log, b"in the promised place")
    index = v1["verification"]["inclusionProof"]["logIndex"]
    assert bodies(log, "v1", index + 1)[index] != base64.b64decode(v1["body"])
    place = int(v2["logIndex"])
    assert bodies(log, "v2", signed_head(log, "v2").size)[place] != base64.b64decode(v2["canonicalizedBody"])
    leaf = parse_leaf(bodies(log, "ct", sizes[2] + 1)[-1])
    assert leaf.extensions == base64.b64decode(sct["extensions"]), "the same index, for another certificate"
    assert leaf.certificate != certificate


HEADS = {"v1": "/api/v1/log", "v2": "/checkpoint", "ct": "/ct/ct/v1/get-sth"}


@pytest.mark.parametrize("name", ALL)
def test_http_faults_answer_in_the_logs_place(log: LogClient, name: str) -> None:
    path = HEADS[name]
    log.server.fault("redirect", "--log", name)
    answer = log.get(path)
    assert (answer.status_code, answer.headers["location"]) == (302, f"http://redirected.invalid{path}")
    log.server.fault("html", "--log", name)
    answer = log.get(path)
    assert (answer.status_code, answer.headers["content-type"].startswith("text/html")) == (200, True)
    log.server.fault("error-500", "--log", name)
    assert log.get(path).status_code == 500
    log.server.fault("gone", "--log", name)
    assert log.get(path).status_code == 410
    log.server.fault("rate-limit", "--log", name)
    answer = log.get(path)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "2")
    grow(log, f"writes go on {name}".encode())


def test_http_faults_can_be_limited_to_a_part(log: LogClient) -> None:
    log.server.fault("error-500", "--log", "v2", "--on", "entries")
    assert log.get("/checkpoint").status_code == 200
    assert log.get("/tile/0/000.p/1").status_code == 200
    assert log.get("/tile/entries/000.p/1").status_code == 500
    log.server.fault("rate-limit", "--log", "v2", "--on", "writes")
    assert log.get("/tile/entries/000.p/1").status_code == 200
    assert log.post("/api/v2/log/entries", {}).status_code == 429


def test_oversized_answers_go_beyond_every_sane_cap(log: LogClient) -> None:
    log.server.fault("oversized", "--log", "v2")
    with httpx.stream("GET", log.url + "/checkpoint", timeout=PATIENCE) as answer:
        assert sum(len(chunk) for chunk in answer.iter_raw()) == 80 * 1024 * 1024


def test_a_gzip_bomb_unpacks_to_a_quarter_of_a_gibibyte(log: LogClient) -> None:
    log.server.fault("gzip", "--log", "v1")
    with httpx.stream("GET", log.url + "/api/v1/log", timeout=PATIENCE) as answer:
        assert answer.headers["content-encoding"] == "gzip"
        raw = b"".join(answer.iter_raw())
    assert len(raw) < 1024 * 1024
    unpacker, size = zlib.decompressobj(zlib.MAX_WBITS | 16), 0
    while not unpacker.eof:
        size += len(unpacker.decompress(raw, 1024 * 1024))
        raw = unpacker.unconsumed_tail
    assert size == 256 * 1024 * 1024


def test_a_slow_answer_starts_and_does_not_end(log: LogClient) -> None:
    log.server.fault("slow", "--log", "ct")
    with httpx.stream("GET", log.url + "/ct/ct/v1/get-sth", timeout=PATIENCE) as answer:
        chunks = answer.iter_raw()
        assert [next(chunks), next(chunks)] == [b" ", b" "]
    assert log.head_v1().size > 0, "the other logs are not affected"


def test_misused_faults_say_what_is_possible(log: LogClient) -> None:
    assert "there is no fault" in log.server.command("fault", "nonsense", expect=2)
    assert "only for v2, ct" in log.server.command("fault", "truncated-tile", "--log", "v1", expect=2)
    assert "there is no entry" in log.server.command("fault", "hide", "--index", "99999", expect=2)
    assert "no frozen shard" in log.server.command("fault", "unfreeze", expect=2)
    assert "--on" in log.server.command("fault", "html", "--on", "cheese", expect=2)
    listed = log.server.command("fault", "list")
    assert all(f"{mode}\t" in listed for mode in MODES)


def test_a_frozen_shard_loses_its_freeze_line_and_grows(tmp_path: Path) -> None:
    with log_server(tmp_path / "log") as server:
        log = LogClient(server)
        log.submit_v2(b"the last one")
        server.command("freeze", "--log", "v2")
        frozen = wait_for_extension(log)
        assert frozen.extensions[0].startswith("Log frozen — ")
        server.fault("unfreeze")
        grown = log.head_v2()
        assert (grown.size, grown.extensions) == (frozen.size + 1, ())
        assert honest_head(log, "v2") == (grown.size, grown.root)
        server.fault("none")
        assert log.head_v2() == frozen
        log.http.close()


def wait_for_extension(log: LogClient) -> Checkpoint:
    wait_until("the server to notice the freeze", lambda: bool(log.head_v2().extensions))
    return log.head_v2()


def test_partial_tiles_are_no_prefix_of_the_full_one(tmp_path: Path) -> None:
    lines = tmp_path / "bodies.jsonl"
    with log_server(tmp_path / "log") as server:
        log = LogClient(server)
        log.submit_v2(b"one")
        server.fault("partial-not-prefix", "--log", "v2")
        partial = honest_head(log, "v2")
        tile = log.get("/tile/0/000.p/2").content
        lines.write_text("".join(f'"{b64(b"filler %d" % n)}"\n' for n in range(254)))
        server.command("import", str(lines), "--log", "v2")
        wait_until("the imported entries", lambda: log.head_v2().size == 256)
        full = log.get("/tile/0/000").content
        assert (full[:32], full[32:64] == tile[32:]) == (tile[:32], False)
        assert partial[1] != Frontier().extended(parse_hash_tile(full, 256)[:2]).root()
        log.http.close()


def test_a_kept_bundle_and_a_kept_checkpoint_hide_no_fault_and_no_entry(tmp_path: Path) -> None:
    """The log keeps full bundles and its last signature in memory."""
    lines = tmp_path / "bodies.jsonl"
    lines.write_text("".join(f'"{b64(b"filler %d" % n)}"\n' for n in range(300)))
    with log_server(tmp_path / "log") as server:
        server.command("import", str(lines), "--log", "v2")
        log = LogClient(server)
        wait_until("the imported entries", lambda: log.head_v2().size >= 300)
        size = log.head_v2().size
        bundle, note = log.get("/tile/entries/000").content, log.get("/checkpoint").content
        assert log.get("/tile/entries/000").content == bundle
        assert log.get("/checkpoint").content == note
        server.fault("padded-bundle", "--log", "v2")
        assert log.get("/tile/entries/000").content == bundle + bytes(3)
        server.fault("extra-signature", "--log", "v2")
        assert log.get("/tile/entries/000").content == bundle
        assert log.get("/checkpoint").content != note
        server.fault("none")
        assert log.get("/checkpoint").content == note
        log.submit_v2(b"one more")
        assert log.head_v2().size == size + 1
        assert log.get("/tile/entries/000").content == bundle
        log.http.close()


def test_every_mode_has_a_test() -> None:
    text = Path(__file__).read_text()
    assert [mode for mode in MODES if f'"{mode}"' not in text] == []
