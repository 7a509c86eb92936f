"""Reads RFC 3161 timestamp requests: DER, or the JSON form that sigstore-js sends."""

import binascii
import json
from base64 import b64decode
from dataclasses import dataclass
from typing import Any, Final

from ca_lite import der

JSON_LIMIT: Final = 1024
DER_LIMIT: Final = 64 * 1024

_HASHES: Final = {
    "2.16.840.1.101.3.4.2.1": ("sha256", 32),
    "2.16.840.1.101.3.4.2.2": ("sha384", 48),
    "2.16.840.1.101.3.4.2.3": ("sha512", 64),
}
_OID_OF: Final = {name: oid for oid, (name, _) in _HASHES.items()}
_SHA1: Final = "1.3.14.3.2.26"
_GENERIC: Final = "Error generating timestamp response"
_WEAK: Final = "Weak hash algorithm in timestamp request"
_NONCE_LIMIT: Final = 64


class TimestampRefused(Exception):
    """A timestamp request gets an error answer with this text and HTTP status."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.message = message
        self.status = status

    def body(self) -> dict[str, Any]:
        """JSON of the answer."""
        return {"code": self.status, "message": self.message}


@dataclass(frozen=True, slots=True)
class TimestampRequest:
    """What to stamp: `imprint` is the MessageImprint's DER, `nonce` the INTEGER's content, echoed as it came."""

    imprint: bytes
    policy: str | None
    nonce: bytes | None
    want_certificate: bool


def parse_der_request(raw: bytes) -> TimestampRequest:
    """Read a TimeStampReq (RFC 3161 2.4.1). Raises `TimestampRefused`."""
    try:
        outer = der.DerReader(raw)
        body = der.DerReader(outer.take(der.SEQUENCE))
        outer.finish()
        return _read_body(body)
    except der.OidTooLong as error:
        raise TimestampRefused(str(error)) from error
    except der.MalformedDer as error:
        raise TimestampRefused(_GENERIC) from error


def _read_body(body: der.DerReader) -> TimestampRequest:
    if body.integer() != 1:
        raise TimestampRefused(_GENERIC)
    imprint = der.DerReader(body.take(der.SEQUENCE))
    algorithm = der.DerReader(imprint.take(der.SEQUENCE))
    oid = algorithm.oid()
    if algorithm.more():
        algorithm.take(0x05)
    algorithm.finish()
    digest = imprint.take(der.OCTET_STRING)
    imprint.finish()
    policy = body.oid() if body.next_tag() == der.OID else None
    nonce = body.take(der.INTEGER) if body.next_tag() == der.INTEGER else None
    if nonce is not None and not 1 <= len(nonce) <= _NONCE_LIMIT:
        raise TimestampRefused(_GENERIC)
    want_certificate = body.boolean() if body.next_tag() == der.BOOLEAN else False
    if body.next_tag() == der.CONTEXT_0:
        _refuse_extension(body.take(der.CONTEXT_0))
    body.finish()
    return TimestampRequest(message_imprint(oid, digest), policy, nonce, want_certificate)


def parse_json_request(raw: bytes) -> TimestampRequest:
    """Read `{"artifactHash", "hashAlgorithm", "certificates", "nonce", "tsaPolicyOID"}`, the last three optional."""
    if len(raw) > JSON_LIMIT:
        raise TimestampRefused("timestamp request is too large")
    try:
        fields = json.loads(raw)
        digest = b64decode(fields["artifactHash"], validate=True)
        algorithm = str(fields["hashAlgorithm"]).lower().replace("-", "")
    except (ValueError, KeyError, TypeError, binascii.Error, RecursionError) as error:
        raise TimestampRefused(_GENERIC) from error
    nonce, policy = fields.get("nonce"), fields.get("tsaPolicyOID")
    if nonce is not None and (isinstance(nonce, bool) or not isinstance(nonce, int) or nonce < 0):
        raise TimestampRefused(_GENERIC)
    if algorithm == "sha1":
        raise TimestampRefused(_WEAK)
    content = nonce.to_bytes(nonce.bit_length() // 8 + 1, "big") if nonce is not None else None
    imprint = message_imprint(_OID_OF.get(algorithm, ""), digest)
    return TimestampRequest(imprint, str(policy) if policy else None, content, fields.get("certificates") is True)


def message_imprint(oid: str, digest: bytes) -> bytes:
    """MessageImprint DER of a strong hash with a digest of its length. Raises `TimestampRefused`."""
    if oid == _SHA1:
        raise TimestampRefused(_WEAK)
    if oid not in _HASHES:
        raise TimestampRefused(_GENERIC)
    if len(digest) != _HASHES[oid][1]:
        raise TimestampRefused("Message digest has incorrect length for specified algorithm")
    return der.sequence(der.sequence(der.oid(oid), der.NULL), der.value(der.OCTET_STRING, digest))


def _refuse_extension(raw: bytes) -> None:
    extension = der.DerReader(der.DerReader(raw).take(der.SEQUENCE))
    raise TimestampRefused(f"unaccepted extension: {extension.oid()}")
