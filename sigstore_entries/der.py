"""A strict reader of DER (X.690 section 10), and of the raw parts of an X.509 certificate (RFC 5280 4.1).

It reads certificates that a library refuses, and gives values no meaning. Every length is checked against the value
around it, so nothing is read twice or from outside; there is no recursion, so deep nesting is harmless.

RFC 6962 3.2 signs a certificate timestamp over the issuer's key hash and the TBSCertificate without poison and SCT
list. The same pair is equal for a precertificate and the certificate made from it, and for no other.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from typing import Final, NamedTuple

from msgspec import Struct

BOOLEAN: Final = 0x01
INTEGER: Final = 0x02
BIT_STRING: Final = 0x03
OCTET_STRING: Final = 0x04
OBJECT_IDENTIFIER: Final = 0x06
SEQUENCE: Final = 0x30
SET: Final = 0x31
UTC_TIME: Final = 0x17
GENERALIZED_TIME: Final = 0x18

MAX_CHILDREN: Final = 300

_LONG_FORM: Final = 0x80
_MAX_LENGTH_OCTETS: Final = 4
_HIGH_TAG_NUMBER: Final = 0x1F
_MAX_OID_OCTETS: Final = 64
_UTC_TIME_LENGTH: Final = 13  # YYMMDDHHMMSSZ
_GENERALIZED_TIME_LENGTH: Final = 15  # YYYYMMDDHHMMSSZ
_UTC_TIME_PIVOT: Final = 50


class MalformedDer(ValueError):
    """The bytes are not DER, or not the structure they should be."""


class Value(NamedTuple):
    """One DER value inside `raw`: its tag, where it starts, where its content starts, where it ends."""

    raw: bytes
    tag: int
    start: int
    content_start: int
    end: int

    @property
    def content(self) -> bytes:
        """Content octets."""
        return self.raw[self.content_start : self.end]

    @property
    def encoded(self) -> bytes:
        """Whole value, tag and length included."""
        return self.raw[self.start : self.end]

    def expect(self, tag: int, what: str) -> "Value":
        """Return this value when it has the tag. Raises `MalformedDer`."""
        if self.tag != tag:
            raise MalformedDer(f"{what} has tag {self.tag:#04x}, not {tag:#04x}")
        return self


def header(raw: bytes, at: int, end: int) -> tuple[int, int, int]:
    """Tag, start of content and end of the value that starts at `at` and must end at or before `end`.

    The core of `read`, without making a `Value`, because a certificate has a hundred values. Raises `MalformedDer`.
    """
    if at + 2 > end:
        raise MalformedDer("a value is cut short")
    tag, length, content = raw[at], raw[at + 1], at + 2
    if tag & _HIGH_TAG_NUMBER == _HIGH_TAG_NUMBER:
        raise MalformedDer("a tag number above 30")
    if length >= _LONG_FORM:
        octets = length - _LONG_FORM
        # X.690 10.1: definite form, "encoded in the minimum number of octets".
        if not 0 < octets <= _MAX_LENGTH_OCTETS or content + octets > end:
            raise MalformedDer("an indefinite, oversized or cut length")
        length = int.from_bytes(raw[content : content + octets], "big")
        if length < _LONG_FORM or length >> (8 * (octets - 1)) == 0:
            raise MalformedDer("a length that is not in its shortest form")
        content += octets
    if content + length > end:
        raise MalformedDer("a value reaches beyond the one around it")
    return tag, content, content + length


def read(raw: bytes, at: int = 0, end: int | None = None) -> Value:
    """Read the value that starts at `at` and must end at or before `end`. Raises `MalformedDer`."""
    tag, content, stop = header(raw, at, len(raw) if end is None else end)
    return Value(raw, tag, at, content, stop)


def only(raw: bytes, tag: int, what: str) -> Value:
    """Read a value that is all of `raw`. Raises `MalformedDer`."""
    value = read(raw).expect(tag, what)
    if value.end != len(raw):
        raise MalformedDer(f"{len(raw) - value.end} bytes after {what}")
    return value


def children(value: Value, limit: int = MAX_CHILDREN) -> Iterator[Value]:
    """Values inside a constructed one, in order. Raises `MalformedDer` at a malformed value, and beyond `limit`."""
    raw, at, end = value.raw, value.content_start, value.end
    while at < end:
        limit -= 1
        if limit < 0:
            raise MalformedDer("a value holds too many others")
        child = read(raw, at, end)
        yield child
        at = child.end


def encode(tag: int, content: bytes) -> bytes:
    """DER value of this tag and content."""
    size = len(content)
    if size < _LONG_FORM:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, _LONG_FORM | len(length))) + length + content


@lru_cache(maxsize=1024)
def oid_text(content: bytes) -> str:
    """Dotted form of an object identifier's content (X.690 8.19). Raises `MalformedDer`."""
    if not content or len(content) > _MAX_OID_OCTETS or content[-1] & 0x80:
        raise MalformedDer("an object identifier is empty, too long or cut short")
    arcs: list[int] = []
    arc, fresh = 0, True
    for octet in content:
        if fresh and octet == 0x80:  # noqa: PLR2004  X.690 8.19.2: "the leading octet shall not have the value 80"
            raise MalformedDer("an object identifier is padded")
        arc, fresh = arc << 7 | octet & 0x7F, octet < 0x80  # noqa: PLR2004  the top bit says that more follows
        if fresh:
            arcs.append(arc)
            arc = 0
    first = min(arcs[0] // 40, 2)
    return ".".join(map(str, (first, arcs[0] - first * 40, *arcs[1:])))


def oid_content(dotted: str) -> bytes | None:
    """Content of an object identifier, or None when `oid_text` gives this dotted form for no content at all."""
    first, *others = map(int, dotted.split("."))
    if not others or first > 2 or (first < 2 and others[0] >= 40):  # noqa: PLR2004  X.690 8.19.4
        return None
    content = bytearray()
    for arc in (first * 40 + others[0], *others[1:]):
        groups = range((max(arc.bit_length(), 1) - 1) // 7, -1, -1)
        content += bytes(arc >> 7 * group & 0x7F | (0x80 if group else 0) for group in groups)
    return bytes(content) if len(content) <= _MAX_OID_OCTETS else None


def time(value: Value) -> datetime:
    """Time of a UTCTime or GeneralizedTime as RFC 5280 4.1.2.5 restricts them. Raises `MalformedDer`."""
    text = value.content
    if value.tag == UTC_TIME and len(text) == _UTC_TIME_LENGTH:
        # RFC 5280 4.1.2.5.1: "Where YY is greater than or equal to 50, the year SHALL be interpreted as 19YY".
        text = (b"20" if text[:2] < b"%d" % _UTC_TIME_PIVOT else b"19") + text
    elif value.tag != GENERALIZED_TIME or len(text) != _GENERALIZED_TIME_LENGTH:
        raise MalformedDer("a time is neither UTCTime nor GeneralizedTime in seconds and Z")
    digits = text[:-1]
    if text[-1:] != b"Z" or not digits.isdigit():
        raise MalformedDer("a time is not digits and Z")
    parts = (digits[:4], digits[4:6], digits[6:8], digits[8:10], digits[10:12], digits[12:14])
    try:
        year, month, day, hour, minute, second = map(int, parts)
        return datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError as error:
        raise MalformedDer("a time that no clock shows") from error


MAX_EXTENSIONS: Final = 256
MAX_KEY: Final = 4096  # bytes of SPKI: RSA-16384 has about 2,100

_VERSION_3: Final = b"\x02\x01\x02"
_DER_TRUE: Final = b"\xff"
_EXTENSIONS: Final = 0xA3
_BEFORE_SPKI: Final = 5  # serial number, algorithm, issuer, validity, subject
_UNIQUE_IDS: Final = (0x81, 0x82)
_EXPLICIT_0: Final = 0xA0
_SHORT_FORM: Final = 0x80
_CERTIFICATE_PARTS: Final = 3


class Extension(NamedTuple):
    """One X.509 extension, raw."""

    oid: str
    critical: bool
    value: bytes


class Tbs(Struct, frozen=True):
    """Raw parts of a TBSCertificate (RFC 5280 4.1). `listed` is the SEQUENCE of its extensions, empty without any."""

    encoded: bytes
    serial: bytes
    validity: Value
    spki: bytes
    listed: bytes
    algorithm: bytes
    issuer: bytes
    subject: bytes

    @property
    def extensions(self) -> tuple[Extension, ...]:
        """Its extensions, in order. Not stored, because each signer of a batch would hold thirty more values."""
        return _extensions(self.listed) if self.listed else ()


def split_certificate(raw: bytes) -> Value:
    """Return the TBSCertificate value of a DER certificate. Raises `MalformedDer`."""
    return certificate_parts(raw)[0]


@lru_cache(maxsize=8)  # like `read_tbs`
def certificate_parts(raw: bytes) -> tuple[Value, Value, Value]:
    """Return TBSCertificate, algorithm and signature of a DER certificate. Raises `MalformedDer`."""
    parts = tuple(children(only(raw, SEQUENCE, "the certificate"), _CERTIFICATE_PARTS))
    if [part.tag for part in parts] != [SEQUENCE, SEQUENCE, BIT_STRING]:
        raise MalformedDer("a certificate is not TBSCertificate, algorithm and signature")
    return parts[0], parts[1], parts[2]


@lru_cache(maxsize=8)  # a certificate is read once for its content, and again for its issuer
def read_tbs(raw: bytes) -> Tbs:
    """Read the parts of a DER TBSCertificate. Raises `MalformedDer`."""
    parts = children(only(raw, SEQUENCE, "the TBSCertificate"))
    first = _next(parts)
    if first.tag == _EXPLICIT_0:
        if first.content != _VERSION_3:
            raise MalformedDer("a certificate that is not version 3")
        first = _next(parts)
    serial = first.expect(INTEGER, "the serial number").content
    algorithm = _next(parts).expect(SEQUENCE, "the signature algorithm")
    issuer = _next(parts).expect(SEQUENCE, "the issuer")
    validity = _next(parts).expect(SEQUENCE, "the validity")
    subject = _next(parts).expect(SEQUENCE, "the subject")
    spki = _next(parts).expect(SEQUENCE, "the public key").encoded
    if len(spki) > MAX_KEY:
        raise MalformedDer(f"a public key of {len(spki)} bytes")
    listed, found = b"", False
    for part in parts:
        if part.tag == _EXTENSIONS:
            listed = part.content
            found = bool(_extensions(listed))
        elif part.tag not in _UNIQUE_IDS or found:
            raise MalformedDer(f"a part with tag {part.tag:#04x} after the public key")
    return Tbs(raw, serial, validity, spki, listed, algorithm.encoded, issuer.encoded, subject.encoded)


def read_spki_of(tbs: bytes) -> bytes:
    """DER SubjectPublicKeyInfo of a TBSCertificate, found as by `read_tbs`, without parsing the other parts.

    Raises `MalformedDer`.
    """
    _, at, end = header(tbs, 0, len(tbs))
    tag, _, behind = header(tbs, at, end)
    if tag == _EXPLICIT_0:
        at = behind
    for _ in range(_BEFORE_SPKI):
        at = header(tbs, at, end)[2]
    return tbs[at : header(tbs, at, end)[2]]


def _next(parts: Iterator[Value]) -> Value:
    part = next(parts, None)
    if part is None:
        raise MalformedDer("a TBSCertificate is cut short")
    return part


@lru_cache(maxsize=8)  # like `read_tbs`
def _extensions(encoded: bytes) -> tuple[Extension, ...]:
    listed = only(encoded, SEQUENCE, "the extensions")
    raw, at, end = listed.raw, listed.content_start, listed.end
    found: list[Extension] = []
    while at < end:
        # Not critical, all lengths in short form: nearly every extension, and a certificate has thirty.
        if at + 4 <= end and raw[at] == SEQUENCE and raw[at + 2] == OBJECT_IDENTIFIER:
            stop, value = at + 2 + raw[at + 1], at + 4 + raw[at + 3]
            if (
                value + 2 <= stop <= end
                and stop < at + 2 + _SHORT_FORM
                and raw[value] == OCTET_STRING
                and raw[value + 1] == stop - value - 2
                and len(found) < MAX_EXTENSIONS
            ):
                found.append(Extension(oid_text(raw[at + 4 : value]), False, raw[value + 2 : stop]))
                at = stop
                continue
        tag, inner, at = header(raw, at, end)
        if tag != SEQUENCE or len(found) == MAX_EXTENSIONS:
            raise MalformedDer(f"an extension is not a sequence, or there are more than {MAX_EXTENSIONS}")
        found.append(_extension(raw, inner, at))
    return tuple(found)


def _extension(raw: bytes, start: int, end: int) -> Extension:
    oid_tag, oid, oid_end = header(raw, start, end)
    tag, value, value_end = header(raw, oid_end, end)
    critical = False
    if tag == BOOLEAN:  # RFC 5280 4.1: critical BOOLEAN DEFAULT FALSE, so DER leaves a false one out
        critical = raw[value:value_end] == _DER_TRUE
        tag, value, value_end = header(raw, value_end, end)
    if oid_tag != OBJECT_IDENTIFIER or tag != OCTET_STRING or value_end != end:
        raise MalformedDer("an extension is not type, critical flag and value")
    return Extension(oid_text(raw[oid:oid_end]), critical, raw[value:value_end])


_POISON: Final = encode(OBJECT_IDENTIFIER, bytes.fromhex("2b06010401d679020403"))
_SCT_LIST: Final = encode(OBJECT_IDENTIFIER, bytes.fromhex("2b06010401d679020402"))
_CT_OIDS: Final = (_POISON, _SCT_LIST)


@lru_cache(maxsize=8)  # used to check the SCTs, and to identify the certificate across logs
def tbs_without_scts(certificate: bytes) -> bytes:
    """DER TBSCertificate of a certificate or precertificate, without SCT list and poison, in the original order.

    Raises `MalformedDer`.
    """
    tbs = split_certificate(certificate)
    parts = (
        part if tag != _EXTENSIONS else _without_scts(part)
        for tag, _, part in _parts(tbs.raw, tbs.content_start, tbs.end)
    )
    return encode(SEQUENCE, b"".join(parts))


def _without_scts(extensions: bytes) -> bytes:
    """The extensions field of a TBSCertificate without SCT list and poison."""
    listed = only(only(extensions, _EXTENSIONS, "the field").content, SEQUENCE, "the extensions")
    kept = []
    for tag, content, extension in _parts(listed.raw, listed.content_start, listed.end):
        if tag != SEQUENCE:
            raise MalformedDer(f"an extension has tag {tag:#04x}, not {SEQUENCE:#04x}")
        if not extension.startswith(_CT_OIDS, content):
            kept.append(extension)
    # RFC 5280 4.1: Extensions is SEQUENCE SIZE (1..MAX), so without any the whole field goes.
    return encode(_EXTENSIONS, encode(SEQUENCE, b"".join(kept))) if kept else b""


def _parts(raw: bytes, at: int, end: int) -> Iterator[tuple[int, int, bytes]]:
    """Values between two offsets: tag, offset of the content within the value, and value. Raises `MalformedDer`."""
    left = MAX_CHILDREN
    while at < end:
        if not left:
            raise MalformedDer("a value holds too many others")
        tag, content, behind = header(raw, at, end)
        yield tag, content - at, raw[at:behind]
        at, left = behind, left - 1


def certificate_key(certificate: bytes) -> bytes:
    """SHA-256 shared by a certificate, its precertificate, and the precertificate's CT leaf (`tbs_key`).

    The issuer is in the TBSCertificate by name and key identifier; the issuer's key itself is not, so two authorities
    under one name and key identifier would collide: judge the chain as well. Raises `MalformedDer`.
    """
    return tbs_key(tbs_without_scts(certificate))


def tbs_key(tbs: bytes) -> bytes:
    """SHA-256 of a TBSCertificate without SCT list and poison, as a CT precertificate leaf holds it."""
    return sha256(b"signwatch certificate\x00" + tbs).digest()
