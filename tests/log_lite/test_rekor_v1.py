"""The Rekor v1 API answers as Rekor does, over a real server."""

import base64
import json
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import httpx
import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from tests.log_lite.client import KEY, LogClient, b64, hashedrekord, pem_of
from tests.support.entries import make_ca, make_certificate, make_key, pem
from tests.support.waiting import PATIENCE
from tlog.merkle import leaf_hash, verify_consistency

Json = dict[str, Any]


def envelope(payload: bytes, key: ec.EllipticCurvePrivateKey = KEY, kind: str = "application/vnd.in-toto+json") -> Json:
    pae = b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)
    signature = {"sig": b64(key.sign(pae, ec.ECDSA(SHA256()))), "keyid": ""}
    return {"payload": b64(payload), "payloadType": kind, "signatures": [signature]}


def dsse(payload: bytes) -> Json:
    content = {"envelope": json.dumps(envelope(payload)), "verifiers": [b64(pem_of(KEY))]}
    return {"apiVersion": "0.0.1", "kind": "dsse", "spec": {"proposedContent": content}}


def intoto_1(payload: bytes) -> Json:
    spec = {"content": {"envelope": json.dumps(envelope(payload))}, "publicKey": b64(pem_of(KEY))}
    return {"apiVersion": "0.0.1", "kind": "intoto", "spec": spec}


def intoto_2(payload: bytes) -> Json:
    inner = envelope(payload)
    signature = {"sig": b64(inner["signatures"][0]["sig"].encode()), "publicKey": b64(pem_of(KEY))}
    content = {
        "envelope": {
            "payload": b64(inner["payload"].encode()),
            "payloadType": inner["payloadType"],
            "signatures": [signature],
        },
        "hash": {"algorithm": "sha256", "value": sha256(json.dumps(inner).encode()).hexdigest()},
    }
    return {"apiVersion": "0.0.2", "kind": "intoto", "spec": {"content": content}}


def statement(digest: str) -> bytes:
    return json.dumps({"_type": "x", "subject": [{"name": "a", "digest": {"sha256": digest}}]}).encode()


def body_of(entry: Json) -> Json:
    value: Json = json.loads(base64.b64decode(entry["body"]))
    return value


def post(log: LogClient, proposal: Json) -> Json:
    answer = log.post("/api/v1/log/entries", proposal)
    assert answer.status_code == 201, answer.text
    ((uuid, entry),) = answer.json().items()
    log.check_v1(uuid, entry)
    return {**entry, "uuid": uuid}


def test_a_submission_gets_a_complete_answer(log: LogClient) -> None:
    entry = log.submit_v1(b"first")
    assert entry["logIndex"] >= 1, "index 0 is the log's own"
    body = base64.b64decode(entry["body"])
    assert rfc8785.dumps(json.loads(body)) == body
    key = load_pem_public_key(log.get("/api/v1/log/publicKey").content)
    assert isinstance(key, ec.EllipticCurvePublicKey)
    signed = {name: entry[name] for name in ("body", "integratedTime", "logID", "logIndex")}
    promise = base64.b64decode(entry["verification"]["signedEntryTimestamp"])
    key.verify(promise, rfc8785.dumps(signed), ec.ECDSA(SHA256()))
    assert entry["logID"] == sha256(log.spki(0)).hexdigest()


def test_a_checkpoint_has_one_signature_line_and_one_empty_line(log: LogClient) -> None:
    note = log.log_info()["signedTreeHead"]
    assert note.count("\n\n") == 1
    assert note.count("— ") == 1
    assert log.head_v1().origin == f"localhost - {log.log_info()['treeID']}"


def test_location_and_lookups_lead_to_the_same_entry(log: LogClient) -> None:
    entry = log.submit_v1(b"look me up")
    uuid, index = entry["uuid"], entry["logIndex"]
    for path in (f"/{uuid}", f"/{uuid.upper()}", f"/{uuid[16:]}", f"?logIndex={index}"):
        answer = log.get(f"/api/v1/log/entries{path}")
        assert answer.status_code == 200, path
        assert list(answer.json()) == [uuid]
        log.check_v1(uuid, answer.json()[uuid])


