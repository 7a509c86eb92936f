"""Builds code-signing certificates: a precertificate for the CT log, then the same with its SCT (RFC 6962 3.1-3.3).

The profile is what real clients verify: subject empty, one critical subject alternative name, EKU codeSigning not
critical, authority key identifier present, the SCT list last.
"""

from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from msgspec import Struct

from ca_lite.identity import Principal
from ca_lite.keys import SigningKey, hash_for
from sigstore_entries.certificate import (
    EXTENSIONS,
    SCT_LIST_OID,
    USERNAME_OTHER_NAME_OID,
    encode_utf8_string,
)
from sigstore_entries.client_keys import ClientKey
from sigstore_entries.signing import NameForm
from tlog.ct import Sct

LIFETIME: Final = timedelta(minutes=10)


class CertificateRequest(Struct, frozen=True):
    """Contents that both certificates share; the two must differ in poison and SCT only."""

    principal: Principal
    key: ClientKey
    serial: int
    not_before: datetime
    not_after: datetime


def validity(now: datetime, issuer_not_after: datetime, lifetime: timedelta = LIFETIME) -> tuple[datetime, datetime]:
    """NotBefore is now, not backdated; NotAfter never outlives the issuer."""
    start = now.astimezone(UTC).replace(microsecond=0)
    return start, min(start + lifetime, issuer_not_after)


def precertificate(both: x509.CertificateBuilder, key: SigningKey) -> x509.Certificate:
    """Certificate with the critical poison extension: only a CT log accepts it."""
    return both.add_extension(x509.PrecertPoison(), critical=True).sign(key, hash_for(key))


def final_certificate(both: x509.CertificateBuilder, key: SigningKey, sct: Sct) -> x509.Certificate:
    """The certificate for the caller: exactly one SCT (sigstore-python refuses any other number), as last extension."""
    scts = x509.UnrecognizedExtension(x509.ObjectIdentifier(SCT_LIST_OID), sct_list_extension(sct))
    return both.add_extension(scts, critical=False).sign(key, hash_for(key))


def sct_list_extension(sct: Sct) -> bytes:
    """Extension value: an OCTET STRING around the SignedCertificateTimestampList of one SCT (RFC 6962 3.3)."""
    body = (
        b"\x00"
        + sct.log_id
        + sct.timestamp.to_bytes(8, "big")
        + len(sct.extensions).to_bytes(2, "big")
        + sct.extensions
        + sct.signature
    )
    entry = len(body).to_bytes(2, "big") + body
    scts = len(entry).to_bytes(2, "big") + entry
    return asn1.encode_der(scts)


def pem(certificate: x509.Certificate) -> str:
    """One certificate as PEM without a final newline, the form in Fulcio's lists."""
    return certificate.public_bytes(Encoding.PEM).decode().rstrip("\n")


def contents(request: CertificateRequest, issuer: x509.Certificate) -> x509.CertificateBuilder:
    """Contents of both certificates. Raises `ValueError` or `TypeError` for a text that no certificate can hold."""
    authority = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(issuer.subject)
        .public_key(request.key)
        .serial_number(request.serial)
        .not_valid_before(request.not_before)
        .not_valid_after(request.not_after)
        .add_extension(_digital_signature_only(), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(request.key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(authority), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general_name(request.principal)]), critical=True)
    )
    for extension in EXTENSIONS:
        if value := request.principal.claims.get(extension.name):
            oid = x509.ObjectIdentifier(extension.oid)
            builder = builder.add_extension(x509.UnrecognizedExtension(oid, extension.encode(value)), critical=False)
    return builder


def _general_name(principal: Principal) -> x509.GeneralName:
    if principal.form is NameForm.EMAIL:
        return x509.RFC822Name(principal.name)
    if principal.form is NameForm.URI:
        return x509.UniformResourceIdentifier(principal.name)
    oid = x509.ObjectIdentifier(USERNAME_OTHER_NAME_OID)
    return x509.OtherName(oid, encode_utf8_string(principal.name))


def _digital_signature_only() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
