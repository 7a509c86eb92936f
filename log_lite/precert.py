"""Taking one extension out of a TBSCertificate, as RFC 6962 3.2 wants for precertificates.

SPEC RFC 6962 3.2: "tbs_certificate is the DER-encoded TBSCertificate component of the Precertificate -- that is,
without the signature and the poison extension". Everything else keeps its bytes.
"""

from collections.abc import Iterator
from typing import Final

_SEQUENCE: Final = 0x30
_OID: Final = 0x06
_EXTENSIONS: Final = 0xA3
_LONG: Final = 0x80
_MAX_LENGTH_BYTES: Final = 4


class MalformedCertificate(ValueError):
    """The bytes are not the DER they should be."""


def tbs_without(tbs: bytes, oid: str) -> bytes:
    """Return the TBSCertificate without the extension `oid`. Raises `MalformedCertificate` when it has none."""
    kept, removed = [], 0
    tag, start, end = _only(tbs, 0, len(tbs))
    if tag != _SEQUENCE:
        raise MalformedCertificate("a TBSCertificate is a SEQUENCE")
    for tag_, whole_start, content, whole_end in _walk(tbs, start, end):
        if tag_ != _EXTENSIONS:
            kept.append(tbs[whole_start:whole_end])
            continue
        _, list_start, list_end = _only(tbs, content, whole_end)
        extensions = [tbs[s:e] for _, s, _, e in _walk(tbs, list_start, list_end)]
        left = [extension for extension in extensions if _extension_oid(extension) != oid]
        removed += len(extensions) - len(left)
        if left:
            kept.append(_encode(_EXTENSIONS, _encode(_SEQUENCE, b"".join(left))))
    if removed != 1:
        raise MalformedCertificate(f"extension {oid} occurs {removed} times, not once")
    return _encode(_SEQUENCE, b"".join(kept))


def _extension_oid(extension: bytes) -> str:
    _, start, end = _only(extension, 0, len(extension))
    for tag, _, content, whole_end in _walk(extension, start, end):
        if tag == _OID:
            return _dotted(extension[content:whole_end])
        break
    raise MalformedCertificate("an extension starts with its OID")


def _dotted(raw: bytes) -> str:
    numbers, value = [], 0
    for byte in raw:
        value = value << 7 | byte & 0x7F
        if not byte & _LONG:
            numbers.append(value)
            value = 0
    first = min(numbers[0] // 40, 2) if numbers else 0
    return ".".join(str(n) for n in [first, numbers[0] - 40 * first, *numbers[1:]]) if numbers else ""


def _only(raw: bytes, start: int, end: int) -> tuple[int, int, int]:
    """Return tag, start and end of the one element that fills the range."""
    elements = [(tag, content, whole_end) for tag, _, content, whole_end in _walk(raw, start, end)]
    if len(elements) != 1:
        raise MalformedCertificate(f"{len(elements)} DER elements where one belongs")
    return elements[0]


def _walk(raw: bytes, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    while start < end:
        if start + 2 > end:
            raise MalformedCertificate("DER element is cut short")
        tag, length, content = raw[start], raw[start + 1], start + 2
        if length & _LONG:
            count = length & 0x7F
            if not 1 <= count <= _MAX_LENGTH_BYTES or content + count > end:
                raise MalformedCertificate("DER length is not readable")
            length = int.from_bytes(raw[content : content + count], "big")
            content += count
        if content + length > end:
            raise MalformedCertificate("DER element is longer than what holds it")
        yield tag, start, content, content + length
        start = content + length


def _encode(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < _LONG:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, _LONG | len(length)]) + length + content