def test_an_equivalent_entry_is_refused_with_its_location(log: LogClient) -> None:
    proposal = hashedrekord(b"once only")
    first = post(log, proposal)
    answer = log.post("/api/v1/log/entries", proposal)
    assert answer.status_code == 409
    assert answer.headers["location"] == f"/api/v1/log/entries/{first['uuid']}"
    message = f"an equivalent entry already exists in the transparency log with UUID {first['uuid']}"
    assert answer.json() == {"code": 409, "message": message}


@pytest.mark.parametrize("make", [dsse, intoto_1, intoto_2])
def test_attestations_are_accepted_and_their_payload_hash_logged(log: LogClient, make: Any) -> None:
    digest = sha256(make.__name__.encode()).hexdigest()
    payload = statement(digest)
    proposal = make(payload)
    entry = post(log, proposal)
    assert sha256(payload).hexdigest() in base64.b64decode(entry["body"]).decode()
    assert ("attestation" in entry) == (make is not dsse)
    assert log.post("/api/v1/index/retrieve", {"hash": f"sha256:{digest}"}).json() == [entry["uuid"]]


def test_intoto_2_keeps_the_signature_as_sent_and_the_attestation_beside_it(log: LogClient) -> None:
    payload = b'{"subject":[],"n":2}'
    entry = post(log, intoto_2(payload))
    content = body_of(entry)["spec"]["content"]
    inner = base64.b64decode(base64.b64decode(content["envelope"]["signatures"][0]["sig"]))
    assert inner[0] == 0x30, "two layers of base64 around a DER signature"
    assert "payload" not in content["envelope"]
    assert base64.b64decode(entry["attestation"]["data"]) == payload


def test_a_certificate_is_found_by_its_names(log: LogClient) -> None:
    key = make_key("named")
    certificate = pem(make_certificate(make_ca(), san="named@example.com", key=key))
    proposal = hashedrekord(b"named", key)
    proposal["spec"]["signature"]["publicKey"]["content"] = b64(certificate)
    entry = post(log, proposal)
    stored = body_of(entry)["spec"]["signature"]["publicKey"]["content"]
    assert base64.b64decode(stored) == certificate
    for query in ({"email": "Named@Example.com"}, {"subject": "named@example.com"}):
        assert log.post("/api/v1/index/retrieve", query).json() == [entry["uuid"]]
    public_key = {"format": "x509", "content": b64(certificate)}
    assert entry["uuid"] in log.post("/api/v1/index/retrieve", {"publicKey": public_key}).json()
    both = {"email": "named@example.com", "hash": sha256(b"named").hexdigest(), "operator": "and"}
    assert log.post("/api/v1/index/retrieve", both).json() == [entry["uuid"]]
    neither = {"email": "named@example.com", "hash": "0" * 64, "operator": "and"}
    assert log.post("/api/v1/index/retrieve", neither).json() == []
    assert log.post("/api/v1/index/retrieve", {}).status_code == 400


def mutated(change: Any) -> Json:
    proposal = hashedrekord(b"mutated")
    change(proposal)
    return proposal


def _set(*path: str, to: Any) -> Any:
    def change(proposal: Json) -> None:
        target = proposal
        for name in path[:-1]:
            target = target[name]
        if to is None:
            del target[path[-1]]
        else:
            target[path[-1]] = to

    return change


