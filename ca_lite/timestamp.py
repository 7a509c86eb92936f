"""RFC 3161 timestamps: a TimeStampResp that every Sigstore client accepts (RFC 3161 2.4.2, RFC 5652 5.3, RFC 5816)."""

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ObjectIdentifier
from msgspec import Struct

from ca_lite.timestamp_messages import (
    Accuracy,
    AlgorithmIdentifier,
    Attribute,
    ContentInfo,
    EncapsulatedContent,
    EssCertificateIdV2,
    IssuerAndSerialNumber,
    PkiStatusInfo,
    SignedData,
    SignerInfo,
    SigningCertificateV2,
    TimeStampResp,
    TstInfo,
)
from ca_lite.timestamp_request import TimestampRefused, TimestampRequest

DEFAULT_POLICY: Final = "1.3.6.1.4.1.57264.2"

_SIGNED_DATA: Final = ObjectIdentifier("1.2.840.113549.1.7.2")
_TST_INFO: Final = ObjectIdentifier("1.2.840.113549.1.9.16.1.4")
_CONTENT_TYPE: Final = ObjectIdentifier("1.2.840.113549.1.9.3")
_MESSAGE_DIGEST: Final = ObjectIdentifier("1.2.840.113549.1.9.4")
_SIGNING_TIME: Final = ObjectIdentifier("1.2.840.113549.1.9.5")
_SIGNING_CERTIFICATE_V2: Final = ObjectIdentifier("1.2.840.113549.1.9.16.2.47")
_SHA256: Final = AlgorithmIdentifier(algorithm=ObjectIdentifier("2.16.840.1.101.3.4.2.1"), parameters=None)
_ECDSA_SHA256: Final = AlgorithmIdentifier(algorithm=ObjectIdentifier("1.2.840.10045.4.3.2"), parameters=None)
_LAST_UTC_TIME_YEAR: Final = 2049  # RFC 5652 11.3


class TimestampAuthority(Struct, frozen=True):
    """A TSA key with its chain: the signing certificate first, the self-signed root last."""

    key: ec.EllipticCurvePrivateKey
    chain: tuple[x509.Certificate, ...]
    serial: Callable[[], int]
    policy: str = DEFAULT_POLICY

    def stamp(self, request: TimestampRequest, now: datetime) -> bytes:
        """TimeStampResp DER saying the imprint existed at `now`. Raises `TimestampRefused`."""
        if request.policy is not None and request.policy != self.policy:
            raise TimestampRefused("unaccepted policy: requested TSA policy is not supported by the TSA")
        # Truncated like certificate validity, so that a timestamp never precedes the certificate of the signature it
        # covers.
        at = now.astimezone(UTC).replace(microsecond=0)
        info = asn1.encode_der(self._info(request, at))
        certificates = asn1.SetOf([self._certificate()]) if request.want_certificate else None
        signed = SignedData(
            version=3,
            digest_algorithms=asn1.SetOf([_SHA256]),
            content=EncapsulatedContent(content_type=_TST_INFO, content=info),
            certificates=certificates,
            signer_infos=asn1.SetOf([self._signer_info(info, at)]),
        )
        token = ContentInfo(content_type=_SIGNED_DATA, content=signed)
        return asn1.encode_der(TimeStampResp(status=PkiStatusInfo(status=0), token=token))

    def _info(self, request: TimestampRequest, at: datetime) -> TstInfo:
        return TstInfo(
            version=1,
            policy=ObjectIdentifier(self.policy),
            message_imprint=request.imprint,
            serial_number=self.serial(),
            generated_at=asn1.GeneralizedTime(at),
            accuracy=Accuracy(seconds=1),
            nonce=request.nonce,
        )

    def _signer_info(self, info: bytes, at: datetime) -> SignerInfo:
        identifier = EssCertificateIdV2(certificate_hash=hashlib.sha256(self._certificate_der()).digest())
        attributes = asn1.SetOf(
            [
                _attribute(_CONTENT_TYPE, _TST_INFO),
                _attribute(_MESSAGE_DIGEST, hashlib.sha256(info).digest()),
                _attribute(_SIGNING_TIME, _time(at)),
                _attribute(_SIGNING_CERTIFICATE_V2, SigningCertificateV2(certificates=[identifier])),
            ]
        )
        # RFC 5652 5.4: signed as SET OF, stored with the implicit tag [0].
        signature = self.key.sign(asn1.encode_der(attributes), ec.ECDSA(hashes.SHA256()))
        certificate = self.chain[0]
        issuer = asn1.decode_der(asn1.TLV, certificate.issuer.public_bytes())
        return SignerInfo(
            version=1,
            issuer_and_serial_number=IssuerAndSerialNumber(issuer=issuer, serial_number=certificate.serial_number),
            digest_algorithm=_SHA256,
            signed_attributes=attributes,
            signature_algorithm=_ECDSA_SHA256,
            signature=signature,
        )

    def _certificate(self) -> asn1.TLV:
        return asn1.decode_der(asn1.TLV, self._certificate_der())

    def _certificate_der(self) -> bytes:
        return self.chain[0].public_bytes(Encoding.DER)


def _attribute(identifier: ObjectIdentifier, value: object) -> Attribute:
    encoded = asn1.decode_der(asn1.TLV, asn1.encode_der(value))
    return Attribute(attribute_type=identifier, values=asn1.SetOf([encoded]))


def _time(at: datetime) -> asn1.UTCTime | asn1.GeneralizedTime:
    return asn1.UTCTime(at) if at.year <= _LAST_UTC_TIME_YEAR else asn1.GeneralizedTime(at)
