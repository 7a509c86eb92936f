"""The raw parts of an X.509 certificate (RFC 5280 4.1), by a strict walk that gives them no meaning, and its identity.

RFC 6962 3.2 signs a certificate timestamp over the issuer's key hash and the TBSCertificate without poison and SCT
list. The same pair is equal for a precertificate and the certificate made from it, and for no other.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, NamedTuple

from sigstore_entries import der

MAX_EXTENSIONS: Final = 256
MAX_KEY: Final = 4096  # bytes of SPKI: RSA-16384 has about 2,100

_VERSION_3: Final = b"\x02\x01\x02"
_DER_TRUE: Final = b"\xff"
_EXTENSIONS: Final = 0xA3
_BEFORE_SPKI: Final = 5  # serial number, algorithm, issuer, validity, subject
_UNIQUE_IDS: Final = (0x81, 0x82)
_EXPLICIT_0: Final = 0xA0
_SHORT_FORM: Final = 0x80


class Extension(NamedTuple):
    """One X.509 extension, raw."""

    oid: str
    critical: bool
    value: bytes


@dataclass(frozen=True, slots=True)
class Tbs:
    """Raw parts of a TBSCertificate (RFC 5280 4.1)."""

    encoded: bytes
    serial: bytes
    validity: der.Value
    spki: bytes
    extensions: tuple[Extension, ...]
    algorithm: bytes


def split_certificate(raw: bytes) -> der.Value:
    """Return the TBSCertificate value of a DER certificate. Raises `der.MalformedDer`."""
    outer = der.only(raw, der.SEQUENCE, "the certificate")
    parts = list(der.children(outer))
    if [part.tag for part in parts] != [der.SEQUENCE, der.SEQUENCE, der.BIT_STRING]:
        raise der.MalformedDer("a certificate is not TBSCertificate, algorithm and signature")
    return parts[0]


def read_tbs(raw: bytes) -> Tbs:
    """Read the parts of a DER TBSCertificate. Raises `der.MalformedDer`."""
    parts = der.children(der.only(raw, der.SEQUENCE, "the TBSCertificate"))
    first = _next(parts)
    if first.tag == _EXPLICIT_0:
        if first.content != _VERSION_3:
            raise der.MalformedDer("a certificate that is not version 3")
        first = _next(parts)
    serial = first.expect(der.INTEGER, "the serial number").content
    algorithm = _next(parts).expect(der.SEQUENCE, "the signature algorithm")
    _next(parts).expect(der.SEQUENCE, "the issuer")
    validity = _next(parts).expect(der.SEQUENCE, "the validity")
    _next(parts).expect(der.SEQUENCE, "the subject")
    spki = _next(parts).expect(der.SEQUENCE, "the public key").encoded
    if len(spki) > MAX_KEY:
        raise der.MalformedDer(f"a public key of {len(spki)} bytes")
    extensions: tuple[Extension, ...] = ()
    for part in parts:
        if part.tag == _EXTENSIONS:
            extensions = tuple(_extensions(part))
        elif part.tag not in _UNIQUE_IDS or extensions:
            raise der.MalformedDer(f"a part with tag {part.tag:#04x} after the public key")
    return Tbs(raw, serial, validity, spki, extensions, algorithm.encoded)


def read_spki_of(tbs: bytes) -> bytes:
    """DER SubjectPublicKeyInfo of a TBSCertificate, found as `read_tbs` finds it but without looking at the rest.

    Raises `der.MalformedDer`.
    """
    _, at, end = der.header(tbs, 0, len(tbs))
    tag, _, behind = der.header(tbs, at, end)
    if tag == _EXPLICIT_0:
        at = behind
    for _ in range(_BEFORE_SPKI):
        at = der.header(tbs, at, end)[2]
    return tbs[at : der.header(tbs, at, end)[2]]


def _next(parts: Iterator[der.Value]) -> der.Value:
    part = next(parts, None)
    if part is None:
        raise der.MalformedDer("a TBSCertificate is cut short")
    return part


def _extensions(part: der.Value) -> list[Extension]:
    listed = der.only(part.content, der.SEQUENCE, "the extensions")
    raw, at, end = listed.raw, listed.content_start, listed.end
    found: list[Extension] = []
    while at < end:
        tag, inner, at = der.header(raw, at, end)
        if tag != der.SEQUENCE or len(found) == MAX_EXTENSIONS:
            raise der.MalformedDer(f"an extension is not a sequence, or there are more than {MAX_EXTENSIONS}")
        found.append(_extension(raw, inner, at))
    return found


def _extension(raw: bytes, start: int, end: int) -> Extension:
    # Not critical, all lengths in short form: nearly every extension, and a certificate has thirty.
    if start + 2 <= end and raw[start] == der.OBJECT_IDENTIFIER and (size := raw[start + 1]) < _SHORT_FORM:
        at = start + 2 + size
        if at + 2 <= end and raw[at] == der.OCTET_STRING and raw[at + 1] == end - at - 2 < _SHORT_FORM:
            return Extension(der.oid_text(raw[start + 2 : at]), False, raw[at + 2 : end])
    oid_tag, oid, oid_end = der.header(raw, start, end)
    tag, value, value_end = der.header(raw, oid_end, end)
    critical = False
    if tag == der.BOOLEAN:  # RFC 5280 4.1: critical BOOLEAN DEFAULT FALSE, so DER leaves a false one out
        critical = raw[value:value_end] == _DER_TRUE
        tag, value, value_end = der.header(raw, value_end, end)
    if oid_tag != der.OBJECT_IDENTIFIER or tag != der.OCTET_STRING or value_end != end:
        raise der.MalformedDer("an extension is not type, critical flag and value")
    return Extension(der.oid_text(raw[oid:oid_end]), critical, raw[value:value_end])


_POISON: Final = der.encode(der.OBJECT_IDENTIFIER, bytes.fromhex("2b06010401d679020403"))
_SCT_LIST: Final = der.encode(der.OBJECT_IDENTIFIER, bytes.fromhex("2b06010401d679020402"))
_CT_OIDS: Final = (_POISON, _SCT_LIST)


def tbs_without_scts(certificate: bytes) -> bytes:
    """DER TBSCertificate of a certificate or precertificate, without SCT list and poison, in its order.

    Raises `der.MalformedDer`.
    """
    tbs = split_certificate(certificate)
    parts = (
        part if tag != _EXTENSIONS else _without_scts(part)
        for tag, _, part in _parts(tbs.raw, tbs.content_start, tbs.end)
    )
    return der.encode(der.SEQUENCE, b"".join(parts))


def _without_scts(extensions: bytes) -> bytes:
    """The extensions field of a TBSCertificate without SCT list and poison."""
    listed = der.only(der.only(extensions, _EXTENSIONS, "the field").content, der.SEQUENCE, "the extensions")
    kept = []
    for tag, content, extension in _parts(listed.raw, listed.content_start, listed.end):
        if tag != der.SEQUENCE:
            raise der.MalformedDer(f"an extension has tag {tag:#04x}, not {der.SEQUENCE:#04x}")
        if not extension.startswith(_CT_OIDS, content):
            kept.append(extension)
    # RFC 5280 4.1: Extensions is SEQUENCE SIZE (1..MAX), so without any the whole field goes.
    return der.encode(_EXTENSIONS, der.encode(der.SEQUENCE, b"".join(kept))) if kept else b""


def _parts(raw: bytes, at: int, end: int) -> Iterator[tuple[int, int, bytes]]:
    """Values between two places: tag, where in it the content starts, and all of it. Raises `der.MalformedDer`."""
    left = der.MAX_CHILDREN
    while at < end:
        if not left:
            raise der.MalformedDer("a value holds too many others")
        tag, content, behind = der.header(raw, at, end)
        yield tag, content - at, raw[at:behind]
        at, left = behind, left - 1


def certificate_key(certificate: bytes) -> bytes:
    """SHA-256 that a certificate shares with its precertificate and with that one's CT leaf (`tbs_key`).

    The issuer is in the TBSCertificate by name and key identifier; the issuer's key itself is not, so two authorities
    under one name and key identifier would collide: judge the chain as well. Raises `der.MalformedDer`.
    """
    return tbs_key(tbs_without_scts(certificate))


def tbs_key(tbs: bytes) -> bytes:
    """SHA-256 of a TBSCertificate without SCT list and poison, as a CT precertificate leaf holds it."""
    return sha256(b"signwatch certificate\x00" + tbs).digest()
