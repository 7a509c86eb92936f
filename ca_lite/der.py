"""As much DER (X.690) as timestamps need: write any value, read one strictly."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

from cryptography.x509 import ObjectIdentifier

BOOLEAN: Final = 0x01
INTEGER: Final = 0x02
OCTET_STRING: Final = 0x04
NULL: Final = b"\x05\x00"
OID: Final = 0x06
UTF8_STRING: Final = 0x0C
GENERALIZED_TIME: Final = 0x18
SEQUENCE: Final = 0x30
SET: Final = 0x31
CONTEXT_0: Final = 0xA0
TRUE: Final = b"\x01\x01\xff"

_SHORT: Final = 0x80
_MAX_OID_COMPONENTS: Final = 128


class MalformedDer(ValueError):
    """The bytes are not the DER value they should be."""


class OidTooLong(MalformedDer):
    """An object identifier with more than 128 components."""


def value(tag: int, *content: bytes) -> bytes:
    """One TLV around the joined content."""
    body = b"".join(content)
    if len(body) < _SHORT:
        return bytes((tag, len(body))) + body
    length = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    return bytes((tag, _SHORT | len(length))) + length + body


def sequence(*content: bytes) -> bytes:
    """SEQUENCE."""
    return value(SEQUENCE, *content)


def set_of(members: Iterable[bytes]) -> bytes:
    """SET OF, in DER order (X.690 11.6)."""
    return value(SET, *sorted(members))


def integer(number: int) -> bytes:
    """Write a non-negative INTEGER."""
    return value(INTEGER, number.to_bytes(number.bit_length() // 8 + 1, "big"))


def generalized_time(at: datetime) -> bytes:
    """GeneralizedTime in whole seconds, UTC (RFC 5280 4.1.2.5.2)."""
    return value(GENERALIZED_TIME, at.astimezone(UTC).strftime("%Y%m%d%H%M%SZ").encode())


def oid(dotted: str) -> bytes:
    """OBJECT IDENTIFIER."""
    first, second, *rest = (int(part) for part in dotted.split("."))
    content = bytearray()
    for component in (first * 40 + second, *rest):
        groups = [component & 0x7F]
        remaining = component >> 7
        while remaining:
            groups.append(0x80 | (remaining & 0x7F))
            remaining >>= 7
        content.extend(reversed(groups))
    return value(OID, bytes(content))


class DerReader:
    """Reads consecutive DER values; anything else raises `MalformedDer`."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._position = 0

    def more(self) -> bool:
        """Whether bytes are left."""
        return self._position < len(self._raw)

    def next_tag(self) -> int | None:
        """Tag of the next value, None at the end."""
        return self._raw[self._position] if self.more() else None

    def take(self, tag: int) -> bytes:
        """Content of the next value, which must have this tag."""
        if self.next_tag() != tag:
            raise MalformedDer(f"tag {tag:#04x} expected")
        start, length = self._length()
        content = self._raw[start : start + length]
        if len(content) != length:
            raise MalformedDer("value is cut short")
        self._position = start + length
        return content

    def integer(self) -> int:
        """Read a minimally encoded INTEGER."""
        content = self.take(INTEGER)
        number = int.from_bytes(content, "big", signed=True)
        if not content or (len(content) > 1 and content[0] in (0, 0xFF) and (content[0] ^ content[1]) < _SHORT):
            raise MalformedDer("integer is not in its shortest form")
        return number

    def boolean(self) -> bool:
        """BOOLEAN, 00 or FF (X.690 11.1)."""
        content = self.take(BOOLEAN)
        if content not in (b"\x00", b"\xff"):
            raise MalformedDer("boolean is neither 00 nor FF")
        return content == b"\xff"

    def oid(self) -> str:
        """OBJECT IDENTIFIER as dotted text."""
        content = self.take(OID)
        if sum(byte < _SHORT for byte in content) > _MAX_OID_COMPONENTS - 1:
            raise OidTooLong("OID should be comprised of at most 128 components")
        if not content or content[-1] >= _SHORT:
            raise MalformedDer("object identifier is cut short")
        components: list[int] = []
        current = 0
        for index, byte in enumerate(content):
            if current == 0 and byte == _SHORT and (index == 0 or content[index - 1] < _SHORT):
                raise MalformedDer("object identifier has a padded component")
            current = current << 7 | (byte & 0x7F)
            if byte < _SHORT:
                components.append(current)
                current = 0
        first = min(components[0] // 40, 2)
        dotted = ".".join(map(str, (first, components[0] - first * 40, *components[1:])))
        return ObjectIdentifier(dotted).dotted_string

    def finish(self) -> None:
        """Raise when bytes are left over."""
        if self.more():
            raise MalformedDer("bytes left over")

    def _length(self) -> tuple[int, int]:
        """Where the content starts, and how long it says it is."""
        at = self._position + 1
        if at >= len(self._raw):
            raise MalformedDer("length is missing")
        first = self._raw[at]
        if first < _SHORT:
            return at + 1, first
        size = first & 0x7F
        digits = self._raw[at + 1 : at + 1 + size]
        length = int.from_bytes(digits, "big")
        if not 1 <= size <= 4 or len(digits) != size or digits[0] == 0 or length < _SHORT:  # noqa: PLR2004  4 bytes: 4 GiB
            raise MalformedDer("length is not in DER form")
        return at + 1 + size, length