WRONG_KEY = b64(pem_of(make_key("somebody else")))
REFUSED = {
    "signature by another key": (
        _set("spec", "signature", "publicKey", "content", to=WRONG_KEY),
        400,
        "invalid signature",
    ),
    "digest of another file": (_set("spec", "data", "hash", "value", to="0" * 64), 400, "invalid signature"),
    "digest too short": (_set("spec", "data", "hash", "value", to="00"), 400, "hash"),
    "unknown hash": (_set("spec", "data", "hash", "algorithm", to="md5"), 400, "hash"),
    "not base64": (_set("spec", "signature", "content", to="*"), 400, "not base64"),
    "not a key": (_set("spec", "signature", "publicKey", "content", to=b64(b"key")), 400, "invalid public key"),
    "no signature": (_set("spec", "signature", to=None), 400, "required"),
    "no spec": (_set("spec", to=None), 400, "required"),
    "unknown version": (_set("apiVersion", to="0.0.9"), 400, "does not support inserting entries of version"),
    "unsupported kind": (_set("kind", to="tuf"), 400, "unsupported"),
    "unknown kind": (_set("kind", to="nonsense"), 422, "invalid kind value"),
    "no kind": (_set("kind", to=None), 422, "kind in body is required"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_submissions_are_refused_with_rekors_errors(log: LogClient, case: str) -> None:
    change, status, message = REFUSED[case]
    size = log.log_info()["treeSize"]
    answer = log.post("/api/v1/log/entries", mutated(change))
    assert answer.status_code == status, answer.text
    assert message in answer.json()["message"]
    assert log.log_info()["treeSize"] == size


def test_an_envelope_needs_a_key_for_every_signature(log: LogClient) -> None:
    good = dsse(b"two signers")
    other = envelope(b"two signers", make_key("second"))
    both = envelope(b"two signers")
    both["signatures"].append(other["signatures"][0])
    good["spec"]["proposedContent"]["envelope"] = json.dumps(both)
    answer = log.post("/api/v1/log/entries", good)
    assert (answer.status_code, "all signatures must have a key" in answer.text) == (400, True)
    good["spec"]["proposedContent"]["verifiers"].append(b64(pem_of(make_key("second"))))
    entry = post(log, good)
    signatures = [s["signature"] for s in body_of(entry)["spec"]["signatures"]]
    assert signatures == sorted(signatures)
    assert len(signatures) == 2


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"kind":"a","kind":"b"}', b"\xff", b"[" * 100_000, b'{"a":NaN}'])
def test_what_is_no_json_object_is_a_parse_error(log: LogClient, body: bytes) -> None:
    answer = log.http.post(f"{log.url}/api/v1/log/entries", content=body)
    assert answer.status_code == 400
    assert answer.json()["message"].startswith('parsing proposedEntry body from "" failed')


def test_an_empty_and_an_endless_body_are_refused(log: LogClient) -> None:
    assert log.http.post(f"{log.url}/api/v1/log/entries", content=b"").status_code == 422
    answer = log.http.post(f"{log.url}/api/v1/log/entries", content=b" " * (4 * 1024 * 1024 + 1))
    assert answer.status_code == 413


BAD_QUERIES = {
    "/api/v1/log/entries?logIndex=-1": (422, 609),
    "/api/v1/log/entries?logIndex=x": (422, 601),
    "/api/v1/log/entries": (422, 602),
    "/api/v1/log/entries/nothex": (422, 605),
    "/api/v1/log/proof?lastSize=0": (422, 609),
    "/api/v1/log/proof?firstSize=0&lastSize=1": (422, 609),
    "/api/v1/log/proof": (422, 602),
    "/api/v1/log/proof?firstSize=2&lastSize=1": (400, 400),
    "/api/v1/log/proof?lastSize=99999": (400, 400),
    "/api/v1/log/proof?lastSize=1&treeID=1": (400, 400),
    "/api/v1/log/publicKey?treeID=77": (400, 400),
}


@pytest.mark.parametrize("path", BAD_QUERIES)
def test_bad_queries_get_go_openapis_codes(log: LogClient, path: str) -> None:
    status, code = BAD_QUERIES[path]
    answer = log.get(path)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


@pytest.mark.parametrize("path", ["?logIndex=99999", "/" + "0" * 64, "/" + "1" * 80])
def test_what_is_not_there_is_an_empty_404(log: LogClient, path: str) -> None:
    answer = log.get(f"/api/v1/log/entries{path}")
    assert (answer.status_code, answer.content) == (404, b"")


def test_retrieve_takes_nulls_leaves_out_what_is_missing_and_caps_at_ten(log: LogClient) -> None:
    entry = log.submit_v1(b"retrieve me")
    query = {"entryUUIDs": [entry["uuid"], "0" * 80], "logIndexes": None, "entries": None}
    for path in ("/api/v1/log/entries/retrieve", "/api/v1/log/entries/retrieve/"):
        assert [list(item) for item in log.post(path, query).json()] == [[entry["uuid"]]]
    by_index = log.post("/api/v1/log/entries/retrieve", {"logIndexes": [1, 0, 99999]}).json()
    assert [next(iter(item.values()))["logIndex"] for item in by_index] == [1, 0]
    over = log.post("/api/v1/log/entries/retrieve", {"logIndexes": list(range(6)), "entryUUIDs": ["0" * 80] * 5})
    assert (over.status_code, over.json()["message"]) == (422, "more than max allowed 10 entries in request")
    assert log.post("/api/v1/log/entries/retrieve", {"logIndexes": list(range(11))}).status_code == 422


def test_retrieve_finds_a_proposal_by_its_canonical_form(log: LogClient) -> None:
    proposal = hashedrekord(b"by entry")
    entry = post(log, proposal)
    (found,) = log.post("/api/v1/log/entries/retrieve", {"entries": [proposal]}).json()
    assert list(found) == [entry["uuid"]]
    attested = post(log, dsse(b"by canonical form"))
    (found,) = log.post("/api/v1/log/entries/retrieve", {"entries": [body_of(attested)]}).json()
    assert list(found) == [attested["uuid"]]


def test_consistency_proofs_lead_from_every_earlier_head(log: LogClient) -> None:
    old = log.head_v1()
    for n in range(3):
        log.submit_v1(b"grow %d" % n)
    new = log.head_v1()
    answer = log.get(f"/api/v1/log/proof?firstSize={old.size}&lastSize={new.size}").json()
    verify_consistency(old.size, new.size, [bytes.fromhex(h) for h in answer["hashes"]], old.root, new.root)
    assert log.get(f"/api/v1/log/proof?firstSize={new.size}&lastSize={new.size}").json()["hashes"] == []


def test_the_first_leaf_is_an_ordinary_entry(log: LogClient) -> None:
    uuid, entry = log.entry_v1(0)
    log.check_v1(uuid, entry)
    assert uuid.endswith(leaf_hash(base64.b64decode(entry["body"])).hex())


def test_a_plain_ed25519_signature_over_a_digest_is_not_supported(log: LogClient) -> None:
    key = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32))
    proposal = hashedrekord(b"ed")

    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    proposal["spec"]["signature"] = {"content": b64(key.sign(b"ed")), "publicKey": {"content": b64(public)}}
    answer = log.post("/api/v1/log/entries", proposal)
    assert (answer.status_code, "unsupported" in answer.text) == (400, True)


