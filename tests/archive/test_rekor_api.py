"""Rekor's search API over the archive: what it answers, and that an unmodified rekor-cli believes it."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from fastapi import FastAPI

from monitor.archive.building import RowMaker
from monitor.archive.files import ArchiveFiles
from monitor.archive.search import Archive
from monitor.backscan.archiving import archive_range
from monitor.backscan.range import ScanEnvironment
from monitor.config import WebConfig
from monitor.daemon.rekor_form import V1_FORM, unknown_paths
from monitor.daemon.rekor_search import load_key, search_router
from monitor.daemon.web_server import WebServer
from monitor.following.follower import Timing
from monitor.model.log_source import LogSource
from monitor.program import utc_now
from tests.archive.conftest import Place
from tests.support.entries import (
    hashedrekord_v1,
    hashedrekord_v2,
    make_certificate,
    make_key,
    pem,
    signature_of,
    spki_of,
)
from tests.support.go_clients import needs_rekor_cli, rekor_cli
from tests.support.misbehaving_log import RekorV1Log
from tests.support.served_log import CA
from tests.support.waiting import PATIENCE
from tlog.merkle import leaf_hash, verify_inclusion

get = partial(httpx.get, trust_env=False, timeout=PATIENCE)
post = partial(httpx.post, trust_env=False, timeout=PATIENCE)


@contextmanager
def served_api(archive: Archive, source: LogSource, folder: Path) -> Iterator[str]:
    """The API over an archive; yields its URL."""
    app = FastAPI()
    app.include_router(search_router(archive, lambda: [source], load_key(folder / "search-key.pem")))
    server = WebServer(app, WebConfig(("127.0.0.1", 0)))
    server.start()
    try:
        yield server.url
    finally:
        server.stop()


@contextmanager
def searched(place: Place) -> Iterator[str]:
    """The API over the place's archive; yields its URL."""
    with served_api(place.archive, place.served.log.source(), place.folder) as url:
        yield url


def asked(url: str, **query: object) -> list[str]:
    answer = post(f"{url}/api/v1/index/retrieve", json=query)
    assert answer.status_code == 200, answer.text
    found: list[str] = answer.json()
    return found


def leaves(uuids: list[str]) -> set[str]:
    return {uuid[16:] for uuid in uuids}


def hashes(place: Place, *indexes: int) -> set[str]:
    return {leaf_hash(place.served.log.leaves[index]).hex() for index in indexes}


def test_an_index_answers_by_email_hash_key_and_subject(place: Place) -> None:
    key = make_key(5)
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    place.served.log.append(hashedrekord_v2(spki, "ab" * 32))
    place.build()
    mine, _ = place.found("dev3@example.com")
    with searched(place) as url:
        assert leaves(asked(url, email="dev3@example.com")) == hashes(place, *(each["index"] for each in mine))
        assert leaves(asked(url, hash=f"sha256:{7:064x}")) == hashes(place, 7)
        assert leaves(asked(url, hash="ab" * 32)) == hashes(place, 200)
        content = base64.b64encode(pem(spki, "PUBLIC KEY")).decode()
        assert leaves(asked(url, publicKey={"format": "x509", "content": content})) == hashes(place, 200)
        both = {"email": "dev3@example.com", "hash": f"sha256:{mine[0]['index']:064x}"}
        assert leaves(asked(url, **both, operator="and")) == hashes(place, mine[0]["index"])
        assert len(asked(url, **both, operator="or")) == len(mine)
        assert asked(url, email="nobody@example.com") == []
        for bad in (
            {},
            {"hash": "zz"},
            {"publicKey": {"format": "x509", "content": "AAAA"}},
            {"email": "a@b", "operator": "xor"},
        ):
            assert post(f"{url}/api/v1/index/retrieve", json=bad).status_code == 400


