"""The key that a caller wants certified, and the proof that the caller holds the private half."""

import binascii
from base64 import b64decode
from collections.abc import Collection, Iterable
from typing import Any, Final, cast

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key, load_pem_public_key

from ca_lite.errors import (
    CSR_UNPARSABLE,
    KEY_INSECURE,
    KEY_UNPARSABLE,
    SIGNATURE_INVALID,
    CaRefused,
    bad_request,
)
from sigstore_entries.client_keys import ClientKey

# protobuf-specs' names, as Fulcio's --client-signing-algorithms takes them.
ALGORITHMS: Final = (
    "ecdsa-sha2-256-nistp256",
    "ecdsa-sha2-384-nistp384",
    "ecdsa-sha2-512-nistp521",
    "rsa-sign-pkcs1-2048-sha256",
    "rsa-sign-pkcs1-3072-sha256",
    "rsa-sign-pkcs1-4096-sha256",
    "ed25519",
)
_RSA_BITS: Final = (2048, 3072, 4096)
_CURVES: Final[dict[str, tuple[str, hashes.HashAlgorithm]]] = {
    "secp256r1": ("nistp256", hashes.SHA256()),
    "secp384r1": ("nistp384", hashes.SHA384()),
    "secp521r1": ("nistp521", hashes.SHA512()),
}
_GO_TYPES: Final = ((ec.EllipticCurvePublicKey, "*ecdsa.PublicKey"), (rsa.RSAPublicKey, "*rsa.PublicKey"))
_CSR_LABELS: Final = ("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST")
_CSR_HASHES: Final = ("sha256", "sha384", "sha512")


def parse_public_key(content: bytes) -> ClientKey:
    """Read a PEM or DER SubjectPublicKeyInfo that is strong enough. Raises `CaRefused`."""
    try:
        key = load_pem_public_key(content) if b"-----BEGIN" in content else load_der_public_key(content)
    except UnsupportedAlgorithm as error:
        raise bad_request(KEY_INSECURE, "KEY_INSECURE", f"the key's algorithm is not supported: {error}") from error
    except (ValueError, TypeError) as error:
        raise bad_request(KEY_UNPARSABLE, "KEY_UNPARSABLE", "neither a PEM nor a DER public key") from error
    return checked_key(key)


def checked_key(key: object) -> ClientKey:
    """Key policy: P-256, P-384, P-521, RSA of 2048, 3072 or 4096 bits with exponent 65537, or Ed25519."""
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        return key
    if isinstance(key, rsa.RSAPublicKey) and key.key_size in _RSA_BITS and key.public_numbers().e == 65537:  # noqa: PLR2004
        return key
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    raise bad_request(
        KEY_INSECURE, "KEY_INSECURE", "accepted are P-256, P-384, P-521, RSA of 2048, 3072 or 4096 bits, and Ed25519"
    )


def algorithm_of(key: ClientKey) -> str:
    """Name of the one algorithm this CA lets a key sign with."""
    if isinstance(key, ec.EllipticCurvePublicKey):
        curve, hash_algorithm = _CURVES[key.curve.name]
        return f"ecdsa-sha2-{hash_algorithm.digest_size * 8}-{curve}"
    if isinstance(key, rsa.RSAPublicKey):
        return f"rsa-sign-pkcs1-{key.key_size}-sha256"
    return "ed25519"


def verify_possession(key: ClientKey, proof: bytes, challenges: Iterable[str], permitted: Collection[str]) -> None:
    """Check a signature over one of the challenges (the token's e-mail or subject). Raises `CaRefused`.

    Clients sign the e-mail whenever the token has one. Fulcio expects the subject for other issuer types. The token
    holds both, so either signature is proof.
    """
    if algorithm_of(key) not in permitted:
        raise _not_permitted(key, _hash_of(key))
    # The JSON of a token can hold half of a surrogate pair.
    messages = [challenge.encode("utf-8", "surrogatepass") for challenge in challenges]
    if not proof or not any(_verifies(key, proof, message, _hash_of(key)) for message in messages):
        raise bad_request(
            SIGNATURE_INVALID,
            "PROOF_OF_POSSESSION_INVALID",
            "the proof of possession must be a signature by the supplied key over the token's email or sub claim",
        )


