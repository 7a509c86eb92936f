"""Signed notes (C2SP signed-note), the keys Sigstore's logs sign them with, and checkpoints (C2SP tlog-checkpoint).

`parse_note` only splits; only `open_note` makes a `Note`, so the named key signed the text of every `Note`. The caller
must know that the key belongs to the log: pin the key first. `parse_checkpoint` reads a note's text as a log's signed
statement of its size and root hash.
"""

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256
from msgspec import Struct

from tlog.merkle import EMPTY_ROOT, HASH_SIZE, MAX_TREE_SIZE, RootHash

# SPEC signed-note: verifiers "MUST accept at least up to 16 signatures. Remember that post-quantum signatures can be up
# to nearly 5kB in size": 16 of them under names of 255 bytes are 110 kB.
MAX_NOTE_SIZE: Final = 256 * 1024
MAX_SIGNATURES: Final = 100
KEY_ID_SIZE: Final = 4

# SPEC signed-note: "The name MUST be non-empty and MUST NOT include any Unicode spaces or plus (U+002B) characters."
# A lone surrogate has no UTF-8 form, so it can stand in no note either.
_NAME = re.compile(r"[^\s+\x00-\x1f\ud800-\udfff]+")
# SPEC signed-note: "<key name>+<hash>+<encoded public key>", the hash in eight lower-case hexadecimal digits.
_VKEY = re.compile(r"([^+]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/]+={0,2})")
# SPEC signed-note: "Each signature line is an em dash (U+2014), a space, the key name, a space, base64".
_SIGNATURE_LINE = re.compile(r"— ([^\s+]+) ([A-Za-z0-9+/]+={0,2})")
# SPEC signed-note: "The note text MUST NOT contain any ASCII control characters (U+0000 to U+001F) other than newline".
_CONTROL = re.compile(rb"[\x00-\x09\x0b-\x1f]")


class MalformedNote(ValueError):
    """The bytes are not a signed note."""


class BadSignature(Exception):
    """The expected key did not sign this note, or a signature under its name and id does not verify."""


class NoteSignature(Struct, frozen=True):
    """One signature line with the claimed signer, not verified."""

    name: str
    key_id: bytes
    blob: bytes


class UnverifiedNote(Struct, frozen=True):
    """A note split into its parts, without a check against a key."""

    raw: bytes
    text: bytes
    signatures: tuple[NoteSignature, ...]


@dataclass(frozen=True, slots=True)
class NoteKey:
    """A public key under the name it signs notes with.

    `key_id` is the 4 bytes in front of each signature; `log_id` is the full 32-byte hash it was cut from where the
    log's specification has one. `verify` takes (note text, signature) and raises `InvalidSignature`.
    """

    name: str
    key_id: bytes
    log_id: bytes
    spki: bytes
    verify: Callable[[bytes, bytes], None] = field(repr=False, compare=False)


class Note(Struct, frozen=True):
    """A note whose text the key signed. The other signatures are kept, unverified."""

    raw: bytes
    text: bytes
    key: NoteKey
    signatures: tuple[NoteSignature, ...]


def parse_note(raw: bytes) -> UnverifiedNote:
    """Split `raw` into text and signature lines, strictly. Raises `MalformedNote`."""
    if not isinstance(raw, bytes):
        raise MalformedNote("a note is a byte string")
    if len(raw) > MAX_NOTE_SIZE:
        raise MalformedNote(f"a note of {len(raw)} bytes is longer than {MAX_NOTE_SIZE}")
    if _CONTROL.search(raw):
        raise MalformedNote("control character in a note")
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedNote("a note is not UTF-8") from error
    # SPEC signed-note: "followed by an empty line, followed by the signatures". Text may itself hold empty lines in
    # general; a checkpoint may not, and parse_checkpoint refuses those.
    text, separator, signature_block = raw.rpartition(b"\n\n")
    if not separator:
        raise MalformedNote("no empty line between text and signatures")
    if not signature_block.endswith(b"\n"):
        raise MalformedNote("the last signature line does not end")
    lines = signature_block[:-1].decode("utf-8").split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise MalformedNote(f"more than {MAX_SIGNATURES} signatures")
    return UnverifiedNote(raw, text + b"\n", tuple(_parse_signature_line(line) for line in lines))


