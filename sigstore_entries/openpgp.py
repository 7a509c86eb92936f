"""Fingerprints and user IDs of an OpenPGP key block (RFC 9580; v4 keys as RFC 4880 had them).

Only packet framing is read: fingerprints are hashes of key packets, user IDs are text. Bindings between a key, its
subkeys and its user IDs are *not* verified. That is right for noticing: anybody can make a key with anybody's user
ID, valid bindings included, so only a fingerprint ever identifies, and an unbound subkey must not hide a match.
"""

import re
from collections.abc import Iterator
from hashlib import sha1, sha256
from typing import Final, NamedTuple

from sigstore_entries.certificate import MAX_TEXT, plain_text
from sigstore_entries.pem import MalformedText, from_base64
from sigstore_entries.signing import Name, NameForm, Signer, SignerForm

MAX_PACKETS: Final = 4096
MAX_KEYS: Final = 64
MAX_USER_IDS: Final = 64

_PUBLIC_KEY: Final = 6
_USER_ID: Final = 13
_PUBLIC_SUBKEY: Final = 14
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


class _Packet(NamedTuple):
    tag: int
    body: bytes


def read_pgp(block: bytes) -> Signer:
    """Read an armored or binary public key block, keyrings of several keys included. Raises `MalformedPgp`.

    Fingerprints are lower-case hex of primary keys and subkeys, in the block's order.
    """
    fingerprints: list[str] = []
    names: list[Name] = []
    defects: list[str] = []
    for count, packet in enumerate(_packets(_dearmored(block))):
        if count == MAX_PACKETS or len(fingerprints) > MAX_KEYS or len(names) > MAX_USER_IDS:
            defects.append("names: the key block is longer than is read")
            break
        if packet.tag in {_PUBLIC_KEY, _PUBLIC_SUBKEY}:
            fingerprint = _fingerprint(packet.body)
            if fingerprint is None:
                defects.append("fingerprint: a key of a version that is not read")
            else:
                fingerprints.append(fingerprint)
        elif packet.tag == _USER_ID:
            _user_id(packet.body, names, defects)
    if not fingerprints:
        raise MalformedPgp("no public key in the OpenPGP block")
    return Signer(
        SignerForm.PGP, names=tuple(names), fingerprints=tuple(dict.fromkeys(fingerprints)), defects=tuple(defects[:32])
    )


def _user_id(body: bytes, names: list[Name], defects: list[str]) -> None:
    try:
        if len(body) > MAX_TEXT:
            raise ValueError(f"{len(body)} bytes long")  # noqa: TRY301  one place makes the defect
        # RFC 9580 5.11: "By convention, it includes a mail name-addr, but there are no restrictions on its content."
        names.append(Name(NameForm.PGP_USER_ID, plain_text(body.decode("utf-8"), "names", defects)))
    except ValueError as error:
        defects.append(f"names: a user ID is not read: {error}")


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
        if len(found) > MAX_KEYS:
            raise MalformedPgp(f"more than {MAX_KEYS} OpenPGP blocks")
    if not found:
        raise MalformedPgp("not an armored OpenPGP public key block")
    return b"".join(found)


def _packets(raw: bytes) -> Iterator[_Packet]:
    at = 0
    while at < len(raw):
        header = raw[at]
        if not header & 0x80:
            raise MalformedPgp("a packet does not begin with bit 7 set")
        tag, length, at = _new_format(raw, at) if header & 0x40 else _old_format(raw, at)
        if at + length > len(raw):
            raise MalformedPgp("a packet is cut short")
        yield _Packet(tag, raw[at : at + length])
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
