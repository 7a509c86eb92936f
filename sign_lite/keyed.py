"""Verifies bundles that a bare key signed: the signature, and that a log of the trusted root has the entry for it.

The `sigstore` package verifies bundles with a certificate only. The caller decides whether to trust the key, for which
a certificate would otherwise speak.
"""

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from msgspec import Struct

from sign_lite.errors import Misuse, VerificationFailed
from sign_lite.files import Artifact
from sigstore_entries.bundle_file import BUNDLE_0_1, HeldBundle, NoBundle, decoded
from sigstore_entries.client_keys import HASHES, ClientKey, hashes_of, signed_digest, signed_message
from sigstore_entries.entry_binding import NotBound, bound_entry
from sigstore_entries.logged_entry import NotLogged, entry_timestamp, log_of, proven_entry
from sigstore_entries.release import pre_authentication
from sigstore_entries.signing import Signing


def load_key(pem: bytes, what: str) -> ClientKey:
    """Read a public key in PEM: ECDSA, Ed25519 or RSA. Raises `Misuse`."""
    try:
        loaded = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Misuse(f"{what}: not a public key in PEM") from error
    if not isinstance(loaded, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey):
        raise Misuse(f"{what}: a {type(loaded).__name__} signs no bundles")
    return loaded


def verify_with_key(
    held: HeldBundle, artifact: Artifact, trusted_root: Mapping[str, Any], key: ClientKey
) -> tuple[str, bytes] | None:
    """Prove that the key signed the file of these digests, or an envelope, and that a log has it.

    Returns payload type and payload of an envelope: the caller must check that the payload is about the file. Raises
    `VerificationFailed`.
    """
    try:
        entry = _only_entry(held)
        envelope = held.document.get("dsseEnvelope")
        signed = check_envelope(envelope, key) if envelope else check_message(held, artifact, key)
        body = decoded(entry.get("canonicalizedBody"), "the body of its log entry")
        check_logged(entry, trusted_root, needs_proof=held.document.get("mediaType") != BUNDLE_0_1)
        _check_body(body, key, held.signature, signed)
    except VerificationFailed:
        raise
    except (NoBundle, AttributeError, KeyError, TypeError, ValueError) as error:
        raise VerificationFailed(f"the bundle lacks or garbles a field: {error!s:.200}") from error
    if not envelope:
        return None
    return str(envelope.get("payloadType")), decoded(envelope.get("payload"), "the payload")


def _only_entry(held: HeldBundle) -> Mapping[str, Any]:
    if held.certificates:
        raise VerificationFailed("it was signed with a certificate: say --identity and --issuer in place of --key")
    if len(held.entries) != 1:
        raise VerificationFailed(f"it holds {len(held.entries)} log entries; one is wanted")
    return held.entries[0]


def check_message(held: HeldBundle, artifact: Artifact, key: ClientKey) -> Mapping[str, str]:
    """Check a signature over a file; returns the digests that its log entry may contain, by the content they cover."""
    told = held.document["messageSignature"].get("messageDigest") or {}
    # SPEC protobuf-specs sigstore_common.proto: the digest is a hint; the signature is over the file's own digest.
    hint = decoded(told.get("digest"), "the message digest") if told else None
    names = [name for name in hashes_of(key) if hint is None or len(hint) == HASHES[name].digest_size]
    known = [(name, digest) for name in names if (digest := artifact.digest(name)) is not None]
    if names and not known:
        raise VerificationFailed(f"it signs the {names[0].upper()} of the file: give the file in place of its SHA-256")
    if hint is not None and hint not in [digest for _, digest in known]:
        raise VerificationFailed("the bundle is of another file: its message digest differs")
    for name, digest in known:
        if signed_digest(key, digest, name, held.signature):
            return {"artifact": digest.hex()}
    raise VerificationFailed("the key did not sign this file")


def check_envelope(envelope: Mapping[str, Any], key: ClientKey) -> Mapping[str, str]:
    """Check a DSSE envelope's one signature. SPEC DSSE v1: PAE is "DSSEv1", then lengths and texts."""
    signatures = envelope["signatures"]
    if len(signatures) != 1:
        raise VerificationFailed(f"the envelope has {len(signatures)} signatures; one is wanted")
    payload = decoded(envelope["payload"], "the payload")
    pae = pre_authentication(str(envelope["payloadType"]), payload)
    signed = signed_message(key, pae, decoded(signatures[0]["sig"], "the signature"))
    if signed is None:
        raise VerificationFailed("the key did not sign this envelope")
    return {"artifact": signed, "payload": hashlib.sha256(payload).hexdigest()}


def check_logged(entry: Mapping[str, Any], trusted_root: Mapping[str, Any], *, needs_proof: bool) -> bool:
    """Check inclusion proof and checkpoint, and the signed entry timestamp. True if the entry has a timestamp.

    SPEC protobuf-specs sigstore_bundle.proto: a bundle of version 0.1 has the timestamp, and its proof may lack the
    checkpoint; every later one has both proof and checkpoint.
    """
    try:
        log = log_of(entry, map(_RootLog, trusted_root.get("tlogs") or ()))
        has_promise = entry_timestamp(entry, log) is not None
        proof = entry.get("inclusionProof")
        has_proof = bool(proof and (proof.get("checkpoint") or {}).get("envelope"))
        if not has_proof and (needs_proof or not has_promise):
            raise VerificationFailed("its log entry has no inclusion proof with a checkpoint")
        if has_proof:
            # SPEC protobuf-specs sigstore_rekor.proto: the root is a field of the proof as well.
            decoded(entry["inclusionProof"].get("rootHash"), "the root of the proof")
            proven_entry(entry, log)
    except NotLogged as error:
        raise VerificationFailed(str(error)) from error
    return has_promise


class _RootLog(Struct, frozen=True):
    """A log of a trusted root in JSON. Each field is read when used, so that other logs' defects fail no entry."""

    document: Mapping[str, Any]

    @property
    def log_id(self) -> bytes:
        return decoded((self.document.get("logId") or {}).get("keyId"), "a log's id in the trusted root")

    @property
    def spki(self) -> bytes:
        return decoded(self.document["publicKey"]["rawBytes"], "the log's key")

    @property
    def valid_from(self) -> datetime | None:
        return self._bound("start")

    @property
    def valid_until(self) -> datetime | None:
        return self._bound("end")

    def _bound(self, name: str) -> datetime | None:
        told = (self.document["publicKey"].get("validFor") or {}).get(name)
        return datetime.fromisoformat(told) if told else None


def _check_body(body: bytes, key: ClientKey, signature: bytes, signed: Mapping[str, str]) -> None:
    told = check_entry(body, signature, signed)
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if [hashlib.sha256(spki).hexdigest()] != [name for each in told.signers for name in each.fingerprints]:
        raise VerificationFailed("the log entry is of another key")


def check_entry(body: bytes, signature: bytes, signed: Mapping[str, str]) -> Signing:
    """Check that a log entry is of this very signature and content. Raises `VerificationFailed`."""
    try:
        return bound_entry(body, signature, signed)
    except NotBound as error:
        raise VerificationFailed(str(error)) from error
