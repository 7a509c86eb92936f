"""Witness cosignatures (C2SP tlog-cosignature, Ed25519): a witness says it saw this checkpoint, and when."""

from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ed25519

from tlog.note import KEY_ID_SIZE, MalformedNote, Note, NoteSignature, UnverifiedNote, split_vkey

_TYPE: Final = 4
_TIME_SIZE: Final = 8
_BLOB_SIZE: Final = _TIME_SIZE + 64


@dataclass(frozen=True, slots=True)
class WitnessKey:
    """A witness's Ed25519 key: `raw` is 32 bytes, `key_id` the 4 bytes in front of its cosignatures."""

    name: str
    key_id: bytes
    raw: bytes


@dataclass(frozen=True, slots=True)
class Cosignature:
    """A verified cosignature: `time` in unix seconds is when the witness says it saw the checkpoint."""

    witness: WitnessKey
    time: int


def parse_witness_vkey(vkey: str) -> WitnessKey:
    r"""Read `name+hex key id+base64(0x04 || key)`. Raises `MalformedNote`.

    SPEC tlog-cosignature: "SHA-256(<name> || "\n" || 0x04 || 32-byte Ed25519 cosigner public key)[:4]".
    """
    name, key_id, raw = split_vkey(vkey, _TYPE)
    if sha256(name.encode() + b"\n" + bytes([_TYPE]) + raw).digest()[:KEY_ID_SIZE] != key_id:
        raise MalformedNote(f"witness key id {key_id.hex()} does not belong to name and key")
    return WitnessKey(name, key_id, raw)


def verify_cosignature(note: Note | UnverifiedNote, witness: WitnessKey) -> Cosignature | None:
    """Return the witness's cosignature on this note, or `None` when it carries none that verifies.

    SPEC tlog-cosignature: the signed message is "cosignature/v1", "time <unix seconds>", then the note text. A
    cosignature that does not verify counts as missing: witnessing is a policy on top of the log's own signature.
    """
    for signature in note.signatures:
        if signature.name == witness.name and signature.key_id == witness.key_id:
            time = _verified_time(note.text, signature, witness)
            if time is not None:
                return Cosignature(witness, time)
    return None


def cosigned_message(text: bytes, time: int) -> bytes:
    """Return the bytes a witness signs for a note text at `time` (unix seconds)."""
    return b"cosignature/v1\ntime %d\n" % time + text


def _verified_time(text: bytes, signature: NoteSignature, witness: WitnessKey) -> int | None:
    if len(signature.blob) != _BLOB_SIZE:
        return None
    time = int.from_bytes(signature.blob[:_TIME_SIZE], "big")
    key = ed25519.Ed25519PublicKey.from_public_bytes(witness.raw)
    try:
        key.verify(signature.blob[_TIME_SIZE:], cosigned_message(text, time))
    except InvalidSignature:
        return None
    return time
