"""Whether an entry's signature is that of its key, as far as the entry itself shows.

A log takes an entry only with a signature that verifies. A hashedrekord carries everything that shows it: digest, key
and signature. So does a rekord with an X.509 key. The signatures of dsse, intoto and cose are over a payload that the
entry does not hold, of which a hash is no substitute (the DSSE PAE holds the payload's type and length); those of
packages, PGP, SSH and minisign are over the artifact itself. Nothing is said of these.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import load_der_public_key

from sigstore_entries import der, pem
from sigstore_entries.body import Fields, MalformedBody, read_json
from sigstore_entries.ed25519ph import verify_ed25519ph
from sigstore_entries.keys import pkcs1_spki
from sigstore_entries.signing import Digest, SignatureCheck, Signing
from sigstore_entries.tbs import read_spki_of, split_certificate

_HASHES: Final[Mapping[str, Callable[[], hashes.HashAlgorithm]]] = MappingProxyType(
    {"sha256": hashes.SHA256, "sha384": hashes.SHA384, "sha512": hashes.SHA512}
)
_KINDS: Final = frozenset({"hashedrekord", "rekord"})  # each has one signer
_UNREADABLE: Final = (MalformedBody, pem.MalformedText, der.MalformedDer, UnsupportedAlgorithm, ValueError, TypeError)


def check_signature(body: bytes, signing: Signing, *, at_any_cost: bool = True) -> SignatureCheck:
    """Check the one signature of a decoded entry. Never raises for any bytes; `NOT_CHECKED` where it cannot be told.

    Ed25519ph takes some milliseconds, and is left out unless `at_any_cost`.
    """
    if signing.kind not in _KINDS:
        return SignatureCheck.NOT_CHECKED
    try:
        spec = Fields(read_json(body, "the body"), "body").object("spec")
        found = _parts(spec, signing.kind, signing.version)
        if found is None or not signing.digests:
            return SignatureCheck.NOT_CHECKED
        spki, signature = found
        return _check(spki, signature, signing.digests[0], has_ph=at_any_cost and signing.kind == "hashedrekord")
    except _UNREADABLE:
        return SignatureCheck.NOT_CHECKED


def _parts(spec: Fields, kind: str, version: str) -> tuple[bytes, bytes] | None:
    """SPKI and signature of the kinds that can be checked."""
    if (kind, version) == ("hashedrekord", "0.0.2"):
        signed = spec.object("hashedRekordV002", "signature")
        verifier = signed.object("verifier")
        if "x509Certificate" in verifier:
            return _spki(verifier.object("x509Certificate").bytes("rawBytes")), signed.bytes("content")
        return verifier.object("publicKey").bytes("rawBytes"), signed.bytes("content")
    signature = spec.object("signature") if kind in {"hashedrekord", "rekord"} else None
    if signature is None or (kind == "rekord" and signature.text("format") != "x509"):
        return None
    block = pem.blocks(signature.object("publicKey").bytes("content"), "the key")[0]
    if block.label == "CERTIFICATE":
        return _spki(block.content), signature.bytes("content")
    return pkcs1_spki(block.content) if block.label == "RSA PUBLIC KEY" else block.content, signature.bytes("content")


def _spki(certificate: bytes) -> bytes:
    return read_spki_of(split_certificate(certificate).encoded)


def _check(spki: bytes, signature: bytes, digest: Digest, *, has_ph: bool) -> SignatureCheck:
    key, algorithm = load_der_public_key(spki), _HASHES.get(digest.algorithm)
    value = bytes.fromhex(digest.value)
    if algorithm is None:
        return SignatureCheck.NOT_CHECKED
    prehashed = Prehashed(algorithm())
    match key:
        case ec.EllipticCurvePublicKey():
            ok = _verifies(lambda: key.verify(signature, value, ec.ECDSA(prehashed)))
        case rsa.RSAPublicKey():
            # Rekor v1 takes PKCS #1 v1.5 alone; rekor-tiles may be configured for PSS.
            pss = padding.PSS(padding.MGF1(algorithm()), padding.PSS.AUTO)
            ok = _verifies(lambda: key.verify(signature, value, padding.PKCS1v15(), prehashed)) or _verifies(
                lambda: key.verify(signature, value, pss, prehashed)
            )
        case ed25519.Ed25519PublicKey() if has_ph and digest.algorithm == "sha512":
            # Both versions of Rekor: "Ed25519ph" for a hashedrekord, because the log never sees the message.
            ok = verify_ed25519ph(key.public_bytes_raw(), signature, value)
        case _:
            return SignatureCheck.NOT_CHECKED
    return SignatureCheck.VERIFIED if ok else SignatureCheck.WRONG


def _verifies(verify: Callable[[], None]) -> bool:
    try:
        verify()
    except InvalidSignature:
        return False
    return True
