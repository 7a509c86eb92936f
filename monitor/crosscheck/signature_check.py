"""Signatures of images and commits: each verified, with its key, its certificate, its time and its log entry.

What a registry or repository holds is a stranger's. A signature counts once the key made it, it is about the very image
or commit, its certificate is of an authority of the trust root and was valid at a time that somebody trusted says, and
its log entry is of this signature. Whether the log really has the entry is for `monitor.crosscheck.bundle_check`.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from monitor.crosscheck.bundles import Promised, read_timestamps, stamped_at
from monitor.model.errors import SignwatchError
from monitor.trust.trust_root import TrustRoot
from outbound.registry import Descriptor, Manifest, NotInRegistry, Registry, RegistryFailed, descriptors
from sigstore_entries.bundle_file import HeldBundle, NoBundle, NotHeld, decoded, read_bundle_file
from sigstore_entries.certificate import read_certificate
from sigstore_entries.entry_binding import NotBound, bound_entry, entry_key
from sigstore_entries.release import IMAGE_SIGNATURE, IN_TOTO, pre_authentication
from sigstore_entries.signing import Signing
from sigstore_entries.tbs import read_spki_of, split_certificate
from sigstore_entries.trust import CertificateAuthorities, CtLogKey, NotTrusted
from tlog.note import verify_signature

MAX_SIGNATURES: Final = 200
_BUNDLE: Final = "application/vnd.dev.sigstore.bundle"
_OLDER: Final = ("application/vnd.dev.cosign.artifact.sig", "application/vnd.dev.cosign.artifact.att")
_SIGNATURE: Final = "dev.cosignproject.cosign/signature"
_CERTIFICATE: Final = "dev.sigstore.cosign/certificate"
_CHAIN: Final = "dev.sigstore.cosign/chain"
_REKOR: Final = "dev.sigstore.cosign/bundle"
_STAMP: Final = "dev.sigstore.cosign/rfc3161timestamp"
_STATEMENTS: Final = frozenset({"https://in-toto.io/Statement/v0.1", "https://in-toto.io/Statement/v1"})


class BadSignature(SignwatchError):
    """A signature proves nothing about the image or commit; the message says why."""


@dataclass(frozen=True, slots=True)
class Trusted:
    """What a signature is held to: the trust root, its certificate authorities, and the keys of its CT logs."""

    root: TrustRoot
    authorities: CertificateAuthorities
    ct_keys: Sequence[CtLogKey]


@dataclass(frozen=True, slots=True)
class Found:
    """A signature as found. `place` names where, for people; `payload` is what an older signature is over."""

    place: str
    held: HeldBundle
    payload: bytes | None = None


@dataclass(frozen=True, slots=True)
class Verified:
    """A signature that holds. `what` says of what kind it is, `signers` who made it: names, or a key's SHA-256.

    `entries` are the log entries of this signature, in the order of the bundle.
    """

    what: str
    signers: tuple[str, ...]
    issuer: str | None
    at: datetime | None
    entries: tuple[Signing, ...]


@dataclass(frozen=True, slots=True)
class Signatures:
    """What a registry holds about an image: signatures, what cannot be read as one, and how many were not looked at."""

    found: tuple[Found, ...]
    unread: tuple[tuple[str, str], ...]
    left_out: int
    others: int


def signatures_of(registry: Registry, manifest: Manifest) -> Signatures:
    """Every signature and attestation of an image in a registry: OCI 1.1 referrers and cosign's older tags.

    Raises `RegistryFailed` where a list cannot be had; one signature that cannot be had is among the unread.
    """
    listing = registry.referrers(manifest.digest)
    wanted = [each for each in listing.found if _is_signature(each)]
    others, left_out = len(listing.found) - len(wanted), listing.left_out + max(0, len(wanted) - MAX_SIGNATURES)
    found: list[Found] = []
    unread: list[tuple[str, str]] = []
    for each in wanted[:MAX_SIGNATURES]:
        place = f"referrer {each.digest}"
        try:
            signed = registry.manifest(each.digest)
            subject = signed.document.get("subject")
            if not isinstance(subject, dict) or subject.get("digest") != manifest.digest:
                unread.append((place, "the registry lists it, but it is about another image"))
                continue
            read = _read_manifest(registry, signed, place)
        except RegistryFailed as error:
            unread.append((place, str(error)))
            continue
        found += [one for one in read if isinstance(one, Found)]
        unread += [(one.place, one.why) for one in read if isinstance(one, NotHeld)]
    for suffix in ("sig", "att"):
        tag = f"{manifest.digest.replace(':', '-')}.{suffix}"
        with suppress(NotInRegistry):
            read = _read_manifest(registry, registry.manifest(tag), f"tag {tag}")
            found += [one for one in read if isinstance(one, Found)]
            unread += [(one.place, one.why) for one in read if isinstance(one, NotHeld)]
    left_out += max(0, len(found) - MAX_SIGNATURES)
    return Signatures(tuple(found[:MAX_SIGNATURES]), tuple(unread), left_out, others)


def _is_signature(descriptor: Descriptor) -> bool:
    return descriptor.artifact_type.startswith((_BUNDLE, *_OLDER))


def _read_manifest(registry: Registry, manifest: Manifest, place: str) -> list[Found | NotHeld]:
    read: list[Found | NotHeld] = []
    layers = list(descriptors(manifest.document, "layers"))
    for number, layer in enumerate(layers[:MAX_SIGNATURES]):
        where = f"{place}[{number}]" if len(layers) > 1 else place
        try:
            raw = registry.blob(layer.digest)
        except RegistryFailed as error:
            read.append(NotHeld(where, str(error)))
            continue
        if layer.media_type.startswith(_BUNDLE):
            read += [
                Found(where, each) if isinstance(each, HeldBundle) else NotHeld(where, each.why)
                for each in read_bundle_file(raw)
            ]
        else:
            read.append(_read_older(raw, layer.annotations, where))
    if len(layers) > MAX_SIGNATURES:
        read.append(NotHeld(place, f"{len(layers) - MAX_SIGNATURES} more signatures in it are not looked at"))
    return read or [NotHeld(place, "it has no layers")]


def _read_older(raw: bytes, annotations: Mapping[str, str], place: str) -> Found | NotHeld:
    """A signature of cosign before its version 3: the payload is the blob, everything else stands in annotations.

    SPEC cosign SIGNATURE_SPEC. Of an attestation the blob is the envelope.
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