def key_from_csr(raw: bytes, permitted: Collection[str]) -> ClientKey:
    """Key of a PEM certificate signing request whose own signature is the proof. Raises `CaRefused`.

    Order of checks as in Fulcio: parse, key policy, signature, permitted algorithms. Subject and extensions of the
    request are ignored.
    """
    csr = _parse_csr(raw)
    try:
        key = checked_key(csr.public_key())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise bad_request(KEY_INSECURE, "KEY_INSECURE", "the request's key is not supported") from error
    try:
        hash_algorithm = csr.signature_hash_algorithm
    except UnsupportedAlgorithm as error:
        text = f"unrecognized signature algorithm: {csr.signature_algorithm_oid.dotted_string}"
        raise bad_request(text, "CSR_ALGORITHM_UNKNOWN") from error
    try:
        valid = csr.is_signature_valid
    except (ValueError, UnsupportedAlgorithm):
        valid = False
    if not valid:
        raise bad_request(SIGNATURE_INVALID, "CSR_SIGNATURE_INVALID", "the request's own signature does not verify")
    _check_csr_algorithm(key, hash_algorithm, permitted)
    return key


def _parse_csr(raw: bytes) -> x509.CertificateSigningRequest:
    for label in _CSR_LABELS:
        if f"-----BEGIN {label}-----".encode() in raw:
            try:
                return x509.load_pem_x509_csr(raw)
            except ValueError as error:
                raise bad_request(CSR_UNPARSABLE, "CSR_UNPARSABLE", "not a certificate signing request") from error
    raise bad_request(CSR_UNPARSABLE, "CSR_UNPARSABLE", "not a PEM CERTIFICATE REQUEST")


def _check_csr_algorithm(key: ClientKey, used: hashes.HashAlgorithm | None, permitted: Collection[str]) -> None:
    if used is not None and used.name not in _CSR_HASHES:
        raise bad_request(f"unrecognized signature algorithm: {used.name}", "CSR_ALGORITHM_UNKNOWN")
    wanted = _hash_of(key)
    if algorithm_of(key) not in permitted or (used is None) != (wanted is None):
        raise _not_permitted(key, used)
    if used is not None and wanted is not None and used.name != wanted.name:
        raise _not_permitted(key, used)


def _not_permitted(key: ClientKey, used: hashes.HashAlgorithm | None) -> CaRefused:
    kind = next((name for cls, name in _GO_TYPES if isinstance(key, cls)), "ed25519.PublicKey")
    text = f"SHA-{used.digest_size * 8}" if used else "none"
    return bad_request(f"signing algorithm not permitted: {kind}, {text}", "ALGORITHM_NOT_PERMITTED")


def _hash_of(key: ClientKey) -> hashes.HashAlgorithm | None:
    if isinstance(key, ec.EllipticCurvePublicKey):
        return _CURVES[key.curve.name][1]
    return hashes.SHA256() if isinstance(key, rsa.RSAPublicKey) else None


def _verifies(key: ClientKey, signature: bytes, message: bytes, algorithm: hashes.HashAlgorithm | None) -> bool:
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, message, ec.ECDSA(cast("hashes.HashAlgorithm", algorithm)))
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, message, padding.PKCS1v15(), cast("hashes.HashAlgorithm", algorithm))
        else:
            key.verify(signature, message)
    except InvalidSignature:
        return False
    return True


def decode_bytes_field(value: Any, refusal: CaRefused) -> bytes:
    """Read a protojson bytes field: standard or URL-safe base64, padded or not. Raises the refusal given."""
    if not isinstance(value, str):
        raise refusal
    text = value.translate(str.maketrans("-_", "+/")).rstrip("=")
    try:
        return b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise refusal from error
