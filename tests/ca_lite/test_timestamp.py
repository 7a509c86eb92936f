"""Timestamps verify with an independent RFC 3161 implementation, and bad requests get the TSA's words."""

import base64
import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st
from rfc3161_client import (
    HashAlgorithm,
    TimestampRequestBuilder,
    VerificationError,
    VerifierBuilder,
    decode_timestamp_response,
)

from ca_lite.chains import make_root, make_timestamp_leaf
from ca_lite.keys import generate
from ca_lite.timestamp import DEFAULT_POLICY, TimestampAuthority
from ca_lite.timestamp_request import TimestampRefused, parse_der_request, parse_json_request
from tests.ca_lite import der

NOW = datetime(2026, 11, 20, 12, 0, 0, 999_999, tzinfo=UTC)
DATA = b"the signature"
DIGEST = hashlib.sha256(DATA).digest()
SHA256 = "2.16.840.1.101.3.4.2.1"
SHA1 = "1.3.14.3.2.26"
QUERY = "application/timestamp-query"
VALUE = der.value(der.OCTET_STRING, b"x")


@pytest.fixture(scope="module")
def authority() -> TimestampAuthority:
    root = make_root("test", "tsa root", generate("p384"), NOW)
    leaf = make_timestamp_leaf(root, "test", "tsa", generate("p256"), NOW)
    return TimestampAuthority(leaf.key, (leaf.certificate, root.certificate), lambda: 0x80)  # type: ignore[arg-type]


def verifier(chain: tuple[x509.Certificate, ...], nonce: int | None) -> VerifierBuilder:
    builder = VerifierBuilder().tsa_certificate(chain[0]).add_root_certificate(chain[-1])
    return builder if nonce is None else builder.nonce(nonce)


def query(
    digest: bytes = DIGEST,
    algorithm: str = SHA256,
    *,
    version: int = 1,
    policy: str | None = None,
    nonce: bytes | None = None,
    certificate: bytes | None = None,
    extensions: bytes = b"",
    tail: bytes = b"",
) -> bytes:
    """TimeStampReq written by hand."""
    imprint = der.sequence(der.sequence(der.oid(algorithm), der.NULL), der.value(der.OCTET_STRING, digest))
    return (
        der.sequence(
            der.integer(version),
            imprint,
            der.oid(policy) if policy else b"",
            der.value(der.INTEGER, nonce) if nonce is not None else b"",
            der.value(der.BOOLEAN, certificate) if certificate is not None else b"",
            extensions,
        )
        + tail
    )


@pytest.mark.parametrize("hash_algorithm", list(HashAlgorithm))
@pytest.mark.parametrize("certificate", [True, False])
@pytest.mark.parametrize("nonce", [True, False])
def test_a_timestamp_verifies_with_rfc3161_client(
    hash_algorithm: HashAlgorithm, certificate: bool, nonce: bool, authority: TimestampAuthority
) -> None:
    request = TimestampRequestBuilder(DATA, hash_algorithm, nonce=nonce, cert_req=certificate).build()
    reply = decode_timestamp_response(authority.stamp(parse_der_request(request.as_bytes()), NOW))
    assert verifier(authority.chain, request.nonce).build().verify_message(reply, DATA)
    assert len(reply.signed_data.certificates) == (1 if certificate else 0)
    assert reply.tst_info.gen_time == NOW.replace(microsecond=0)
    assert reply.tst_info.policy.dotted_string == DEFAULT_POLICY
    assert reply.tst_info.serial_number == 0x80
    with pytest.raises(VerificationError):
        verifier(authority.chain, request.nonce).build().verify_message(reply, DATA + b"x")


