"""The key that made an entry's signature, as far as the entry itself shows.

A log must verify the signature of each entry. A hashedrekord holds all inputs of this check: digest, key and
signature. So does a rekord with an X.509 key. The signatures of dsse, intoto and cose are over a payload that the
entry does not hold, and a hash cannot replace it (the DSSE PAE holds the payload's type and length); those of
packages, SSH and minisign are over the artifact itself. These are not checked.

A tuf entry and a timestamp list keys and certificates, of which only some signed: any person can list another
person's key, and Rekor verifies no timestamp. Each key is compared with the signatures in the entry. An OpenPGP ring is
such a list as well (`sigstore_entries.openpgp`).
"""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import load_der_public_key
from msgspec.structs import replace

from sigstore_entries import der
from sigstore_entries.body import BodyObject, MalformedBody, MalformedText, blocks, read_json
from sigstore_entries.der import read_spki_of, split_certificate
from sigstore_entries.ed25519ph import verify_ed25519ph
from sigstore_entries.entry import outline_signature
from sigstore_entries.keys import pkcs1_spki
from sigstore_entries.signing import Digest, SignatureCheck, Signer, SignerForm, Signing
from sigstore_entries.timestamp import signed_content
from sigstore_entries.tuf_metadata import public_keys, signed_metadata

_HASHES: Final[Mapping[str, Callable[[], hashes.HashAlgorithm]]] = MappingProxyType(
    {"sha1": hashes.SHA1, "sha256": hashes.SHA256, "sha384": hashes.SHA384, "sha512": hashes.SHA512}
)
# Made once: making them takes a tenth of the time of a verification.
_PREHASHED: Final = {each: Prehashed(each()) for each in _HASHES.values()}
_ECDSA_PREHASHED: Final = {each: ec.ECDSA(value) for each, value in _PREHASHED.items()}
_OF_TUF: Final = frozenset({"sha256"})  # TUF 5.2: rsassa-pss-sha256, ecdsa-sha2-nistp256
_MAX_TRIED: Final = 16  # signatures under one key: real metadata has one
_KINDS: Final = frozenset({"hashedrekord", "rekord"})  # entries of these kinds have one signer
_UNREADABLE: Final = (MalformedBody, MalformedText, der.MalformedDer, UnsupportedAlgorithm, ValueError, TypeError)


def check_signers(body: bytes, signing: Signing, at_any_cost: Callable[[Signer], bool] = lambda _: True) -> Signing:
    """The signing with `Signer.signature` set. Never raises for any bytes.

    It is `NOT_CHECKED` if the entry does not decide it. Ed25519ph takes some milliseconds, and is skipped for a
    signer for which `at_any_cost` is false.
    """
    if signing.kind in _LISTS:
        return _among_listed(body, signing)
    signers = (
        dataclasses.replace(each, signature=_check_only(body, signing, at_any_cost=at_any_cost(each)))
        for each in signing.signers
    )
    return replace(signing, signers=tuple(signers))


def has_wrong_signature(body: bytes, signing: Signing) -> bool:
    """True if the entry's key did not make its signature, so that the log should have refused the entry."""
    return any(each.signature is SignatureCheck.WRONG for each in check_signers(body, signing).signers)


def _among_listed(body: bytes, signing: Signing) -> Signing:
    """Distinguish the keys that made the entry's signatures from those that are only listed in it."""
    try:
        spec = BodyObject(read_json(body, "the body"), "body").object("spec")
        checks = _LISTS[signing.kind](spec, signing)
    except (*_UNREADABLE, KeyError, IndexError, RecursionError):
        checks = {}
    signers = []
    for each in signing.signers:
        check = next((checks[key] for key in each.fingerprints if key in checks), SignatureCheck.NOT_CHECKED)
        signers.append(
            dataclasses.replace(
                each,
                signature=SignatureCheck.VERIFIED if check is SignatureCheck.VERIFIED else SignatureCheck.NOT_CHECKED,
                only_listed=each.fingerprints if check is SignatureCheck.WRONG else (),
                maybe_signed=each.fingerprints if check is SignatureCheck.NOT_CHECKED else (),
            )
        )
    return replace(signing, signers=tuple(signers))


def _of_metadata(spec: BodyObject, _: Signing) -> Mapping[str, SignatureCheck]:
    message, made = signed_metadata(spec)
    return {
        fingerprint: _of_any(spki, message, made.get(fingerprint, ()), _OF_TUF)
        for fingerprint, spki in public_keys(spec).items()
    }


def _of_time_stamp(spec: BodyObject, signing: Signing) -> Mapping[str, SignatureCheck]:
    signed = signed_content(spec.object("tsr").bytes("content"))
    return {
        fingerprint: _of_any(_spki(signer.certificate), signed.message, (signed.signature,), signed.algorithms)
        for signer in signing.signers
        if signer.certificate is not None
        for fingerprint in signer.fingerprints[:1]
    }


