"""The CT log keeps RFC 6962 and static-ct-api at once, over one tree."""

import base64
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tests.log_lite.client import LogClient, b64
from tests.support.entries import make_ca, make_certificate, make_key, make_precertificate, spki_of
from tests.support.log_server import log_server, run
from tlog.ct import CtLeaf, EntryType, Sct, parse_leaf, sct_message, verify_digitally_signed, verify_sct
from tlog.merkle import Frontier, leaf_hash, verify_consistency, verify_inclusion
from tlog.static_ct import parse_data_tile
from tlog.tiles import data_path, frontier_from_tiles, parse_hash_tile, right_edge, tile_path

CA = make_ca()


def add(log: LogClient, path: str, *chain: bytes) -> Any:
    return log.post(f"/ct/ct/v1/{path}", {"chain": [b64(der) for der in chain]})


def index_of(extensions: bytes) -> int:
    assert extensions[:3] == b"\x00\x00\x05"
    return int.from_bytes(extensions[3:], "big")


def test_a_precertificate_gets_an_sct_that_verifies_and_names_its_index(log: LogClient) -> None:
    precertificate, tbs = make_precertificate(CA, san="one@example.com")
    answer = add(log, "add-pre-chain", precertificate, *CA.chain)
    assert answer.status_code == 200, answer.text
    sct = answer.json()
    log_id, extensions, signature = (base64.b64decode(sct[name]) for name in ("id", "extensions", "signature"))
    parsed = Sct(log_id, sct["timestamp"], extensions, signature)
    verify_sct(parsed, log.spki(0, "ctlogs"), issuer_spki=spki_of(CA.key), tbs=tbs)
    index = index_of(extensions)
    assert index >= 1
    entry = log.get(f"/ct/ct/v1/get-entries?start={index}&end={index}").json()["entries"][0]
    leaf = parse_leaf(base64.b64decode(entry["leaf_input"]))
    assert leaf == CtLeaf(sct["timestamp"], EntryType.PRECERT, CA.issuer_key_hash, tbs, extensions)
    assert log.head_ct().size > index, "there is no merge delay"


def test_a_certificate_is_accepted_by_add_chain_only(log: LogClient) -> None:
    certificate = make_certificate(CA, san="two@example.com")
    answer = add(log, "add-chain", certificate, *CA.chain)
    assert answer.status_code == 200, answer.text
    sct = answer.json()
    leaf = CtLeaf(sct["timestamp"], EntryType.X509, b"", certificate, base64.b64decode(sct["extensions"]))
    verify_digitally_signed(log.spki(0, "ctlogs"), sct_message(leaf), base64.b64decode(sct["signature"]))
    assert "mismatch" in add(log, "add-pre-chain", certificate, *CA.chain).text


def test_the_same_certificate_keeps_its_place_and_time(log: LogClient) -> None:
    precertificate, _ = make_precertificate(CA, san="again@example.com")
    first = add(log, "add-pre-chain", precertificate, *CA.chain).json()
    size = log.head_ct().size
    again = add(log, "add-pre-chain", precertificate, *CA.chain).json()
    assert (first["timestamp"], first["extensions"]) == (again["timestamp"], again["extensions"])
    assert log.head_ct().size == size


def test_a_chain_may_leave_out_what_the_log_knows(log: LogClient) -> None:
    precertificate, _ = make_precertificate(CA, san="alone@example.com")
    answer = add(log, "add-pre-chain", precertificate)
    assert answer.status_code == 200, answer.text
    index = index_of(base64.b64decode(answer.json()["extensions"]))
    entry = log.get(f"/ct/ct/v1/get-entries?start={index}&end={index}").json()["entries"][0]
    assert CA.chain[1] in base64.b64decode(entry["extra_data"]), "the stored chain goes up to the root"


