"""Witness cosignatures (C2SP tlog-cosignature): a witness states that it saw this checkpoint at a time.

Both kinds the specification has: Ed25519 (0x04) over the note's text, and ML-DSA-44 (0x06) over origin, size and root.
"""

from enum import IntEnum
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ed25519, mldsa
from msgspec import Struct

from tlog.note import (
    KEY_ID_SIZE,
    MalformedCheckpoint,
    MalformedNote,
    Note,
    NoteSignature,
    UnverifiedNote,
    claimed_checkpoint,
    split_vkey,
)

_TIME_SIZE: Final = 8
_MAX_TIME: Final = (1 << 63) - 1
_MAX_TEXT: Final = 255


class WitnessAlgorithm(IntEnum):
    """Signature algorithm of a witness, by the type byte of its verifier key."""

    ED25519 = 4
    ML_DSA_44 = 6


_KEY_SIZES: Final = {WitnessAlgorithm.ED25519: 32, WitnessAlgorithm.ML_DSA_44: 1312}
_SIGNATURE_SIZES: Final = {WitnessAlgorithm.ED25519: 64, WitnessAlgorithm.ML_DSA_44: 2420}


class WitnessKey(Struct, frozen=True):
    """A witness's key: `raw` is 32 bytes (Ed25519) or 1312 (ML-DSA-44); `key_id` stands before its cosignatures."""

    name: str
    key_id: bytes
    raw: bytes
    algorithm: WitnessAlgorithm = WitnessAlgorithm.ED25519


class Cosignature(Struct, frozen=True):
    """A verified cosignature: `time` in unix seconds is the witness's time of seeing the checkpoint."""

    witness: WitnessKey
    time: int


def parse_witness_vkey(vkey: str) -> WitnessKey:
    r"""Read `name+hex key id+base64(type || key)`. Raises `MalformedNote`.

    SPEC tlog-cosignature: "SHA-256(<name> || "\n" || 0x04 || 32-byte Ed25519 cosigner public key)[:4]", and the same
    with "0x06 || 1312-byte ML-DSA-44 cosigner public key".
    """
    name, key_id, key_type, raw = split_vkey(vkey, {int(each): size for each, size in _KEY_SIZES.items()})
    if sha256(name.encode() + b"\n" + bytes([key_type]) + raw).digest()[:KEY_ID_SIZE] != key_id:
        raise MalformedNote(f"witness key id {key_id.hex()} does not belong to name and key")
    witness = WitnessKey(name, key_id, raw, WitnessAlgorithm(key_type))
    try:
        _load(witness)
    except UnsupportedAlgorithm as error:
        # An error at once, because every cosignature of this witness would count as missing.
        raise MalformedNote(f"the installed `cryptography` cannot verify {witness.algorithm.name} keys") from error
    except ValueError as error:
        raise MalformedNote(f"witness key is not a {witness.algorithm.name} key: {vkey!r:.120}") from error
    return witness


def verify_cosignature(note: Note | UnverifiedNote, witness: WitnessKey) -> Cosignature | None:
    """Return the witness's cosignature on this note, or `None` when it carries none that verifies.

    A cosignature that does not verify counts as missing: witnessing is a policy on top of the log's own signature.
    """
    for signature in note.signatures:
        if signature.name == witness.name and signature.key_id == witness.key_id:
            time = _verified_time(note, signature, witness)
            if time is not None:
                return Cosignature(witness, time)
    return None


def cosigned_message(text: bytes, time: int) -> bytes:
    """Return the bytes an Ed25519 witness signs for a note text at `time` (unix seconds).

    SPEC tlog-cosignature: "cosignature/v1", "time <unix seconds>", then the note text.
    """
    return b"cosignature/v1\ntime %d\n" % time + text


def cosigned_tree(witness: str, time: int, origin: str, size: int, root: bytes) -> bytes:
    r"""Return the bytes an ML-DSA-44 witness signs for a checkpoint at `time` (unix seconds).

    SPEC tlog-cosignature: label "subtree/v1\n\0", cosigner_name<1..2^8-1>, timestamp, log_origin<1..2^8-1>, start, end,
    hash; a checkpoint's start is 0. Extension lines are not covered. Raises `MalformedCheckpoint` for a name or an
    origin that this structure cannot hold.
    """
    names = [name.encode() for name in (witness, origin)]
    if not all(1 <= len(name) <= _MAX_TEXT for name in names):
        raise MalformedCheckpoint(f"a name of more than {_MAX_TEXT} bytes cannot be cosigned")
    cosigner, log = (bytes([len(name)]) + name for name in names)
    numbers = (0).to_bytes(8, "big") + size.to_bytes(8, "big")
    return b"subtree/v1\n\x00" + cosigner + time.to_bytes(_TIME_SIZE, "big") + log + numbers + root


def _verified_time(note: Note | UnverifiedNote, signature: NoteSignature, witness: WitnessKey) -> int | None:
    if len(signature.blob) != _TIME_SIZE + _SIGNATURE_SIZES[witness.algorithm]:
        return None
    time = int.from_bytes(signature.blob[:_TIME_SIZE], "big")
    # SPEC tlog-cosignature: the timestamp "MUST NOT exceed 2^63 - 1".
    if time > _MAX_TIME:
        return None
    try:
        _load(witness).verify(signature.blob[_TIME_SIZE:], _message(note, witness, time))
    except (InvalidSignature, MalformedCheckpoint):
        return None
    return time


def _message(note: Note | UnverifiedNote, witness: WitnessKey, time: int) -> bytes:
    if witness.algorithm is WitnessAlgorithm.ED25519:
        return cosigned_message(note.text, time)
    claimed = claimed_checkpoint(note)
    return cosigned_tree(witness.name, time, claimed.origin, claimed.size, claimed.root)


def _load(witness: WitnessKey) -> ed25519.Ed25519PublicKey | mldsa.MLDSA44PublicKey:
    if witness.algorithm is WitnessAlgorithm.ED25519:
        return ed25519.Ed25519PublicKey.from_public_bytes(witness.raw)
    return mldsa.MLDSA44PublicKey.from_public_bytes(witness.raw)
