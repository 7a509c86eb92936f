"""OpenPGP signatures and keys in Rekor's canonical form; signatures are verified where the `pgp` extra is installed."""

import base64
import importlib
from collections.abc import Iterator, Sequence
from typing import Final

from msgspec import Struct, field

from log_lite.proposals.proposal import Rejected
from log_lite.proposals.signed import VerifiedSignature
from sigstore_entries.openpgp import MalformedPgp, addresses, is_made_by, made_at, read_packets

_SIGNATURE: Final = 2
_SECRET_KEY: Final = 5
_PUBLIC_KEY: Final = 6
_SECRET_SUBKEY: Final = 7
_USER_ID: Final = 13
_PUBLIC_SUBKEY: Final = 14
_KEY_REVOCATION: Final = 0x20
_DIRECT_KEY: Final = 0x1F
_CERTIFICATIONS: Final = frozenset({0x10, 0x11, 0x12, 0x13, 0x30})
_SUBKEY_BINDING: Final = 0x18
_SUBKEY_REVOCATION: Final = 0x28
_V3: Final = 3
_V6: Final = 6
_MOST_KEYS: Final = 100
_LINE: Final = 64


def verify_pgp(data: bytes, signature: bytes, public_key: bytes) -> VerifiedSignature:
    """Check a detached OpenPGP signature over `data` by one of the keys of a ring. Raises `Rejected`."""
    try:
        pysequoia = importlib.import_module("pysequoia")
    except ImportError as error:
        raise Rejected("unsupported: this log was installed without its pgp extra") from error
    keys = _keys(public_key)
    # pysequoia raises bare exceptions of several classes for bad keys, bad signatures and weak algorithms alike.
    try:
        certificates = [pysequoia.Cert.from_bytes(each.binary()) for each in keys]
        made = pysequoia.Sig.from_bytes(signature)
        pysequoia.verify(bytes=data, store=lambda _ids: certificates, signature=made)
    except Exception as error:
        raise Rejected(f"verifying signature: {error}") from error
    return VerifiedSignature(_canonical_signature(signature), _armored(keys), tuple(_mail(keys)))


def canonical_pgp_key(public_key: bytes) -> bytes:
    """A key or a ring as Rekor logs it. Raises `Rejected`."""
    return _armored(_keys(public_key))


class _Key(Struct):
    """One primary key with the packets bound to it, without headers."""

    primary: bytes
    revocations: list[bytes] = field(default_factory=list)
    direct: list[bytes] = field(default_factory=list)
    user_ids: dict[bytes, list[bytes]] = field(default_factory=dict)
    subkeys: list[tuple[bytes, list[bytes]]] = field(default_factory=list)

    def follow(self, tag: int, body: bytes) -> list[bytes]:
        """Add a user ID or a subkey; returns the list that takes the signatures after it."""
        signatures: list[bytes] = []
        if tag == _USER_ID:
            self.user_ids[body] = signatures
        elif tag == _PUBLIC_SUBKEY:
            self.subkeys.append((body, signatures))
        return signatures

    def packets(self) -> Iterator[tuple[int, bytes]]:
        """Tag and body of each packet, in the order in which Rekor's OpenPGP library writes them.

        SPEC rekor pkg/pki/pgp, PublicKey.CanonicalValue: Entity.Serialize of ProtonMail/go-crypto. A user ID without a
        signature of the key itself, user attributes and trust packets are left out; of a subkey's bindings the newest
        is kept. The library writes several user IDs in random order, which cannot be reproduced: here they keep their
        original order.
        """
        yield _PUBLIC_KEY, self.primary
        yield from ((_SIGNATURE, each) for each in self.revocations)
        if self.primary[0] == _V6:
            yield from ((_SIGNATURE, each) for each in self.direct)
        for user_id, signatures in self.user_ids.items():
            if any(is_made_by(each, self.primary) for each in signatures):
                yield _USER_ID, user_id
                yield from ((_SIGNATURE, each) for each in signatures)
        for subkey, signatures in self.subkeys:
            bindings = [each for each in signatures if _kind(each) == _SUBKEY_BINDING]
            if bindings:
                yield _PUBLIC_SUBKEY, subkey
                yield from ((_SIGNATURE, each) for each in signatures if _kind(each) == _SUBKEY_REVOCATION)
                yield _SIGNATURE, max(bindings, key=made_at)

    def binary(self) -> bytes:
        """The packets with headers of the current format (RFC 9580 4.2.1)."""
        return b"".join(_header(tag, len(body)) + body for tag, body in self.packets())


