"""The log's private keys: made once and stored as PKCS#8 PEM files that only their owner can read."""

import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from msgspec import Struct

LogPrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


class KeyUnusable(Exception):
    """A key file is missing, damaged, or not of the type this log signs with."""


class LogKey(Struct, frozen=True):
    """A private key and its SubjectPublicKeyInfo DER. Signs with plain Ed25519, or with ECDSA over SHA-256."""

    private: LogPrivateKey
    spki: bytes

    def sign(self, message: bytes) -> bytes:
        """Signature over `message`; ECDSA as DER."""
        if isinstance(self.private, ed25519.Ed25519PrivateKey):
            return self.private.sign(message)
        return self.private.sign(message, ec.ECDSA(SHA256()))

    @property
    def key_details(self) -> str:
        """Name of the key type in Sigstore's trust files (protobuf-specs PublicKeyDetails)."""
        return "PKIX_ED25519" if isinstance(self.private, ed25519.Ed25519PrivateKey) else "PKIX_ECDSA_P256_SHA_256"

    def public_pem(self) -> bytes:
        """SubjectPublicKeyInfo as PEM."""
        return self.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def log_key(private: LogPrivateKey) -> LogKey:
    """Wrap a private key."""
    return LogKey(private, private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def new_ecdsa_key() -> LogKey:
    """Make a P-256 key, which clients require of Rekor v1 and CT logs."""
    return log_key(ec.generate_private_key(ec.SECP256R1()))


def new_ed25519_key() -> LogKey:
    """Make an Ed25519 key, with which a Rekor v2 shard signs checkpoints."""
    return log_key(ed25519.Ed25519PrivateKey.generate())


def write_key(key: LogKey, path: Path) -> None:
    """Write the key, durably and readable by its owner alone. Never overwrites."""
    pem = key.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(file.fileno())


def read_key(path: Path) -> LogKey:
    """Load a key that `write_key` wrote. Raises `KeyUnusable`."""
    try:
        private = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise KeyUnusable(f"cannot read the log's key {path}: {error}") from error
    if not isinstance(private, ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey):
        raise KeyUnusable(f"{path} holds a {type(private).__name__}: a log signs with ECDSA P-256 or Ed25519")
    return log_key(private)
