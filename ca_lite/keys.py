"""Private keys on disk, and the key types that may sign certificates."""

import os
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeAlias

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from ca_lite.errors import ConfigError

SigningKey: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

_LIMIT: Final = 256 * 1024
_RSA_BITS: Final = 2048


def spki(key: object) -> bytes:
    """SubjectPublicKeyInfo DER of a public key."""
    der: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]
    return der


def hash_for(key: SigningKey) -> hashes.SHA256 | hashes.SHA384:
    """Hash that goes with a CA key: SHA-384 for P-384, as in production Fulcio, else SHA-256."""
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP384R1):
        return hashes.SHA384()
    return hashes.SHA256()


def generate(kind: str) -> SigningKey:
    """Make a key: `p256`, `p384` or `rsa2048`.

    Ed25519 is refused: sigstore-python cannot verify an SCT whose issuer key is neither RSA nor EC.
    """
    if kind == "p256":
        return ec.generate_private_key(ec.SECP256R1())
    if kind == "p384":
        return ec.generate_private_key(ec.SECP384R1())
    if kind == "rsa2048":
        return rsa.generate_private_key(65537, _RSA_BITS)
    raise ConfigError(f"key kind {kind!r} is not one of p256, p384, rsa2048 (clients reject certificates by others)")


def write_private_key(path: Path, key: SigningKey, passphrase: bytes | None = None) -> None:
    """Store a key as PKCS#8 PEM, readable by the owner only. Never overwrites."""
    encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    write_secret(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))


def read_private_key(path: Path, passphrase: bytes | None = None) -> SigningKey:
    """Load a PKCS#8 PEM key. Raises `ConfigError`."""
    try:
        key = load_pem_private_key(read_limited(path), passphrase)
    except (TypeError, ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{path}: not a private key this program can open ({error}); check the passphrase") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise ConfigError(f"{path}: neither an EC nor an RSA key; Sigstore clients reject what others sign")
    return key


def read_limited(path: Path) -> bytes:
    """Content of one of the CA's own small files. Raises `ConfigError`."""
    try:
        with path.open("rb") as file:
            raw = file.read(_LIMIT + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); run `ca-lite init` or fix the path") from error
    if len(raw) > _LIMIT:
        raise ConfigError(f"{path}: larger than {_LIMIT} bytes, so not a file this program wrote")
    return raw


def write_secret(path: Path, content: bytes) -> None:
    """Create a file only its owner can read. Raises `ConfigError` when it exists."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise ConfigError(f"{path}: exists already; this program never overwrites a key") from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def replace_secret(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read, as `replace_file` does."""
    _replace(path, content, 0o600)


def replace_file(path: Path, content: bytes) -> None:
    """Write a public file atomically: readers see the old or the new content, also after a crash."""
    _replace(path, content, 0o666)


def _replace(path: Path, content: bytes, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def read_chain(path: Path) -> tuple[x509.Certificate, ...]:
    """Load PEM certificates, first to last. Raises `ConfigError`."""
    try:
        return tuple(x509.load_pem_x509_certificates(read_limited(path)))
    except ValueError as error:
        raise ConfigError(f"{path}: not a PEM certificate chain ({error})") from error


def chain_pem(chain: tuple[x509.Certificate, ...]) -> str:
    """Certificates as one PEM text."""
    return "".join(each.public_bytes(Encoding.PEM).decode() for each in chain)


def now() -> datetime:
    """Clock of the programs: the pure parts take the time as a parameter."""
    return datetime.now(UTC)
