"""Verifies bundles that a bare key signed: the signature, and that a log of the trusted root has the entry for it.

The `sigstore` package verifies bundles with a certificate only. Whose the key is, and that it may sign, the caller
says: a certificate would say it otherwise.
"""

import base64
import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import rfc8785
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from sign_lite.errors import Misuse, VerificationFailed
from sigstore_entries.bundle_file import BUNDLE_0_1, HeldBundle, NoBundle, decoded
from sigstore_entries.entry_binding import NotBound, bound_entry
from sigstore_entries.release import pre_authentication
from sigstore_entries.signing import Signing
from tlog.checkpoint import MalformedCheckpoint, parse_checkpoint, parse_tree_size
from tlog.merkle import NodeHash, ProofInvalid, leaf_hash, verify_inclusion
from tlog.note import (
    BadSignature,
    MalformedNote,
    NoteKey,
    load_public_key,
    open_note,
    parse_note,
    rekor_v1_key,
    tile_log_key,
    verify_signature,
)

_V1_MARK: Final = " - "
PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey


def load_key(pem: bytes, what: str) -> PublicKey:
    """Read a public key in PEM: ECDSA, Ed25519 or RSA. Raises `Misuse`."""
    try:
        loaded = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Misuse(f"{what}: not a public key in PEM") from error
    if not isinstance(loaded, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey):
        raise Misuse(f"{what}: a {type(loaded).__name__} signs no bundles")
    return loaded


def verify_with_key(
    held: HeldBundle, digest: bytes, trusted_root: Mapping[str, Any], key: PublicKey
) -> tuple[str, bytes] | None:
    """Prove that the key signed the file of this SHA-256, or an envelope, and that a log has it.

    Returns payload type and payload of an envelope: whether it is about the file is for the caller to say. Raises
    `VerificationFailed`.
    """
    try:
        entry = _only_entry(held)
        envelope = held.document.get("dsseEnvelope")
        signed = check_envelope(envelope, key) if envelope else check_message(held, digest, key)
        body = decoded(entry.get("canonicalizedBody"), "the body of its log entry")
        check_logged(entry, body, trusted_root, needs_proof=held.document.get("mediaType") != BUNDLE_0_1)
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


def check_message(held: HeldBundle, digest: bytes, key: PublicKey) -> Mapping[str, str]:
    """Check a signature over a file; returns the digests that a log entry of it may have, by what they are of."""
    message = held.document["messageSignature"]
    told = message.get("messageDigest") or {}
    if told and decoded(told.get("digest"), "the message digest") != digest:
        raise VerificationFailed("the bundle is of another file: its message digest differs")
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(held.signature, digest, ec.ECDSA(Prehashed(SHA256())))
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(held.signature, digest, padding.PKCS1v15(), Prehashed(SHA256()))
        else:
            raise VerificationFailed("an Ed25519 signature of a file is over the file itself, and is not verified here")
    except InvalidSignature as error:
        raise VerificationFailed("the key did not sign this file") from error
    return {"artifact": digest.hex()}


def check_envelope(envelope: Mapping[str, Any], key: PublicKey) -> Mapping[str, str]:
    """Check a DSSE envelope's one signature. SPEC DSSE v1: PAE is "DSSEv1", then lengths and texts."""
    signatures = envelope["signatures"]
    if len(signatures) != 1:
        raise VerificationFailed(f"the envelope has {len(signatures)} signatures; one is wanted")
    payload = decoded(envelope["payload"], "the payload")
    pae = pre_authentication(str(envelope["payloadType"]), payload)
    try:
        verify_signature(key, pae, decoded(signatures[0]["sig"], "the signature"))
    except InvalidSignature as error:
        raise VerificationFailed("the key did not sign this envelope") from error
    return {"artifact": hashlib.sha256(pae).hexdigest(), "payload": hashlib.sha256(payload).hexdigest()}


