"""The identity of an issued certificate, whichever log shows it: as final certificate, precertificate or CT leaf.

RFC 6962 3.2 signs a certificate timestamp over the issuer's key hash and the TBSCertificate without poison and SCT
list. The same pair is equal for a precertificate and the certificate made from it, and for no other.
"""

from hashlib import sha256
from typing import Final

from sigstore_entries import der
from sigstore_entries.tbs import split_certificate

_POISON: Final = der.encode(der.OBJECT_IDENTIFIER, bytes.fromhex("2b06010401d679020403"))
_SCT_LIST: Final = der.encode(der.OBJECT_IDENTIFIER, bytes.fromhex("2b06010401d679020402"))
_EXTENSIONS: Final = 0xA3


def tbs_without_scts(certificate: bytes) -> bytes:
    """DER TBSCertificate of a certificate or precertificate, without SCT list and poison, in its order.

    Raises `der.MalformedDer`.
    """
    tbs = split_certificate(certificate)
    kept: list[bytes] = []
    for part in der.children(tbs):
        if part.tag != _EXTENSIONS:
            kept.append(part.encoded)
            continue
        listed = der.only(part.content, der.SEQUENCE, "the extensions")
        extensions = [each.encoded for each in der.children(listed) if not _is_ct(each)]
        # RFC 5280 4.1: Extensions is SEQUENCE SIZE (1..MAX), so without any the whole field goes.
        if extensions:
            kept.append(der.encode(_EXTENSIONS, der.encode(der.SEQUENCE, b"".join(extensions))))
    return der.encode(der.SEQUENCE, b"".join(kept))


def _is_ct(extension: der.Value) -> bool:
    first = next(der.children(extension.expect(der.SEQUENCE, "an extension")), None)
    return first is not None and first.encoded in {_POISON, _SCT_LIST}


def certificate_key(certificate: bytes) -> bytes:
    """SHA-256 that a certificate shares with its precertificate and with that one's CT leaf (`tbs_key`).

    The issuer is in the TBSCertificate by name and key identifier; the issuer's key itself is not, so two authorities
    under one name and key identifier would collide: judge the chain as well. Raises `der.MalformedDer`.
    """
    return tbs_key(tbs_without_scts(certificate))


def tbs_key(tbs: bytes) -> bytes:
    """SHA-256 of a TBSCertificate without SCT list and poison, as a CT precertificate leaf holds it."""
    return sha256(b"signwatch certificate\x00" + tbs).digest()
