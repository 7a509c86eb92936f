"""ASN.1 of RFC 3161 requests and responses, as declarations that `cryptography` reads and writes as DER."""

from typing import Annotated

from cryptography.hazmat import asn1
from cryptography.x509 import ObjectIdentifier

Oid = ObjectIdentifier


@asn1.sequence
class AlgorithmIdentifier:
    """RFC 5280 4.1.1.2. The parameters of the algorithms here are NULL or absent."""

    algorithm: Oid
    parameters: asn1.Null | None = None


@asn1.sequence
class RequestedAlgorithm:
    """AlgorithmIdentifier of a request, whose object identifier may be too long to read."""

    algorithm: asn1.TLV
    parameters: asn1.Null | None


@asn1.sequence
class RequestedImprint:
    """MessageImprint of a request."""

    hash_algorithm: RequestedAlgorithm
    hashed_message: bytes


@asn1.sequence
class MessageImprint:
    """RFC 3161 2.4.1."""

    hash_algorithm: AlgorithmIdentifier
    hashed_message: bytes


@asn1.sequence
class TimestampExtension:
    """RFC 5280 4.1."""

    identifier: Oid
    critical: Annotated[bool, asn1.Default(value=False)]
    value: bytes


@asn1.sequence
class TimeStampReq:
    """RFC 3161 2.4.1."""

    version: int
    message_imprint: RequestedImprint
    policy: Oid | None
    nonce: int | None
    want_certificate: Annotated[bool, asn1.Default(value=False)]
    extensions: Annotated[list[asn1.TLV] | None, asn1.Implicit(0)]


@asn1.sequence
class Accuracy:
    """RFC 3161 2.4.2."""

    seconds: int


@asn1.sequence
class TstInfo:
    """RFC 3161 2.4.2."""

    version: int
    policy: Oid
    message_imprint: MessageImprint
    serial_number: int
    generated_at: asn1.GeneralizedTime
    accuracy: Accuracy
    nonce: int | None


@asn1.sequence
class EncapsulatedContent:
    """RFC 5652 5.2."""

    content_type: Oid
    content: Annotated[bytes, asn1.Explicit(0)]


@asn1.sequence
class IssuerAndSerialNumber:
    """RFC 5652 10.2.4."""

    issuer: asn1.TLV
    serial_number: int


@asn1.sequence
class Attribute:
    """RFC 5652 5.3."""

    attribute_type: Oid
    values: asn1.SetOf[asn1.TLV]


@asn1.sequence
class EssCertificateIdV2:
    """RFC 5816. SHA-256 is the default hash and so left out."""

    certificate_hash: bytes


@asn1.sequence
class SigningCertificateV2:
    """RFC 5816."""

    certificates: list[EssCertificateIdV2]


@asn1.sequence
class SignerInfo:
    """RFC 5652 5.3."""

    version: int
    issuer_and_serial_number: IssuerAndSerialNumber
    digest_algorithm: AlgorithmIdentifier
    signed_attributes: Annotated[asn1.SetOf[Attribute], asn1.Implicit(0)]
    signature_algorithm: AlgorithmIdentifier
    signature: bytes


@asn1.sequence
class SignedData:
    """RFC 5652 5.1."""

    version: int
    digest_algorithms: asn1.SetOf[AlgorithmIdentifier]
    content: EncapsulatedContent
    certificates: Annotated[asn1.SetOf[asn1.TLV] | None, asn1.Implicit(0)]
    signer_infos: asn1.SetOf[SignerInfo]


@asn1.sequence
class ContentInfo:
    """RFC 5652 3."""

    content_type: Oid
    content: Annotated[SignedData, asn1.Explicit(0)]


@asn1.sequence
class PkiStatusInfo:
    """RFC 3161 2.4.2; 0 means granted."""

    status: int


@asn1.sequence
class TimeStampResp:
    """RFC 3161 2.4.2."""

    status: PkiStatusInfo
    token: ContentInfo
