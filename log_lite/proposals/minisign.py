"""Minisign signatures: Ed25519 over the file, or over its BLAKE2b-512, with a trusted comment signed on top."""

import base64
import binascii
from hashlib import blake2b
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ed25519

from log_lite.proposals.proposal import Rejected
from log_lite.proposals.signed import Signed

_KEY_SIZE: Final = 42  # algorithm 2, key id 8, Ed25519 key 32
_SIGNATURE_SIZE: Final = 74  # algorithm 2, key id 8, signature 64
_LINES: Final = 4


def verify_minisign(data: bytes, signature: bytes, public_key: bytes) -> Signed:
    """Check a minisign signature file over `data`. Raises `Rejected`."""
    key_text, key = _read_key(public_key)
    lines = signature.decode("utf-8", "replace").splitlines()
    if len(lines) != _LINES or not lines[2].startswith("trusted comment: "):
        raise Rejected("a minisign signature file has four lines, the third a trusted comment")
    blob, final = _decode(lines[1]), _decode(lines[3])
    algorithm, key_id, raw = blob[:2], blob[2:10], blob[10:]
    if len(blob) != _SIGNATURE_SIZE or algorithm not in {b"Ed", b"ED"}:
        raise Rejected("unknown minisign signature algorithm")
    if key_id != key[2:10]:
        raise Rejected("the minisign signature is by another key")
    message = data if algorithm == b"Ed" else blake2b(data).digest()
    verifier = ed25519.Ed25519PublicKey.from_public_bytes(key[10:])
    try:
        verifier.verify(raw, message)
        verifier.verify(final, raw + lines[2].removeprefix("trusted comment: ").encode())
    except InvalidSignature as error:
        raise Rejected("verifying signature: invalid minisign signature") from error
    return Signed(("\n".join(lines) + "\n").encode(), key_text)


def _read_key(public_key: bytes) -> tuple[bytes, bytes]:
    lines = public_key.decode("utf-8", "replace").strip().splitlines()
    encoded = lines[-1].strip() if lines else ""
    key = _decode(encoded)
    if len(key) != _KEY_SIZE or key[:2] != b"Ed":
        raise Rejected("not a minisign public key")
    return encoded.encode(), key


def _decode(line: str) -> bytes:
    try:
        return base64.b64decode(line, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Rejected("minisign data is not base64") from error
