"""Minisign signatures (Ed25519 over the file or its BLAKE2b-512, and over a trusted comment), and signify's."""

import base64
import binascii
from hashlib import blake2b
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ed25519

from log_lite.proposals.proposal import Rejected
from log_lite.proposals.signed import VerifiedSignature

_KEY_SIZE: Final = 42  # algorithm 2, key id 8, Ed25519 key 32
_SIGNATURE_SIZE: Final = 74  # algorithm 2, key id 8, signature 64
_TRUSTED: Final = "trusted comment: "
_LINES: Final = 4
_SIGNIFY_LINES: Final = 2
_LEGACY_SIZE: Final = 32
_NO_KEY_ID: Final = bytes(8)


def verify_minisign(data: bytes, signature: bytes, public_key: bytes) -> VerifiedSignature:
    """Check a minisign signature file over `data`, or a signify one of two lines. Raises `Rejected`."""
    key = _read_key(public_key)
    blob, comment, final = _read_signature(signature)
    algorithm, key_id, raw = blob[:2], blob[2:10], blob[10:]
    if algorithm not in {b"Ed", b"ED"}:
        raise Rejected("unknown minisign signature algorithm")
    if key_id != key[2:10] and key[2:10] != _NO_KEY_ID:
        raise Rejected("the minisign signature is by another key")
    message = data if algorithm == b"Ed" else blake2b(data).digest()
    verifier = ed25519.Ed25519PublicKey.from_public_bytes(key[10:])
    try:
        verifier.verify(raw, message)
        if final is not None:
            verifier.verify(final, raw + comment)
    except InvalidSignature as error:
        raise Rejected("verifying signature: invalid minisign signature") from error
    return VerifiedSignature(b"untrusted comment:\n" + base64.b64encode(blob), base64.b64encode(key))


def canonical_minisign_key(public_key: bytes) -> bytes:
    """A key as Rekor logs it: base64 of algorithm, key id and key. Raises `Rejected`."""
    return base64.b64encode(_read_key(public_key))


def _read_signature(signature: bytes) -> tuple[bytes, bytes, bytes | None]:
    """Algorithm with key id and signature; trusted comment, and the signature on it (None for signify's two lines).

    SPEC rekor pkg/pki/minisign: four lines of minisign, or two of signify; the canonical form is the latter, without
    the comments and without a line end.
    """
    lines = signature.decode("utf-8", "replace").rstrip("\n").split("\n")
    if len(lines) == _SIGNIFY_LINES:
        blob, comment, final = _decode(lines[1]), b"", None
    elif len(lines) == _LINES and lines[2].startswith(_TRUSTED):
        blob, comment = _decode(lines[1]), lines[2].rstrip("\r").removeprefix(_TRUSTED).encode()
        final = _decode(lines[3])
    else:
        raise Rejected(
            f"invalid signature provided: {len(lines)} lines detected; signify has two, minisign four, the third of "
            "which is a trusted comment"
        )
    if len(blob) != _SIGNATURE_SIZE:
        raise Rejected(f"invalid signature provided: incorrect size {len(blob)} detected")
    return blob, comment, final


def _read_key(public_key: bytes) -> bytes:
    """Algorithm, key id and key, from a file with a comment, from base64, or from a bare key of 32 bytes."""
    if len(public_key) == _LEGACY_SIZE:
        return b"Ed" + _NO_KEY_ID + public_key
    lines = public_key.decode("utf-8", "replace").strip().splitlines()
    key = _decode(lines[-1] if lines else "")
    if len(key) != _KEY_SIZE or key[:2] != b"Ed":
        raise Rejected("not a minisign public key")
    return key


def _decode(line: str) -> bytes:
    try:
        return base64.b64decode(line.strip(), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Rejected("minisign data is not base64") from error
