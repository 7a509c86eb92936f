"""Every kind of bad input gets Fulcio's answer, word for word, and the reason Fulcio leaves to its own log."""

import base64
import time
from collections.abc import Callable
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ca_lite.errors import TOKEN_MESSAGE, CaRefused
from ca_lite.proof import ALGORITHMS, verify_possession
from tests.ca_lite.ct_stub import CtStub
from tests.ca_lite.requests import V1, V2, b64, bearer, csr, issued, key_request, refusal, signature
from tests.support.ca_server import CaServer

KEY = ec.generate_private_key(ec.SECP256R1())
OTHER = ec.generate_private_key(ec.SECP256R1())
P521 = ec.generate_private_key(ec.SECP521R1())
ALICE = "alice@lab.local"

UNPARSABLE = "The public key supplied in the request could not be parsed"
INSECURE = "The public key supplied in the request is insecure"
UNVERIFIED = "The signature supplied in the request could not be verified"
BAD_CSR = "The certificate signing request could not be parsed"


def public_pem(key: Any) -> str:
    return str(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())


def with_key(content: object, proof: object = b64(b"x")) -> dict[str, Any]:
    return {"publicKeyRequest": {"publicKey": {"content": content}, "proofOfPossession": proof}}


def with_csr(raw: bytes) -> dict[str, Any]:
    return {"certificateSigningRequest": b64(raw)}


def corrupted_csr() -> bytes:
    der = bytearray(base64.b64decode("".join(csr(KEY, hashes.SHA256()).decode().splitlines()[1:-1])))
    der[-1] ^= 1
    text = base64.encodebytes(bytes(der)).decode()
    return f"-----BEGIN CERTIFICATE REQUEST-----\n{text}-----END CERTIFICATE REQUEST-----\n".encode()


BODIES: dict[str, tuple[Callable[[], dict[str, Any]], str, str]] = {
    "no key and no CSR": (dict, UNPARSABLE, "KEY_UNPARSABLE"),
    "nulls only": (lambda: {"publicKeyRequest": None, "credentials": None}, UNPARSABLE, "KEY_UNPARSABLE"),
    "empty publicKeyRequest": (lambda: {"publicKeyRequest": {}}, UNPARSABLE, "KEY_UNPARSABLE"),
    "key is not text": (lambda: with_key(17), UNPARSABLE, "KEY_UNPARSABLE"),
    "key is garbage": (lambda: with_key("garbage"), UNPARSABLE, "KEY_UNPARSABLE"),
    "key is a PEM of nothing": (
        lambda: with_key("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"),
        UNPARSABLE,
        "KEY_UNPARSABLE",
    ),
    "RSA-1024": (lambda: with_key(public_pem(rsa.generate_private_key(65537, 1024))), INSECURE, "KEY_INSECURE"),
    "odd curve": (lambda: with_key(public_pem(ec.generate_private_key(ec.SECP256K1()))), INSECURE, "KEY_INSECURE"),
    "DSA": (lambda: with_key(public_pem(dsa.generate_private_key(1024))), INSECURE, "KEY_INSECURE"),
    "proof by another key": (
        lambda: with_key(public_pem(KEY), b64(signature(OTHER, ALICE.encode()))),
        UNVERIFIED,
        "PROOF_OF_POSSESSION_INVALID",
    ),
    "proof over another text": (
        lambda: with_key(public_pem(KEY), b64(signature(KEY, b"bob@lab.local"))),
        UNVERIFIED,
        "PROOF_OF_POSSESSION_INVALID",
    ),
    "P-521 key with a SHA-256 proof": (
        lambda: key_request(P521, ALICE, hashes.SHA256()),
        UNVERIFIED,
        "PROOF_OF_POSSESSION_INVALID",
    ),
    "empty proof": (lambda: with_key(public_pem(KEY), ""), UNVERIFIED, "PROOF_OF_POSSESSION_INVALID"),
    "no proof": (lambda: with_key(public_pem(KEY), None), UNVERIFIED, "PROOF_OF_POSSESSION_INVALID"),
    "proof is not base64": (lambda: with_key(public_pem(KEY), "%%"), UNVERIFIED, "PROOF_OF_POSSESSION_INVALID"),
    "CSR is garbage": (lambda: with_csr(b"garbage"), BAD_CSR, "CSR_UNPARSABLE"),
    "CSR is not base64": (lambda: {"certificateSigningRequest": "%%"}, BAD_CSR, "CSR_UNPARSABLE"),
    "CSR of the wrong PEM type": (
        lambda: with_csr(csr(KEY, hashes.SHA256()).replace(b"CERTIFICATE REQUEST", b"CERTIFICATE")),
        BAD_CSR,
        "CSR_UNPARSABLE",
    ),
    "CSR with a corrupt signature": (lambda: with_csr(corrupted_csr()), UNVERIFIED, "CSR_SIGNATURE_INVALID"),
    "CSR with P-521 and SHA-256": (
        lambda: with_csr(csr(P521, hashes.SHA256())),
        "signing algorithm not permitted: *ecdsa.PublicKey, SHA-256",
        "ALGORITHM_NOT_PERMITTED",
    ),
    "CSR with an insecure key": (
        lambda: with_csr(csr(rsa.generate_private_key(65537, 1024), hashes.SHA256())),
        INSECURE,
        "KEY_INSECURE",
    ),
    "CSR with SHA-224": (
        lambda: with_csr(csr(KEY, hashes.SHA224())),
        "unrecognized signature algorithm: sha224",
        "CSR_ALGORITHM_UNKNOWN",
    ),
}