def _keys(block: bytes) -> list[_Key]:
    if b"PRIVATE KEY BLOCK" in block:
        raise _private()
    try:
        packets = read_packets(block)
    except MalformedPgp as error:
        raise Rejected(f"invalid public key: {error}") from error
    keys: list[_Key] = []
    signatures: list[bytes] = []
    for tag, body in packets:
        if tag in {_SECRET_KEY, _SECRET_SUBKEY}:
            raise _private()
        if tag == _PUBLIC_KEY:
            keys.append(_Key(body))
        if not body or not keys or len(keys) > _MOST_KEYS:
            raise Rejected(f"invalid public key: an empty packet, one before the first key, or over {_MOST_KEYS} keys")
        if tag == _SIGNATURE:
            _file(keys[-1], signatures, body)
        else:
            signatures = keys[-1].follow(tag, body)
    if not keys:
        raise Rejected("invalid public key: no public key in the OpenPGP block")
    return keys


def _private() -> Rejected:
    return Rejected("invalid public key: the block holds a private key, which belongs in no log")


def _file(key: _Key, signatures: list[bytes], body: bytes) -> None:
    """Put a signature under the packet it follows, or under the key itself."""
    kind = _kind(body)
    if kind in _CERTIFICATIONS or kind in {_SUBKEY_BINDING, _SUBKEY_REVOCATION}:
        signatures.append(body)
    elif kind == _KEY_REVOCATION:
        key.revocations.append(body)
    elif kind == _DIRECT_KEY:
        key.direct.append(body)


def _kind(signature: bytes) -> int:
    at = 2 if signature[:1] == bytes([_V3]) else 1
    return int.from_bytes(signature[at : at + 1], "big")


def _mail(keys: Sequence[_Key]) -> Iterator[str]:
    for key in keys:
        for user_id in key.user_ids:
            yield from addresses(user_id.decode("utf-8", "replace"))


def _canonical_signature(signature: bytes) -> bytes:
    """SPEC rekor pkg/pki/pgp, Signature.CanonicalValue: an armored signature stays as it is."""
    if signature.lstrip().startswith(b"-----"):
        return signature
    return _armor("SIGNATURE", signature)


def _armored(keys: Sequence[_Key]) -> bytes:
    return _armor("PUBLIC KEY BLOCK", b"".join(each.binary() for each in keys))


def _armor(kind: str, raw: bytes) -> bytes:
    """RFC 9580 6.2 with a checksum, and no line end at the end: as the Go library writes it."""
    text = base64.b64encode(raw).decode()
    lines = [text[at : at + _LINE] for at in range(0, len(text), _LINE)]
    checksum = base64.b64encode(_crc24(raw).to_bytes(3, "big")).decode()
    return "\n".join([f"-----BEGIN PGP {kind}-----", "", *lines, f"={checksum}", f"-----END PGP {kind}-----"]).encode()


def _crc24(raw: bytes) -> int:
    """RFC 9580 6.1.1."""
    crc = 0xB704CE
    for octet in raw:
        crc ^= octet << 16
        for _ in range(8):
            crc <<= 1
            if crc & 0x1000000:
                crc ^= 0x1864CFB
    return crc & 0xFFFFFF


def _header(tag: int, length: int) -> bytes:
    first = bytes([0xC0 | tag])
    if length < 192:  # noqa: PLR2004  one-octet length
        return first + bytes([length])
    if length < 8384:  # noqa: PLR2004  two-octet length
        return first + bytes([192 + ((length - 192) >> 8), (length - 192) & 0xFF])
    return first + b"\xff" + length.to_bytes(4, "big")
