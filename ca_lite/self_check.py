"""Checks that `ca-lite serve` makes before it answers a request."""

import hashlib
import json
from datetime import datetime, timedelta
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from rfc3161_client import VerificationError, VerifierBuilder, decode_timestamp_response

from ca_lite.certificate import CertificateRequest, contents, precertificate, validity
from ca_lite.errors import ConfigError
from ca_lite.identity import Principal
from ca_lite.keys import read_limited
from ca_lite.service import CaService
from ca_lite.setup import load_log_trust, valid_chains
from ca_lite.timestamp_request import TimestampRequest, message_imprint
from ca_lite.trust_files import trusted_root
from sigstore_entries.signing import NameForm

_SHA256: Final = "2.16.840.1.101.3.4.2.1"
_SOON: Final = timedelta(days=30)


def self_check(service: CaService, now: datetime) -> list[str]:
    """Warnings for the operator. Raises `ConfigError` if clients would reject this CA's certificates or timestamps."""
    warnings = _expiring(service, now)
    _check_certificate(service, now)
    _check_timestamp(service, now)
    _check_trust_files(service)
    if problem := service.issuing().ct.reachable():
        warnings.append(f"the CT log does not answer, so no certificate can be issued until it does: {problem}")
    return warnings


def _expiring(service: CaService, now: datetime) -> list[str]:
    warnings = []
    for name, chain in (("ca", service.issuing().chain), ("tsa", service.timestamping.chain)):
        ends = min(each.not_valid_after_utc for each in chain)
        if ends <= now:
            raise ConfigError(f"chains/{name}.pem ended at {ends:%Y-%m-%d %H:%M}Z; clients reject everything it signs")
        if ends - now < _SOON:
            warnings.append(f"chains/{name}.pem ends at {ends:%Y-%m-%d %H:%M}Z; make a new chain before that")
    return warnings


def _check_certificate(service: CaService, now: datetime) -> None:
    """Sign a precertificate that is thrown away: proves key, chain and profile without an entry in the CT log."""
    issuing = service.issuing()
    principal = Principal(
        NameForm.EMAIL, "self-check@invalid", {"issuer": service.settings.url, "token_subject": "self-check"}
    )
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    start, end = validity(now, issuing.chain[0].not_valid_after_utc)
    request = CertificateRequest(principal, key, x509.random_serial_number(), start, end)
    precertificate(contents(request, issuing.chain[0]), issuing.key).verify_directly_issued_by(issuing.chain[0])


def _check_timestamp(service: CaService, now: datetime) -> None:
    digest = hashlib.sha256(b"self-check").digest()
    imprint = message_imprint(_SHA256, digest)
    reply = service.timestamping.stamp(TimestampRequest(imprint, None, 7, want_certificate=True), now)
    leaf, *rest = service.timestamping.chain
    builder = VerifierBuilder().tsa_certificate(leaf).nonce(7).add_root_certificate(rest[-1])
    for intermediate in rest[:-1]:
        builder = builder.add_intermediate_certificate(intermediate)
    try:
        builder.build().verify(decode_timestamp_response(reply), digest)
    except VerificationError as error:
        raise ConfigError(f"chains/tsa.pem: timestamps made with it do not verify: {error}") from error


def _check_trust_files(service: CaService) -> None:
    """Check that clients, who trust the keys in `trust/`, trust the keys that this process signs with."""
    layout = service.layout
    path = layout.trust / "trusted_root.json"
    expected = trusted_root(
        service.settings, valid_chains(layout, "ca"), valid_chains(layout, "tsa"), load_log_trust(layout)
    )
    try:
        found: Any = json.loads(read_limited(path))
    except ValueError as error:
        raise ConfigError(f"{path}: not JSON; run `ca-lite trust --dir {layout.root}`") from error
    if found != expected:
        raise ConfigError(
            f"{path}: does not match the keys and the log's trust file of this directory, so clients would reject "
            f"what it signs; run `ca-lite trust --dir {layout.root}` and hand the files out again"
        )
