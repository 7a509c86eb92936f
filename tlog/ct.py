"""Certificate Transparency structures (RFC 6962): tree heads, leaves and signed certificate timestamps."""

import base64
import binascii
from enum import IntEnum
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from msgspec import Struct

from tlog.merkle import EMPTY_ROOT, HASH_SIZE, MAX_TREE_SIZE, RootHash
from tlog.note import BadSignature, load_public_key, verify_signature

_SHA256: Final = 4
_SIGNATURE_ALGORITHM: Final = {1: rsa.RSAPublicKey, 3: ec.EllipticCurvePublicKey}
_TREE_HASH: Final = b"\x00\x01"  # Version v1, SignatureType tree_hash
_CERTIFICATE_TIMESTAMP: Final = b"\x00\x00"  # Version v1, SignatureType certificate_timestamp


class MalformedCt(ValueError):
    """The bytes are not the expected RFC 6962 structure."""


class EntryType(IntEnum):
    """RFC 6962 3.1: LogEntryType."""

    X509 = 0
    PRECERT = 1


class TreeHead(Struct, frozen=True):
    """A verified signed tree head: `timestamp` in milliseconds since the epoch."""

    size: int
    timestamp: int
    root: RootHash


class CtLeaf(Struct, frozen=True):
    """A MerkleTreeLeaf: `certificate` is the DER certificate, or the TBSCertificate of a precertificate."""

    timestamp: int
    entry_type: EntryType
    issuer_key_hash: bytes
    certificate: bytes
    extensions: bytes


class Sct(Struct, frozen=True):
    """A SignedCertificateTimestamp (RFC 6962 3.2), not verified."""

    log_id: bytes
    timestamp: int
    extensions: bytes
    signature: bytes


def verify_tree_head(spki: bytes, size: int, timestamp: int, root: bytes, signature: bytes) -> TreeHead:
    """Check a `tree_head_signature` (RFC 6962 3.5) over size, timestamp (ms) and root.

    Raises `BadSignature`, or `MalformedCt` for values that no log can sign.
    """
    for name, value in (("tree_size", size), ("timestamp", timestamp)):
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_TREE_SIZE:
            raise MalformedCt(f"{name} is not a whole number from 0 to 2^63-1")
    if not isinstance(root, bytes) or len(root) != HASH_SIZE:
        raise MalformedCt(f"sha256_root_hash is not {HASH_SIZE} bytes")
    if size == 0 and root != EMPTY_ROOT:
        raise MalformedCt("a tree of size 0 has the hash of the empty string as its root")
    message = tree_head_message(size, timestamp, root)
    verify_digitally_signed(spki, message, signature)
    return TreeHead(size, timestamp, RootHash(root))


def tree_head_message(size: int, timestamp: int, root: bytes) -> bytes:
    """Bytes a CT log signs for a tree head: the TreeHeadSignature struct of RFC 6962 3.5."""
    return _TREE_HASH + timestamp.to_bytes(8, "big") + size.to_bytes(8, "big") + root


def sct_message(leaf: CtLeaf) -> bytes:
    """Bytes a CT log signs for an SCT over this entry (RFC 6962 3.2)."""
    return _CERTIFICATE_TIMESTAMP + leaf_timestamped_entry(leaf)


def leaf_timestamped_entry(leaf: CtLeaf) -> bytes:
    """Serialise the TimestampedEntry struct (RFC 6962 3.4) of a leaf."""
    body = len(leaf.certificate).to_bytes(3, "big") + leaf.certificate
    if leaf.entry_type is EntryType.PRECERT:
        body = leaf.issuer_key_hash + body
    return (
        leaf.timestamp.to_bytes(8, "big")
        + leaf.entry_type.to_bytes(2, "big")
        + body
        + len(leaf.extensions).to_bytes(2, "big")
        + leaf.extensions
    )


def verify_digitally_signed(spki: bytes, message: bytes, blob: bytes) -> None:
    """Check a TLS DigitallySigned: hash and signature algorithm bytes, uint16 length, signature.

    SPEC RFC 6962 2.1.4: logs sign with ECDSA on NIST P-256 or RSA, both with SHA-256.
    Raises `BadSignature`, `MalformedCt`, or `MalformedNote` when the key itself is unreadable.
    """
    if len(blob) < 4 or int.from_bytes(blob[2:4], "big") != len(blob) - 4:  # noqa: PLR2004  two algorithm bytes, two length
        raise MalformedCt("a digitally-signed struct has another length than it says")
    key = load_public_key(spki)
    expected = _SIGNATURE_ALGORITHM.get(blob[1])
    if blob[0] != _SHA256 or expected is None or not isinstance(key, expected):
        raise BadSignature(f"signature algorithm {blob[0]},{blob[1]} does not fit the log's key")
    try:
        verify_signature(key, message, blob[4:])
    except InvalidSignature as error:
        raise BadSignature("the CT log's signature does not verify") from error