def _parse_signature_line(line: str) -> NoteSignature:
    match = _SIGNATURE_LINE.fullmatch(line)
    if not match:
        raise MalformedNote(f"not a signature line: {line!r:.120}")
    try:
        decoded = base64.b64decode(match[2], validate=True)
    except binascii.Error as error:
        raise MalformedNote(f"signature is not base64: {line!r:.120}") from error
    if base64.b64encode(decoded).decode() != match[2] or len(decoded) <= KEY_ID_SIZE:
        raise MalformedNote(f"signature is not canonical base64 of key id and signature: {line!r:.120}")
    return NoteSignature(match[1], decoded[:KEY_ID_SIZE], decoded[KEY_ID_SIZE:])


def open_note(raw: bytes, key: NoteKey) -> Note:
    """Return the note that `key` signed.

    SPEC signed-note: a verifier looks for lines with its key's name *and* id, in any order; unknown lines are ignored;
    a line under a known name and id that does not verify makes the whole note bad. Raises `MalformedNote`,
    `BadSignature`.
    """
    note = parse_note(raw)
    mine = [s for s in note.signatures if s.name == key.name and s.key_id == key.key_id]
    if not mine:
        claimed = ", ".join(f"{s.name}+{s.key_id.hex()}" for s in note.signatures[:5])
        raise BadSignature(f"no signature by {key.name}+{key.key_id.hex()}; the note carries {claimed}")
    for signature in mine:
        try:
            key.verify(note.text, signature.blob)
        except InvalidSignature as error:
            raise BadSignature(f"the signature by {key.name}+{key.key_id.hex()} does not verify") from error
    return Note(note.raw, note.text, key, note.signatures)


def rekor_v1_key(name: str, spki: bytes) -> NoteKey:
    """Key of a Rekor v1 log: key id is the start of SHA-256(SPKI) for every key type, unlike C2SP."""
    public_key = load_public_key(spki)
    log_id = sha256(spki).digest()
    return NoteKey(checked_name(name), log_id[:KEY_ID_SIZE], log_id, spki, _verify_with(public_key))


def tile_log_key(name: str, spki: bytes) -> NoteKey:
    """Key of a Rekor v2 log. The id depends on the key type.

    SPEC signed-note, Ed25519 (type 0x01): SHA-256(name || 0x0A || 0x01 || 32-byte key).
    rekor-tiles note.go: ECDSA is SHA-256(SPKI) with no name; RSA hashes name, 0xFF, an algorithm name and SPKI.
    """
    name = checked_name(name)
    public_key = load_public_key(spki)
    if isinstance(public_key, ed25519.Ed25519PublicKey):
        log_id = sha256(name.encode() + b"\n\x01" + raw_ed25519(public_key)).digest()
    elif isinstance(public_key, ec.EllipticCurvePublicKey):
        log_id = sha256(spki).digest()
    else:
        log_id = sha256(name.encode() + b"\n\xffPKIX-RSA-PKCS#1v1.5" + spki).digest()
    return NoteKey(name, log_id[:KEY_ID_SIZE], log_id, spki, _verify_with(public_key))


def split_vkey(vkey: str, sizes: Mapping[int, int]) -> tuple[str, bytes, int, bytes]:
    """Split a verifier key into name, 4-byte key id, type byte and key; `sizes` has the key's bytes by type.

    Does not compare the key id with name and key: the id covers other parts for each type. Raises `MalformedNote`.
    """
    match = _VKEY.fullmatch(vkey) if isinstance(vkey, str) and len(vkey) <= MAX_NOTE_SIZE else None
    if not match:
        raise MalformedNote(f"verifier key is not name+key id+base64: {vkey!r:.120}")
    name, key_id, encoded = match.groups()
    try:
        blob = base64.b64decode(encoded, validate=True)
    except binascii.Error as error:
        raise MalformedNote(f"verifier key is not base64: {vkey!r:.120}") from error
    if base64.b64encode(blob).decode() != encoded:
        raise MalformedNote(f"verifier key is not canonical base64: {vkey!r:.120}")
    if len(blob) - 1 != sizes.get(blob[0]):
        wanted = " or ".join(f"a {size}-byte key of type {key_type:#04x}" for key_type, size in sizes.items())
        raise MalformedNote(f"verifier key is not {wanted}: {vkey!r:.120}")
    return checked_name(name), bytes.fromhex(key_id), blob[0], blob[1:]


