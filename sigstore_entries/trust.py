"""Verification that an authority of the trust root issued a certificate, and that a CT log promised to include it.

This module decides who *issued* a certificate, not whether a client would accept a signature made with it. So the
path is verified at the certificate's own notBefore, which its issuer signed. A use outside notBefore and notAfter is
a defect of the signing and does not change the issuer: a late user still had the identity.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial
from hashlib import sha256
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512
from cryptography.x509.oid import ExtendedKeyUsageOID
from msgspec import Struct

from sigstore_entries import der
from sigstore_entries.certificate import MAX_CERTIFICATE, MAX_SECOND_OPINION, POISON_OID, SCT_LIST_OID
from sigstore_entries.der import Tbs, certificate_parts, read_spki_of, read_tbs, split_certificate, tbs_without_scts
from sigstore_entries.signing import ChainTrust, Signer, SignerForm
from sigstore_entries.x509_errors import X509_ERRORS
from tlog.ct import CtLeaf, EntryType, MalformedCt, Sct, parse_sct_list, verify_sct
from tlog.note import BadSignature

MAX_DEPTH: Final = 4
MAX_OFFERED: Final = 10  # intermediates in an entry; Rekor accepts no longer chain
MAX_SCTS: Final = 10
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_KNOWN_ISSUERS: Final = 256
_BAD_X509: Final = (*X509_ERRORS, InvalidSignature)
# RFC 5280 4.2: "a certificate-using system MUST reject the certificate if it encounters a critical extension it does
# not recognize". A code-signing leaf may have these; this module or the decoder reads each of them.
_KNOWN_CRITICAL: Final = frozenset({"2.5.29.15", "2.5.29.17", "2.5.29.19", "2.5.29.37", POISON_OID})
_BASIC_CONSTRAINTS: Final = "2.5.29.19"
_EXTENDED_KEY_USAGE: Final = "2.5.29.37"
_CODE_SIGNING: Final = bytes.fromhex("06082b06010505070303")  # RFC 5280 4.2.1.12: id-kp-codeSigning
_CA_TRUE: Final = (b"\x30\x03\x01\x01\xff", b"\x30\x06\x01\x01\xff")  # RFC 5280 4.2.1.9, with a path length or not
# RFC 5758 3.2, RFC 4055 5, RFC 8410 3.
_ECDSA: Final = {"1.2.840.10045.4.3.2": SHA256(), "1.2.840.10045.4.3.3": SHA384(), "1.2.840.10045.4.3.4": SHA512()}
_RSA: Final = {"1.2.840.113549.1.1.11": SHA256(), "1.2.840.113549.1.1.12": SHA384(), "1.2.840.113549.1.1.13": SHA512()}
# The AlgorithmIdentifier has no parameters: RFC 5758 3.2.
_ECDSA_BY_DER: Final = {
    der.encode(der.SEQUENCE, der.encode(der.OBJECT_IDENTIFIER, content)): ec.ECDSA(digest)
    for oid, digest in _ECDSA.items()
    if (content := der.oid_content(oid)) is not None
}
_EcKey: Final = ec.EllipticCurvePublicKey
_ED25519: Final = "1.3.101.112"


class BadAuthority(ValueError):
    """An authority in the trust root is no certificate authority."""


class NotTrusted(Exception):
    """A certificate does not chain to an authority of the trust root. The message names the failed step."""


class CertificateAuthority(Struct, frozen=True):
    """One entry of a trusted root: `chain` in DER, the issuer of leaves first, the root last.

    `name` is for people: the entry's URI or subject. It may have issued within the period.
    """

    name: str
    chain: tuple[bytes, ...]
    valid_from: datetime | None = None
    valid_until: datetime | None = None


class CtLogKey(Struct, frozen=True):
    """One CT log of a trusted root. `log_id` is SHA-256 of `spki`; the period says when it may have signed."""

    log_id: bytes
    spki: bytes
    valid_from: datetime | None = None
    valid_until: datetime | None = None


class _Issuer(Struct, frozen=True):
    """A certificate that may issue others: at most `below` issuers between it and a leaf, any number when `None`."""

    certificate: x509.Certificate
    below: int | None
    not_before: datetime
    not_after: datetime
    subject: bytes
    key: CertificatePublicKeyTypes

    def may_issue(self, below: int, when: datetime | None) -> bool:
        """True if this issuer may issue a certificate at that time with `below` issuers between it and the leaf."""
        return (self.below is None or below <= self.below) and _within(when, self.not_before, self.not_after)


class _Anchor(Struct, frozen=True):
    authority: CertificateAuthority
    chain: tuple[_Issuer, ...]
    key_hash: bytes
    spki: bytes


class EmbeddedSct(Struct, frozen=True):
    """A verified SCT in a certificate: the key of the log that signed it, and the promised leaf."""

    spki: bytes
    leaf: CtLeaf
    sct: Sct


class CertificateAuthorities:
    """The certificate authorities of a trust root. Immutable; pure: no network, no clock."""

    def __init__(self, authorities: Iterable[CertificateAuthority]) -> None:
        """Check every chain once: signatures, CA flags, key usage, path lengths. Raises `BadAuthority`."""
        self._anchors = tuple(_anchor(each) for each in authorities)

    def judge_chain(self, signer: Signer, at: datetime | None = None) -> Signer:
        """Return the signer with `trust` and `trusted_by` filled; `at` is the known time of the signature, if any.

        A precertificate without its signed form is judged by the issuer key hash in the leaf, which the log computed
        from a verified chain: a server must not suppress an alert by leaving out `extra_data`.
        """
        defects = list(signer.defects)
        trust, name = self._judged(signer, defects)
        if trust is not ChainTrust.TRUSTED:
            return replace(signer, trust=trust, trusted_by=None)
        if at is not None and not _within(at, signer.not_before, signer.not_after):
            defects.append(f"validity: used at {at:%Y-%m-%dT%H:%M:%SZ}, outside the certificate's validity")
        return replace(signer, trust=ChainTrust.TRUSTED, trusted_by=name, defects=tuple(defects))

    def trust_of(self, signer: Signer) -> ChainTrust:
        """The trust in the chain of the signer's certificate, as `judge_chain` sets it."""
        return self._judged(signer, [])[0]

    def verify_chain(
        self, certificate: bytes, chain: Sequence[bytes] = (), tbs: Tbs | None = None
    ) -> CertificateAuthority:
        """Verify the path of a leaf to one of the authorities and return it; `chain` are intermediates on offer.

        `tbs` are the leaf's parts, where they were read before.

        Checked at the leaf's notBefore: signatures and names along the path, validity, CA flags, path length, code
        signing in the leaf and in every intermediate that restricts its usage. An unusual or long leaf, or one that the
        library refuses, keeps its issuer; `read_certificate` reports its unusual parts as defects, which make the
        signing unexpected. Raises `NotTrusted`.
        """
        if len(certificate) > MAX_CERTIFICATE:
            raise NotTrusted(f"a certificate of {len(certificate)} bytes is too long to be judged")
        try:
            if tbs is None:
                tbs = read_tbs(split_certificate(certificate).encoded)
            authority = self._issued(_Leaf(certificate, tbs).is_signed_by, chain, _not_before(tbs))
            _check_leaf(tbs)
        except _BAD_X509 as error:
            raise NotTrusted(f"the certificate cannot be judged: {str(error)[:100]!a}") from error
        return authority

    def embedded_scts(self, signer: Signer, ct_keys: Iterable[CtLogKey]) -> list[EmbeddedSct] | None:
        """SCTs in the signer's certificate that verify under one of the logs' keys; `None` without any SCT.

        SPEC RFC 6962 3.2: each is over the certificate without its SCTs, and the hash of its issuer's key.
        """
        value = signer.extensions.get(SCT_LIST_OID)
        if signer.certificate is None or value is None:
            return None
        try:
            scts = parse_sct_list(der.only(value, der.OCTET_STRING, "the SCT list").content)[:MAX_SCTS]
            tbs = tbs_without_scts(signer.certificate)
        except (MalformedCt, der.MalformedDer):
            return []
        keys = {each.log_id: each for each in ct_keys}
        issuers = [anchor.spki for anchor in self._anchors]
        for each in signer.chain[:MAX_OFFERED]:
            with suppress(der.MalformedDer):
                issuers.append(_spki(each))
        return [
            EmbeddedSct(keys[sct.log_id].spki, CtLeaf(sct.timestamp, EntryType.PRECERT, key, tbs, sct.extensions), sct)
            for sct in scts
            if sct.log_id in keys
            for key in _signed_over(sct, keys[sct.log_id], dict.fromkeys(issuers), tbs)
        ]

    def _judged(self, signer: Signer, defects: list[str]) -> tuple[ChainTrust, str | None]:
        """Verdict on the chain, and the name of the authority; appends to `defects`."""
        if signer.form is SignerForm.PRECERTIFICATE and signer.issuer_key_hash is not None:
            name = self._by_key_hash(signer, defects)
        elif signer.certificate is not None:
            name = self._by_path(signer)
        else:
            return ChainTrust.NO_CERTIFICATE, None
        return ChainTrust.UNTRUSTED if name is None else ChainTrust.TRUSTED, name

    def _by_key_hash(self, signer: Signer, defects: list[str]) -> str | None:
        when = signer.not_before
        for anchor in self._anchors:
            if anchor.key_hash == signer.issuer_key_hash and when is not None and _covers(anchor, when):
                if signer.certificate is not None:
                    try:
                        self.verify_chain(signer.certificate, signer.chain)
                    except NotTrusted as error:
                        defects.append(f"chain: the precertificate that the log served does not verify: {error}")
                return anchor.authority.name
        return None

    def _by_path(self, signer: Signer) -> str | None:
        if signer.certificate is None:
            return None
        with suppress(NotTrusted):
            return self.verify_chain(signer.certificate, signer.chain, signer.tbs).name
        return None

    def _issued(self, leaf: "_SignedBy", chain: Sequence[bytes], when: datetime | None) -> CertificateAuthority:
        """Authority to which the path from the leaf leads. Raises `NotTrusted`."""
        offered = [each for each in map(_offered, dict.fromkeys(chain[:MAX_OFFERED])) if each is not None]
        tops = [leaf]
        for below in range(MAX_DEPTH):
            for top in tops:
                if (anchor := self._anchor_of(top, below, when)) is not None:
                    return anchor.authority
            # All issuers of some certificate below: an attacker can make a certificate with a real issuer's name and
            # key, and offer it before the real one.
            issuers = [each for each in offered if any(_issues(each, top, below, when) for top in tops)]
            tops = [partial(_issuer_issued, each) for each in issuers]
        raise NotTrusted("no authority of the trust root issued the certificate")

    def _anchor_of(self, top: "_SignedBy", below: int, when: datetime | None) -> _Anchor | None:
        for anchor in self._anchors:
            if not _covers(anchor, when):
                continue
            # Any certificate of the chain may be the issuer: a root may sign leaves itself.
            for depth, issuer in enumerate(anchor.chain):
                above = enumerate(anchor.chain[depth + 1 :], start=below + 1)
                if _issues(issuer, top, below, when) and all(each.may_issue(under, when) for under, each in above):
                    return anchor
        return None


