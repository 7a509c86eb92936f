"""A strict reader of DER (X.690 section 10), for certificates that a library refuses and for exact byte surgery.

It knows values, not meanings. Every length is checked against the value around it, so nothing is read twice or from
outside; there is no recursion, so nesting costs nothing.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, NamedTuple

BOOLEAN: Final = 0x01
INTEGER: Final = 0x02
BIT_STRING: Final = 0x03
OCTET_STRING: Final = 0x04
OBJECT_IDENTIFIER: Final = 0x06
UTF8_STRING: Final = 0x0C
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

    The core of `read`, without making a `Value`: certificates have a hundred of them. Raises `MalformedDer`.
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
    """Values inside a constructed one, in order. Raises `MalformedDer` on reaching a bad one or one too many."""
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
