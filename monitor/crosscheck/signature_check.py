"""Signatures of images and commits: each verified, with its key, its certificate, its time and its log entry.

The contents of a registry or repository are untrusted. A signature counts if the key made it, it is about this image or
commit, an authority of the trust root issued its certificate, the certificate was valid at a time from a trusted
source, and its log entry is of this signature. `monitor.crosscheck.bundle_check` checks that the log has the entry.
"""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from msgspec import Struct

from monitor.crosscheck.bundles import BundlePromise, read_timestamps, stamped_at
from monitor.model.errors import SignwatchError
from monitor.trust.trust_root import TrustRoot
from outbound.image_signatures import fetch_signatures
from outbound.registry import Registry, RegistryManifest
from sigstore_entries.bundle_file import HeldBundle, NoBundle, NotHeld, decoded
from sigstore_entries.certificate import read_certificate
from sigstore_entries.client_keys import ClientKey, signed_message
from sigstore_entries.der import read_spki_of, split_certificate
from sigstore_entries.entry_binding import NotBound, bound_entry, entry_key
from sigstore_entries.image_signature import Found, read_signature, signed_bytes
from sigstore_entries.signing import Signing
from sigstore_entries.trust import CertificateAuthorities, CtLogKey, NotTrusted


class UnusableSignature(SignwatchError):
    """A signature proves nothing about the image or commit; the message is the reason."""


class SignatureTrust(Struct, frozen=True):
    """Trust material for signatures: the trust root, its certificate authorities, and the keys of its CT logs."""

    root: TrustRoot
    authorities: CertificateAuthorities
    ct_keys: Sequence[CtLogKey]


class CheckedSignature(Struct, frozen=True):
    """A signature that verifies. `what` is its kind, `signers` are names, or a key's SHA-256.

    `entries` are the log entries of this signature, in the order of the bundle.
    """

    what: str
    signers: tuple[str, ...]
    issuer: str | None
    at: datetime | None
    entries: tuple[Signing, ...]


class Signatures(Struct, frozen=True):
    """A registry's signatures of an image: the readable ones, the unreadable ones, and the number of those not read."""

    found: tuple[Found, ...]
    unread: tuple[tuple[str, str], ...]
    left_out: int
    others: int


def signatures_of(registry: Registry, manifest: RegistryManifest) -> Signatures:
    """Every signature and attestation of an image. Raises `RegistryFailed` where they cannot be listed."""
    fetched = fetch_signatures(registry, manifest)
    read = [
        one for each in fetched.found for one in read_signature(each.place, each.media_type, each.raw, each.annotations)
    ]
    unread = [*fetched.unread, *((each.place, each.why) for each in read if isinstance(each, NotHeld))]
    found = tuple(each for each in read if isinstance(each, Found))
    return Signatures(found, tuple(unread), fetched.left_out, fetched.others)


def verify(found: Found, subject: str, trusted: SignatureTrust) -> CheckedSignature:
    """Check that a signature holds and is about `subject`, an image's digest. Raises `UnusableSignature`."""
    try:
        signed, what, digests = signed_bytes(found, subject)
        return _verify(found.held, signed, what, digests, trusted)
    except (NotBound, NoBundle) as error:
        raise UnusableSignature(str(error)) from error
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError, UnsupportedAlgorithm) as error:
        raise UnusableSignature(f"a field is missing or garbled ({type(error).__name__}: {error!s:.120})") from error


def verify_message(
    held: HeldBundle,
    message: bytes,
    what: str,
    trusted: SignatureTrust,
) -> CheckedSignature:
    """Check a signature over a message, such as a commit's. Raises `UnusableSignature`."""
    try:
        return _verify(held, message, what, {"artifact": hashlib.sha256(message).hexdigest()}, trusted)
    except (NotBound, NoBundle) as error:
        raise UnusableSignature(str(error)) from error
    except (AttributeError, KeyError, TypeError, ValueError, UnsupportedAlgorithm) as error:
        raise UnusableSignature(f"a field is missing or garbled ({type(error).__name__}: {error!s:.120})") from error


def _verify(
    held: HeldBundle,
    signed: bytes,
    what: str,
    digests: Mapping[str, str],
    trusted: SignatureTrust,
) -> CheckedSignature:
    bodies = [decoded(each.get("canonicalizedBody"), "the body of its log entry") for each in held.entries]
    key = _key(held, bodies)
    digest = signed_message(key, signed, held.signature)
    if digest is None:
        raise UnusableSignature("the key did not make this signature")
    entries = tuple(bound_entry(body, held.signature, {**digests, "artifact": digest}) for body in bodies)
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if any(entry_key(body) != spki for body in bodies):
        raise UnusableSignature("its log entry is of another key")
    # Only a time that the log signed counts. The bundle's own field is unsigned, and the tree does not hold the time.
    promised = (each for each in read_timestamps(held, trusted.root) if isinstance(each, BundlePromise))
    times = [*(each.promise.at for each in promised), *(at for _, at in stamped_at(held, trusted.root))]
    if not held.certificates:
        name = f"key sha256:{hashlib.sha256(spki).hexdigest()}"
        return CheckedSignature(what, (name,), None, min(times, default=None), entries)
    return _certified(held, what, times, entries, trusted)


def verify_certificate(
    held: HeldBundle, message: bytes, what: str, times: Sequence[datetime], trusted: SignatureTrust
) -> CheckedSignature:
    """Check a signature whose log entry is elsewhere: by its certificate, at times from the log.

    Raises `UnusableSignature`.
    """
    try:
        if signed_message(_key(held, ()), message, held.signature) is None:
            raise UnusableSignature("the key did not make this signature")
        return _certified(held, what, times, (), trusted)
    except (NoBundle, AttributeError, KeyError, TypeError, ValueError, UnsupportedAlgorithm) as error:
        raise UnusableSignature(f"a field is missing or garbled ({type(error).__name__}: {error!s:.120})") from error


def _certified(
    held: HeldBundle,
    what: str,
    times: Sequence[datetime],
    entries: tuple[Signing, ...],
    trusted: SignatureTrust,
) -> CheckedSignature:
    leaf, *chain = held.certificates
    signer = read_certificate(leaf, tuple(chain))
    try:
        trusted.authorities.verify_chain(leaf, tuple(chain))
    except NotTrusted as error:
        raise UnusableSignature(f"its certificate is of no authority of the trust root: {error}") from error
    if not trusted.authorities.embedded_scts(signer, trusted.ct_keys):
        raise UnusableSignature("no CT log of the trust root vouches for its certificate")
    start, end = signer.not_before, signer.not_after
    inside = [at for at in times if start and end and start <= at <= end]
    if not times:
        raise UnusableSignature("neither a log nor a timestamp authority of the trust root says when it was signed")
    if not inside:
        raise UnusableSignature("its certificate was not valid when it was signed")
    names = tuple(each.value for each in signer.names) or ("a certificate without a name",)
    return CheckedSignature(what, names, signer.issuer, min(inside, default=None), entries)


def _key(held: HeldBundle, bodies: Sequence[bytes]) -> ClientKey:
    if held.certificates:
        spki = read_spki_of(split_certificate(held.certificates[0]).encoded)
    elif bodies:
        spki = entry_key(bodies[0])
    else:
        raise UnusableSignature("it has neither a certificate nor a log entry: nothing says whose key made it")
    key = load_der_public_key(spki)
    if not isinstance(key, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey):
        raise UnusableSignature(f"its key is a {type(key).__name__}, which signs no bundles")
    return key
