"""Certificate chains of the authority itself: root, intermediate, and the timestamp authority's (made once by init)."""

from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from msgspec import Struct

from ca_lite.errors import ConfigError
from ca_lite.keys import SigningKey, hash_for, spki

ROOT_LIFETIME: Final = timedelta(days=3650)
INTERMEDIATE_LIFETIME: Final = timedelta(days=1095)
_BACKDATED: Final = timedelta(minutes=5)  # Verifiers on this machine may run in the same second.


class IssuedCertificate(Struct, frozen=True):
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: SigningKey


def make_root(organization: str, common_name: str, key: SigningKey, now: datetime) -> IssuedCertificate:
    """Self-signed root of ten years, no EKU."""
    name = _name(organization, common_name)
    builder = _authority(name, name, key, now, now + ROOT_LIFETIME, path_length=None)
    return IssuedCertificate(builder.sign(key, hash_for(key)), key)


def make_intermediate(
    root: IssuedCertificate, organization: str, common_name: str, key: SigningKey, now: datetime
) -> IssuedCertificate:
    """Issuer of the leaves: for code signing only, path length 0."""
    until = min(now + INTERMEDIATE_LIFETIME, root.certificate.not_valid_after_utc)
    builder = (
        _authority(_name(organization, common_name), root.certificate.subject, key, now, until, path_length=0)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
        .add_extension(_authority_key(root), critical=False)
    )
    return IssuedCertificate(builder.sign(root.key, hash_for(root.key)), key)


def make_timestamp_leaf(
    root: IssuedCertificate, organization: str, common_name: str, key: SigningKey, now: datetime
) -> IssuedCertificate:
    """TSA certificate: RFC 3161 2.3 wants the EKU timeStamping critical and alone; sigstore-python checks both."""
    until = min(now + INTERMEDIATE_LIFETIME, root.certificate.not_valid_after_utc)
    builder = (
        _base(_name(organization, common_name), root.certificate.subject, key, now, until)
        .add_extension(_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING]), critical=True)
        .add_extension(_authority_key(root), critical=False)
    )
    return IssuedCertificate(builder.sign(root.key, hash_for(root.key)), key)


def check_chain(chain: tuple[x509.Certificate, ...], key: SigningKey, usage: x509.ObjectIdentifier, where: str) -> None:
    """Rules a chain must meet before anything is signed with it (Fulcio's VerifyCertChain). Raises `ConfigError`."""
    if len(chain) < 2:  # noqa: PLR2004  an issuer and a root
        raise ConfigError(f"{where}: the chain needs at least two certificates, the last a self-signed root")
    if spki(chain[0].public_key()) != spki(key.public_key()):
        raise ConfigError(f"{where}: the first certificate is for another key than the one beside it")
    for child, parent in zip(chain, (*chain[1:], chain[-1]), strict=True):
        try:
            child.verify_directly_issued_by(parent)
        except (ValueError, TypeError, InvalidSignature) as error:
            raise ConfigError(f"{where}: {child.subject.rfc4514_string()} is not signed by the next one") from error
    for authority in chain[1:]:
        if not _is_authority(authority):
            raise ConfigError(f"{where}: {authority.subject.rfc4514_string()} is not a certificate authority")
    try:
        usages = chain[0].extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound as error:
        raise ConfigError(f"{where}: the first certificate has no extended key usage") from error
    if usage not in usages:
        raise ConfigError(f"{where}: the first certificate may not issue certificates for its purpose")


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _authority(
    subject: x509.Name, issuer: x509.Name, key: SigningKey, now: datetime, until: datetime, *, path_length: int | None
) -> x509.CertificateBuilder:
    return (
        _base(subject, issuer, key, now, until)
        .add_extension(_usage(authority=True), critical=True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
    )


def _base(
    subject: x509.Name, issuer: x509.Name, key: SigningKey, now: datetime, until: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _authority_key(parent: IssuedCertificate) -> x509.AuthorityKeyIdentifier:
    identifier = parent.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _name(organization: str, common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )
