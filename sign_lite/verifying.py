"""Verifies bundles through the `sigstore` package: file signatures and attestations."""

import json
from typing import Any, Final

from sigstore.errors import Error
from sigstore.hashes import Hashed
from sigstore.models import Bundle, TrustedRoot
from sigstore.verify import Verifier
from sigstore.verify.policy import Identity

from sign_lite.errors import VerificationFailed

_IN_TOTO: Final = "application/vnd.in-toto+json"


def read_bundle(raw: bytes) -> Bundle:
    """Parse a bundle. Raises `VerificationFailed`."""
    try:
        return Bundle.from_json(raw)
    except (Error, ValueError, RecursionError) as error:
        raise VerificationFailed(f"not a Sigstore bundle: {str(error).strip().splitlines()[0]}") from error


def verify(bundle: Bundle, digest: Hashed, root: TrustedRoot, *, identity: str, issuer: str) -> dict[str, Any] | None:
    """Prove that this identity signed the file of this digest; returns the statement of an attestation.

    Checks the certificate chain and its SCT, the identity, the log's inclusion proof and checkpoint, a trusted time
    inside the certificate's validity, and the signature. Raises `VerificationFailed`.
    """
    try:
        verifier = Verifier(trusted_root=root)
        policy = Identity(identity=identity, issuer=issuer)
        if "dsseEnvelope" not in json.loads(bundle.to_json()):
            verifier.verify_artifact(digest, bundle, policy)
            return None
        payload_type, payload = verifier.verify_dsse(bundle, policy)
    except Exception as error:
        # The bundle is untrusted: any exception that it makes the package raise means that it did not verify.
        raise VerificationFailed(str(error).strip() or type(error).__name__) from error
    return _matching_statement(payload_type, payload, digest)


def _matching_statement(payload_type: str, payload: bytes, digest: Hashed) -> dict[str, Any]:
    """The signature only proves who said it; whether it is about this file is what the subjects say."""
    if payload_type != _IN_TOTO:
        raise VerificationFailed(f"the attestation holds {payload_type}, not an in-toto statement")
    try:
        statement = json.loads(payload)
        subjects = [each["digest"].get("sha256") for each in statement["subject"]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise VerificationFailed("the attestation's statement has no readable subjects") from error
    if digest.digest.hex() not in subjects:
        raise VerificationFailed("the attestation is about other files: no subject has this file's digest")
    return dict(statement)