def verify(found: Found, subject: str, trusted: Trusted) -> Verified:
    """Check that a signature holds and is about `subject`, an image's digest. Raises `BadSignature`."""
    try:
        signed, what, digests = _signed_bytes(found, subject)
        return _verify(found.held, signed, what, digests, trusted)
    except (NotBound, NoBundle) as error:
        raise BadSignature(str(error)) from error
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError, UnsupportedAlgorithm) as error:
        raise BadSignature(f"a field is missing or garbled ({type(error).__name__}: {error!s:.120})") from error


def verify_message(
    held: HeldBundle,
    message: bytes,
    what: str,
    trusted: Trusted,
) -> Verified:
    """Check a signature over a message, as a commit has it. Raises `BadSignature`."""
    try:
        return _verify(held, message, what, {"artifact": hashlib.sha256(message).hexdigest()}, trusted)
    except (NotBound, NoBundle) as error:
        raise BadSignature(str(error)) from error
    except (AttributeError, KeyError, TypeError, ValueError, UnsupportedAlgorithm) as error:
        raise BadSignature(f"a field is missing or garbled ({type(error).__name__}: {error!s:.120})") from error


def _signed_bytes(found: Found, subject: str) -> tuple[bytes, str, Mapping[str, str]]:
    """What the signature is over, what it says, and the digests that its log entry may have."""
    envelope = found.held.document.get("dsseEnvelope")
    if envelope:
        payload = decoded(envelope["payload"], "the payload")
        if envelope.get("payloadType") != IN_TOTO:
            raise BadSignature(f"it holds {envelope.get('payloadType')!r:.80}, not an in-toto statement")
        if len(envelope["signatures"]) != 1:
            raise BadSignature(f"its envelope has {len(envelope['signatures'])} signatures; one is wanted")
        statement = json.loads(payload)
        subjects = [each["digest"].get("sha256") for each in statement["subject"]]
        if statement.get("_type") not in _STATEMENTS or subject.removeprefix("sha256:") not in subjects:
            raise BadSignature("it is about another image: none of its subjects has this digest")
        kind = statement.get("predicateType")
        what = "signature" if kind == IMAGE_SIGNATURE else f"attestation {kind!s:.120}"
        signed = pre_authentication(IN_TOTO, payload)
        digests = {"artifact": hashlib.sha256(signed).hexdigest(), "payload": hashlib.sha256(payload).hexdigest()}
        return signed, what, digests
    if found.payload is None:
        raise BadSignature("it is over a file, not about an image")
    told = json.loads(found.payload)["critical"]["image"]["docker-manifest-digest"]
    if told != subject:
        raise BadSignature("it is about another image: its payload names another digest")
    return found.payload, "signature", {"artifact": hashlib.sha256(found.payload).hexdigest()}


