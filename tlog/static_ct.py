"""Static CT (C2SP static-ct-api): checkpoints that carry an RFC 6962 tree head, and data tiles."""

from collections.abc import Callable
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidSignature
from msgspec import Struct

from tlog.ct import (
    CtLeaf,
    EntryType,
    MalformedCt,
    Reader,
    leaf_timestamped_entry,
    read_timestamped_entry,
    tree_head_message,
    verify_digitally_signed,
)
from tlog.merkle import HASH_SIZE
from tlog.note import (
    KEY_ID_SIZE,
    BadSignature,
    Checkpoint,
    MalformedNote,
    Note,
    NoteKey,
    checked_name,
    open_note,
    parse_checkpoint,
)
from tlog.tiles import TILE_WIDTH, MalformedTile, ShortBundle

_SIGNATURE_TYPE: Final = b"\x05"
_TIMESTAMP_SIZE: Final = 8
_LEAF_INDEX: Final = 0
_LEAF_INDEX_SIZE: Final = 5


class TileLeaf(Struct, frozen=True):
    """One entry of a data tile. `chain` holds SHA-256 fingerprints of the issuers, leaf's issuer first."""

    leaf: CtLeaf
    precertificate: bytes
    chain: tuple[bytes, ...]

    def merkle_tree_leaf(self) -> bytes:
        """Bytes that are hashed into the tree: the MerkleTreeLeaf of RFC 6962 3.4."""
        return b"\x00\x00" + leaf_timestamped_entry(self.leaf)


def leaf_index(extensions: bytes) -> int | None:
    """Index that a log put into the extensions of an SCT or leaf, `None` where there is none. Raises `MalformedCt`.

    SPEC static-ct-api, SCT Extension: a list of (uint8 extension_type, opaque extension_data<0..2^16-1>), of which
    type 0 is leaf_index, "a big-endian 40-bit unsigned integer"; there must be only one, and others are ignored.
    """
    reader, found = Reader(extensions), None
    while reader.left():
        kind, data = reader.number(1), reader.vector(2)
        if kind != _LEAF_INDEX:
            continue
        if found is not None or len(data) != _LEAF_INDEX_SIZE:
            raise MalformedCt("a leaf_index extension that is not one number of 40 bits")
        found = int.from_bytes(data, "big")
    return found


def static_ct_key(origin: str, spki: bytes) -> NoteKey:
    """Key of a static CT log.

    SPEC static-ct-api: the key ID is SHA-256(key name || 0x0A || 0x05 || 32-byte RFC 6962 LogID)[:4].
    The signature covers the TreeHeadSignature, not the note, so it is verified by `open_ct_checkpoint`.
    """
    origin = checked_name(origin)
    log_id = sha256(spki).digest()
    key_id = sha256(origin.encode() + b"\n" + _SIGNATURE_TYPE + log_id).digest()[:KEY_ID_SIZE]
    return NoteKey(origin, key_id, log_id, spki, _verify_tree_head(origin, spki))


def _verify_tree_head(origin: str, spki: bytes) -> Callable[[bytes, bytes], None]:
    def verify(text: bytes, blob: bytes) -> None:
        # SPEC static-ct-api, RFC6962NoteSignature: uint64 timestamp, then the digitally-signed TreeHeadSignature.
        unsigned = parse_checkpoint(Note(text, text, NoteKey("-", b"", b"", spki, lambda _t, _b: None), ()))
        # The signature covers size, root and time only, so every other part of the text has to be exactly known.
        if unsigned.origin != origin:
            raise InvalidSignature("a static CT checkpoint has its key name as its origin line")
        if unsigned.extensions:
            raise InvalidSignature("a static CT checkpoint has no extension lines")
        timestamp = int.from_bytes(blob[:_TIMESTAMP_SIZE], "big")
        message = tree_head_message(unsigned.size, timestamp, unsigned.root)
        try:
            verify_digitally_signed(spki, message, blob[_TIMESTAMP_SIZE:])
        except (BadSignature, MalformedCt, MalformedNote) as error:
            raise InvalidSignature(str(error)) from error

    return verify


def open_ct_checkpoint(raw: bytes, key: NoteKey) -> tuple[Checkpoint, int]:
    """Return the checkpoint and its timestamp in milliseconds.

    Raises `MalformedNote`, `BadSignature`, `MalformedCheckpoint`.
    """
    note = open_note(raw, key)
    blob = next(s.blob for s in note.signatures if s.name == key.name and s.key_id == key.key_id)
    return parse_checkpoint(note), int.from_bytes(blob[:_TIMESTAMP_SIZE], "big")


def parse_data_tile(raw: bytes, width: int) -> list[TileLeaf]:
    """Split a data tile into exactly `width` leaves. Raises `MalformedTile`, `ShortBundle`.

    SPEC static-ct-api, TileLeaf: timestamped entry, the precertificate for precert entries, fingerprints of the chain.
    """
    if not 1 <= width <= TILE_WIDTH:
        raise MalformedTile(f"a tile is 1 to {TILE_WIDTH} wide, not {width}")
    reader = Reader(raw)
    try:
        leaves: list[TileLeaf] = []
        while reader.left() and len(leaves) < width:
            leaves.append(_read_tile_leaf(reader))
        reader.finish()
    except MalformedCt as error:
        raise MalformedTile(f"data tile of width {width}: {error}") from error
    if len(leaves) < width:
        raise ShortBundle(f"data tile ends after {len(leaves)} of {width} entries")
    return leaves


def parse_data_tile_start(raw: bytes, width: int) -> list[TileLeaf]:
    """Leaves that are complete in the first bytes of a data tile. Raises `MalformedTile` if all are, or none."""
    reader, leaves = Reader(raw), list[TileLeaf]()
    try:
        while len(leaves) < width:
            leaves.append(_read_tile_leaf(reader))
    except MalformedCt as error:
        if leaves:
            return leaves
        raise MalformedTile(f"data tile of width {width}: {error}") from error
    raise MalformedTile(f"bytes follow the last of {width} entries")


def _read_tile_leaf(reader: Reader) -> TileLeaf:
    leaf = read_timestamped_entry(reader)
    # SPEC static-ct-api: "ASN.1Cert pre_certificate" follows precert entries only.
    precertificate = reader.vector(3) if leaf.entry_type is EntryType.PRECERT else b""
    fingerprints = Reader(reader.vector(2))
    chain = []
    while fingerprints.left():
        chain.append(fingerprints.take(HASH_SIZE))
    return TileLeaf(leaf, precertificate, tuple(chain))
