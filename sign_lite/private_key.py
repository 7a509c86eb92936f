"""Private keys that sign without a certificate: PKCS#8 in PEM, and cosign's encrypted files."""

import base64
import json
from collections.abc import Callable
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_private_key
from cryptography.hazmat.primitives.serialization import load_pem_private_key as load_pem

from sign_lite.errors import Misuse

# SPEC go-securesystemslib encrypted: JSON in a PEM block of one of these names.
_COSIGN: Final = ("ENCRYPTED SIGSTORE PRIVATE KEY", "ENCRYPTED COSIGN PRIVATE KEY")
_BOX_KEY: Final = 32
# cosign writes N = 65536, r = 8, p = 1 (64 MiB); a file must not make us spend much more.
_MOST_N: Final = 1 << 18
_MOST_R: Final = 16
_MOST_P: Final = 4
_RSA_DETAILS: Final = {2048, 3072, 4096}

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
Password = Callable[[], bytes]
"""Asks for the password of a key, where it has one."""


class KeyPair:
    """A key that signs digests; `details` is its name in protobuf-specs' PublicKeyDetails."""

    def __init__(self, key: PrivateKey, details: str) -> None:
        self._key = key
        self.details = details

    @property
    def public(self) -> ec.EllipticCurvePublicKey | rsa.RSAPublicKey:
        """The public key."""
        return self._key.public_key()

    def spki(self) -> bytes:
        """SubjectPublicKeyInfo DER of the public key."""
        return self.public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def pem(self) -> bytes:
        """The public key in PEM."""
        return self.public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def sign(self, digest: bytes) -> bytes:
        """Sign a SHA-256 digest."""
        if isinstance(self._key, ec.EllipticCurvePrivateKey):
            return self._key.sign(digest, ec.ECDSA(Prehashed(SHA256())))
        return self._key.sign(digest, PKCS1v15(), Prehashed(SHA256()))


def read_key_pair(pem: bytes, what: str, password: Password) -> KeyPair:
    """Read a private key: ECDSA P-256, or RSA of 2048, 3072 or 4096 bits. Raises `Misuse`."""
    try:
        key = _cosign(pem, password) if _is_cosign(pem) else _pkcs8(pem, password)
    except (ValueError, TypeError, KeyError, UnsupportedAlgorithm) as error:
        raise Misuse(f"{what}: not a private key that the password opens: {str(error)[:200]}") from error
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1):
        return KeyPair(key, "PKIX_ECDSA_P256_SHA_256")
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size in _RSA_DETAILS:
        return KeyPair(key, f"PKIX_RSA_PKCS1V15_{key.key_size}_SHA256")
    raise Misuse(
        f"{what}: signing is done with ECDSA on P-256, or RSA of 2048, 3072 or 4096 bits: logs and clients agree on "
        "those; `cosign generate-key-pair` makes one"
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
