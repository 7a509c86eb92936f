"""A Rekor v2 shard answers as rekor-tiles does, and its tiles are the tree it signed."""

import base64
import json
from hashlib import sha256
from typing import Any

import pytest
import rfc8785

from tests.log_lite.client import KEY, LogClient, b64, hashedrekord_v2
from tests.log_lite.test_rekor_v1 import envelope
from tests.support.entries import make_ca, make_certificate, make_key, spki_of
from tlog.merkle import Frontier, leaf_hash
from tlog.note import tile_log_key
from tlog.tiles import (
    entries_path,
    frontier_from_tiles,
    parse_entry_bundle,
    parse_hash_tile,
    partial_width,
    right_edge,
    tile_path,
)

Json = dict[str, Any]


def test_a_submission_gets_a_complete_answer(log: LogClient) -> None:
    entry = log.submit_v2(b"first v2")
    assert int(entry["logIndex"]) >= 1, "index 0 is the log's own"
    assert entry["kindVersion"] == {"kind": "hashedrekord", "version": "0.0.2"}
    assert (entry["integratedTime"], entry["inclusionPromise"]) == ("0", None)
    assert entry["logId"]["keyId"] == log.trust()["tlogs"][1]["logId"]["keyId"]
    assert base64.b64decode(entry["logId"]["keyId"]) == tile_log_key("localhost", log.spki(1)).log_id
    body = base64.b64decode(entry["canonicalizedBody"])
    assert rfc8785.dumps(json.loads(body)) == body


def test_the_origin_is_the_host_without_a_port(log: LogClient) -> None:
    assert log.head_v2().origin == "localhost"
    assert log.get("/api/v2/checkpoint").content == log.get("/checkpoint").content


def test_tiles_and_bundles_are_the_tree_that_was_signed(log: LogClient) -> None:
    log.submit_v2(b"for the tiles")
    head = log.head_v2()
    edge = {}
    for level, index, width in right_edge(head.size):
        edge[level] = parse_hash_tile(log.get("/" + tile_path(level, index, width)).content, width)
    assert frontier_from_tiles(head.size, edge).root() == head.root
    width = partial_width(0, head.size)
    bundle = log.get("/api/v2/" + entries_path(0, width))
    bodies = parse_entry_bundle(bundle.content, width)
    assert Frontier().extended(leaf_hash(body) for body in bodies).root() == head.root
    assert "immutable" in bundle.headers["cache-control"]


@pytest.mark.parametrize(
    "path",
    [
        "tile/0/001", "tile/0/000", "tile/0/000.p/0", "tile/0/000.p/256", "tile/0/000.p/01", "tile/0/0", "tile/8/000",
        "tile/0/" + "x001/" * 2000 + "001",
        "tile/0/x000/001", "tile/entries/001", "tile/entries/000.p/200", "tile/00/000.p/1", "tile/0/x001/x002/003",
    ],
)  # fmt: skip
def test_tiles_outside_the_tree_or_misspelt_are_not_found(log: LogClient, path: str) -> None:
    assert log.get("/tile/0/000.p/1").status_code == 200, "control"
    assert log.get("/" + path).status_code == 404


def test_an_equivalent_entry_is_refused_with_its_index(log: LogClient) -> None:
    request = hashedrekord_v2(b"once only v2")
    index = log.post("/api/v2/log/entries", request).json()["logIndex"]
    answer = log.post("/api/v2/log/entries", request)
    assert (answer.status_code, answer.headers["x-log-index"]) == (409, index)
    message = f"an equivalent entry already exists in the transparency log with index {index}"
    assert answer.json() == {"code": 6, "message": message, "details": []}


def test_original_field_names_are_taken_too(log: LogClient) -> None:
    request = hashedrekord_v2(b"snake case")["hashedRekordRequestV002"]
    verifier = request["signature"]["verifier"]
    snake = {
        "hashed_rekord_request_v002": {
            "digest": request["digest"],
            "signature": {
                "content": request["signature"]["content"],
                "verifier": {
                    "public_key": {"raw_bytes": verifier["publicKey"]["rawBytes"]},
                    "key_details": verifier["keyDetails"],
                },
            },
        }
    }
    answer = log.post("/api/v2/log/entries", snake)
    assert answer.status_code == 201, answer.text
    assert b"raw_bytes" not in base64.b64decode(answer.json()["canonicalizedBody"])


