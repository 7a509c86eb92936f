"""Reads RFC 3161 timestamp requests: DER, or the JSON form that sigstore-js sends."""

import binascii
import json
from base64 import b64decode
from typing import Any, Final

from cryptography.hazmat import asn1
from cryptography.x509 import ObjectIdentifier
from msgspec import Struct

from ca_lite.timestamp_messages import AlgorithmIdentifier, MessageImprint, TimestampExtension, TimeStampReq

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
_NONCE_LIMIT: Final = 64  # bytes
_MAX_OID_COMPONENTS: Final = 128
_LAST_OF_COMPONENT: Final = 0x80  # X.690 8.19.2: bit 8 of the last octet of a component is zero


class TimestampRefused(Exception):
    """A timestamp request gets an error answer with this text and HTTP status."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.message = message
        self.status = status

    def body(self) -> dict[str, Any]:
        """JSON of the answer."""
        return {"code": self.status, "message": self.message}


class TimestampRequest(Struct, frozen=True):
    """One request. `imprint` is the hash to stamp, `nonce` is echoed."""

    imprint: MessageImprint
    policy: str | None
    nonce: int | None
    want_certificate: bool


def parse_der_request(raw: bytes) -> TimestampRequest:
    """Read a TimeStampReq (RFC 3161 2.4.1). Raises `TimestampRefused`."""
    try:
        request = asn1.decode_der(TimeStampReq, raw)
        oid = _read_oid(request.message_imprint.hash_algorithm.algorithm)
        if request.extensions:
            extension = request.extensions[0].parse(TimestampExtension)
            raise TimestampRefused(f"unaccepted extension: {extension.identifier.dotted_string}")
    except ValueError as error:
        raise TimestampRefused(_GENERIC) from error
    too_long = request.nonce is not None and request.nonce.bit_length() >= 8 * _NONCE_LIMIT
    if request.version != 1 or too_long:
        raise TimestampRefused(_GENERIC)
    imprint = message_imprint(oid, request.message_imprint.hashed_message)
    policy = request.policy.dotted_string if request.policy is not None else None
    return TimestampRequest(imprint, policy, request.nonce, request.want_certificate)


def _read_oid(value: asn1.TLV) -> str:
    # `cryptography` reads no identifier of this length; the reference authority has its own error text for this case.
    if sum(byte < _LAST_OF_COMPONENT for byte in bytes(value.data)) >= _MAX_OID_COMPONENTS:
        raise TimestampRefused(f"OID should be comprised of at most {_MAX_OID_COMPONENTS} components")
    identifier: ObjectIdentifier = value.parse(ObjectIdentifier)
    return identifier.dotted_string


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
    imprint = message_imprint(_OID_OF.get(algorithm, ""), digest)
    return TimestampRequest(imprint, str(policy) if policy else None, nonce, fields.get("certificates") is True)


def message_imprint(oid: str, digest: bytes) -> MessageImprint:
    """MessageImprint; the hash must be a strong one and the digest of its length. Raises `TimestampRefused`."""
    if oid == _SHA1:
        raise TimestampRefused(_WEAK)
    if oid not in _HASHES:
        raise TimestampRefused(_GENERIC)
    if len(digest) != _HASHES[oid][1]:
        raise TimestampRefused("Message digest has incorrect length for specified algorithm")
    algorithm = AlgorithmIdentifier(algorithm=ObjectIdentifier(oid), parameters=asn1.Null())
    return MessageImprint(hash_algorithm=algorithm, hashed_message=digest)