@pytest.fixture
def token(ca: CaServer) -> str:
    return ca.email_token(ALICE)


def test_the_control_case_gets_a_certificate(ca: CaServer, http: httpx.Client, token: str) -> None:
    assert issued(http.post(V2, json=key_request(KEY, ALICE), headers=bearer(token)))
    assert issued(http.post(V2, json=with_csr(csr(KEY, hashes.SHA256())), headers=bearer(token)))


@pytest.mark.parametrize("case", BODIES)
def test_a_bad_key_or_proof_gets_fulcios_words(case: str, http: httpx.Client, token: str) -> None:
    make, message, reason = BODIES[case]
    assert refusal(http.post(V2, json=make(), headers=bearer(token))) == (400, 3, message, reason)


def test_the_csr_wins_when_a_key_is_sent_as_well(http: httpx.Client, token: str) -> None:
    body = {**key_request(KEY, ALICE), **with_csr(b"garbage")}
    assert refusal(http.post(V2, json=body, headers=bearer(token)))[2] == BAD_CSR


@pytest.mark.parametrize(
    ("raw", "says"),
    [(b"", "not JSON"), (b"{", "not JSON"), (b"[]", "not a JSON object"), (b"[" * 100_000, "not JSON")],
)
def test_a_malformed_body_is_the_callers_fault(raw: bytes, says: str, http: httpx.Client, token: str) -> None:
    status, code, message, reason = refusal(http.post(V2, content=raw, headers=bearer(token)))
    assert (status, code, reason) == (400, 3, "BODY_MALFORMED")
    assert says in message


def test_a_body_over_four_mebibytes_is_not_read(http: httpx.Client) -> None:
    answer = http.post(V2, content=b"x" * (4 * 1024 * 1024 + 1))
    assert refusal(answer) == (400, 3, "http: request body too large", "BODY_TOO_LARGE")


def test_unknown_paths_and_methods_answer_as_the_gateway_does(http: httpx.Client) -> None:
    assert refusal(http.get("/api/v3/signingCert")) == (404, 5, "Not Found", "")
    assert refusal(http.get(V2)) == (501, 12, "Method Not Allowed", "")


def forged(claims: dict[str, Any], key: Any = None, algorithm: str = "RS256", kid: str | None = None) -> str:
    headers = {"kid": kid} if kid else {}
    return jwt.encode(claims, key or rsa.generate_private_key(65537, 2048), algorithm=algorithm, headers=headers)


def claims(ca: CaServer, **changed: Any) -> dict[str, Any]:
    now = int(time.time())
    base = {"iss": ca.oidc, "sub": ALICE, "aud": "sigstore", "exp": now + 600, "email": ALICE, "email_verified": True}
    return {key: value for key, value in {**base, **changed}.items() if value is not None}


TOKENS: dict[str, tuple[Callable[[CaServer], str], str]] = {
    "no token": (lambda ca: "", "TOKEN_MISSING"),
    "one part": (lambda ca: "abc", "TOKEN_MALFORMED"),
    "four parts": (lambda ca: "a.b.c.d", "TOKEN_MALFORMED"),
    "ten thousand dots": (lambda ca: "." * 10_000, "TOKEN_MALFORMED"),
    "bad base64": (lambda ca: "%.%.%", "TOKEN_MALFORMED"),
    "bad JSON": (lambda ca: "YQ.YQ.YQ", "TOKEN_MALFORMED"),
    "no issuer": (lambda ca: forged(claims(ca, iss=None)), "ISSUER_MISSING"),
    "unknown issuer": (lambda ca: forged(claims(ca, iss="https://evil.example")), "ISSUER_UNKNOWN"),
    "signed by another key": (lambda ca: forged(claims(ca)), "SIGNATURE_INVALID"),
    "unknown key id": (lambda ca: forged(claims(ca), kid="nobody"), "KEY_UNKNOWN"),
    "HS256": (lambda ca: forged(claims(ca), "s" * 64, "HS256"), "ALGORITHM_NOT_ALLOWED"),
    "none": (lambda ca: jwt.encode(claims(ca), "", algorithm="none"), "ALGORITHM_NOT_ALLOWED"),
    "ES256": (lambda ca: forged(claims(ca), KEY, "ES256"), "ALGORITHM_NOT_ALLOWED"),
}

