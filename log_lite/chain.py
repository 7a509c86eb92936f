"""Checks of a CT log before it promises to log a certificate (RFC 6962 3.1), and the leaf of that certificate."""

from collections.abc import Sequence
from hashlib import sha256
from itertools import pairwise
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID
from msgspec import Struct

from log_lite.ledger import CT, PendingEntry, SealedLeaf
from sigstore_entries.der import MalformedDer, tbs_without_scts
from sigstore_entries.x509_errors import X509_ERRORS
from tlog.ct import CtLeaf, EntryType, leaf_timestamped_entry

_MAX_CHAIN: Final = 10
_LEAF_INDEX: Final = b"\x00"  # static-ct-api: ExtensionType leaf_index


class BadChain(Exception):
    """The chain is not one this log accepts; the message is for the client."""


class Submission(Struct, frozen=True):
    """A checked certificate: `signed` is its part in the leaf, `certificate` the DER that the client sent.

    `signed` is the TBSCertificate of a precertificate and the certificate itself otherwise; `chain` the issuers' DER,
    up to the root.
    """

    entry_type: EntryType
    issuer_key_hash: bytes
    certificate: bytes
    signed: bytes
    chain: tuple[bytes, ...]

    def leaf(self, index: int, now_ms: int) -> CtLeaf:
        """Return the leaf at `index`. The SCT's extension names the index, so readers need no search for it."""
        return CtLeaf(now_ms, self.entry_type, self.issuer_key_hash, self.signed, leaf_index_extension(index))

    def draft(self) -> PendingEntry:
        """Return a draft for the CT log. A certificate that the log already holds keeps its index and timestamp."""
        identity = sha256(self.entry_type.to_bytes(2, "big") + self.issuer_key_hash + self.signed).digest()
        issuers = tuple((sha256(der).digest(), der) for der in self.chain)
        return PendingEntry(CT, identity, self._seal, issuers=issuers)

    def _seal(self, index: int, now_ms: int) -> SealedLeaf:
        body = b"\x00\x00" + leaf_timestamped_entry(self.leaf(index, now_ms))
        return SealedLeaf(body, self.extra_data())

    def extra_data(self) -> bytes:
        """RFC 6962 4.6 extra_data: the chain, with the precertificate in front for precert entries."""
        listed = b"".join(_vector3(der) for der in self.chain)
        precertificate = _vector3(self.certificate) if self.entry_type is EntryType.PRECERT else b""
        return precertificate + _vector3(listed)


def leaf_index_extension(index: int) -> bytes:
    """SPEC static-ct-api: ExtensionType leaf_index(0), uint16 length 5, uint40 index."""
    return _LEAF_INDEX + (5).to_bytes(2, "big") + index.to_bytes(5, "big")


def _vector3(raw: bytes) -> bytes:
    return len(raw).to_bytes(3, "big") + raw


def check_chain(chain: Sequence[bytes], anchors: Sequence[x509.Certificate], *, precertificate: bool) -> Submission:
    """Verify a submitted chain, leaf first, up to an anchor. Raises `BadChain`."""
    if not 1 <= len(chain) <= _MAX_CHAIN:
        raise BadChain(f"a chain has 1 to {_MAX_CHAIN} certificates")
    try:
        certificates = [x509.load_der_x509_certificate(der) for der in chain]
        leaf = certificates[0]
        _check_leaf(leaf, precertificate=precertificate)
        issuers = _issuers(certificates, anchors)
        return _submission(leaf, issuers, precertificate=precertificate)
    except (*X509_ERRORS, MalformedDer) as error:
        raise BadChain(f"certificate cannot be read: {error}") from error


def _check_leaf(leaf: x509.Certificate, *, precertificate: bool) -> None:
    extensions = {extension.oid: extension for extension in leaf.extensions}
    poison = extensions.get(ExtensionOID.PRECERT_POISON)
    if (poison is not None) != precertificate:
        raise BadChain("cert / precert mismatch: add-pre-chain takes precertificates, add-chain takes certificates")
    if poison is not None and not poison.critical:
        raise BadChain("the precertificate poison is not critical")
    if poison is not None and ExtensionOID.PRECERT_SIGNED_CERTIFICATE_TIMESTAMPS in extensions:
        raise BadChain("a precertificate holds no signed certificate timestamps yet")
    usage = extensions.get(ExtensionOID.EXTENDED_KEY_USAGE)
    if usage is None or ExtendedKeyUsageOID.CODE_SIGNING not in usage.value:
        raise BadChain("certificate is not for code signing (extended key usage)")


def _issuers(certificates: Sequence[x509.Certificate], anchors: Sequence[x509.Certificate]) -> list[x509.Certificate]:
    if not anchors:
        raise BadChain("this log accepts no certificates: it was started without --ct-roots")
    path = list(certificates)
    for child, issuer in pairwise(path):
        _check_issued(child, issuer)
    # The last certificate sent is an anchor, or an anchor issued it; the anchors then lead up to a self-signed root.
    while path[-1] not in anchors or path[-1].subject != path[-1].issuer:
        above = next((a for a in anchors if _issued(path[-1], a)), None)
        if above is None:
            break
        path.append(above)
        if len(path) > 2 * _MAX_CHAIN:
            raise BadChain("certificate chain does not end")
    if path[-1] not in anchors:
        raise BadChain("certificate chain does not lead to an accepted root")
    return path[1:]


def _check_issued(child: x509.Certificate, issuer: x509.Certificate) -> None:
    if not _issued(child, issuer):
        raise BadChain("a certificate in the chain was not issued by the next one")


def _issued(child: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        if not issuer.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return False
        child.verify_directly_issued_by(issuer)
    except (*X509_ERRORS, InvalidSignature, x509.ExtensionNotFound):
        return False
    return True


def _submission(leaf: x509.Certificate, issuers: list[x509.Certificate], *, precertificate: bool) -> Submission:
    der = leaf.public_bytes(Encoding.DER)
    chain = tuple(issuer.public_bytes(Encoding.DER) for issuer in issuers)
    if not precertificate:
        return Submission(EntryType.X509, b"", der, der, chain)
    spki = issuers[0].public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    # SPEC RFC 6962 3.2: the leaf holds the TBSCertificate without the poison; everything else keeps its bytes.
    tbs = tbs_without_scts(der)
    return Submission(EntryType.PRECERT, sha256(spki).digest(), der, tbs, chain)