def _anchor(authority: CertificateAuthority) -> _Anchor:
    try:
        chain = tuple(_issuer(each) for each in authority.chain)
        if not chain:
            raise ValueError("no certificates")
        for below, issuer in enumerate(chain):
            if issuer.below is not None and issuer.below < below:
                raise ValueError("an issuer has too many others below it")
            above = chain[min(below + 1, len(chain) - 1)].certificate
            # The last one is a self-signed root, or an intermediate that the trust root itself names.
            if above is not issuer.certificate or above.issuer == above.subject:
                issuer.certificate.verify_directly_issued_by(above)
    except _BAD_X509 as error:
        raise BadAuthority(
            f"certificate authority {authority.name!a:.80}: {str(error) or type(error).__name__}"
        ) from error
    spki = _spki(authority.chain[0])
    return _Anchor(authority, chain, sha256(spki).digest(), spki)


_SignedBy = Callable[[_Issuer], bool]


def _issues(issuer: _Issuer, is_signed_by: _SignedBy, below: int, when: datetime | None) -> bool:
    return issuer.may_issue(below, when) and is_signed_by(issuer)


class _Leaf:
    """A leaf, with the check of an issuer's signature over it.

    An ECDSA signature of an issuer whose subject is, byte by byte, the leaf's issuer is verified with the key that is
    loaded already. In all other cases the library decides; it reads leaf and key again, and may refuse the leaf.
    """

    def __init__(self, raw: bytes, tbs: Tbs) -> None:
        self._raw, self._tbs = raw, tbs
        self._asked: _SignedBy | None = None

    def is_signed_by(self, issuer: _Issuer) -> bool:
        """True if the issuer's key signed the leaf and, if readable, the leaf names this issuer."""
        if self._tbs.issuer != issuer.subject or not isinstance(issuer.key, _EcKey):
            return self._library_says(issuer)
        _, algorithm, signature = certificate_parts(self._raw)
        # RFC 5280 4.1.1.2: the algorithm must equal the one in the signed part.
        known = _ECDSA_BY_DER.get(algorithm.encoded) if algorithm.encoded == self._tbs.algorithm else None
        bits = signature.content
        if known is None or bits[:1] != b"\x00":
            return self._library_says(issuer)
        try:
            issuer.key.verify(bits[1:], self._tbs.encoded, known)
        except InvalidSignature:
            return False
        return True

    def _library_says(self, issuer: _Issuer) -> bool:
        if self._asked is None:
            try:
                read = x509.load_der_x509_certificate(self._raw)
                self._asked = lambda other: _is_signed_by(read, other.certificate)
            except X509_ERRORS:
                self._asked = partial(_raw_is_signed_by, self._raw)
        return self._asked(issuer)


