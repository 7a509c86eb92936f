"""The identity of an issued certificate, whichever log shows it: as final certificate, precertificate or CT leaf.

RFC 6962 3.2 signs a certificate timestamp over the issuer's key hash and the TBSCertificate without poison and SCT
list. The same pair is equal for a precertificate and the certificate made from it, and for no other.
"""

from collections.abc import Iterator
from hashlib import sha256
from typing import Final

from sigstore_entries import der
from sigstore_entries.tbs import split_certificate

_POISON: Final = der.encode(der.OBJECT_IDENTIFIER, bytes.fromhex("2b06010401d679020403"))
_SCT_LIST: Final = der.encode(der.OBJECT_IDENTIFIER, bytes.fromhex("2b06010401d679020402"))
_CT_OIDS: Final = (_POISON, _SCT_LIST)
_EXTENSIONS: Final = 0xA3


def tbs_without_scts(certificate: bytes) -> bytes:
    """DER TBSCertificate of a certificate or precertificate, without SCT list and poison, in its order.

    Raises `der.MalformedDer`.
    """
    tbs = split_certificate(certificate)
    parts = (
        part if tag != _EXTENSIONS else _without_scts(part)
        for tag, _, part in _parts(tbs.raw, tbs.content_start, tbs.end)
    )
    return der.encode(der.SEQUENCE, b"".join(parts))


def _without_scts(extensions: bytes) -> bytes:
    """The extensions field of a TBSCertificate without SCT list and poison."""
    listed = der.only(der.only(extensions, _EXTENSIONS, "the field").content, der.SEQUENCE, "the extensions")
    kept = []
    for tag, content, extension in _parts(listed.raw, listed.content_start, listed.end):
        if tag != der.SEQUENCE:
            raise der.MalformedDer(f"an extension has tag {tag:#04x}, not {der.SEQUENCE:#04x}")
        if not extension.startswith(_CT_OIDS, content):
            kept.append(extension)
    # RFC 5280 4.1: Extensions is SEQUENCE SIZE (1..MAX), so without any the whole field goes.
    return der.encode(_EXTENSIONS, der.encode(der.SEQUENCE, b"".join(kept))) if kept else b""


def _parts(raw: bytes, at: int, end: int) -> Iterator[tuple[int, int, bytes]]:
    """Values between two places: tag, where in it the content starts, and all of it. Raises `der.MalformedDer`."""
    left = der.MAX_CHILDREN
    while at < end:
        if not left:
            raise der.MalformedDer("a value holds too many others")
        tag, content, behind = der.header(raw, at, end)
        yield tag, content - at, raw[at:behind]
        at, left = behind, left - 1


def certificate_key(certificate: bytes) -> bytes:
    """SHA-256 that a certificate shares with its precertificate and with that one's CT leaf (`tbs_key`).

    The issuer is in the TBSCertificate by name and key identifier; the issuer's key itself is not, so two authorities
    under one name and key identifier would collide: judge the chain as well. Raises `der.MalformedDer`.
    """
    return tbs_key(tbs_without_scts(certificate))


def tbs_key(tbs: bytes) -> bytes:
    """SHA-256 of a TBSCertificate without SCT list and poison, as a CT precertificate leaf holds it."""
    return sha256(b"signwatch certificate\x00" + tbs).digest()
