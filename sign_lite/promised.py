"""Verifies bundles with a certificate whose form of log entry the `sigstore` package cannot read.

There are two such forms: bundles of version 0.1 whose entry has a signed entry timestamp and no inclusion proof (cosign
before version 3), and bundles with an `intoto` 0.0.2 entry (npm's provenance). The log's signed time takes the place of
a timestamp; certificate, identity, signature and entry are checked as for other bundles.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from sigstore.errors import Error
from sigstore.verify.policy import Identity

from sign_lite.errors import VerificationFailed
from sign_lite.files import Artifact
from sign_lite.keyed import check_entry, check_envelope, check_logged, check_message
from sigstore_entries.bundle_file import BUNDLE_0_1, HeldBundle, NoBundle, decoded, integrated_time
from sigstore_entries.certificate import read_certificate
from sigstore_entries.client_keys import ClientKey
from sigstore_entries.trust import (
    BadAuthority,
    CertificateAuthorities,
    CertificateAuthority,
    CtLogKey,
    NotTrusted,
)
from sigstore_entries.x509_errors import X509_ERRORS


def is_promised(held: HeldBundle) -> bool:
    """True for a bundle with a certificate and one log entry that has no inclusion proof, or is `intoto` 0.0.2."""
    try:
        certificates, entries, version = held.certificates, held.entries, held.document.get("mediaType")
    except NoBundle:
        return False
    if not certificates or len(entries) != 1:
        return False
    without_proof = version == BUNDLE_0_1 and "inclusionProof" not in entries[0]
    return without_proof or entries[0].get("kindVersion") == {"kind": "intoto", "version": "0.0.2"}


def verify_promised(
    held: HeldBundle, artifact: Artifact, trusted_root: Mapping[str, Any], policy: Identity
) -> tuple[str, bytes] | None:
    """Prove that the identity signed the file of these digests, or an envelope, and that a log promised to have it.

    Returns payload type and payload of an envelope. Raises `VerificationFailed`.
    """
    try:
        leaf, *chain = held.certificates
        certificate = x509.load_der_x509_certificate(leaf)
        (entry,) = held.entries
        body = decoded(entry.get("canonicalizedBody"), "the body of its log entry")
        is_timed = check_logged(entry, trusted_root, needs_proof=held.document.get("mediaType") != BUNDLE_0_1)
        if not is_timed:
            raise VerificationFailed("no signature of the log is under the time of its entry")  # noqa: TRY301
        _check_certificate(certificate, leaf, tuple(chain), trusted_root, integrated_time(entry))
        policy.verify(certificate)
        key, envelope = _key(certificate), held.document.get("dsseEnvelope")
        signed = check_envelope(envelope, key) if envelope else check_message(held, artifact, key)
        if [each.certificate for each in check_entry(body, held.signature, signed).signers] != [leaf]:
            raise VerificationFailed("the log entry is of another certificate")  # noqa: TRY301
    except VerificationFailed:
        raise
    except (Error, NoBundle, BadAuthority, NotTrusted) as error:
        raise VerificationFailed(str(error)) from error
    except (*X509_ERRORS, AttributeError, KeyError) as error:
        raise VerificationFailed(f"the bundle lacks or garbles a field: {error!s:.200}") from error
    if not envelope:
        return None
    return str(envelope.get("payloadType")), decoded(envelope.get("payload"), "the payload")


def _check_certificate(
    certificate: x509.Certificate,
    leaf: bytes,
    chain: tuple[bytes, ...],
    trusted_root: Mapping[str, Any],
    at: datetime | None,
) -> None:
    """Check the certificate's issuer, its timestamp by a CT log, and its validity when the log took the entry."""
    if at is None or not certificate.not_valid_before_utc <= at <= certificate.not_valid_after_utc:
        raise VerificationFailed("the certificate was not valid when the log took the entry")
    authorities = CertificateAuthorities(
        CertificateAuthority(
            str(each.get("uri")),
            tuple(
                decoded(one["rawBytes"], "a certificate of the trusted root")
                for one in each["certChain"]["certificates"]
            ),
            *_period(each),
        )
        for each in trusted_root.get("certificateAuthorities") or ()
    )
    authorities.verify_chain(leaf, chain)
    logs = [
        CtLogKey(
            decoded(each["logId"]["keyId"], "a log's id"),
            decoded(each["publicKey"]["rawBytes"], "a log's key"),
            *_period(each["publicKey"]),
        )
        for each in trusted_root.get("ctlogs") or ()
    ]
    if not authorities.embedded_scts(read_certificate(leaf, chain), logs):
        raise VerificationFailed(
            "no certificate timestamp in the certificate verifies under a CT log of the trusted root"
        )


def _period(value: Mapping[str, Any]) -> tuple[datetime | None, datetime | None]:
    valid = value.get("validFor") or {}
    start, end = (datetime.fromisoformat(valid[name]) if valid.get(name) else None for name in ("start", "end"))
    return start, end


def _key(certificate: x509.Certificate) -> ClientKey:
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey):
        raise VerificationFailed(f"the certificate has a {type(key).__name__}, which signs no bundles")
    return key
