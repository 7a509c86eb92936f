"""Contents of a bundle as plain values for people and scripts."""

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sigstore.models import Bundle

from sigstore_entries.bundle_file import HeldBundle
from sigstore_entries.certificate import BY_NAME
from sigstore_entries.client_keys import ClientKey


def describe(bundle: Bundle) -> dict[str, Any]:
    """Log entry and signer of a bundle. Each value may be hostile text unless the bundle was verified."""
    return _described(
        json.loads(bundle.to_json())["verificationMaterial"]["tlogEntries"][0], bundle.signing_certificate
    )


def describe_certified(held: HeldBundle) -> dict[str, Any]:
    """Log entry and signer of a bundle that the `sigstore` package does not read."""
    return _described(held.entries[0], x509.load_der_x509_certificate(held.certificates[0]))


def _described(entry: Mapping[str, Any], certificate: x509.Certificate) -> dict[str, Any]:
    return {
        **_logged(entry),
        "names": _names(certificate),
        "issuer": _issuer(certificate),
        "certificate_serial": f"{certificate.serial_number:x}",
        "not_before": f"{certificate.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}",
    }


def _logged(entry: Mapping[str, Any]) -> dict[str, Any]:
    kind = entry.get("kindVersion") or {}
    return {
        "log_index": int(entry.get("logIndex") or 0),
        "log_id": base64.b64decode(entry["logId"]["keyId"]).hex(),
        "entry_kind": f"{kind.get('kind')}/{kind.get('version')}",
    }


def describe_keyed(held: HeldBundle, key: ClientKey) -> dict[str, Any]:
    """Log entry and key of a bundle that a bare key signed; the key is named by its SHA-256."""
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return {
        **_logged(held.entries[0]),
        "names": [f"key sha256:{hashlib.sha256(spki).hexdigest()}"],
        "issuer": None,
    }


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(each.value) for each in names]


def _issuer(certificate: x509.Certificate) -> str | None:
    extension = BY_NAME["issuer"]
    try:
        found = certificate.extensions.get_extension_for_oid(x509.ObjectIdentifier(extension.oid)).value
    except x509.ExtensionNotFound:
        return None
    if not isinstance(found, x509.UnrecognizedExtension):
        return None
    try:
        return extension.decode(found.value)
    except ValueError:
        return None