STRANGER = make_ca("stranger", name="stranger.example")
NOT_FOR_SIGNING = make_certificate(CA, san="tls@example.com", code_signing=False)
GOOD = make_certificate(CA, san="control@example.com")
REFUSED = {
    "unknown root": ("add-chain", [make_certificate(STRANGER), *STRANGER.chain]),
    "not for code signing": ("add-chain", [NOT_FOR_SIGNING, *CA.chain]),
    "chain out of order": ("add-chain", [GOOD, CA.chain[1], CA.chain[0]]),
    "issuer of somebody else": ("add-chain", [GOOD, *STRANGER.chain]),
    "precertificate as certificate": ("add-chain", [make_precertificate(CA)[0], *CA.chain]),
    "not DER": ("add-chain", [b"certificate"]),
    "empty": ("add-chain", []),
    "forged signature": ("add-chain", [GOOD[:-4] + bytes(4), *CA.chain]),
    "trailing bytes": ("add-chain", [GOOD + b"\x00", *CA.chain]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_chains_that_do_not_verify_are_refused(log: LogClient, case: str) -> None:
    assert add(log, "add-chain", GOOD, *CA.chain).status_code == 200, "control"
    path, chain = REFUSED[case]
    size = log.head_ct().size
    answer = add(log, path, *chain)
    assert answer.status_code == 400, answer.text
    assert log.head_ct().size == size


@pytest.mark.parametrize("body", [{}, {"chain": "x"}, {"chain": [1]}, {"chain": ["*"]}])
def test_requests_that_are_no_chains_are_refused(log: LogClient, body: Any) -> None:
    assert log.post("/ct/ct/v1/add-chain", body).status_code == 400


def test_proofs_and_entries_fit_the_signed_head(log: LogClient) -> None:
    old = log.head_ct()
    add(log, "add-chain", make_certificate(CA, san="grow@example.com"), *CA.chain)
    new = log.head_ct()
    answer = log.get(f"/ct/ct/v1/get-sth-consistency?first={old.size}&second={new.size}").json()
    verify_consistency(old.size, new.size, [base64.b64decode(h) for h in answer["consistency"]], old.root, new.root)
    entries = log.get(f"/ct/ct/v1/get-entries?start=0&end={new.size + 100}").json()["entries"]
    leaves = [base64.b64decode(e["leaf_input"]) for e in entries]
    assert Frontier().extended(leaf_hash(leaf) for leaf in leaves).root() == new.root
    leaf = leaf_hash(leaves[1])
    found = log.http.get(
        f"{log.url}/ct/ct/v1/get-proof-by-hash", params={"hash": b64(leaf), "tree_size": str(new.size)}
    ).json()
    path = [base64.b64decode(h) for h in found["audit_path"]]
    verify_inclusion(found["leaf_index"], new.size, leaf, path, new.root)
    both = log.get(f"/ct/ct/v1/get-entry-and-proof?leaf_index=1&tree_size={new.size}").json()
    assert base64.b64decode(both["leaf_input"]) == leaves[1]
    assert [base64.b64decode(h) for h in both["audit_path"]] == path


def test_static_reads_show_the_same_tree(log: LogClient) -> None:
    add(log, "add-pre-chain", make_precertificate(CA, san="static@example.com")[0], *CA.chain)
    head = log.head_static_ct()
    edge = {
        level: parse_hash_tile(log.get("/ct/" + tile_path(level, index, width)).content, width)
        for level, index, width in right_edge(head.size)
    }
    assert frontier_from_tiles(head.size, edge).root() == head.root
    leaves = parse_data_tile(log.get("/ct/" + data_path(0, head.size)).content, head.size)
    assert Frontier().extended(leaf_hash(leaf.merkle_tree_leaf()) for leaf in leaves).root() == head.root
    assert leaves[-1].chain == tuple(sha256(der).digest() for der in CA.chain)
    issuer = log.get(f"/ct/issuer/{leaves[-1].chain[0].hex()}")
    assert (issuer.status_code, issuer.content) == (200, CA.chain[0])
    assert log.get(f"/ct/issuer/{'0' * 64}").status_code == 404


def test_roots_are_listed(log: LogClient) -> None:
    assert log.get("/ct/ct/v1/get-roots").json()["certificates"] == [b64(der) for der in CA.chain]


@pytest.mark.parametrize(
    "query",
    [
        "get-entries?start=1&end=0", "get-entries?start=99999&end=99999", "get-entries?start=-1&end=1", "get-entries",
        "get-sth-consistency?first=5&second=99999", "get-sth-consistency?first=2&second=1", "get-entries?start=1&end=x",
        "get-proof-by-hash?hash=AA==&tree_size=99999", "get-entry-and-proof?leaf_index=5&tree_size=2",
    ],
)  # fmt: skip
def test_bad_queries_are_refused(log: LogClient, query: str) -> None:
    assert log.get("/ct/ct/v1/get-entries?start=0&end=0").status_code == 200, "control"
    assert log.get(f"/ct/ct/v1/{query}").status_code == 400


def test_certificates_of_many_sizes_keep_their_bytes(log: LogClient) -> None:
    for length in (1, 100, 130, 300, 3000):
        key = make_key(f"size {length}")
        precertificate, tbs = make_precertificate(CA, san=f"https://example.com/{'a' * length}", key=key)
        sct = add(log, "add-pre-chain", precertificate, *CA.chain).json()
        index = index_of(base64.b64decode(sct["extensions"]))
        entry = log.get(f"/ct/ct/v1/get-entries?start={index}&end={index}").json()["entries"][0]
        assert parse_leaf(base64.b64decode(entry["leaf_input"])).certificate == tbs


def test_one_answer_holds_as_many_entries_as_the_operator_allows(tmp_path: Path, ct_roots: Path) -> None:
    with log_server(tmp_path / "log", ct_roots=ct_roots) as server:
        server.stop()
        server.options += ("--ct-max-get-entries", "2")
        server.start()
        log = LogClient(server)
        for number in range(3):
            add(log, "add-chain", make_certificate(CA, san=f"{number}@example.com"), *CA.chain)
        last = log.head_ct().size - 1
        answers = [log.get(f"/ct/ct/v1/get-entries?start={start}&end=9").json()["entries"] for start in (0, last)]
        log.http.close()
    assert [len(answer) for answer in answers] == [2, 1]


@pytest.mark.parametrize("most", ["0", "10001", "x"])
def test_an_answer_of_no_entry_or_of_any_length_cannot_be_configured(tmp_path: Path, most: str) -> None:
    assert "--ct-max-get-entries" in run("serve", "--dir", str(tmp_path), "--ct-max-get-entries", most, expect=2)


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("", "GET", 404),
        ("/ct/v1/nothing", "GET", 404),
        ("/ct/v2/get-sth", "GET", 404),
        ("/nothing", "POST", 404),
        ("/ct/v1/add-chain", "GET", 405),
        ("/ct/v1/get-sth", "POST", 405),
    ],
)
def test_an_unknown_path_and_a_wrong_method_have_the_form_of_a_ct_error(
    log: LogClient, path: str, method: str, status: int
) -> None:
    answer = log.http.request(method, f"{log.url}/ct{path}")
    assert answer.status_code == status
    assert answer.json().keys() == {"error_code", "error_message"}
    assert answer.json()["error_code"] == status


def test_a_chain_over_the_limit_has_the_form_of_a_ct_error(log: LogClient) -> None:
    answer = log.http.post(f"{log.url}/ct/ct/v1/add-chain", content=b" " * (4 * 1024 * 1024 + 1))
    assert (answer.status_code, answer.json()["error_code"]) == (413, 413)
