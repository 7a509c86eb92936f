"""Kind rfc3161: a time stamp response (RFC 3161), signed by a timestamp authority."""

import hashlib
import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import partial
from typing import Final, NamedTuple

from sigstore_entries import der
from sigstore_entries.body import BodyObject, DecodedBody, MalformedBody
from sigstore_entries.certificate import MalformedVerifier, signer_from_certificate
from sigstore_entries.keys import all_signers
from sigstore_entries.signing import Digest, KnownTime, Signer

# NIST and OIW object identifiers of the digests a message imprint may have.
_DIGESTS: Final = {
    "1.3.14.3.2.26": ("sha1", 20),
    "2.16.840.1.101.3.4.2.1": ("sha256", 32),
    "2.16.840.1.101.3.4.2.2": ("sha384", 48),
    "2.16.840.1.101.3.4.2.3": ("sha512", 64),
}
_SIGNED_DATA: Final = "1.2.840.113549.1.7.2"  # RFC 5652 5.1
# Signature algorithms that name a hash of their own (RFC 5758 3.2, RFC 8017 A.2.4).
_SIGNED_WITH: Final = {
    "1.2.840.10045.4.3.2": "sha256",
    "1.2.840.10045.4.3.3": "sha384",
    "1.2.840.10045.4.3.4": "sha512",
    "1.2.840.113549.1.1.11": "sha256",
    "1.2.840.113549.1.1.12": "sha384",
    "1.2.840.113549.1.1.13": "sha512",
}
_MESSAGE_DIGEST: Final = "1.2.840.113549.1.9.4"  # RFC 5652 11.2
_TST_INFO: Final = "1.2.840.113549.1.9.16.1.4"  # RFC 3161 2.4.2
_CONTEXT_0: Final = 0xA0
_SMALLEST: Final = 2  # bytes of the shortest DER value, which bounds the number of values in a set
_FRACTION = re.compile(rb"(\d{14})\.(\d{1,9})Z")


class _Response(NamedTuple):
    """The parts in use: the hash's OID and value, the time, and the values in the set of certificates.

    `content` is the TSTInfo that is signed, `signers` the set of SignerInfo.
    """

    hash_oid: str
    imprint: bytes
    at: datetime
    certificates: tuple[der.Value, ...]
    content: bytes
    signers: der.Value


class SignedContent(NamedTuple):
    """One CMS signature (RFC 5652 5.4): `message` is signed, under one of the hashes in `algorithms`."""

    message: bytes
    algorithms: frozenset[str]
    signature: bytes


def rfc3161_v1(spec: BodyObject) -> DecodedBody:
    """Decode rfc3161 0.0.1: the imprint, the time, and the authority's certificates if the response has them.

    The order of the sets in it does not matter: OpenSSL and Rekor read sets that are not in DER's order. A response
    without certificates names no signer. `signed_content` gives the certificate that signed.
    """
    raw = spec.object("tsr").bytes("content")
    try:
        response = _read(raw)
    except ValueError as error:  # MalformedDer, or too few values to unpack
        raise MalformedBody(f"not a time stamp response: {str(error)[:80]!a}") from error
    algorithm, size = _DIGESTS.get(response.hash_oid, (response.hash_oid, len(response.imprint)))
    if size != len(response.imprint):
        raise MalformedBody(f"a {algorithm} imprint of {len(response.imprint)} bytes")
    digests = (Digest(algorithm, response.imprint.hex()),)
    times = (KnownTime("timestamp-response", response.at),)
    if not response.certificates:
        return DecodedBody((), digests, times)
    # CMS holds the certificates as a set, perhaps with a chain; the SignerInfo names the one that signed.
    ordered = sorted(response.certificates, key=lambda each: each.encoded)
    return DecodedBody(all_signers(partial(_signer, each) for each in ordered), digests, times)


def _signer(certificate: der.Value) -> Signer:
    if certificate.tag != der.SEQUENCE:  # RFC 5652 10.2.2: CertificateChoices has four older forms
        raise MalformedVerifier(f"a certificate of form {certificate.tag:#04x} is not read", "malformed-certificate")
    return signer_from_certificate(certificate.encoded)


