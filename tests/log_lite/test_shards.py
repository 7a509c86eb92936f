"""Rotation and freezing, on a running server: nothing is lost, and old places keep answering."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from log_lite.home import NotApplicable, host_of, initialise, opened, rotate_v2
from log_lite.server import addresses
from tests.log_lite.client import LogClient, hashedrekord, hashedrekord_v2
from tests.support.entries import make_ca, make_certificate
from tests.support.log_server import LogServer, log_server, run
from tests.support.waiting import PATIENCE, wait_until
from tlog.note import open_note, parse_checkpoint, tile_log_key


def eventually(condition: Callable[[], bool]) -> None:
    """Wait until the server has taken over what another process changed."""
    wait_until("the change", condition)


def test_rotating_v1_keeps_virtual_indexes_counting(tmp_path: Path) -> None:
    with log_server(tmp_path / "log") as server:
        log = LogClient(server)
        before = log.submit_v1(b"in the first shard")
        old = log.log_info()
        server.command("rotate")
        eventually(lambda: bool(log.log_info()["inactiveShards"]))
        info = log.log_info()
        assert (info["treeID"] == old["treeID"], info["treeSize"]) == (False, 1)
        (inactive,) = info["inactiveShards"]
        assert {k: inactive[k] for k in ("treeID", "treeSize", "rootHash")} == {
            k: old[k] for k in ("treeID", "treeSize", "rootHash")
        }
        after = log.submit_v1(b"in the second shard")
        assert after["logIndex"] == 2 + 1, "two entries before, the new tree's own first leaf"
        assert after["verification"]["inclusionProof"]["logIndex"] == 1
        for entry in (before, after):
            for path in (f"?logIndex={entry['logIndex']}", f"/{entry['uuid']}", f"/{entry['uuid'][16:]}"):
                assert list(log.get(f"/api/v1/log/entries{path}").json()) == [entry["uuid"]]
        proof = log.get(f"/api/v1/log/proof?firstSize=1&lastSize=2&treeID={old['treeID']}")
        assert len(proof.json()["hashes"]) == 1
        again = log.post("/api/v1/log/entries", hashedrekord(b"in the first shard"))
        assert again.status_code == 201, "equivalent entries are refused within the active tree only"
        log.http.close()


def test_rotating_v2_freezes_the_old_shard_and_opens_one_under_another_host(tmp_path: Path) -> None:
    with log_server(tmp_path / "log") as server:
        log = LogClient(server)
        log.submit_v2(b"in the first shard")
        size = log.head_v2().size
        assert server.command("rotate", "--log", "v2") == f"127.0.0.2\thttp://127.0.0.2:{server.port}\n"
        eventually(lambda: bool(log.head_v2().extensions))
        refused = log.post("/api/v2/log/entries", hashedrekord_v2(b"too late"))
        message = "This log has been frozen, please switch to the latest log."
        assert (refused.status_code, refused.json()) == (405, {"code": 12, "message": message, "details": []})
        assert log.head_v2().size == size
        url = f"http://127.0.0.2:{server.port}"
        answer = log.http.post(f"{url}/api/v2/log/entries", json=hashedrekord_v2(b"in time"))
        assert answer.status_code == 201, answer.text
        key = tile_log_key("127.0.0.2", log.spki(2))
        assert log.check_v2(answer.json(), key).origin == "127.0.0.2"
        assert parse_checkpoint(open_note(log.http.get(f"{url}/checkpoint").content, key)).size == 2
        trust = log.trust()
        assert [t["baseUrl"] for t in trust["tlogs"]] == [server.url, server.url, url]
        assert "end" in trust["tlogs"][1]["publicKey"]["validFor"]
        newest = trust["rekorTlogUrls"][0]
        assert (newest["url"], newest["majorApiVersion"], "end" in newest["validFor"]) == (f"{url}/rekor-v2", 2, False)
        log.http.close()


def test_frozen_logs_refuse_entries_for_ever(tmp_path: Path, ct_roots: Path) -> None:
    with log_server(tmp_path / "log", ct_roots=ct_roots) as server:
        log = LogClient(server)
        ca = make_ca()
        chain = {"chain": [base64.b64encode(der).decode() for der in (make_certificate(ca), *ca.chain)]}
        for name in ("v1", "v2", "ct"):
            server.command("freeze", "--log", name)
        assert "frozen already" in server.command("freeze", "--log", "v1", expect=2)
        server.stop()
        server.start()
        assert log.post("/api/v1/log/entries", hashedrekord(b"late")).status_code == 501
        assert log.post("/api/v2/log/entries", hashedrekord_v2(b"late")).status_code == 405
        assert log.post("/ct/ct/v1/add-chain", chain).status_code == 403
        assert log.head_ct().size == log.head_v1().size == 1
        log.http.close()


def test_trust_json_is_what_the_programs_agreed_on(log: LogClient) -> None:
    trust = log.trust()
    assert json.loads(log.server.command("export-trust")) == trust
    assert set(trust) == {"tlogs", "ctlogs", "rekorTlogUrls", "apis"}
    assert [t["baseUrl"] for t in trust["tlogs"]] == [log.url, log.url]
    assert trust["ctlogs"][0]["baseUrl"] == f"{log.url}/ct"
    details = [t["publicKey"]["keyDetails"] for t in trust["tlogs"]]
    assert details == ["PKIX_ECDSA_P256_SHA_256", "PKIX_ED25519"]
    ids = [t["logId"]["keyId"] for t in (*trust["tlogs"], *trust["ctlogs"])]
    assert trust["apis"] == dict(zip(ids, ["rekor-v1", "rekor-v2", "ct-rfc6962"], strict=True))
    assert [s["majorApiVersion"] for s in trust["rekorTlogUrls"]] == [2, 1]


def test_keys_are_for_their_owner_only(log: LogClient) -> None:
    keys = sorted((log.server.folder / "keys").iterdir())
    assert len(keys) == 3
    assert {key.stat().st_mode & 0o777 for key in keys} == {0o600}


def test_one_directory_has_one_server(log: LogClient) -> None:
    assert "already" in run("serve", "--dir", str(log.server.folder), expect=3)


def test_a_taken_port_is_reported(tmp_path: Path, log: LogClient) -> None:
    run("init", "--dir", str(tmp_path / "other"), "--url", log.url)
    assert "cannot listen" in run("serve", "--dir", str(tmp_path / "other"), expect=3)


def test_both_loopback_families_answer(log: LogClient) -> None:
    hosts = ["127.0.0.1"] + (["[::1]"] if Path("/proc/net/if_inet6").exists() else [])
    for host in hosts:
        assert httpx.get(f"http://{host}:{log.server.port}/checkpoint", timeout=PATIENCE).status_code == 200


@pytest.mark.parametrize(
    "url", ["localhost:3000", "ftp://localhost", "http://", "http://localhost/path", "http://h:99999"]
)
def test_urls_that_cannot_be_an_origin_are_misuse(tmp_path: Path, url: str) -> None:
    run("init", "--dir", str(tmp_path / "control"), "--url", "http://localhost:3000/")
    assert "log-lite:" in run("init", "--dir", str(tmp_path / "log"), "--url", url, expect=2)
    assert not (tmp_path / "log").exists()


@pytest.mark.parametrize(
    ("url", "is_local"),
    [
        ("http://127.0.0.1:3000", True),
        ("http://127.8.9.10:3000", True),
        ("http://[::1]:3000", True),
        ("http://localhost:3000", True),
        ("http://127.0.0.1.attacker.example:3000", False),
        ("http://127.0.0.attacker.example:3000", False),
        ("http://localhost.attacker.example:3000", False),
        ("http://128.0.0.1:3000", False),
    ],
)
def test_all_of_loopback_is_this_machine_and_no_name_that_only_begins_so(
    url: str, is_local: bool, tmp_path: Path
) -> None:
    initialise(tmp_path / "log", url, 1_700_000_000_000)
    with opened(tmp_path / "log", 1_700_000_000_000) as ledger:
        if is_local:
            assert {urlsplit(url).hostname, "127.0.0.1"} & {host for host, _ in addresses(url, None)}
            assert host_of(rotate_v2(ledger, 1_700_000_001_000).url).startswith("127.0.0.")
            return
        with pytest.raises(NotApplicable, match="--listen"):
            addresses(url, None)
        with pytest.raises(NotApplicable, match="--url"):
            rotate_v2(ledger, 1_700_000_001_000)


def test_a_log_away_from_loopback_must_be_told_where_to_listen(tmp_path: Path) -> None:
    run("init", "--dir", str(tmp_path / "log"), "--url", "http://log.example:3000")
    before = set(tmp_path.rglob("*"))
    assert "--listen" in run("serve", "--dir", str(tmp_path / "log"), expect=2)
    assert "--listen" in run("serve", "--dir", str(tmp_path / "log"), "--listen", "nonsense", expect=2)
    assert set(tmp_path.rglob("*")) == before, "a refused command leaves no file behind"
    assert "pass --url" in run("rotate", "--dir", str(tmp_path / "log"), "--log", "v2", expect=2)
    assert "host name of its own" in run(
        "rotate", "--dir", str(tmp_path / "log"), "--log", "v2", "--url", "http://log.example:4000", expect=2
    )
    new = run("rotate", "--dir", str(tmp_path / "log"), "--log", "v2", "--url", "http://log2.example:3000")
    assert new == "log2.example\thttp://log2.example:3000\n"
    server = LogServer(tmp_path / "log", "http://127.0.0.1:0", options=("--listen", "127.0.0.1:0"))
    server.start()
    assert server.stop() == 0, "SIGTERM is an orderly end"


def test_import_adds_bodies_nobody_would_accept(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    run("init", "--dir", str(folder))
    bodies = [b"not json", b'{"kind":"tuf"}', bytes(100)]
    encoded = [base64.b64encode(body).decode() for body in bodies]
    file = tmp_path / "bodies.jsonl"
    file.write_text(json.dumps(encoded[0]) + "\n" + json.dumps({"body": encoded[1]}) + "\n\n" + json.dumps(encoded[2]))
    for name in ("v1", "v2"):
        arguments = ("import", "--dir", str(folder), str(file), "--log", name)
        assert run(*arguments) == "3 added, 0 there already\n"
        assert run(*arguments) == "0 added, 3 there already\n"
    file.write_text("[1]\n")
    assert "bodies.jsonl:1" in run("import", "--dir", str(folder), str(file), expect=2)
    file.write_text(json.dumps(base64.b64encode(bytes(70_000)).decode()))
    assert "do not fit" in run("import", "--dir", str(folder), str(file), "--log", "v2", expect=2)
    assert run("verify", "--dir", str(folder), "--json").count('"defects": []') == 3
