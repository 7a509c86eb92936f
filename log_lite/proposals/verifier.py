"""Keys and certificates that clients submit, and checking signatures with them."""

from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_public_key,
)
from msgspec import Struct

from log_lite.proposals.proposal import Rejected
from sigstore_entries.ed25519ph import verify_ed25519ph
from sigstore_entries.x509_errors import X509_ERRORS

HASHES: Final[dict[str, HashAlgorithm]] = {"sha256": SHA256(), "sha384": SHA384(), "sha512": SHA512()}
_MAX_CHAIN: Final = 10
_OTHERNAME_OID: Final = "1.3.6.1.4.1.57264.1.7"
_UTF8_STRING: Final = 0x0C

PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey


class Verifier(Struct, frozen=True):
    """A public key, with the certificates it came in, leaf first."""

    key: PublicKey
    certificates: tuple[x509.Certificate, ...] = ()

    def pem(self) -> bytes:
        """Canonical PEM: the certificates, or the SubjectPublicKeyInfo."""
        if self.certificates:
            return b"".join(c.public_bytes(Encoding.PEM) for c in self.certificates)
        return self.key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def subjects(self) -> tuple[str, ...]:
        """Names of the leaf certificate; none when its extensions cannot be read."""
        return subject_names(self.certificates[0]) if self.certificates else ()

    def verify(self, signature: bytes, message: bytes) -> None:
        """Check a signature over a message; ECDSA and RSA over its SHA-256. Raises `Rejected`."""
        try:
            if isinstance(self.key, ed25519.Ed25519PublicKey):
                self.key.verify(signature, message)
            elif isinstance(self.key, ec.EllipticCurvePublicKey):
                self.key.verify(signature, message, ec.ECDSA(SHA256()))
            else:
                self.key.verify(signature, message, padding.PKCS1v15(), SHA256())
        except InvalidSignature as error:
            raise _mismatch(self.key) from error

    def verify_digest(self, signature: bytes, digest: bytes, algorithm: HashAlgorithm) -> None:
        """Check a signature over an artifact that is given by its digest only. Raises `Rejected`."""
        if len(digest) != algorithm.digest_size:
            raise Rejected(f"a {algorithm.name} digest has {algorithm.digest_size} bytes, not {len(digest)}")
        try:
            if isinstance(self.key, ec.EllipticCurvePublicKey):
                self.key.verify(signature, digest, ec.ECDSA(Prehashed(algorithm)))
            elif isinstance(self.key, rsa.RSAPublicKey):
                self.key.verify(signature, digest, padding.PKCS1v15(), Prehashed(algorithm))
            elif algorithm.name != "sha512":
                # SPEC sigstore pkg/signature ed25519ph.go: SHA-512 is the only hash.
                raise Rejected(f"unsupported: Ed25519ph over a {algorithm.name} digest, not SHA-512")
            elif not verify_ed25519ph(self.key.public_bytes_raw(), signature, digest):
                raise _mismatch(self.key)
        except InvalidSignature as error:
            raise _mismatch(self.key) from error


def _mismatch(key: PublicKey) -> Rejected:
    kind = " when validating ASN.1 encoded signature" if isinstance(key, ec.EllipticCurvePublicKey) else ""
    return Rejected(f"verifying signature: invalid signature{kind}")


def parse_pem(raw: bytes) -> Verifier:
    """Read a PEM certificate, a PEM chain of up to ten, or a PEM public key. Raises `Rejected`."""
    try:
        if b"-----BEGIN CERTIFICATE-----" in raw:
            certificates = x509.load_pem_x509_certificates(raw)
            if len(certificates) > _MAX_CHAIN:
                raise Rejected(f"too many certificates specified in PEM block: more than {_MAX_CHAIN}")
            return Verifier(_checked(certificates[0].public_key()), tuple(certificates))
        return Verifier(_checked(load_pem_public_key(raw)))
    except X509_ERRORS as error:
        raise Rejected(f"invalid public key: {error}") from error


def parse_der_certificate(raw: bytes) -> Verifier:
    """Read one DER certificate. Raises `Rejected`."""
    try:
        certificate = x509.load_der_x509_certificate(raw)
        return Verifier(_checked(certificate.public_key()), (certificate,))
    except X509_ERRORS as error:
        raise Rejected(f"invalid certificate: {error}") from error


def parse_der_key(raw: bytes) -> Verifier:
    """Read a DER SubjectPublicKeyInfo. Raises `Rejected`."""
    try:
        return Verifier(_checked(load_der_public_key(raw)))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Rejected(f"invalid public key: {error}") from error


def _checked(key: object) -> PublicKey:
    if isinstance(key, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey):
        return key
    raise Rejected(f"unsupported public key type {type(key).__name__}")


def subject_names(certificate: x509.Certificate) -> tuple[str, ...]:
    """E-mail, URI and Fulcio username names of a certificate; none when its extensions cannot be read."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found = [*names.get_values_for_type(x509.RFC822Name)]
        found.extend(names.get_values_for_type(x509.UniformResourceIdentifier))
        others = [
            o.value for o in names.get_values_for_type(x509.OtherName) if o.type_id.dotted_string == _OTHERNAME_OID
        ]
        found.extend(value[2:].decode() for value in others if value[:1] == bytes([_UTF8_STRING]))
    except (*X509_ERRORS, x509.ExtensionNotFound):
        # The names only feed the search index, which is best effort: the log takes an entry without names too.
        return ()
    return tuple(found)