def test_an_entry_comes_with_a_proof_and_a_checkpoint_signed_by_this_installation(place: Place) -> None:
    place.build()
    with searched(place) as url:
        (uuid,) = asked(url, hash=f"sha256:{7:064x}")
        document = get(f"{url}/api/v1/log/entries/{uuid}").json()
        assert get(f"{url}/api/v1/log/entries/{uuid[16:]}").json().keys() == document.keys()
        by_index = get(f"{url}/api/v1/log/entries", params={"logIndex": 7}).json()
        assert by_index.keys() == document.keys()
        several = post(f"{url}/api/v1/log/entries/retrieve", json={"entryUUIDs": [uuid], "logIndexes": [8]})
        assert [next(iter(each))[16:] for each in several.json()] == [uuid[16:], *hashes(place, 8)]
        key = load_pem_public_key(get(f"{url}/api/v1/log/publicKey").content)
        for path, status in (("00" * 40, 404), ("zz", 400)):
            assert get(f"{url}/api/v1/log/entries/{path}").status_code == status
    entry = document[uuid]
    assert base64.b64decode(entry["body"]) == place.served.log.leaves[7]
    proof = entry["verification"]["inclusionProof"]
    nodes = tuple(bytes.fromhex(node) for node in proof["hashes"])
    verify_inclusion(7, proof["treeSize"], bytes.fromhex(uuid[16:]), nodes, bytes.fromhex(proof["rootHash"]))
    signed = {name: entry[name] for name in ("body", "integratedTime", "logID", "logIndex")}
    assert isinstance(key, ec.EllipticCurvePublicKey)
    signature = base64.b64decode(entry["verification"]["signedEntryTimestamp"])
    key.verify(signature, rfc8785.dumps(signed), ec.ECDSA(SHA256()))


def test_an_entry_that_the_log_now_shows_otherwise_is_not_handed_on(place: Place) -> None:
    place.build()
    place.served.log.served[7] = place.served.log.leaves[8]
    with searched(place) as url:
        assert get(f"{url}/api/v1/log/entries", params={"logIndex": 7}).status_code == 502


def test_the_search_api_says_what_it_covers(place: Place) -> None:
    place.build("--to", "100")
    with searched(place) as url:
        answer = get(f"{url}/api/search", params={"q": "dev*", "limit": 3}).json()
        assert len(answer["rows"]) == 3
        assert answer["total"] == sum(answer["per_day"].values()) > 3
        assert answer["coverage"]["logs"][0]["spans"] == [[0, 100]]
        assert not answer["coverage"]["complete"]
        assert get(f"{url}/api/search", params={"q": ""}).status_code == 400
        assert get(f"{url}/api/search", params={"q": "x", "kind": "y"}).status_code == 400
        assert get(f"{url}/api/search.svg", params={"q": "dev*"}).text.startswith("<svg ")


@needs_rekor_cli
def test_rekor_cli_searches_a_log_that_has_no_search(place: Place, tmp_path: Path) -> None:
    place.build()
    mine, _ = place.found("dev3@example.com")
    with searched(place) as url:
        out = json.loads(rekor_cli(url, tmp_path, "search", "--email", "dev3@example.com", "--format", "json"))
        assert leaves(out["UUIDs"]) == hashes(place, *(each["index"] for each in mine))
        out = json.loads(rekor_cli(url, tmp_path, "search", "--sha", f"{7:064x}", "--format", "json"))
        assert leaves(out["UUIDs"]) == hashes(place, 7)
        rekor_cli(url, tmp_path, "search", "--email", "nobody@example.com", expect=1)


@needs_rekor_cli
def test_rekor_cli_gets_an_entry_of_a_version_1_log(tmp_path: Path) -> None:
    log = RekorV1Log(
        [hashedrekord_v1(make_certificate(CA, san=f"dev{n}@example.com", serial=n + 1), f"{n:064x}") for n in range(20)]
    )
    source, files = log.source(), ArchiveFiles(str(tmp_path / "archive"))
    world = ScanEnvironment(Timing(utc_now, lambda _: None), patience=(), pauses=())
    archive_range(source, files, None, 0, 20, store=None, rows=RowMaker(1, lambda: None), world=world)
    with served_api(Archive(files), source, tmp_path) as url:
        (uuid,) = json.loads(rekor_cli(url, tmp_path, "search", "--email", "dev7@example.com", "--format", "json"))[
            "UUIDs"
        ]
        for arguments in (("--uuid", uuid), ("--uuid", uuid[16:]), ("--log-index", "7")):
            # The client checks the proof, the checkpoint and the timestamp before it prints.
            got = json.loads(rekor_cli(url, tmp_path, "get", *arguments, "--format", "json"))
            assert got["UUID"] == uuid
            assert got["Body"]["HashedRekordObj"]["data"]["hash"]["value"] == f"{7:064x}"


