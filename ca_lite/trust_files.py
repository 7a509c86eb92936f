"""Trust files for clients: trusted_root.json, signing_config.json and both in one client_trust_config.json.

The formats are protobuf-specs'; every field is known to sigstore-python's strict models and to Go's protojson.
"""

import base64
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from msgspec import Struct

from ca_lite.log_trust import LogTrust
from ca_lite.settings import OIDC_PATH, CaSettings

TRUSTED_ROOT_TYPE: Final = "application/vnd.dev.sigstore.trustedroot+json;version=0.1"
SIGNING_CONFIG_TYPE: Final = "application/vnd.dev.sigstore.signingconfig.v0.2+json"
CLIENT_TRUST_TYPE: Final = "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json"
TIMESTAMP_PATH: Final = "/api/v1/timestamp"

_SELECT_ANY: Final = {"selector": "ANY"}  # SPEC sigstore-js: it throws an error for any other selector


class ValidChain(Struct, frozen=True):
    """A certificate chain and its period of trust, as RFC 3339 texts; `end` is `None` while the chain is in use."""

    chain: tuple[x509.Certificate, ...]
    start: str
    end: str | None = None


def trusted_root(
    settings: CaSettings, authorities: list[ValidChain], timestamping: list[ValidChain], log: LogTrust
) -> dict[str, Any]:
    """TrustedRoot message. Old chains stay, with an end: signatures made under them stay verifiable."""
    return {
        "mediaType": TRUSTED_ROOT_TYPE,
        "tlogs": log.tlogs,
        "certificateAuthorities": [_authority(settings.url, each) for each in authorities],
        "ctlogs": log.ctlogs,
        "timestampAuthorities": [_authority(settings.url + TIMESTAMP_PATH, each) for each in timestamping],
    }


def signing_config(settings: CaSettings, start: str, log: LogTrust) -> dict[str, Any]:
    """SigningConfig message: where to get tokens, certificates, entries and timestamps."""

    def service(url: str) -> list[dict[str, Any]]:
        # The API version of the CA is 1 although its path says v2 (sigstore/protobuf-specs).
        return [
            {
                "url": url,
                "majorApiVersion": 1,
                "validFor": {"start": start},
                "operator": settings.organization,
            }
        ]

    return {
        "mediaType": SIGNING_CONFIG_TYPE,
        "caUrls": service(settings.url),
        "oidcUrls": service(settings.login_issuer or settings.url + OIDC_PATH),
        "rekorTlogUrls": log.rekor_urls,
        "tsaUrls": service(settings.url + TIMESTAMP_PATH),
        "rekorTlogConfig": _SELECT_ANY,
        "tsaConfig": _SELECT_ANY,
    }


def client_trust_config(root: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """ClientTrustConfig message, as `sigstore --trust-config` takes it."""
    return {"mediaType": CLIENT_TRUST_TYPE, "trustedRoot": root, "signingConfig": config}


def _authority(uri: str, valid: ValidChain) -> dict[str, Any]:
    root = valid.chain[-1].subject
    span = {"start": valid.start} if valid.end is None else {"start": valid.start, "end": valid.end}
    return {
        "subject": {
            "organization": _attribute(root, NameOID.ORGANIZATION_NAME),
            "commonName": _attribute(root, NameOID.COMMON_NAME),
        },
        "uri": uri,
        "certChain": {"certificates": [{"rawBytes": _base64(each)} for each in valid.chain]},
        "validFor": span,
    }


def _attribute(name: x509.Name, oid: x509.ObjectIdentifier) -> str:
    found = name.get_attributes_for_oid(oid)
    return str(found[0].value) if found else ""


def _base64(certificate: x509.Certificate) -> str:
    return base64.b64encode(certificate.public_bytes(Encoding.DER)).decode()