MINTED: dict[str, tuple[dict[str, Any], str]] = {
    "wrong audience": ({"aud": "elsewhere"}, "AUDIENCE_MISMATCH"),
    "expired": ({"exp": 1_700_000_000}, "TOKEN_EXPIRED"),
    "not yet valid": ({"nbf": 4_000_000_000, "exp": 4_000_000_600}, "TOKEN_NOT_YET_VALID"),
    "times are text": ({"exp": "soon"}, "TOKEN_MALFORMED"),
    "no e-mail": ({"email": None}, "EMAIL_MISSING"),
    "e-mail is not one": ({"email": "alice"}, "EMAIL_INVALID"),
    "e-mail with a control character": ({"email": "alice\n@lab.local"}, "EMAIL_INVALID"),
    "e-mail is not ASCII": ({"email": "älice@lab.local"}, "EMAIL_INVALID"),
    "not verified": ({"email_verified": False}, "EMAIL_NOT_VERIFIED"),
    "verification unknown": ({"email_verified": None}, "EMAIL_NOT_VERIFIED"),
    "no subject": ({"sub": None}, "SUBJECT_MISSING"),
    "CI claims missing": ({"iss": "github"}, "CLAIM_MISSING"),
    "uri of another host": ({"iss": "uri", "sub": "http://elsewhere/x"}, "URI_MISMATCH"),
    "uri that is an e-mail": ({"iss": "uri", "sub": ALICE}, "URI_INVALID"),
}


@pytest.mark.parametrize("case", TOKENS)
def test_a_bad_token_gets_fulcios_one_sentence_and_our_reason(case: str, ca: CaServer, http: httpx.Client) -> None:
    make, reason = TOKENS[case]
    body = {**key_request(KEY, ALICE), "credentials": {"oidcIdentityToken": make(ca)}}
    assert refusal(http.post(V2, json=body)) == (400, 3, TOKEN_MESSAGE, reason)


@pytest.mark.parametrize("case", MINTED)
def test_a_well_signed_token_with_bad_claims_is_refused(case: str, ca: CaServer, http: httpx.Client) -> None:
    changed, reason = MINTED[case]
    content: dict[str, Any] = {"iss": "", "sub": ALICE, "email": ALICE, "email_verified": True, **changed}
    content["iss"] = f"{ca.oidc}/{content['iss']}".rstrip("/")
    token = ca.mint({key: value for key, value in content.items() if value is not None})
    answer = http.post(V2, json=key_request(KEY, ALICE), headers=bearer(token))
    status, code, message, found = refusal(answer)
    assert (status, code, found) == (400, 3, reason)
    expected = "value <job_workflow_ref> not present in either claims or defaults. Issuer: " + ca.github
    assert message == (expected if reason == "CLAIM_MISSING" else TOKEN_MESSAGE)


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        ("refuse", "CT_UNAVAILABLE"),
        ("garbage", "CT_UNAVAILABLE"),
        ("huge", "CT_UNAVAILABLE"),
        ("two-hundred-html", "CT_UNAVAILABLE"),
        ("wrong-key", "SCT_INVALID"),
        ("wrong-tbs", "SCT_INVALID"),
        ("future", "SCT_INVALID"),
    ],
)
def test_no_certificate_leaves_without_a_valid_sct(
    mode: str, reason: str, stub: CtStub, http: httpx.Client, token: str
) -> None:
    stub.mode = mode
    answer = http.post(V2, json=key_request(KEY, ALICE), headers=bearer(token))
    assert refusal(answer) == (500, 13, "Error entering certificate in CTL", reason)
    assert "BEGIN CERTIFICATE" not in answer.text


def test_v1_answers_gitsign_with_201_and_a_pem_chain(http: httpx.Client, token: str) -> None:
    spki = KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    body = {
        "publicKey": {"content": b64(spki), "algorithm": "ecdsa"},
        "signedEmailAddress": b64(signature(KEY, ALICE.encode())),
        "certificateSigningRequest": None,
    }
    answer = http.post(V1, json=body, headers=bearer(token))
    assert answer.status_code == 201
    assert answer.headers["content-type"] == "application/pem-certificate-chain"
    assert answer.text.count("-----BEGIN CERTIFICATE-----") == 3
    assert not answer.text.endswith("\n")
    assert refusal(http.post(V1, json={}, headers=bearer(token))) == (400, 3, UNPARSABLE, "KEY_UNPARSABLE")
    assert refusal(http.post(V1, json=body))[2:] == (TOKEN_MESSAGE, "TOKEN_MISSING")


def test_no_answer_tells_of_grpc(http: httpx.Client) -> None:
    headers = http.post(V2, json={}).headers
    assert not [name for name in headers if name.lower().startswith("grpc")]
    assert headers["x-request-id"]


def test_half_of_a_surrogate_pair_is_a_challenge_without_a_signature() -> None:
    with pytest.raises(CaRefused) as refused:
        verify_possession(KEY.public_key(), b"x", ["\ud800"], ALGORITHMS)
    assert refused.value.reason == "PROOF_OF_POSSESSION_INVALID"