def load_public_key(spki: bytes) -> ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey | rsa.RSAPublicKey:
    """Load a log's SubjectPublicKeyInfo DER. Raises `MalformedNote` for anything but Ed25519, ECDSA or RSA."""
    # It brings OpenSSH's formats, a twentieth of the start of a command that reads no key.
    from cryptography.hazmat.primitives.serialization import load_der_public_key  # noqa: PLC0415

    try:
        public_key: PublicKeyTypes = load_der_public_key(spki)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise MalformedNote("log key is not a SubjectPublicKeyInfo") from error
    if isinstance(public_key, ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
        return public_key
    raise MalformedNote(f"log key type {type(public_key).__name__} is not one a log signs with")


def raw_ed25519(public_key: ed25519.Ed25519PublicKey) -> bytes:
    """Return the 32 bytes of an Ed25519 key."""
    return public_key.public_bytes_raw()


def verify_signature(
    public_key: ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey | rsa.RSAPublicKey, message: bytes, blob: bytes
) -> None:
    """Check a signature as logs make them: Ed25519 over the message, ECDSA and RSA over its SHA-256.

    Raises `cryptography`'s `InvalidSignature`.
    """
    if isinstance(public_key, ed25519.Ed25519PublicKey):
        public_key.verify(blob, message)
    elif isinstance(public_key, ec.EllipticCurvePublicKey):
        public_key.verify(blob, message, ec.ECDSA(SHA256()))
    else:
        public_key.verify(blob, message, padding.PKCS1v15(), SHA256())


def _verify_with(
    public_key: ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey | rsa.RSAPublicKey,
) -> Callable[[bytes, bytes], None]:
    return lambda message, blob: verify_signature(public_key, message, blob)


def checked_name(name: str) -> str:
    """Return `name` if notes can be signed under it. Raises `MalformedNote`."""
    # SPEC c2sp signed-note forbids spaces; Rekor v1's key name is the bare host although its origin has " - tree id".
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise MalformedNote(f"key name is empty, or holds a space, a plus or a control character: {name!r:.120}")
    return name


# SPEC tlog-checkpoint: "The number of leaves ... encoded as an ASCII decimal with no leading zeroes".
_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,18}")
_HEADER_LINES: Final = 3


class MalformedCheckpoint(ValueError):
    """The text is signed, but it is no checkpoint."""


class Checkpoint(Struct, frozen=True):
    """The key's statement: tree `size` in leaves and the 32-byte `root`, under the log's `origin`.

    `raw` is the whole signed note, byte for byte: the evidence.
    """

    origin: str
    size: int
    root: RootHash
    extensions: tuple[str, ...]
    raw: bytes


def parse_checkpoint(note: Note) -> Checkpoint:
    """Read a checkpoint out of a note that was opened with the log's key. Raises `MalformedCheckpoint`.

    Does not compare the origin with the expected one: `Checkpoint.origin` is the log's claim.
    """
    return claimed_checkpoint(note)


def claimed_checkpoint(note: Note | UnverifiedNote) -> Checkpoint:
    """Read a checkpoint out of a note, verified or not. Raises `MalformedCheckpoint`."""
    lines = note.text.decode("utf-8")[:-1].split("\n")
    if len(lines) < _HEADER_LINES or not all(lines):
        raise MalformedCheckpoint("a checkpoint has origin, size and root, and no empty line")
    origin, size_line, root_line, *extensions = lines
    size = parse_tree_size(size_line)
    root = _parse_root(root_line)
    if size == 0 and root != EMPTY_ROOT:
        raise MalformedCheckpoint("a tree of size 0 has the hash of the empty string as its root")
    return Checkpoint(origin, size, root, tuple(extensions), note.raw)


def parse_tree_size(line: str) -> int:
    """Read a tree size: a plain decimal, below 2^63. Raises `MalformedCheckpoint`."""
    if not isinstance(line, str) or not _SIZE.fullmatch(line) or int(line) > MAX_TREE_SIZE:
        raise MalformedCheckpoint(f"tree size is not a plain decimal below 2^63: {line!r:.60}")
    return int(line)


def _parse_root(line: str) -> RootHash:
    try:
        root = base64.b64decode(line, validate=True)
    except (binascii.Error, ValueError) as error:
        raise MalformedCheckpoint(f"root hash is not base64: {line!r:.60}") from error
    # With a second spelling of the same bytes one head could look like two.
    if len(root) != HASH_SIZE or base64.b64encode(root).decode() != line:
        raise MalformedCheckpoint(f"root hash is not canonical base64 of {HASH_SIZE} bytes: {line!r:.60}")
    return RootHash(root)
