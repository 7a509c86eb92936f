"""Fingerprints and user IDs of an OpenPGP key block (RFC 9580; v4 keys as RFC 4880 had them).

Only packet framing is read: fingerprints are hashes of key packets, user IDs are text. Bindings between a key, its
subkeys and its user IDs are *not* verified. For a monitor this is right: any person can make a key with another
person's user ID and valid bindings, so only a fingerprint identifies, and an unbound subkey must not hide a match.
"""

import re
from collections.abc import Iterable, Iterator
from hashlib import sha1, sha256
from typing import Final

from msgspec import Struct, field

from sigstore_entries.body import MalformedText, from_base64
from sigstore_entries.certificate import MAX_TEXT, plain_text
from sigstore_entries.signing import Name, NameForm, Signer, SignerForm

MAX_NAMES: Final = 64 * 1024  # bytes of user IDs; a user ID is no proof of identity, so further ones are only counted

_SIGNATURE: Final = 2
_PUBLIC_KEY: Final = 6
_USER_ID: Final = 13
_PUBLIC_SUBKEY: Final = 14
_READ: Final = frozenset({_PUBLIC_KEY, _USER_ID, _PUBLIC_SUBKEY})
_V3: Final = 3
_V4: Final = 4
_V6: Final = 6
_CREATED: Final = 2
_ISSUER_KEY_ID: Final = 16
_ISSUER_FINGERPRINT: Final = 33
_KEY_ID: Final = 16  # hex digits
_V4_DIGITS: Final = 40
_ARMORED: Final = (
    rb"-----BEGIN PGP %b-----[ \t]*\r?\n"
    rb"(?:[A-Za-z]{1,20}: [^\r\n]{0,200}\r?\n){0,10}"
    rb"[ \t]*\r?\n"
    rb"([A-Za-z0-9+/=\r\n]*?)"
    rb"(?:\r?\n=[A-Za-z0-9+/]{4})?\r?\n?"  # RFC 9580 6.1: a wrong checksum is no reason to reject
    rb"-----END PGP %b-----"
)
_ARMOR: Final = re.compile(_ARMORED % (b"PUBLIC KEY BLOCK", b"PUBLIC KEY BLOCK"))
_SIGNATURE_ARMOR: Final = re.compile(_ARMORED % (b"SIGNATURE", b"SIGNATURE"))


class MalformedPgp(ValueError):
    """The bytes are not an OpenPGP public key block."""


def read_pgp(block: bytes, signature: bytes | None = None) -> Signer:
    """Read an armored or binary public key block, keyrings of several keys included. Raises `MalformedPgp`.

    `signature` is the entry's own signature, if it holds one: it names the key that made it. Any person can put
    another person's key into a ring, as a primary key or as a subkey. So only the named key and its primary key
    count as the signer. Without such a name the only primary key of a block is the signer; for several primary keys
    it is unknown.

    Fingerprints are lower-case hex of all primary keys and subkeys, in the block's order: the entry's size is the
    bound, because an attacker could exceed a count. Keys and names that are left out are counted in an `unread` defect.
    """
    found = _KeyBlock()
    try:
        for tag, body in _packets(_dearmored(block, _ARMOR), _READ):
            if tag == _USER_ID:
                found.user_id(body)
            else:
                found.key(body, is_primary=tag == _PUBLIC_KEY)
    except MalformedPgp as error:
        if not found.fingerprints:
            raise
        found.cut = f"the rest of the block: {error}"
    if not found.fingerprints:
        raise MalformedPgp("no public key in the OpenPGP block")
    user_ids = tuple(Name(NameForm.PGP_USER_ID, text) for text in found.names)
    names = (*user_ids, *_addresses(found.names))
    only_listed, maybe_signed = _bystanders(found, _issuers(signature) if signature is not None else frozenset())
    return Signer(
        SignerForm.PGP,
        names=names,
        fingerprints=tuple(found.fingerprints),
        only_listed=only_listed,
        maybe_signed=maybe_signed,
        defects=tuple(found.defects()),
    )


def read_packets(block: bytes, *, is_signature: bool = False) -> list[tuple[int, bytes]]:
    """Tag and body of each packet of an armored or binary block of keys, or of signatures. Raises `MalformedPgp`."""
    return list(_packets(_dearmored(block, _SIGNATURE_ARMOR if is_signature else _ARMOR), None))


def addresses(user_id: str) -> tuple[str, ...]:
    """Mail addresses of a user ID: of `Name (comment) <address>`, and a user ID that is an address."""
    found = tuple(each.value for each in _addresses([user_id]))
    is_address = "@" in user_id and not any(each.isspace() or each in "<>" for each in user_id)
    return (user_id,) if is_address else found


def is_made_by(signature: bytes, public_key: bytes) -> bool:
    """True if a signature packet names this key packet as its maker; the signature is not verified."""
    fingerprint = _fingerprint(public_key)
    return fingerprint is not None and _key_id(fingerprint) in _issuers_of(signature)


def made_at(signature: bytes) -> int:
    """Unix time at which a signature packet claims to be made; 0 without such a claim."""
    times = (content for kind, content in _subpackets(signature) if kind == _CREATED)
    return int.from_bytes(next(times, b""), "big")