@needs_rekor_cli
def test_rekor_cli_finds_gets_and_prints_an_entry_of_a_version_2_log(place: Place, tmp_path: Path) -> None:
    digest, logged = f"{1:064x}", make_certificate(CA, san="dev1@example.com")
    by_certificate, by_key = hashedrekord_v2(logged, digest), hashedrekord_v2(spki_of(make_key(5)), digest)
    place.served.log.append(by_certificate, by_key)
    place.build()
    with searched(place) as root:
        url = root + V1_FORM
        out = json.loads(rekor_cli(url, tmp_path, "search", "--sha", digest, "--format", "json"))
        found = {uuid[16:]: uuid for uuid in out["UUIDs"]}
        for body, index in ((by_certificate, 200), (by_key, 201)):
            leaf = leaf_hash(body).hex()
            for arguments in (("--uuid", found[leaf]), ("--uuid", leaf), ("--log-index", str(index))):
                # The client checks proof, checkpoint, timestamp, and the entry's own signature before it prints.
                got = json.loads(rekor_cli(url, tmp_path, "get", *arguments, "--format", "json"))
                assert (got["UUID"], got["LogIndex"]) == (found[leaf], index)
                told, was = got["Body"]["HashedRekordObj"], json.loads(body)["spec"]["hashedRekordV002"]
                assert told["data"]["hash"] == {"algorithm": "sha256", "value": digest}
                assert told["signature"]["content"] == was["signature"]["content"]
            assert digest in rekor_cli(url, tmp_path, "get", "--uuid", leaf)
            tle = json.loads(rekor_cli(url, tmp_path, "get", "--uuid", leaf, "--format", "tle"))
            assert tle["kindVersion"] == {"kind": "hashedrekord", "version": "0.0.1"}


@needs_rekor_cli
def test_rekor_cli_refuses_an_entry_of_a_version_2_log_whose_signature_is_wrong(place: Place, tmp_path: Path) -> None:
    wrong = signature_of(make_certificate(CA), f"{2:064x}")
    place.served.log.append(hashedrekord_v2(make_certificate(CA), f"{1:064x}", signature=wrong))
    place.build()
    with searched(place) as url:
        assert "verifying signature" in rekor_cli(url + V1_FORM, tmp_path, "get", "--log-index", "200", expect=1)


def test_the_form_of_rekor_v1_claims_no_place_in_the_log(place: Place) -> None:
    body = hashedrekord_v2(make_certificate(CA), f"{1:064x}")
    place.served.log.append(body)
    place.build()
    with searched(place) as url:
        path = f"/api/v1/log/entries/{leaf_hash(body).hex()}"
        logged = get(url + path).json()
        told = get(url + V1_FORM + path).json()
        dsse = get(f"{url}{V1_FORM}/api/v1/log/entries/{next(iter(hashes(place, 1)))}")
    assert told.keys() == logged.keys()
    (entry,), (original,) = told.values(), logged.values()
    assert base64.b64decode(original["body"]) == body
    proof = entry["verification"]["inclusionProof"]
    assert (proof["treeSize"], proof["logIndex"], proof["hashes"]) == (1, 0, [])
    assert proof["rootHash"] == leaf_hash(base64.b64decode(entry["body"])).hex()
    assert proof["checkpoint"].startswith("signwatch-search-v1-form/")
    assert original["verification"]["inclusionProof"]["checkpoint"].startswith("signwatch-search/")
    assert dsse.status_code == 501
    assert dsse.json()["code"] == 501
    message = dsse.json()["message"]
    assert "of kind dsse, has no form of Rekor v1: dsse 0.0.1 states the SHA-256 of the whole envelope" in message
    assert "`signwatch search --entry rekor-v2:1 --prove FILE`" in message
    assert "GET /api/v1/log/entries/" in message