def parse_leaf(raw: bytes) -> CtLeaf:
    """Read a MerkleTreeLeaf (RFC 6962 3.4), without its extra data. Raises `MalformedCt`."""
    reader = Reader(raw)
    if reader.take(2) != b"\x00\x00":
        raise MalformedCt("not a version 1 timestamped entry")
    leaf = read_timestamped_entry(reader)
    reader.finish()
    return leaf


def read_timestamped_entry(reader: "Reader") -> CtLeaf:
    """Read one TimestampedEntry at the reader's position. Raises `MalformedCt`."""
    timestamp = reader.number(8)
    kind = reader.number(2)
    if kind == EntryType.X509:
        issuer_key_hash = b""
    elif kind == EntryType.PRECERT:
        issuer_key_hash = reader.take(HASH_SIZE)
    else:
        raise MalformedCt(f"log entry type {kind} is unknown")
    # SPEC RFC 6962 3.1: "opaque ASN.1Cert<1..2^24-1>".
    certificate = reader.vector(3)
    if not certificate:
        raise MalformedCt("an entry without a certificate")
    return CtLeaf(timestamp, EntryType(kind), issuer_key_hash, certificate, reader.vector(2))


def parse_sct_list(raw: bytes) -> list[Sct]:
    """Read a SignedCertificateTimestampList (RFC 6962 3.3). Raises `MalformedCt`."""
    outer = Reader(raw)
    inner = Reader(outer.vector(2))
    outer.finish()
    # SPEC RFC 6962 3.3: "SerializedSCT sct_list <1..2^16-1>".
    if not inner.left():
        raise MalformedCt("an SCT list without an SCT")
    scts = []
    while inner.left():
        reader = Reader(inner.vector(2))
        if reader.take(1) != b"\x00":
            raise MalformedCt("SCT version is not v1")
        log_id, timestamp, extensions = reader.take(HASH_SIZE), reader.number(8), reader.vector(2)
        scts.append(Sct(log_id, timestamp, extensions, reader.rest()))
    return scts


def verify_sct(sct: Sct, spki: bytes, *, issuer_spki: bytes, tbs: bytes) -> None:
    """Check an SCT embedded in a certificate.

    `tbs` is the TBSCertificate without the SCT list (and without a poison), `issuer_spki` the SPKI DER of the key
    that signed the leaf. Raises `BadSignature` or `MalformedCt`. Does not check that the log is trusted.
    """
    if sct.log_id != sha256(spki).digest():
        raise BadSignature("the SCT is by another log")
    leaf = CtLeaf(sct.timestamp, EntryType.PRECERT, sha256(issuer_spki).digest(), tbs, sct.extensions)
    verify_digitally_signed(spki, sct_message(leaf), sct.signature)


def decode_base64(value: str, name: str) -> bytes:
    """Strict base64 of a JSON field. Raises `MalformedCt`."""
    try:
        decoded = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError, TypeError) as error:
        raise MalformedCt(f"{name} is not base64") from error
    if not isinstance(value, str) or base64.b64encode(decoded).decode() != value:
        raise MalformedCt(f"{name} is not canonical base64")
    return decoded


class Reader:
    """Reads TLS presentation-language structures; every read past the end raises `MalformedCt`."""

    def __init__(self, raw: bytes, position: int = 0) -> None:
        self._raw = raw
        self.position = position

    def left(self) -> int:
        """Bytes not read yet."""
        return len(self._raw) - self.position

    def take(self, size: int) -> bytes:
        """Next `size` bytes."""
        if self.left() < size:
            raise MalformedCt(f"{size} bytes wanted, {self.left()} left")
        start, self.position = self.position, self.position + size
        return self._raw[start : self.position]

    def number(self, size: int) -> int:
        """Big-endian unsigned number of `size` bytes."""
        return int.from_bytes(self.take(size), "big")

    def vector(self, length_size: int) -> bytes:
        """Variable-length vector with a length of `length_size` bytes in front."""
        return self.take(self.number(length_size))

    def rest(self) -> bytes:
        """Everything not read yet."""
        return self.take(self.left())

    def finish(self) -> None:
        """Raise `MalformedCt` when bytes are left over."""
        if self.left():
            raise MalformedCt(f"{self.left()} bytes left over")