class _KeyBlock(Struct):
    """Keys and user IDs of a block, without duplicates, in their order; each key with its primary keys."""

    fingerprints: dict[str, set[str]] = field(default_factory=dict)
    primary: str = ""
    names: dict[str, None] = field(default_factory=dict)
    oddities: list[str] = field(default_factory=list)
    room: int = MAX_NAMES
    unread_keys: int = 0
    unread_names: int = 0
    cut: str = ""

    def key(self, body: bytes, *, is_primary: bool) -> None:
        fingerprint = _fingerprint(body)
        if is_primary:
            self.primary = fingerprint or ""
        if fingerprint is None:
            self.unread_keys += 1
        else:
            self.fingerprints.setdefault(fingerprint, set()).add(self.primary)

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


def _bystanders(found: _KeyBlock, issuers: frozenset[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Fingerprints of the block that did not sign, and those that may have signed; all others are the signer's."""
    keys = found.fingerprints
    named = {key for key in keys if _key_id(key) in issuers}
    if not named:
        primaries = {key for key, above in keys.items() if key in above}
        is_certain = len(primaries) == 1 and not found.unread_keys
        return (), tuple(key for key in keys if not is_certain or key not in primaries)
    signers = named.union(*(keys[key] for key in named))
    others = tuple(key for key in keys if key not in signers)
    # The entry does not show which of several named keys made the signature. A subkey under several primary keys is
    # bound by one of them.
    is_certain = len(named) == 1 and len(keys[next(iter(named))]) == 1
    return others, () if is_certain else tuple(key for key in keys if key in signers)


def _key_id(fingerprint: str) -> str:
    """RFC 9580 5.5.4: the last eight octets of a version 4 fingerprint, the first eight of a version 6 one."""
    return fingerprint[-_KEY_ID:] if len(fingerprint) == _V4_DIGITS else fingerprint[:_KEY_ID]


def _issuers(signature: bytes) -> frozenset[str]:
    """Ids of the keys that the signatures name as theirs; empty where none can be read."""
    try:
        packets = _packets(_dearmored(signature, _SIGNATURE_ARMOR), frozenset({_SIGNATURE}))
        return frozenset(issuer for _, body in packets for issuer in _issuers_of(body))
    except MalformedPgp:
        return frozenset()


def _issuers_of(body: bytes) -> Iterator[str]:
    if body[:1] == bytes([_V3]):
        # RFC 9580 5.2.2: version, length, type, four octets of time, eight of key id.
        yield body[7:15].hex()
        return
    for kind, content in _subpackets(body):
        if kind == _ISSUER_KEY_ID:
            yield content.hex()
        elif kind == _ISSUER_FINGERPRINT:
            yield _key_id(content[1:].hex())


def _subpackets(body: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and content of a signature's subpackets, the hashed ones first.

    RFC 9580 5.2.3.7: length, type, content; the top bit of the type says that it is critical.
    """
    size = {_V4: 2, _V6: 4}.get(body[0] if body else 0)
    if size is None:
        return
    start = 4
    for _ in ("hashed", "unhashed"):
        length = int.from_bytes(body[start : start + size], "big")
        subpackets = body[start + size : start + size + length]
        start += size + length
        at = 0
        while at < len(subpackets):
            length, at = _subpacket_length(subpackets, at)
            if at >= len(subpackets):
                return
            yield subpackets[at] & 0x7F, subpackets[at + 1 : at + length]
            at += max(length, 1)


def _subpacket_length(raw: bytes, at: int) -> tuple[int, int]:
    first = raw[at]
    if first < 192:  # noqa: PLR2004  one-octet length
        return first, at + 1
    if first < 255:  # noqa: PLR2004  two-octet length
        return ((first - 192) << 8) + int.from_bytes(raw[at + 1 : at + 2], "big") + 192, at + 2
    return int.from_bytes(raw[at + 1 : at + 5], "big"), at + 5


def _addresses(user_ids: Iterable[str]) -> Iterator[Name]:
    """Mail addresses in user IDs of the form `Name (comment) <address>`, each once.

    Mail programs choose differently among several addresses, so the first and the last are taken.
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
        # RFC 9580 5.5.4.2: SHA-1 over 0x99, two octets of length, and the packet body, only to identify a key.
        return sha1(b"\x99" + len(body).to_bytes(2, "big") + body, usedforsecurity=False).hexdigest()
    if version == _V6:
        # RFC 9580 5.5.4.3: SHA-256 over 0x9B, four octets of length, and the packet body.
        return sha256(b"\x9b" + len(body).to_bytes(4, "big") + body).hexdigest()
    return None


def _dearmored(block: bytes, armor: re.Pattern[bytes]) -> bytes:
    if not block.lstrip().startswith(b"-----"):
        return block
    found = []
    for match in armor.finditer(block):
        try:
            raw = from_base64(match[1].translate(None, b"\r\n"), "the OpenPGP block")
        except MalformedText as error:
            raise MalformedPgp(str(error)) from error
        found.append(raw)
    if not found:
        raise MalformedPgp("not an armored OpenPGP block of this kind")
    return b"".join(found)


def _packets(raw: bytes, wanted: frozenset[int] | None) -> Iterator[tuple[int, bytes]]:
    """Tag and body of each packet with one of the wanted tags; of every packet for `None`."""
    at = 0
    while at < len(raw):
        header = raw[at]
        if not header & 0x80:
            raise MalformedPgp("a packet does not begin with bit 7 set")
        tag, length, at = _new_format(raw, at) if header & 0x40 else _old_format(raw, at)
        if at + length > len(raw):
            raise MalformedPgp("a packet is cut short")
        if wanted is None or tag in wanted:
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