def _verify(
    held: HeldBundle,
    signed: bytes,
    what: str,
    digests: Mapping[str, str],
    trusted: Trusted,
) -> Verified:
    bodies = [decoded(each.get("canonicalizedBody"), "the body of its log entry") for each in held.entries]
    entries = tuple(bound_entry(body, held.signature, digests) for body in bodies)
    key = _key(held, bodies)
    try:
        verify_signature(key, signed, held.signature)
    except InvalidSignature as error:
        raise BadSignature("the key did not make this signature") from error
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if any(entry_key(body) != spki for body in bodies):
        raise BadSignature("its log entry is of another key")
    # The log's signature under the time counts, not the number in the bundle: the tree does not hold it.
    promised = (each for each in read_timestamps(held, trusted.root) if isinstance(each, Promised))
    times = [*(each.promise.at for each in promised), *(at for _, at in stamped_at(held, trusted.root))]
    if not held.certificates:
        name = f"key sha256:{hashlib.sha256(spki).hexdigest()}"
        return Verified(what, (name,), None, min(times, default=None), entries)
    return _certified(held, what, times, entries, trusted)


def _certified(
    held: HeldBundle,
    what: str,
    times: Sequence[datetime],
    entries: tuple[Signing, ...],
    trusted: Trusted,
) -> Verified:
    leaf, *chain = held.certificates
    signer = read_certificate(leaf, tuple(chain))
    try:
        trusted.authorities.verify_chain(leaf, tuple(chain))
    except NotTrusted as error:
        raise BadSignature(f"its certificate is of no authority of the trust root: {error}") from error
    if not trusted.authorities.embedded_scts(signer, trusted.ct_keys):
        raise BadSignature("no CT log of the trust root vouches for its certificate")
    start, end = signer.not_before, signer.not_after
    inside = [at for at in times if start and end and start <= at <= end]
    if not times:
        raise BadSignature("neither a log nor a timestamp authority of the trust root says when it was signed")
    if not inside:
        raise BadSignature("its certificate was not valid when it was signed")
    names = tuple(each.value for each in signer.names) or ("a certificate without a name",)
    return Verified(what, names, signer.issuer, min(inside, default=None), entries)


def _key(
    held: HeldBundle, bodies: Sequence[bytes]
) -> ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey:
    if held.certificates:
        spki = read_spki_of(split_certificate(held.certificates[0]).encoded)
    elif bodies:
        spki = entry_key(bodies[0])
    else:
        raise BadSignature("it has neither a certificate nor a log entry: nothing says whose key made it")
    key = load_der_public_key(spki)
    if not isinstance(key, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey):
        raise BadSignature(f"its key is a {type(key).__name__}, which signs no bundles")
    return key