def _of_any(spki: bytes, message: bytes, signatures: Sequence[bytes], algorithms: Collection[str]) -> SignatureCheck:
    """Check if this key made one of the signatures over the message, under one of these hashes."""
    if len(signatures) > _MAX_TRIED:
        return SignatureCheck.NOT_CHECKED
    try:
        key = load_der_public_key(spki)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return SignatureCheck.NOT_CHECKED
    for signature in signatures:
        match key:
            case ed25519.Ed25519PublicKey():
                if _verifies(partial(key.verify, signature, message)):
                    return SignatureCheck.VERIFIED
            case ec.EllipticCurvePublicKey() | rsa.RSAPublicKey():
                for algorithm in (_HASHES[name] for name in algorithms):
                    value = _hash_of(algorithm, message)
                    if _check_prehashed(key, signature, value, algorithm):
                        return SignatureCheck.VERIFIED
            case _:
                return SignatureCheck.NOT_CHECKED
    return SignatureCheck.WRONG


def _check_only(body: bytes, signing: Signing, *, at_any_cost: bool) -> SignatureCheck:
    if signing.kind not in _KINDS:
        return SignatureCheck.NOT_CHECKED
    try:
        found = _outlined(body, signing)
        if found is None:
            spec = BodyObject(read_json(body, "the body"), "body").object("spec")
            found = _parts(spec, signing.kind, signing.version)
        if found is None or not signing.digests:
            return SignatureCheck.NOT_CHECKED
        spki, signature = found
        return _check(spki, signature, signing.digests[0], has_ph=at_any_cost and signing.kind == "hashedrekord")
    except _UNREADABLE:
        return SignatureCheck.NOT_CHECKED


def _outlined(body: bytes, signing: Signing) -> tuple[bytes, bytes] | None:
    """SPKI and signature of a hashedrekord in its usual form, without reading JSON and certificate once more."""
    found = outline_signature(body, signing.version) if signing.kind == "hashedrekord" else None
    if found is None or found[1].form is not SignerForm.CERTIFICATE:
        return None
    signature, shown = found
    (signer,) = signing.signers
    is_same = signer.tbs is not None and signer.certificate == shown.haystack
    return (signer.tbs.spki if signer.tbs is not None and is_same else _spki(shown.haystack)), signature


def _parts(spec: BodyObject, kind: str, version: str) -> tuple[bytes, bytes] | None:
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
    block = blocks(signature.object("publicKey").bytes("content"), "the key")[0]
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
    match key:
        case ec.EllipticCurvePublicKey() | rsa.RSAPublicKey():
            ok = _check_prehashed(key, signature, value, algorithm)
        case ed25519.Ed25519PublicKey() if has_ph and digest.algorithm == "sha512":
            # Both versions of Rekor: "Ed25519ph" for a hashedrekord, because the log never sees the message.
            ok = verify_ed25519ph(key.public_bytes_raw(), signature, value)
        case _:
            return SignatureCheck.NOT_CHECKED
    return SignatureCheck.VERIFIED if ok else SignatureCheck.WRONG


def _check_prehashed(
    key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey,
    signature: bytes,
    value: bytes,
    algorithm: Callable[[], hashes.HashAlgorithm],
) -> bool:
    prehashed = _PREHASHED[algorithm]
    if isinstance(key, ec.EllipticCurvePublicKey):
        return _verifies(partial(key.verify, signature, value, _ECDSA_PREHASHED[algorithm]))
    # Rekor v1 takes PKCS #1 v1.5 alone; rekor-tiles may be configured for PSS, TUF uses it.
    pss = padding.PSS(padding.MGF1(algorithm()), padding.PSS.AUTO)
    return _verifies(lambda: key.verify(signature, value, padding.PKCS1v15(), prehashed)) or _verifies(
        lambda: key.verify(signature, value, pss, prehashed)
    )


def _hash_of(algorithm: Callable[[], hashes.HashAlgorithm], message: bytes) -> bytes:
    made = hashes.Hash(algorithm())
    made.update(message)
    return made.finalize()


def _verifies(verify: Callable[[], None]) -> bool:
    try:
        verify()
    except InvalidSignature:
        return False
    return True


# Kinds that list keys or certificates, and the function that finds those that signed.
_LISTS: Final[Mapping[str, Callable[[BodyObject, Signing], Mapping[str, SignatureCheck]]]] = MappingProxyType(
    {"tuf": _of_metadata, "rfc3161": _of_time_stamp}
)
LISTING_KINDS: Final = frozenset(_LISTS)
"""Kinds of entries for which `check_signers` separates the signers from keys that are only listed."""
