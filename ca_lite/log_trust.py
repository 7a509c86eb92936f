"""The log's trust file (`log-lite export-trust`): its keys as trusted-root objects, and URLs that take entries."""

import base64
import binascii
import json
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec
from msgspec import Struct

from ca_lite.errors import ConfigError
from tlog.note import load_public_key

_KEYS: Final = ("tlogs", "ctlogs", "rekorTlogUrls")


class CtLog(Struct, frozen=True):
    """The CT log that takes this CA's precertificates: base URL and SPKI DER."""

    url: str
    spki: bytes


class LogTrust(Struct, frozen=True):
    """Trust material of the log: trusted-root `tlogs` and `ctlogs`, signing-config `rekorTlogUrls`."""

    tlogs: list[dict[str, Any]]
    ctlogs: list[dict[str, Any]]
    rekor_urls: list[dict[str, Any]]

    def ct_log(self) -> CtLog:
        """CT log in use: the last one whose validity has no end. Raises `ConfigError`."""
        for each in reversed(self.ctlogs):
            key = each["publicKey"]
            if not key.get("validFor", {}).get("end"):
                return CtLog(str(each["baseUrl"]).rstrip("/"), base64.b64decode(key["rawBytes"]))
        raise ConfigError("no CT log in the log's trust file is still in use; export it again after the rotation")


def parse_log_trust(raw: bytes, source: str) -> LogTrust:
    """Read and check a trust file. Raises `ConfigError`."""
    try:
        value = json.loads(raw)
        trust = LogTrust(*([dict(each) for each in value[key]] for key in _KEYS))
        for each in trust.ctlogs:
            _check_ct(each)
    except (ValueError, KeyError, TypeError, RecursionError, binascii.Error) as error:
        raise ConfigError(f"{source}: not the output of `log-lite export-trust` ({error!r})") from error
    trust.ct_log()
    return trust


def _check_ct(log: dict[str, Any]) -> None:
    key = load_public_key(base64.b64decode(log["publicKey"]["rawBytes"], validate=True))
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ConfigError("the CT log's key is not ECDSA P-256; Go clients refuse SCTs by any other key")
    # Plain http is safe here: an SCT is used only if it verifies with the key beside the URL.
    if not str(log["baseUrl"]).startswith(("http://", "https://")):
        raise ConfigError(f"the CT log's baseUrl {log['baseUrl']!r} is not an http URL")
