"""Kinds of signed packages and of rekord's four key formats: rekord, jar, rpm, alpine and helm."""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Final

from sigstore_entries.body import BodyObject, DecodedBody, MalformedBody, hex_digest, shown
from sigstore_entries.keys import signer_from_minisign, signer_from_pem, signer_from_pgp, signer_from_ssh
from sigstore_entries.signing import Signer

_FORMATS: Final[Mapping[str, Callable[[bytes], Signer]]] = MappingProxyType(
    {
        "x509": partial(signer_from_pem, what="signature.publicKey.content"),
        "pgp": signer_from_pgp,
        "ssh": signer_from_ssh,
        "minisign": signer_from_minisign,
    }
)


def rekord_v1(spec: BodyObject) -> DecodedBody:
    """Decode rekord 0.0.1: a digest and a key in one of four formats."""
    signature = spec.object("signature")
    form = signature.text("format")
    read = _FORMATS.get(form)
    if read is None:
        raise MalformedBody(f"rekord has no key format {shown(form)}", "unsupported-kind")
    key = signature.object("publicKey").bytes("content")
    signer = signer_from_pgp(key, _signature(spec, "signature")) if form == "pgp" else read(key)
    return DecodedBody((signer,), (hex_digest(spec.object("data", "hash")),))


def jar_v1(spec: BodyObject) -> DecodedBody:
    """Decode jar 0.0.1."""
    text = spec.object("signature", "publicKey").bytes("content")
    return DecodedBody(
        (signer_from_pem(text, "signature.publicKey.content"),), (hex_digest(spec.object("archive", "hash")),)
    )


def rpm_v1(spec: BodyObject) -> DecodedBody:
    """Decode rpm 0.0.1. The signature is in the package, not in the entry."""
    signer = signer_from_pgp(spec.object("publicKey").bytes("content"))
    return DecodedBody((signer,), (hex_digest(spec.object("package", "hash")),))


def alpine_v1(spec: BodyObject) -> DecodedBody:
    """Decode alpine 0.0.1."""
    signer = signer_from_pem(spec.object("publicKey").bytes("content"), "publicKey.content")
    return DecodedBody((signer,), (hex_digest(spec.object("package", "hash")),))


def helm_v1(spec: BodyObject) -> DecodedBody:
    """Decode helm 0.0.1."""
    signature = _signature(spec, "chart", "provenance", "signature")
    signer = signer_from_pgp(spec.object("publicKey").bytes("content"), signature)
    return DecodedBody((signer,), (hex_digest(spec.object("chart", "hash")),))


def _signature(spec: BodyObject, *path: str) -> bytes | None:
    """The entry's signature; `None` where it cannot be read and so cannot name the key that made it."""
    try:
        return spec.object(*path).bytes("content")
    except MalformedBody:
        return None