def test_a_certificate_is_logged_as_der(log: LogClient) -> None:
    key = make_key("v2 named")
    der = make_certificate(make_ca(), key=key)
    request = hashedrekord_v2(b"with certificate", key)
    verifier = {"x509Certificate": {"rawBytes": b64(der)}, "keyDetails": "PKIX_ECDSA_P256_SHA_256"}
    request["hashedRekordRequestV002"]["signature"]["verifier"] = verifier
    answer = log.post("/api/v2/log/entries", request)
    assert answer.status_code == 201, answer.text
    body = json.loads(base64.b64decode(answer.json()["canonicalizedBody"]))
    stored = body["spec"]["hashedRekordV002"]["signature"]["verifier"]
    assert base64.b64decode(stored["x509Certificate"]["rawBytes"]) == der


def test_a_dsse_request_logs_payload_hash_and_raw_signatures(log: LogClient) -> None:
    payload = b"dsse v2"
    verifier = {"publicKey": {"rawBytes": b64(spki_of(KEY))}, "keyDetails": "PKIX_ECDSA_P256_SHA_256"}
    request = {"dsseRequestV002": {"envelope": envelope(payload), "verifiers": [verifier]}}
    answer = log.post("/api/v2/log/entries", request)
    assert answer.status_code == 201, answer.text
    entry = answer.json()
    log.check_v2(entry)
    spec = json.loads(base64.b64decode(entry["canonicalizedBody"]))["spec"]["dsseV002"]
    assert spec["payloadHash"] == {"algorithm": "SHA2_256", "digest": b64(sha256(payload).digest())}
    assert base64.b64decode(spec["signatures"][0]["content"])[0] == 0x30


def _change(request: Json, *path: str, to: Any) -> Json:
    target = request
    for name in path[:-1]:
        target = target[name]
    target[path[-1]] = to
    return request


def request_with(*path: str, to: Any) -> Json:
    return _change(hashedrekord_v2(b"refused"), "hashedRekordRequestV002", *path, to=to)


REFUSED: dict[str, Json] = {
    "another digest": request_with("digest", to=b64(bytes(32))),
    "short digest": request_with("digest", to=b64(bytes(31))),
    "not base64": request_with("signature", "content", to="%%"),
    "key type does not fit": request_with("signature", "verifier", "keyDetails", to="PKIX_ECDSA_P384_SHA_384"),
    "plain ed25519": request_with("signature", "verifier", "keyDetails", to="PKIX_ED25519"),
    "no verifier": request_with("signature", "verifier", to=None),
    "unknown field": request_with("extra", to=1),
    "nothing": {},
    "two requests": {**hashedrekord_v2(b"a"), "dsseRequestV002": {}},
    "not an object": {"hashedRekordRequestV002": []},
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_submissions_are_refused_with_grpc_gateways_errors(log: LogClient, case: str) -> None:
    size = log.head_v2().size
    answer = log.post("/api/v2/log/entries", REFUSED[case])
    assert answer.status_code == 400, answer.text
    assert answer.json()["code"] == 3
    assert answer.json()["details"] == []
    assert log.head_v2().size == size


def test_other_errors_have_the_same_shape(log: LogClient) -> None:
    not_json = log.http.post(f"{log.url}/api/v2/log/entries", content=b"{")
    too_large = log.http.post(f"{log.url}/api/v2/log/entries", content=b" " * (4 * 1024 * 1024 + 1))
    unknown, method = log.get("/api/v2/nothing"), log.get("/api/v2/log/entries")
    answers = [(not_json, 400, 3), (too_large, 400, 3), (unknown, 404, 5), (method, 501, 12)]
    own = [(log.get(f"/rekor-v2{path}"), 404, 5) for path in ("", "/", "/nothing", "/api/v1/log", "/api/v2/nothing")]
    for answer, status, code in (*answers, (log.get("/api/v2"), 404, 5), *own):
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert answer.json()["details"] == []


def test_health_and_metrics_are_served(log: LogClient) -> None:
    assert log.get("/healthz").json() == {"status": "SERVING"}
    assert log.get("/ping").status_code == 200
    size = log.head_v2().size
    assert f'log_lite_tree_size{{log="v2",origin="localhost"}} {size:.1f}' in log.get("/metrics").text
    assert "log_lite_writer_up 1.0" in log.get("/metrics").text
