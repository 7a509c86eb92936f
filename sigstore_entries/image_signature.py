"""Signatures and attestations of images from a registry: bundles, and cosign's earlier formats."""

import base64
import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from msgspec import Struct

from sigstore_entries.bundle_file import HeldBundle, NoBundle, NotHeld, decoded, read_bundle_file
from sigstore_entries.release import IMAGE_SIGNATURE, IN_TOTO, pre_authentication

_BUNDLE: Final = "application/vnd.dev.sigstore.bundle"
_SIGNATURE: Final = "dev.cosignproject.cosign/signature"
_CERTIFICATE: Final = "dev.sigstore.cosign/certificate"
_CHAIN: Final = "dev.sigstore.cosign/chain"
_REKOR: Final = "dev.sigstore.cosign/bundle"
_STAMP: Final = "dev.sigstore.cosign/rfc3161timestamp"
_STATEMENTS: Final = frozenset({"https://in-toto.io/Statement/v0.1", "https://in-toto.io/Statement/v1"})


class Found(Struct, frozen=True):
    """A signature as found. `place` names its place for people; `payload` is the signed text of an older signature."""

    place: str
    held: HeldBundle
    payload: bytes | None = None


def read_signature(place: str, media_type: str, raw: bytes, annotations: Mapping[str, str]) -> list[Found | NotHeld]:
    """The signatures in one layer of a signature's manifest. Never raises for any bytes."""
    if not media_type.startswith(_BUNDLE):
        return [_read_older(raw, annotations, place)]
    return [
        Found(place, each) if isinstance(each, HeldBundle) else NotHeld(place, each.why)
        for each in read_bundle_file(raw)
    ]


def _read_older(raw: bytes, annotations: Mapping[str, str], place: str) -> Found | NotHeld:
    """A signature of cosign before its version 3: the blob is the payload; all else is in annotations.

    SPEC cosign SIGNATURE_SPEC. For an attestation the blob is the envelope.
    """
    envelope = None
    with suppress(ValueError, RecursionError):
        envelope = json.loads(raw)
    is_envelope = isinstance(envelope, dict) and "payloadType" in envelope
    try:
        document: dict[str, Any] = {
            "base64Signature": base64.b64encode(raw).decode() if is_envelope else annotations.get(_SIGNATURE, ""),
            "cert": annotations.get(_CERTIFICATE, "") + "\n" + annotations.get(_CHAIN, ""),
            "rekorBundle": json.loads(annotations.get(_REKOR) or "null"),
        }
    except (ValueError, RecursionError):
        return NotHeld(place, "its annotation with the log entry is not JSON")
    document["cert"] = document["cert"].strip()
    (held,) = read_bundle_file(json.dumps(document).encode())
    if isinstance(held, NotHeld):
        return NotHeld(place, held.why)
    if stamp := annotations.get(_STAMP):
        with suppress(ValueError, AttributeError, RecursionError):
            stamped = {"signedTimestamp": json.loads(stamp).get("SignedRFC3161Timestamp")}
            material = {**held.material, "timestampVerificationData": {"rfc3161Timestamps": [stamped]}}
            held = HeldBundle(held.form, held.place, {**held.document, "verificationMaterial": material})
    return Found(place, held, None if is_envelope else raw)


def signed_bytes(found: Found, subject: str) -> tuple[bytes, str, Mapping[str, str]]:
    """The signed bytes, the statement in them, and the digests that the log entry may have, by their content.

    Raises `NoBundle` where the statement is not about the image of this digest, and `KeyError`, `TypeError`,
    `ValueError` or `AttributeError` for a malformed one.
    """
    envelope = found.held.document.get("dsseEnvelope")
    if envelope:
        payload = decoded(envelope["payload"], "the payload")
        if envelope.get("payloadType") != IN_TOTO:
            raise NoBundle(f"it holds {envelope.get('payloadType')!r:.80}, not an in-toto statement")
        if len(envelope["signatures"]) != 1:
            raise NoBundle(f"its envelope has {len(envelope['signatures'])} signatures; one is wanted")
        statement = json.loads(payload)
        subjects = [each["digest"].get("sha256") for each in statement["subject"]]
        if statement.get("_type") not in _STATEMENTS or subject.removeprefix("sha256:") not in subjects:
            raise NoBundle("it is about another image: none of its subjects has this digest")
        kind = statement.get("predicateType")
        what = "signature" if kind == IMAGE_SIGNATURE else f"attestation {kind!s:.120}"
        signed = pre_authentication(IN_TOTO, payload)
        digests = {"artifact": hashlib.sha256(signed).hexdigest(), "payload": hashlib.sha256(payload).hexdigest()}
        return signed, what, digests
    if found.payload is None:
        raise NoBundle("it is over a file, not about an image")
    told = json.loads(found.payload)["critical"]["image"]["docker-manifest-digest"]
    if told != subject:
        raise NoBundle("it is about another image: its payload names another digest")
    return found.payload, "signature", {"artifact": hashlib.sha256(found.payload).hexdigest()}