def _raw_is_signed_by(raw: bytes, issuer: _Issuer) -> bool:
    """RFC 5280 4.1.1.3: the signature covers the DER TBSCertificate, so its content need not be readable."""
    tbs, algorithm, signature = certificate_parts(raw)
    oid = der.oid_text(der.read(algorithm.content).expect(der.OBJECT_IDENTIFIER, "an algorithm").content)
    signed, key = signature.content[1:], issuer.key
    try:
        if isinstance(key, ed25519.Ed25519PublicKey) and oid == _ED25519:
            key.verify(signed, tbs.encoded)
        elif isinstance(key, ec.EllipticCurvePublicKey) and oid in _ECDSA:
            key.verify(signed, tbs.encoded, ec.ECDSA(_ECDSA[oid]))
        elif isinstance(key, rsa.RSAPublicKey) and oid in _RSA:
            key.verify(signed, tbs.encoded, PKCS1v15(), _RSA[oid])
        else:
            return False
    except InvalidSignature:
        return False
    return True


def _is_signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except _BAD_X509:
        return False
    return True


# Few different certificates stand above leaves, while a leaf is nearly always new. The cache compares all bytes of a
# certificate, so another one of the same name cannot match.
_issuer_is_signed_by = lru_cache(maxsize=_KNOWN_ISSUERS)(_is_signed_by)