def _read(raw: bytes) -> _Response:
    """Walk TimeStampResp, ContentInfo, SignedData and TSTInfo (RFC 3161 2.4, RFC 5652 5.1). Raises `ValueError`."""
    _, token, *_ = _parts(der.only(raw, der.SEQUENCE, "the response"), der.SEQUENCE, der.SEQUENCE)
    kind, wrapped = _parts(token, der.OBJECT_IDENTIFIER, _CONTEXT_0)
    _check_type(kind, _SIGNED_DATA)
    signed = der.only(wrapped.content, der.SEQUENCE, "the signed data")
    _, _, content, *others = _parts(signed, der.INTEGER, der.SET, der.SEQUENCE)
    kind, wrapped = _parts(content, der.OBJECT_IDENTIFIER, _CONTEXT_0)
    _check_type(kind, _TST_INFO)
    info = der.only(der.only(wrapped.content, der.OCTET_STRING, "the content").content, der.SEQUENCE, "TSTInfo")
    _, _, imprint, _, at, *_ = _parts(
        info, der.INTEGER, der.OBJECT_IDENTIFIER, der.SEQUENCE, der.INTEGER, der.GENERALIZED_TIME
    )
    *_, signers = others or [content]
    algorithm, value = _parts(imprint, der.SEQUENCE, der.OCTET_STRING)
    hash_oid, *_ = _parts(algorithm, der.OBJECT_IDENTIFIER)
    certificates = others[0] if others and others[0].tag == _CONTEXT_0 else None
    return _Response(
        der.oid_text(hash_oid.content),
        value.content,
        _time(at),
        tuple(_all(certificates)) if certificates is not None else (),
        info.encoded,
        signers,
    )


def signed_content(raw: bytes) -> SignedContent:
    """Signed content of a time stamp response with one signer. Raises `ValueError` or `KeyError` for another form.

    SPEC RFC 3161 2.4.2: the token "MUST NOT contain any signatures other than the signature of the TSA".
    """
    response = _read(raw)
    (signer,) = der.children(response.signers.expect(der.SET, "the set of signers"))
    _, _, algorithm, *rest = der.children(signer.expect(der.SEQUENCE, "a signer"))
    digest, *_ = _parts(algorithm, der.OBJECT_IDENTIFIER)
    name, _ = _DIGESTS[der.oid_text(digest.content)]
    attributes = rest.pop(0) if rest[0].tag == _CONTEXT_0 else None
    scheme, signature, *_ = rest
    names = {name, _SIGNED_WITH.get(der.oid_text(_parts(scheme, der.OBJECT_IDENTIFIER)[0].content), name)}
    signed = signature.expect(der.OCTET_STRING, "the signature").content
    if attributes is None:
        return SignedContent(response.content, frozenset(names), signed)
    if _message_digest(attributes) != hashlib.new(name, response.content).digest():
        raise der.MalformedDer("the signed attributes are of another content")
    # RFC 5652 5.4: "the IMPLICIT [0] tag in the signedAttrs is not used for the DER encoding, rather an EXPLICIT SET OF
    # tag is used".
    return SignedContent(der.encode(der.SET, attributes.content), frozenset(names), signed)


def _message_digest(attributes: der.Value) -> bytes:
    for attribute in der.children(attributes):
        kind, values = _parts(attribute, der.OBJECT_IDENTIFIER, der.SET)
        if der.oid_text(kind.content) == _MESSAGE_DIGEST:
            return der.only(values.content, der.OCTET_STRING, "the message digest").content
    raise der.MalformedDer("the signed attributes have no message digest")


def _parts(value: der.Value, *tags: int) -> list[der.Value]:
    """Values inside a constructed one, the first of which must have the given tags."""
    found = list(der.children(value))
    if [each.tag for each in found[: len(tags)]] != list(tags):
        raise der.MalformedDer("a part is missing or of another type")
    return found


def _all(value: der.Value) -> Iterator[der.Value]:
    return der.children(value, limit=len(value.content) // _SMALLEST + 1)


def _check_type(kind: der.Value, wanted: str) -> None:
    if der.oid_text(kind.content) != wanted:
        raise der.MalformedDer(f"content of type {der.oid_text(kind.content)}, not {wanted}")


def _time(value: der.Value) -> datetime:
    """SPEC RFC 3161 2.4.2: genTime is GeneralizedTime in UTC, with or without a fraction of a second."""
    if (match := _FRACTION.fullmatch(value.content)) is None:
        return der.time(value)
    seconds = der.encode(der.GENERALIZED_TIME, match[1] + b"Z")
    return der.time(der.read(seconds)) + timedelta(microseconds=int(match[2].ljust(6, b"0")[:6]))