def test_a_timestamp_never_precedes_the_certificate_of_the_same_second(authority: TimestampAuthority) -> None:
    request = parse_der_request(query())
    reply = decode_timestamp_response(authority.stamp(request, NOW + timedelta(milliseconds=1)))
    assert reply.tst_info.gen_time.microsecond == 0


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (query(hashlib.sha1(b"").digest(), SHA1), "Weak hash algorithm in timestamp request"),
        (query(b"x"), "Message digest has incorrect length for specified algorithm"),
        (query(algorithm="1.2.3"), "Error generating timestamp response"),
        (query(version=2), "Error generating timestamp response"),
        (query(nonce=b""), "Error generating timestamp response"),
        (query(certificate=b"\x01"), "Error generating timestamp response"),
        (query(nonce=b"\x00\x01"), "Error generating timestamp response"),
        (query(nonce=b"\x01" * 65), "Error generating timestamp response"),
        (query(tail=b"x"), "Error generating timestamp response"),
        (query()[:-1], "Error generating timestamp response"),
        (b"", "Error generating timestamp response"),
        (b"\x30\x84\xff\xff\xff\xff", "Error generating timestamp response"),
        (query(algorithm="1." + "1." * 127 + "1"), "OID should be comprised of at most 128 components"),
        (
            query(extensions=der.value(der.CONTEXT_0, der.sequence(der.oid("1.2.3"), der.TRUE, VALUE))),
            "unaccepted extension: 1.2.3",
        ),
        (
            query(extensions=der.value(der.CONTEXT_0, der.sequence(der.oid("1.2.3"), der.TRUE))),
            "Error generating timestamp response",
        ),
    ],
)
def test_a_bad_query_gets_the_tsas_words(raw: bytes, message: str) -> None:
    assert parse_der_request(query(nonce=b"\x07", certificate=b"\xff")).want_certificate
    with pytest.raises(TimestampRefused) as refused:
        parse_der_request(raw)
    assert refused.value.message == message


def test_another_policy_is_refused(authority: TimestampAuthority) -> None:
    assert authority.stamp(parse_der_request(query(policy=DEFAULT_POLICY)), NOW)
    with pytest.raises(TimestampRefused, match="unaccepted policy"):
        authority.stamp(parse_der_request(query(policy="1.2.3")), NOW)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"{", "Error generating timestamp response"),
        (b"[]", "Error generating timestamp response"),
        (b'{"artifactHash": "%", "hashAlgorithm": "sha256"}', "Error generating timestamp response"),
        (b'{"artifactHash": "AA==", "hashAlgorithm": "sha256"}', "Message digest has incorrect length"),
        (b'{"artifactHash": "AA==", "hashAlgorithm": "sha1"}', "Weak hash algorithm"),
        (b'{"artifactHash": "AA==", "hashAlgorithm": "md5"}', "Error generating timestamp response"),
        (b" " * 1025, "timestamp request is too large"),
    ],
)
def test_a_bad_json_request_gets_the_tsas_words(raw: bytes, message: str) -> None:
    with pytest.raises(TimestampRefused) as refused:
        parse_json_request(raw)
    assert message in refused.value.message


def test_the_end_point_takes_both_forms_and_answers_what_gitsign_needs(http: httpx.Client) -> None:
    chain = tuple(x509.load_pem_x509_certificates(http.get("/api/v1/timestamp/certchain").content))
    form = {"artifactHash": base64.b64encode(DIGEST).decode(), "hashAlgorithm": "sha256"}
    answers: list[Callable[[], httpx.Response]] = [
        lambda: http.post("/api/v1/timestamp", content=query(), headers={"Content-Type": QUERY}),
        lambda: http.post("/api/v1/timestamp", json=form),
    ]
    for ask in answers:
        answer = ask()
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/timestamp-reply"
        assert int(answer.headers["content-length"]) == len(answer.content)
        assert verifier(chain, None).build().verify(decode_timestamp_response(answer.content), DIGEST)


def test_the_end_point_refuses_other_media_types_and_sizes(http: httpx.Client) -> None:
    assert http.post("/api/v1/timestamp", content=b"x", headers={"Content-Type": "text/plain"}).status_code == 415
    answer = http.post("/api/v1/timestamp", content=b" " * 2000, headers={"Content-Type": "application/json"})
    assert answer.json() == {"code": 400, "message": "timestamp request is too large"}
    bad = http.post("/api/v1/timestamp", content=b"x" * 100_000, headers={"Content-Type": QUERY})
    assert bad.json() == {"code": 400, "message": "timestamp request is too large"}


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=120))
def test_no_bytes_can_do_more_than_be_refused(raw: bytes) -> None:
    for candidate in (raw, der.sequence(raw), query()[: len(raw)] + raw):
        try:
            parse_der_request(candidate)
        except TimestampRefused:
            continue
