"""Private keys that sign without a certificate: PKCS#8 in PEM, and cosign's encrypted files."""

import base64
import hashlib
import json
from collections.abc import Callable
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_private_key
from cryptography.hazmat.primitives.serialization import load_pem_private_key as load_pem

from sign_lite.errors import Misuse
from sigstore_entries.client_keys import HASHES, ClientKey, hashes_of
from sigstore_entries.ed25519ph import DOMAIN, verify_ed25519ph

# SPEC go-securesystemslib encrypted: JSON in a PEM block of one of these names.
_COSIGN: Final = ("ENCRYPTED SIGSTORE PRIVATE KEY", "ENCRYPTED COSIGN PRIVATE KEY")
_BOX_KEY: Final = 32
# cosign writes N = 65536, r = 8, p = 1 (64 MiB); a file may not demand much more memory.
_MOST_N: Final = 1 << 18
_MOST_R: Final = 16
_MOST_P: Final = 4
_RSA_DETAILS: Final = {2048, 3072, 4096}

# SPEC protobuf-specs sigstore_common.proto, PublicKeyDetails.
_CURVES: Final = {"secp256r1": "PKIX_ECDSA_P256_SHA_256", "secp384r1": "PKIX_ECDSA_P384_SHA_384"}

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
Password = Callable[[], bytes]
"""Asks for the password of an encrypted key."""


class KeyPair:
    """A key that signs under one hash; `details` is its name in protobuf-specs' PublicKeyDetails."""

    def __init__(self, key: PrivateKey, details: str) -> None:
        self._key = key
        self.details = details
        self.hash_name = hashes_of(self.public)[0]

    @property
    def public(self) -> ClientKey:
        """The public key."""
        return self._key.public_key()

    def spki(self) -> bytes:
        """SubjectPublicKeyInfo DER of the public key."""
        return self.public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def pem(self) -> bytes:
        """The public key in PEM."""
        return self.public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def sign(self, digest: bytes) -> bytes:
        """Sign a digest of `hash_name`."""
        return self._sign(digest, self.hash_name)

    def sign_for_rekor_v1(self, envelope: bytes) -> bytes:
        """Sign an envelope (its PAE) as Rekor v1 verifies it.

        SPEC rekor `pkg/types/dsse/v0.0.1`: `LoadVerifier(key, crypto.SHA256)`, which takes Ed25519 over the message.
        """
        if isinstance(self._key, ed25519.Ed25519PrivateKey):
            return self._key.sign(envelope)
        return self._sign(hashlib.sha256(envelope).digest(), "sha256")

    def _sign(self, digest: bytes, name: str) -> bytes:
        if isinstance(self._key, ec.EllipticCurvePrivateKey):
            return self._key.sign(digest, ec.ECDSA(Prehashed(HASHES[name])))
        if isinstance(self._key, rsa.RSAPrivateKey):
            return self._key.sign(digest, PKCS1v15(), Prehashed(HASHES[name]))
        return sign_ed25519ph(self._key, digest)


def sign_ed25519ph(key: ed25519.Ed25519PrivateKey, digest: bytes) -> bytes:
    """Sign a SHA-512 digest with Ed25519ph (RFC 8032 5.1.6), in constant time, by libsodium.

    Raises `RuntimeError` if the new signature does not verify: a faulty signature can reveal the key.
    """
    # Imported here: most signatures need no key pair.
    from nacl import bindings as sodium  # noqa: PLC0415

    public = key.public_key().public_bytes_raw()
    expanded = bytearray(hashlib.sha512(key.private_bytes_raw()).digest())
    expanded[0] &= 248
    expanded[31] = expanded[31] & 127 | 64
    scalar = sodium.crypto_core_ed25519_scalar_reduce(bytes(expanded[:32]) + bytes(32))
    nonce = sodium.crypto_core_ed25519_scalar_reduce(hashlib.sha512(DOMAIN + bytes(expanded[32:]) + digest).digest())
    point = sodium.crypto_scalarmult_ed25519_base_noclamp(nonce)
    challenge = sodium.crypto_core_ed25519_scalar_reduce(hashlib.sha512(DOMAIN + point + public + digest).digest())
    response = sodium.crypto_core_ed25519_scalar_add(nonce, sodium.crypto_core_ed25519_scalar_mul(challenge, scalar))
    made: bytes = point + response
    if not verify_ed25519ph(public, made, digest):
        raise RuntimeError("an Ed25519ph signature came out wrong and is not used")
    return made


def read_key_pair(pem: bytes, what: str, password: Password) -> KeyPair:
    """Read a private key: ECDSA on P-256 or P-384, Ed25519, RSA of 2048, 3072 or 4096 bits. Raises `Misuse`."""
    try:
        key = _cosign(pem, password) if _is_cosign(pem) else _pkcs8(pem, password)
    except (ValueError, TypeError, KeyError, UnsupportedAlgorithm) as error:
        raise Misuse(f"{what}: not a private key that the password opens: {str(error)[:200]}") from error
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _CURVES:
        return KeyPair(key, _CURVES[key.curve.name])
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size in _RSA_DETAILS:
        return KeyPair(key, f"PKIX_RSA_PKCS1V15_{key.key_size}_SHA256")
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return KeyPair(key, "PKIX_ED25519_PH")
    raise Misuse(
        f"{what}: signing is done with ECDSA on P-256 or P-384, Ed25519, or RSA of 2048, 3072 or 4096 bits: logs and "
        "clients agree on those; `cosign generate-key-pair` makes one"
    )


def _pkcs8(pem: bytes, password: Password) -> object:
    encrypted = b"ENCRYPTED" in pem
    return load_pem(pem, password() if encrypted else None)


def _is_cosign(pem: bytes) -> bool:
    return any(f"-----BEGIN {name}-----".encode() in pem for name in _COSIGN)


def _cosign(pem: bytes, password: Password) -> object:
    """Decrypt a file of `cosign generate-key-pair`: scrypt and NaCl's secretbox. Raises `ValueError`, `KeyError`."""
    # Imported here: most signatures need no key pair.
    from nacl.exceptions import CryptoError  # noqa: PLC0415
    from nacl.secret import SecretBox  # noqa: PLC0415

    lines = [line.strip() for line in pem.decode("ascii", "replace").splitlines() if line.strip()]
    body = base64.b64decode("".join(line for line in lines if not line.startswith("-----") and ":" not in line))
    data: dict[str, Any] = json.loads(body)
    kdf, cipher = data["kdf"], data["cipher"]
    if kdf["name"] != "scrypt" or cipher["name"] != "nacl/secretbox":
        raise ValueError(f"it is encrypted with {kdf['name']!s:.40} and {cipher['name']!s:.40}")
    cost = [int(kdf["params"][name]) for name in ("N", "r", "p")]
    if not (0 < cost[0] <= _MOST_N and 0 < cost[1] <= _MOST_R and 0 < cost[2] <= _MOST_P):
        raise ValueError("its key derivation asks for more memory or time than cosign's does")
    salt, nonce, sealed = (
        base64.b64decode(each, validate=True) for each in (kdf["salt"], cipher["nonce"], data["ciphertext"])
    )
    derived = Scrypt(salt=salt, length=_BOX_KEY, n=cost[0], r=cost[1], p=cost[2]).derive(password())
    try:
        return load_der_private_key(SecretBox(derived).decrypt(sealed, nonce), None)
    except CryptoError as error:
        raise ValueError("the password is wrong, or the file is damaged") from error
