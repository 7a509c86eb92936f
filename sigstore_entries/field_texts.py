"""Texts of chosen fields, found in the bytes of certificates without parsing: a fast first check of many entries.

DER has one spelling for an object identifier and one for every length. So an extension always follows the bytes of
its identifier, and if these occur once in a certificate, the extension is at this place or absent. They may also
occur in text that the requester influenced, and that text may look like an extension: the result here is a
*suggestion*, and only decoding decides. If the bytes occur twice, one of them may be a decoy; then, and for any
other unusual form, there is no answer, which means *decode it fully*, never *skip it*.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from operator import le
from typing import Final

from ahocorasick_rs import BytesAhoCorasick
from msgspec import Struct, field

from sigstore_entries import der
from sigstore_entries.certificate import BY_NAME, SAN_OID, FulcioExtension, read_names

LARGEST: Final = 16 * 1024  # bytes: a certificate of Fulcio's has two thousand; larger ones are decoded fully
WINDOW: Final = 256 * 1024  # bytes searched at once: they stay in the cache, and the list of places stays short

_Texts = tuple[str, ...]
_Reader = Callable[[bytes], _Texts | None]
_DER_TEXT_TAGS: Final = frozenset({0x0C, 0x13, 0x16})  # UTF8String, PrintableString, IA5String
_SHORT_FORM: Final = 0x80


class FoundTexts(Struct):
    """Texts that were found: `texts[i]` in the certificate with number `owners[i]`.

    For each certificate outside of `unsure`, the texts include every text that decoding would give for the fields, and
    perhaps more. Only decoding gives the texts of the certificates in `unsure`.
    """

    texts: list[str] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)
    unsure: list[int] = field(default_factory=list)

    def add(self, number: int, texts: Sequence[str] | None) -> None:
        """Add the texts of one certificate; `None` when only decoding gives them."""
        if texts is None:
            self.unsure.append(number)
        else:
            self.texts += texts
            self.owners += [number] * len(texts)


class FieldTexts:
    """Finds the texts of the given fields: `identity`, `issuer`, claims by name, extensions by dotted OID."""

    def __init__(self, fields: Iterable[str]) -> None:
        """Fields that no certificate has, such as `digest`, are ignored."""
        wanted = sorted(set(fields))
        self._names = _Identifier(SAN_OID) if "identity" in wanted else None
        self._others = tuple((_Identifier(oid), read) for each in wanted for oid, read in _readers(each))

    def find(self, certificates: Sequence[bytes]) -> FoundTexts:
        """Search DER certificates or TBSCertificates. Never raises for any bytes."""
        shown = FoundTexts()
        if max(map(len, certificates), default=0) > LARGEST:
            shown.unsure += [number for number, each in enumerate(certificates) if len(each) > LARGEST]
            certificates = [each if len(each) <= LARGEST else b"" for each in certificates]
        for first, group in _groups(certificates):
            joined = b"".join(group)
            ends = list(accumulate(map(len, group)))
            if self._names is not None:
                _add_names(shown, first, joined, ends, self._names.places(joined, ends))
            for identifier, read in self._others:
                for number, place in enumerate(identifier.places(joined, ends)):
                    if place != _NOWHERE:
                        shown.add(first + number, _read(joined, place, ends[number], read))
        return shown


def extension_texts(raw: bytes | None) -> Iterator[str]:
    """The readings of an extension value as text: the bare bytes, and the content of one DER string."""
    if not raw:
        return
    contents = [raw]
    if len(raw) > 1 and raw[0] in _DER_TEXT_TAGS:
        size = 0 if raw[1] < _SHORT_FORM else raw[1] & 0x7F
        length = raw[1] if not size else int.from_bytes(raw[2 : 2 + size], "big")
        if len(raw) == 2 + size + length:
            contents.append(raw[2 + size :])
    for content in contents:
        try:
            yield content.decode()
        except UnicodeDecodeError:
            continue


_NOWHERE: Final = 0
_TWICE: Final = -1


class _Identifier:
    """Finds an object identifier in many certificates."""

    def __init__(self, oid: str) -> None:
        content = der.oid_content(oid)
        encoded = b"" if content is None else der.encode(der.OBJECT_IDENTIFIER, content)
        self._size = len(encoded)
        self._automaton = BytesAhoCorasick([encoded]) if encoded else None

    def places(self, joined: bytes, ends: Sequence[int]) -> Sequence[int]:
        """End of the identifier in each certificate, or `_NOWHERE`, or `_TWICE` for more than once.

        `joined` holds all certificates, `ends` the end of each of them.
        """
        if self._automaton is None:  # DER cannot encode this identifier
            return [_NOWHERE] * len(ends)
        places = [end for _, _, end in self._automaton.find_matches_as_indexes(joined, overlapping=True)]
        begins = [place - self._size for place in places]
        # One in each certificate. A match across the border of two certificates is in neither of them.
        if len(places) == len(ends) and all(map(le, places, ends)) and all(map(le, ends, begins[1:])):
            return places
        found = [_NOWHERE] * len(ends)
        for begin, place in zip(begins, places, strict=True):
            number = bisect_left(ends, place)
            if begin >= (ends[number - 1] if number else 0):
                found[number] = _TWICE if found[number] else place
        return found


def _groups(certificates: Sequence[bytes]) -> Iterator[tuple[int, Sequence[bytes]]]:
    """Runs of certificates to search at once, each of at most `WINDOW` bytes, with the index of their first."""
    if sum(map(len, certificates)) <= WINDOW:
        yield 0, certificates
        return
    start, size = 0, 0
    for number, certificate in enumerate(certificates):
        if size + len(certificate) > WINDOW:
            yield start, certificates[start:number]
            start, size = number, 0
        size += len(certificate)
    yield start, certificates[start:]


def _read(joined: bytes, place: int, end: int, read: _Reader) -> _Texts | None:
    value = None if place == _TWICE else _value(joined, place, end)
    return None if value is None else read(value)


def _value(raw: bytes, at: int, end: int) -> bytes | None:
    """Value of the extension whose identifier ends at `at`, if it is one (RFC 5280 4.1); as `tbs` reads it."""
    if at + 2 <= end and raw[at] == der.OCTET_STRING and (size := raw[at + 1]) < _SHORT_FORM and at + 2 + size <= end:
        return raw[at + 2 : at + 2 + size]  # the form of nearly every claim
    try:
        tag, start, stop = der.header(raw, at, end)
        if tag == der.BOOLEAN:
            tag, start, stop = der.header(raw, stop, end)
    except der.MalformedDer:
        return None
    return raw[start:stop] if tag == der.OCTET_STRING else None


def _readers(field: str) -> Iterator[tuple[str, _Reader]]:
    """Extensions that hold a field, and how each is read."""
    if field == "issuer":
        yield from _readers("issuer_v1")
    if field in BY_NAME:
        claim = BY_NAME[field]
        yield claim.oid, lambda value: _claim(claim, value)
    elif field[:1].isdecimal():
        yield field, lambda value: tuple(extension_texts(value))


def _claim(claim: FulcioExtension, value: bytes) -> _Texts | None:
    try:
        text = claim.decode(value)
    except ValueError:
        return None
    return (text,) if text.isprintable() else None  # decoding escapes other texts


def _heads() -> tuple[dict[bytes, int], dict[bytes, int]]:
    """Bytes between the identifier and the text of a critical SAN that holds one e-mail address or one URI.

    They cover texts whose lengths all have the short form, or all take two bytes: nearly every certificate.
    """
    heads: tuple[dict[bytes, int], dict[bytes, int]] = {}, {}
    for size in range(1, 0x100 - len(b"\x30\x81\x00\x86\x81\x00")):
        for tag in (0x81, 0x86):
            value = der.encode(der.SEQUENCE, der.encode(tag, bytes(size)))
            head = b"\x01\x01\xff" + der.encode(der.OCTET_STRING, value)[:-size]
            for table, length in zip(heads, (_SHORT_HEAD, _LONG_HEAD), strict=True):
                if len(head) == length:
                    table[head] = size
    return heads


_SHORT_HEAD: Final = 9
_LONG_HEAD: Final = 12
_SHORT, _LONG = _heads()


def _add_names(shown: FoundTexts, first: int, joined: bytes, ends: Sequence[int], places: Sequence[int]) -> None:
    """Add the names of certificates numbered from `first` on; `places` are where the identifier of each SAN ends."""
    single = _single_names(joined, places)
    texts = b"\n".join(single).decode("latin-1").split("\n")
    if b"" not in single and len(texts) == len(places) and _is_plain("".join(texts)):
        shown.texts += texts
        shown.owners += range(first, first + len(places))
        return
    for number, (name, place) in enumerate(zip(single, places, strict=True)):
        if name and _is_plain(text := name.decode("latin-1")):
            shown.add(first + number, (text,))
        elif place != _NOWHERE:
            shown.add(first + number, _read(joined, place, ends[number], _names_without_defect))


def _single_names(joined: bytes, places: Sequence[int]) -> list[bytes]:
    """The name of each SAN that holds a single name in the usual form; empty for all others."""
    names = []
    short, long = _SHORT.get, _LONG.get
    for place in places:
        if (size := short(joined[place : place + _SHORT_HEAD])) is not None:
            start = place + _SHORT_HEAD
        else:
            start = place + _LONG_HEAD
            size = long(joined[place:start], 0)
        names.append(joined[start : start + size])
    return names


def _is_plain(text: str) -> bool:
    """True if decoding gives the text unchanged; it escapes other texts, or reports them as a defect."""
    return text.isascii() and text.isprintable()


def _names_without_defect(san: bytes) -> _Texts | None:
    names, defects = read_names(san)
    return None if defects else tuple(name.value for name in names)