def test_every_error_has_the_form_of_rekor(place: Place) -> None:
    place.build()
    with searched(place) as url:
        for root in (url, url + V1_FORM):
            for path, code in (
                ("log/entries/zz", 400),
                ("log/entries?logIndex=x", 400),
                (f"log/entries/{'0' * 64}", 404),
            ):
                answer = httpx.get(f"{root}/api/v1/{path}", trust_env=False)
                assert (answer.status_code, answer.json()["code"]) == (code, code)
                assert answer.json().keys() == {"code", "message"}
            assert httpx.post(f"{root}/api/v1/index/retrieve", json=[], trust_env=False).json()["code"] == 400
            for body, why in ((b"{", "the body is no JSON"), (b"[" * 100_000, "There was an error parsing the body")):
                answer = httpx.post(
                    f"{root}/api/v1/index/retrieve",
                    content=body,
                    headers={"Content-Type": "application/json"},
                    trust_env=False,
                )
                assert answer.json() == {"code": 400, "message": why}
        (place.folder / "archive" / "rekor-v2" / "archive.json").write_bytes(b"{}")
        for path in ("log/entries?logIndex=1", f"log/entries/{'0' * 64}"):
            answer = httpx.get(f"{url}/api/v1/{path}", trust_env=False)
            assert (answer.status_code, answer.json()["code"]) == (503, 503)
            assert "the archive's manifest is damaged" in answer.json()["message"]


UNKNOWN = {
    ("GET", ""): (404, "path {} was not found"),
    ("GET", "/"): (404, "path {} was not found"),
    ("GET", "/log"): (404, "path {} was not found"),
    ("GET", "/log/proof?firstSize=1"): (404, "path {} was not found"),
    ("PROPFIND", "/nothing"): (404, "path {} was not found"),
    ("POST", "/log/entries"): (405, "method POST is not allowed, but [GET] are"),
    ("DELETE", f"/log/entries/{'0' * 64}"): (405, "method DELETE is not allowed, but [GET] are"),
    ("GET", "/index/retrieve"): (405, "method GET is not allowed, but [POST] are"),
    ("PUT", "/log/entries/retrieve"): (405, "method PUT is not allowed, but [GET,POST] are"),
}


@pytest.mark.parametrize(("method", "path"), UNKNOWN)
def test_unknown_paths_and_wrong_methods_have_the_form_of_rekor(place: Place, method: str, path: str) -> None:
    status, told = UNKNOWN[method, path]
    with searched(place) as url:
        for root in (f"{url}/api/v1", f"{url}{V1_FORM}/api/v1"):
            answer = httpx.request(method, root + path, trust_env=False, timeout=PATIENCE)
            shown = (root + path).removeprefix(url).partition("?")[0]
            assert (answer.status_code, answer.json()) == (status, {"code": status, "message": told.format(shown)})


def test_a_path_that_ends_with_a_slash_is_still_found(place: Place) -> None:
    place.build()
    with searched(place) as url:
        found = post(f"{url}/api/v1/log/entries/retrieve/", json={"logIndexes": [0]}, follow_redirects=True)
        assert (found.status_code, len(found.json())) == (200, 1)


def test_without_an_archive_the_answer_says_so() -> None:
    app = FastAPI()
    app.include_router(unknown_paths((), "there is no archive"))
    server = WebServer(app, WebConfig(("127.0.0.1", 0)))
    server.start()
    try:
        answer = post(f"{server.url}/api/v1/index/retrieve", json={"email": "a@b.example"})
        assert get(f"{server.url}/api/other").status_code == 404, "control: a path of another API"
    finally:
        server.stop()
    assert (answer.status_code, answer.json()["code"]) == (404, 404)
    assert answer.json()["message"] == "path /api/v1/index/retrieve was not found: there is no archive"


@needs_rekor_cli
def test_rekor_cli_prints_why_a_dsse_of_version_2_has_no_form_and_where_it_is(place: Place, tmp_path: Path) -> None:
    place.build()
    leaf = next(iter(hashes(place, 1)))
    with searched(place) as url:
        said = rekor_cli(url + V1_FORM, tmp_path, "get", "--uuid", leaf, expect=1)
        assert "has no form of Rekor v1: dsse 0.0.1 states the SHA-256 of the whole envelope" in said
        path = said.rpartition("GET ")[2].partition(" ")[0]
        entry = httpx.get(url + path, trust_env=False).json()
    (told,) = entry.values()
    assert leaf_hash(base64.b64decode(told["body"])).hex() == leaf
