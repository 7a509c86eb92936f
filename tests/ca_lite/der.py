"""DER (X.690) written by hand, independent of the library that the product reads and writes it with."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

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
