"""Fingerprints and user IDs of an OpenPGP key block (RFC 9580; v4 keys as RFC 4880 had them).

Only packet framing is read: fingerprints are hashes of key packets, user IDs are text. Bindings between a key, its
subkeys and its user IDs are *not* verified. That is right for noticing: anybody can make a key with anybody's user
ID, valid bindings included, so only a fingerprint ever identifies, and an unbound subkey must not hide a match.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import sha1, sha256
from typing import Final

from sigstore_entries.certificate import MAX_TEXT, plain_text
from sigstore_entries.pem import MalformedText, from_base64
from sigstore_entries.signing import Name, NameForm, Signer, SignerForm

MAX_NAMES: Final = 64 * 1024  # bytes of user IDs; a user ID proves nothing, so what is beyond is only counted

_PUBLIC_KEY: Final = 6
_USER_ID: Final = 13
_PUBLIC_SUBKEY: Final = 14
_READ: Final = frozenset({_PUBLIC_KEY, _USER_ID, _PUBLIC_SUBKEY})
_V4: Final = 4
_V6: Final = 6
_ARMOR = re.compile(
    rb"-----BEGIN PGP PUBLIC KEY BLOCK-----[ \t]*\r?\n"
    rb"(?:[A-Za-z]{1,20}: [^\r\n]{0,200}\r?\n){0,10}"
    rb"[ \t]*\r?\n"
    rb"([A-Za-z0-9+/=\r\n]*?)"
    rb"(?:\r?\n=[A-Za-z0-9+/]{4})?\r?\n?"  # RFC 9580 6.1: a checksum that disagrees is no reason to reject
    rb"-----END PGP PUBLIC KEY BLOCK-----"
)


class MalformedPgp(ValueError):
    """The bytes are not an OpenPGP public key block."""


def read_pgp(block: bytes) -> Signer:
    """Read an armored or binary public key block, keyrings of several keys included. Raises `MalformedPgp`.

    Fingerprints are lower-case hex of all primary keys and subkeys, in the block's order: the entry's size is the
    bound, because a count could be stepped over. Keys and names that are left out are counted in an `unread` defect.
    """
    found = _Found()
    try:
        for tag, body in _packets(_dearmored(block)):
            if tag == _USER_ID:
                found.user_id(body)
            else:
                found.key(body)
    except MalformedPgp as error:
        if not found.fingerprints:
            raise
        found.cut = f"the rest of the block: {error}"
    if not found.fingerprints:
        raise MalformedPgp("no public key in the OpenPGP block")
    user_ids = tuple(Name(NameForm.PGP_USER_ID, text) for text in found.names)
    names = (*user_ids, *_addresses(found.names))
    return Signer(SignerForm.PGP, names=names, fingerprints=tuple(found.fingerprints), defects=tuple(found.defects()))


@dataclass(slots=True)
class _Found:
    """Keys and user IDs of a block, each once and in its order."""

    fingerprints: dict[str, None] = field(default_factory=dict)
    names: dict[str, None] = field(default_factory=dict)
    oddities: list[str] = field(default_factory=list)
    room: int = MAX_NAMES
    unread_keys: int = 0
    unread_names: int = 0
    cut: str = ""

    def key(self, body: bytes) -> None:
        fingerprint = _fingerprint(body)
        if fingerprint is None:
            self.unread_keys += 1
        else:
            self.fingerprints[fingerprint] = None

    def user_id(self, body: bytes) -> None:
        # RFC 9580 5.11: "By convention, it includes a mail name-addr, but there are no restrictions on its content."
        self.room -= len(body)
        if len(body) > MAX_TEXT or self.room < 0:
            self.unread_names += 1
            return
        try:
            self.names[plain_text(body.decode("utf-8"), "names", self.oddities)] = None
        except UnicodeDecodeError:
            self.unread_names += 1

    def defects(self) -> Iterator[str]:
        yield from self.oddities
        if self.cut:
            yield f"unread: {self.cut}"
        if self.unread_keys:
            yield f"unread: {self.unread_keys} keys of a version that is not read"
        if self.unread_names:
            yield (
                f"unread: {self.unread_names} user IDs that are not UTF-8, or are longer than {MAX_TEXT} bytes each "
                f"or {MAX_NAMES} bytes together"
            )


def _addresses(user_ids: Iterable[str]) -> Iterator[Name]:
    """Mail addresses in user IDs of the form `Name (comment) <address>`, each once.

    Readers differ in which of several they take, so it is the first and the last.
    """
    found: dict[str, None] = {}
    for user_id in user_ids:
        _, *parts = user_id.split("<")
        for part in (parts[0], parts[-1]) if parts else ():
            address = part.partition(">")[0].strip()
            if "@" in address and not any(map(str.isspace, address)):
                found[address] = None
    yield from (Name(NameForm.PGP_ADDRESS, address) for address in found)


def _fingerprint(body: bytes) -> str | None:
    version = body[0] if body else 0
    if version == _V4 and len(body) < 1 << 16:
        # RFC 9580 5.5.4.2: SHA-1 over 0x99, two octets of length, and the packet body. It identifies, it does not sign.
        return sha1(b"\x99" + len(body).to_bytes(2, "big") + body, usedforsecurity=False).hexdigest()
    if version == _V6:
        # RFC 9580 5.5.4.3: SHA-256 over 0x9B, four octets of length, and the packet body.
        return sha256(b"\x9b" + len(body).to_bytes(4, "big") + body).hexdigest()
    return None


def _dearmored(block: bytes) -> bytes:
    if not block.lstrip().startswith(b"-----"):
        return block
    found = []
    for match in _ARMOR.finditer(block):
        try:
            raw = from_base64(match[1].translate(None, b"\r\n"), "the OpenPGP block")
        except MalformedText as error:
            raise MalformedPgp(str(error)) from error
        found.append(raw)
    if not found:
        raise MalformedPgp("not an armored OpenPGP public key block")
    return b"".join(found)


def _packets(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and body of each packet that is a key or a user ID."""
    at = 0
    while at < len(raw):
        header = raw[at]
        if not header & 0x80:
            raise MalformedPgp("a packet does not begin with bit 7 set")
        tag, length, at = _new_format(raw, at) if header & 0x40 else _old_format(raw, at)
        if at + length > len(raw):
            raise MalformedPgp("a packet is cut short")
        if tag in _READ:
            yield tag, raw[at : at + length]
        at += length


def _new_format(raw: bytes, at: int) -> tuple[int, int, int]:
    # RFC 9580 4.2.1; partial lengths (224 to 254) are for data packets only.
    tag, first = raw[at] & 0x3F, int.from_bytes(raw[at + 1 : at + 2], "big")
    if first < 192:  # noqa: PLR2004  one-octet length
        return tag, first, at + 2
    if first < 224:  # noqa: PLR2004  two-octet length
        return tag, ((first - 192) << 8) + int.from_bytes(raw[at + 2 : at + 3], "big") + 192, at + 3
    if first == 255:  # noqa: PLR2004  five-octet length
        return tag, int.from_bytes(raw[at + 2 : at + 6], "big"), at + 6
    raise MalformedPgp("a key packet of partial length")


def _old_format(raw: bytes, at: int) -> tuple[int, int, int]:
    # RFC 9580 4.2.2; type 3 is an indeterminate length.
    size = {0: 1, 1: 2, 2: 4}.get(raw[at] & 3)
    if size is None:
        raise MalformedPgp("a key packet of indeterminate length")
    return (raw[at] & 0x3F) >> 2, int.from_bytes(raw[at + 1 : at + 1 + size], "big"), at + 1 + size