def _issuer_issued(below: _Issuer, issuer: _Issuer) -> bool:
    return _issuer_is_signed_by(below.certificate, issuer.certificate)


def _issuer(raw: bytes) -> _Issuer:
    """Read a certificate that may issue others. Raises one of `_BAD_X509` when it may not."""
    certificate = x509.load_der_x509_certificate(raw)
    extensions = certificate.extensions
    try:
        constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound as error:
        raise ValueError("an issuer without basic constraints") from error
    if not constraints.ca:
        raise ValueError("an issuer that is not a CA")
    with suppress(x509.ExtensionNotFound):
        if not extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign:
            raise ValueError("an issuer whose key may not sign certificates")
    with suppress(x509.ExtensionNotFound):
        _check_code_signing(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    return _Issuer(
        certificate,
        constraints.path_length,
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
        read_tbs(split_certificate(raw).encoded).subject,
        certificate.public_key(),
    )


@lru_cache(maxsize=_KNOWN_ISSUERS)
def _offered(raw: bytes) -> _Issuer | None:
    """Read an intermediate from an entry; `None` if it may not issue certificates."""
    try:
        return _issuer(raw) if len(raw) <= MAX_SECOND_OPINION else None
    except _BAD_X509:
        return None


def _check_leaf(leaf: Tbs) -> None:
    """Refuse certificates that are not for code signing. Raises `ValueError`.

    Read without the library, which refuses all extensions when one is repeated. An unreadable value is no refusal
    here: the decoder reports it as a defect, which makes the signing unexpected.
    """
    usages = []
    for oid, critical, value in leaf.extensions:
        if critical and oid not in _KNOWN_CRITICAL:
            raise ValueError(f"critical extension {oid} is not understood")
        if oid == _BASIC_CONSTRAINTS and value.startswith(_CA_TRUE):
            raise ValueError("the leaf is a CA certificate")
        if oid == _EXTENDED_KEY_USAGE:
            usages.append(value)
    if not usages:
        raise ValueError("the leaf has no extended key usage")
    if not any(map(_allows_code_signing, usages)):
        raise ValueError("the extended key usage is not code signing")


@lru_cache(maxsize=64)  # a few bytes, the same in nearly every leaf
def _allows_code_signing(usage: bytes) -> bool:
    try:
        listed = der.only(usage, der.SEQUENCE, "the extended key usage")
        return any(each.encoded == _CODE_SIGNING for each in der.children(listed))
    except der.MalformedDer:
        return True


def _not_before(tbs: Tbs) -> datetime | None:
    """Start of the certificate's validity; `None` when it cannot be read, which is a defect of the certificate."""
    try:
        return der.time(der.read(tbs.validity.content))
    except der.MalformedDer:
        return None


def _check_code_signing(usage: x509.ExtendedKeyUsage) -> None:
    if ExtendedKeyUsageOID.CODE_SIGNING not in usage:
        raise ValueError("the extended key usage is not code signing")


def _signed_over(sct: Sct, key: CtLogKey, issuers: Iterable[bytes], tbs: bytes) -> list[bytes]:
    """SHA-256 of the issuer's key under the SCT's signature; an empty list when the SCT does not verify."""
    found = next((issuer for issuer in issuers if _sct_verifies(sct, key, issuer, tbs)), None)
    return [] if found is None else [sha256(found).digest()]


def _sct_verifies(sct: Sct, key: CtLogKey, issuer: bytes, tbs: bytes) -> bool:
    try:
        at = _EPOCH + timedelta(milliseconds=sct.timestamp)
        verify_sct(sct, key.spki, issuer_spki=issuer, tbs=tbs)
    except (OverflowError, BadSignature, MalformedCt):
        return False
    return _within(at, key.valid_from, key.valid_until)


def _spki(certificate: bytes) -> bytes:
    return read_spki_of(split_certificate(certificate).encoded)


def _covers(anchor: _Anchor, when: datetime | None) -> bool:
    return _within(when, anchor.authority.valid_from, anchor.authority.valid_until)


def _within(when: datetime | None, start: datetime | None, end: datetime | None) -> bool:
    """True if a time is unknown or within a period."""
    return when is None or ((start is None or start <= when) and (end is None or when <= end))
