"""Issues certificates: token, key, precertificate, CT log, certificate. Each issued certificate has a verified SCT."""

import logging
import time
from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from msgspec import Struct
from sqlalchemy.exc import SQLAlchemyError

from ca_lite.certificate import CertificateRequest, contents, final_certificate, precertificate, validity
from ca_lite.ct_client import CtClient
from ca_lite.errors import CA_FAILED, CT_FAILED, INTERNAL, RESOURCE_EXHAUSTED, CaRefused, bad_request
from ca_lite.identity import Principal, challenges_of, principal_for
from ca_lite.issuer_keys import KeySource
from ca_lite.issuers import Issuers, IssuerType
from ca_lite.journal import FAILED, ISSUED, REQUESTED, Journal
from ca_lite.keys import SigningKey, spki
from ca_lite.rate_limit import RateLimiter
from ca_lite.tokens import VerifiedToken, verify_token
from outbound.json_client import Outage
from sigstore_entries.client_keys import ClientKey
from tlog.ct import MalformedCt, Sct, verify_sct
from tlog.note import BadSignature

_log = logging.getLogger(__name__)
_CT_SKEW: Final = timedelta(minutes=5)


class KeyProof(Protocol):
    """A caller's key; raises `CaRefused` unless the caller proves that it holds the private half."""

    def __call__(self, challenges: Collection[str], permitted: Collection[str]) -> ClientKey:
        """Proven key."""


class IssuingChain(Struct, frozen=True):
    """The chain certificates are issued from (issuer first, root last), its key and its CT log."""

    chain: tuple[x509.Certificate, ...]
    key: SigningKey
    ct: CtClient


class Authority(Struct, frozen=True):
    """Everything one issuance needs. Blocking; call it from many threads."""

    issuing: Callable[[], IssuingChain]
    issuers: Callable[[], Issuers]
    key_source: KeySource
    journal: Journal
    limiter: RateLimiter
    algorithms: Collection[str]
    lifetime: timedelta
    clock: Callable[[], datetime]
    serial: Callable[[], int] = x509.random_serial_number
    on_ct: Callable[[float], None] = lambda _seconds: None

    def issue(self, token: str, proof: KeyProof, request_id: str) -> tuple[x509.Certificate, ...]:
        """Certificate and its chain, leaf first and root last. Raises `CaRefused`."""
        verified = verify_token(token, self.issuers(), self.key_source, self.clock())
        # Order as in Fulcio: every token except a CI provider's is turned into a name before the key is checked.
        principal = None if verified.issuer.type is IssuerType.CI_PROVIDER else self._principal(verified)
        key = proof(challenges_of(verified.claims), self.algorithms)
        principal = principal or self._principal(verified)
        self._limit(principal)
        return self._certify(principal, key, request_id)

    def _principal(self, verified: VerifiedToken) -> Principal:
        return principal_for(verified.issuer, verified.claims)

    def _limit(self, principal: Principal) -> None:
        wait = self.limiter.wait_seconds(f"{principal.claims['issuer']}\n{principal.name}", time.monotonic())
        if wait:
            raise CaRefused(
                RESOURCE_EXHAUSTED,
                "too many certificates for this identity",
                "RATE_LIMITED",
                f"come again in {wait} seconds",
                retry_after=wait,
            )

    def _certify(self, principal: Principal, key: ClientKey, request_id: str) -> tuple[x509.Certificate, ...]:
        issuing = self.issuing()
        issuer = issuing.chain[0]
        not_before, not_after = validity(self.clock(), issuer.not_valid_after_utc, self.lifetime)
        request = CertificateRequest(principal, key, self.serial(), not_before, not_after)
        serial = f"{request.serial:x}"
        try:
            self.journal.request(_row(request, serial, request_id))
        except SQLAlchemyError as error:
            raise _failed("JOURNAL_FAILED", "the issuance journal cannot be written", error) from error
        try:
            certificate, sct = self._signed(request, issuing)
        except CaRefused:
            self._finish(serial, FAILED)
            raise
        der = certificate.public_bytes(Encoding.DER)
        self._finish(serial, ISSUED, sct_timestamp=sct.timestamp, certificate=der)
        return (certificate, *issuing.chain)

    def _signed(self, request: CertificateRequest, issuing: IssuingChain) -> tuple[x509.Certificate, Sct]:
        issuer = issuing.chain[0]
        try:
            both = contents(request, issuer)
            poisoned = precertificate(both, issuing.key)
        except (ValueError, TypeError) as error:
            # The token's text does not fit into a certificate, so the fault is the caller's.
            raise bad_request("the identity cannot be written into a certificate", "IDENTITY_UNENCODABLE") from error
        started = time.monotonic()
        try:
            sct = issuing.ct.add_pre_chain((poisoned, *issuing.chain))
        except Outage as error:
            _log.error("ct-failed: %s", error)
            raise CaRefused(INTERNAL, CT_FAILED, "CT_UNAVAILABLE") from error
        finally:
            self.on_ct(time.monotonic() - started)
        certificate = final_certificate(both, issuing.key, sct)
        self._check_sct(certificate, sct, issuing)
        return certificate, sct

    def _check_sct(self, certificate: x509.Certificate, sct: Sct, issuing: IssuingChain) -> None:
        """Raise `CaRefused` unless the SCT verifies: clients refuse other certificates, and the log is untrusted."""
        try:
            verify_sct(
                sct,
                issuing.ct.log.spki,
                issuer_spki=spki(issuing.chain[0].public_key()),
                tbs=certificate.tbs_precertificate_bytes,
            )
        except (BadSignature, MalformedCt) as error:
            _log.exception("sct-invalid", extra={"ct": issuing.ct.log.url})
            raise CaRefused(INTERNAL, CT_FAILED, "SCT_INVALID") from error
        if sct.timestamp / 1000 > (self.clock() + _CT_SKEW).timestamp():
            _log.error("sct-from-the-future", extra={"ct": issuing.ct.log.url})
            raise CaRefused(INTERNAL, CT_FAILED, "SCT_INVALID")

    def _finish(self, serial: str, state: str, **fields: object) -> None:
        try:
            self.journal.finish(serial, state, **fields)  # type: ignore[arg-type]
        except SQLAlchemyError as error:
            raise _failed("JOURNAL_FAILED", "the issuance journal cannot be written", error) from error


def _row(request: CertificateRequest, serial: str, request_id: str) -> dict[str, Any]:
    principal = request.principal
    return {
        "request_id": request_id,
        "serial": serial,
        "name_form": principal.form.value,
        "name": principal.name,
        "issuer": principal.claims["issuer"],
        "subject": principal.claims["token_subject"],
        "not_before": request.not_before,
        "not_after": request.not_after,
        "state": REQUESTED,
    }


def _failed(reason: str, detail: str, error: Exception) -> CaRefused:
    _log.error(reason.lower(), exc_info=error)
    return CaRefused(INTERNAL, CA_FAILED, reason, detail)
