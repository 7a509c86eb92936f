"""The hash that clients sign with under each kind of key, and signatures that such a key made.

SPEC sigstore `pkg/signature` algorithm registry: P-256 and RSA with SHA-256, P-384 with SHA-384, P-521 with SHA-512,
Ed25519 as Ed25519ph over SHA-512 where only the digest is logged. Earlier clients hashed with SHA-256 under every
curve, and so does Rekor v1 for an envelope (`dsse` 0.0.1), where Ed25519 is over the envelope itself.
"""

import hashlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm

from sigstore_entries.ed25519ph import verify_ed25519ph

ClientKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey
HASHES: Final[Mapping[str, HashAlgorithm]] = MappingProxyType(
    {"sha256": SHA256(), "sha384": SHA384(), "sha512": SHA512()}
)
_OF_CURVES: Final = MappingProxyType({"secp384r1": ("sha384", "sha256"), "secp521r1": ("sha512", "sha256")})


def hashes_of(key: ClientKey) -> tuple[str, ...]:
    """Names of the hashes that clients sign with under this key, today's first."""
    if isinstance(key, ed25519.Ed25519PublicKey):
        return ("sha512",)
    return _OF_CURVES.get(key.curve.name, ("sha256",)) if isinstance(key, ec.EllipticCurvePublicKey) else ("sha256",)


def signed_digest(key: ClientKey, digest: bytes, name: str, signature: bytes) -> bool:
    """True if the key made the signature over a digest of the hash of this name."""
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, digest, ec.ECDSA(Prehashed(HASHES[name])))
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, digest, padding.PKCS1v15(), Prehashed(HASHES[name]))
        else:
            return name == "sha512" and verify_ed25519ph(key.public_bytes_raw(), signature, digest)
    except InvalidSignature:
        return False
    return True


def signed_message(key: ClientKey, message: bytes, signature: bytes) -> str | None:
    """Digest (hexadecimal) of the message, by the hash under which the key signed it; `None` if it did not."""
    for name in hashes_of(key):
        digest = hashlib.new(name, message)
        if _signed_whole(key, message, signature) or signed_digest(key, digest.digest(), name, signature):
            return digest.hexdigest()
    return None


def _signed_whole(key: ClientKey, message: bytes, signature: bytes) -> bool:
    if not isinstance(key, ed25519.Ed25519PublicKey):
        return False
    try:
        key.verify(signature, message)
    except InvalidSignature:
        return False
    return True