def check_logged(entry: Mapping[str, Any], body: bytes, trusted_root: Mapping[str, Any], *, needs_proof: bool) -> None:
    """Check inclusion proof and checkpoint, and the signed entry timestamp if there is one.

    SPEC protobuf-specs sigstore_bundle.proto: a bundle of version 0.1 has the timestamp, and its proof may lack the
    checkpoint; every later one has both proof and checkpoint.
    """
    log_id = decoded(entry["logId"]["keyId"], "the log's id")
    log = next((each for each in trusted_root.get("tlogs") or () if _id_of(each) == log_id), None)
    if log is None:
        raise VerificationFailed(f"the trusted root knows no log with key id {log_id.hex()[:16]}…")
    spki = decoded(log["publicKey"]["rawBytes"], "the log's key")
    promise = (entry.get("inclusionPromise") or {}).get("signedEntryTimestamp")
    proof = entry.get("inclusionProof")
    has_proof = bool(proof and (proof.get("checkpoint") or {}).get("envelope"))
    if not has_proof and (needs_proof or not promise):
        raise VerificationFailed("its log entry has no inclusion proof with a checkpoint")
    if promise:
        _check_promise(entry, body, log_id, spki, decoded(promise, "the signed entry timestamp"))
        _check_period(log, int(entry.get("integratedTime") or 0))
    if proof and has_proof:
        _check_proof(proof, body, log_id, spki)


def _check_promise(entry: Mapping[str, Any], body: bytes, log_id: bytes, spki: bytes, signature: bytes) -> None:
    told: dict[str, str | int] = {
        "body": base64.b64encode(body).decode(),
        "integratedTime": int(entry.get("integratedTime") or 0),
        "logID": log_id.hex(),
        "logIndex": int(entry.get("logIndex") or 0),
    }
    try:
        verify_signature(load_public_key(spki), rfc8785.dumps({**told}), signature)
    except (InvalidSignature, MalformedNote, rfc8785.CanonicalizationError) as error:
        raise VerificationFailed("the log did not sign the entry timestamp of the bundle") from error


def _check_period(log: Mapping[str, Any], seconds: int) -> None:
    """SPEC protobuf-specs TimeRange: both ends are inside it."""
    at, valid = datetime.fromtimestamp(seconds, UTC), log["publicKey"].get("validFor") or {}
    bounds = [datetime.fromisoformat(valid[name]) if valid.get(name) else None for name in ("start", "end")]
    if (bounds[0] and at < bounds[0]) or (bounds[1] and at > bounds[1]):
        raise VerificationFailed(f"the log's key was not valid at {at.isoformat()}, when the log took the entry")


def _check_proof(proof: Mapping[str, Any], body: bytes, log_id: bytes, spki: bytes) -> None:
    raw = str(proof["checkpoint"]["envelope"]).encode()
    try:
        checkpoint = parse_checkpoint(open_note(raw, _note_key(raw, log_id, spki)))
        index = parse_tree_size(str(proof.get("logIndex", 0)))
        if decoded(proof.get("rootHash"), "the root of the proof") != checkpoint.root:
            raise VerificationFailed("the inclusion proof names another root than its checkpoint")
        hashes = [NodeHash(decoded(each, "a hash of the proof")) for each in proof.get("hashes", [])]
        verify_inclusion(index, checkpoint.size, leaf_hash(body), hashes, checkpoint.root)
    except (BadSignature, MalformedNote, MalformedCheckpoint) as error:
        raise VerificationFailed(f"the checkpoint of the bundle is not the log's: {error!s:.200}") from error
    except ProofInvalid as error:
        raise VerificationFailed(f"the inclusion proof does not lead to the signed checkpoint: {error}") from error


def _note_key(raw: bytes, log_id: bytes, spki: bytes) -> NoteKey:
    """The log's key under the name that the checkpoint claims. Raises `MalformedNote` where the log's id denies it."""
    origin = parse_note(raw).text.split(b"\n", 1)[0].decode()
    host, is_v1, _ = origin.partition(_V1_MARK)
    key = rekor_v1_key(host, spki) if is_v1 else tile_log_key(origin, spki)
    if key.log_id != log_id:
        raise MalformedNote(f"{origin!r:.120} is no name of the log")
    return key


def _check_body(body: bytes, key: PublicKey, signature: bytes, signed: Mapping[str, str]) -> None:
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


def _id_of(log: Mapping[str, Any]) -> bytes:
    return decoded((log.get("logId") or {}).get("keyId"), "a log's id in the trusted root")