HALF = '"\\ud800"'


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/v1/log/entries", f'{{"kind": {HALF}}}'),
        ("/api/v1/log/entries/retrieve", f'{{"entries": [{{"kind": {HALF}}}]}}'),
        ("/api/v1/index/retrieve", f'{{"email": {HALF}}}'),
        ("/api/v2/log/entries", f"{{{HALF}: 1}}"),
        ("/ct/ct/v1/add-chain", f'{{"chain": [{HALF}]}}'),
    ],
)
def test_half_of_a_surrogate_pair_is_refused_as_bad_json(log: LogClient, path: str, body: str) -> None:
    answer = httpx.post(f"{log.server.url}{path}", content=body, timeout=PATIENCE)
    assert answer.status_code == 400, answer.text
    assert "surrogate" in answer.text


@pytest.mark.parametrize("made", [dsse, intoto_1, intoto_2])
def test_a_digest_that_is_no_unicode_is_left_out_of_the_search(log: LogClient, made: Callable[[bytes], Json]) -> None:
    """Such a key would fail the batch, with the entries of other clients in it."""
    assert post(log, made(statement("\ud800")))


@pytest.mark.parametrize(
    ("method", "path", "status", "told"),
    [
        ("GET", "/api/v1", 404, "path /api/v1 was not found"),
        ("POST", "/api/v1/nothing", 404, "path /api/v1/nothing was not found"),
        ("DELETE", "/api/v1/log/entries", 405, "method DELETE is not allowed, but [GET,POST] are"),
        ("GET", "/api/v1/index/retrieve", 405, "method GET is not allowed, but [POST] are"),
        ("GET", "/nothing", 404, "path /nothing was not found"),
    ],
)
def test_unknown_paths_and_wrong_methods_have_the_form_of_rekor(
    log: LogClient, method: str, path: str, status: int, told: str
) -> None:
    answer = log.http.request(method, f"{log.url}{path}")
    assert (answer.status_code, answer.json()) == (status, {"code": status, "message": told})
