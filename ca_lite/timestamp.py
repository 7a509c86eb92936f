"""RFC 3161 timestamps: a TimeStampResp that every Sigstore client accepts (RFC 3161 2.4.2, RFC 5652 5.3, RFC 5816)."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from ca_lite import der
from ca_lite.timestamp_request import TimestampRefused, TimestampRequest

DEFAULT_POLICY: Final = "1.3.6.1.4.1.57264.2"

_SIGNED_DATA: Final = der.oid("1.2.840.113549.1.7.2")
_TST_INFO: Final = der.oid("1.2.840.113549.1.9.16.1.4")
_CONTENT_TYPE: Final = der.oid("1.2.840.113549.1.9.3")
_MESSAGE_DIGEST: Final = der.oid("1.2.840.113549.1.9.4")
_SIGNING_TIME: Final = der.oid("1.2.840.113549.1.9.5")
_SIGNING_CERTIFICATE_V2: Final = der.oid("1.2.840.113549.1.9.16.2.47")
_SHA256: Final = der.sequence(der.oid("2.16.840.1.101.3.4.2.1"))
_ECDSA_SHA256: Final = der.sequence(der.oid("1.2.840.10045.4.3.2"))
_UTC_TIME: Final = 0x17
_LAST_UTC_TIME_YEAR: Final = 2049  # RFC 5652 11.3
_ACCURACY: Final = der.sequence(der.integer(1))  # one second


@dataclass(frozen=True, slots=True)
class TimestampAuthority:
    """A TSA key with its chain: the signing certificate first, the self-signed root last."""

    key: ec.EllipticCurvePrivateKey
    chain: tuple[x509.Certificate, ...]
    serial: Callable[[], int]
    policy: str = DEFAULT_POLICY

    def stamp(self, request: TimestampRequest, now: datetime) -> bytes:
        """TimeStampResp DER saying the imprint existed at `now`. Raises `TimestampRefused`."""
        if request.policy is not None and request.policy != self.policy:
            raise TimestampRefused("unaccepted policy: requested TSA policy is not supported by the TSA")
        # Truncated like certificate validity, so that a timestamp never precedes the certificate it vouches for.
        at = now.astimezone(UTC).replace(microsecond=0)
        info = self._info(request, at)
        content = der.sequence(_TST_INFO, der.value(der.CONTEXT_0, der.value(der.OCTET_STRING, info)))
        certificates = der.value(der.CONTEXT_0, self._certificate_der()) if request.want_certificate else b""
        signed_data = der.sequence(
            der.integer(3), der.set_of([_SHA256]), content, certificates, der.set_of([self._signer_info(info, at)])
        )
        token = der.sequence(_SIGNED_DATA, der.value(der.CONTEXT_0, signed_data))
        return der.sequence(der.sequence(der.integer(0)), token)

    def _info(self, request: TimestampRequest, at: datetime) -> bytes:
        nonce = der.value(der.INTEGER, request.nonce) if request.nonce is not None else b""
        return der.sequence(
            der.integer(1),
            der.oid(self.policy),
            request.imprint,
            der.integer(self.serial()),
            der.generalized_time(at),
            _ACCURACY,
            nonce,
        )

    def _signer_info(self, info: bytes, at: datetime) -> bytes:
        attributes = sorted(
            (
                _attribute(_CONTENT_TYPE, _TST_INFO),
                _attribute(_MESSAGE_DIGEST, der.value(der.OCTET_STRING, hashlib.sha256(info).digest())),
                _attribute(_SIGNING_TIME, _time(at)),
                _attribute(_SIGNING_CERTIFICATE_V2, der.sequence(der.sequence(self._certificate_id()))),
            )
        )
        # RFC 5652 5.4: signed as SET OF, stored with the implicit tag [0].
        signature = self.key.sign(der.set_of(attributes), ec.ECDSA(hashes.SHA256()))
        certificate = self.chain[0]
        issuer_and_serial = der.sequence(certificate.issuer.public_bytes(), der.integer(certificate.serial_number))
        return der.sequence(
            der.integer(1),
            issuer_and_serial,
            _SHA256,
            der.value(der.CONTEXT_0, *attributes),
            _ECDSA_SHA256,
            der.value(der.OCTET_STRING, signature),
        )

    def _certificate_id(self) -> bytes:
        """ESSCertIDv2 (RFC 5816); SHA-256 is the default hash and so left out."""
        return der.sequence(der.value(der.OCTET_STRING, hashlib.sha256(self._certificate_der()).digest()))

    def _certificate_der(self) -> bytes:
        return self.chain[0].public_bytes(Encoding.DER)


def _attribute(oid: bytes, content: bytes) -> bytes:
    return der.sequence(oid, der.set_of([content]))


def _time(at: datetime) -> bytes:
    if at.year <= _LAST_UTC_TIME_YEAR:
        return der.value(_UTC_TIME, at.strftime("%y%m%d%H%M%SZ").encode())
    return der.generalized_time(at)
