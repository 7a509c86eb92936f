"""Signatures that a registry holds of an image, as bytes: OCI 1.1 referrers and cosign's older tags."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from msgspec import Struct

from outbound.registry import (
    EMPTY_CONFIG,
    Descriptor,
    NotInRegistry,
    Registry,
    RegistryFailed,
    RegistryManifest,
    descriptors,
)

MAX_SIGNATURES: Final = 200
BUNDLE_TYPE: Final = "application/vnd.dev.sigstore.bundle"
_TYPES: Final = (
    BUNDLE_TYPE,
    "application/vnd.dev.cosign.artifact.sig",
    "application/vnd.dev.cosign.artifact.att",
)


class RawSignature(Struct, frozen=True):
    """One layer of a signature's manifest. `place` names where it was found, for people. All fields are untrusted."""

    place: str
    media_type: str
    raw: bytes
    annotations: Mapping[str, str]


class RawSignatures(Struct, frozen=True):
    """Layers, unread places with reasons, the number of skipped ones, and other referrers."""

    found: tuple[RawSignature, ...]
    unread: tuple[tuple[str, str], ...]
    left_out: int
    others: int


def fetch_signatures(registry: Registry, manifest: RegistryManifest) -> RawSignatures:
    """Every signature and attestation of an image.

    Raises `RegistryFailed` without a list; a signature that cannot be fetched is listed as unread.
    """
    listing = registry.referrers(manifest.digest)
    named = [each for each in listing.found if each.artifact_type.startswith(_TYPES)]
    # An index written by a client (cosign 2.6) names the type of the empty config; the manifest has the real type.
    unnamed = [each for each in listing.found if each.artifact_type in ("", EMPTY_CONFIG)]
    wanted, others = [*named, *unnamed], len(listing.found) - len(named) - len(unnamed)
    found: list[RawSignature] = []
    unread: list[tuple[str, str]] = []
    for each in wanted[:MAX_SIGNATURES]:
        place = f"referrer {each.digest}"
        try:
            signed = registry.manifest(each.digest)
        except RegistryFailed as error:
            unread.append((place, str(error)))
            continue
        subject = signed.document.get("subject")
        if not isinstance(subject, dict) or subject.get("digest") != manifest.digest:
            unread.append((place, "the registry lists it, but it is about another image"))
            continue
        if not _is_signature(each, signed):
            others += 1
            continue
        _read_layers(registry, signed, place, found, unread)
    for suffix in ("sig", "att"):
        tag = f"{manifest.digest.replace(':', '-')}.{suffix}"
        with suppress(NotInRegistry):
            _read_layers(registry, registry.manifest(tag), f"tag {tag}", found, unread)
    left_out = listing.left_out + max(0, len(wanted) - MAX_SIGNATURES) + max(0, len(found) - MAX_SIGNATURES)
    return RawSignatures(tuple(found[:MAX_SIGNATURES]), tuple(unread), left_out, others)


def _is_signature(descriptor: Descriptor, manifest: RegistryManifest) -> bool:
    told = str(manifest.document.get("artifactType") or "")
    layers = (each.media_type for each in descriptors(manifest.document, "layers"))
    return any(each.startswith(_TYPES) for each in (descriptor.artifact_type, told, *layers))


def _read_layers(
    registry: Registry, manifest: RegistryManifest, place: str, found: list[RawSignature], unread: list[tuple[str, str]]
) -> None:
    layers = list(descriptors(manifest.document, "layers"))
    for number, layer in enumerate(layers[:MAX_SIGNATURES]):
        where = f"{place}[{number}]" if len(layers) > 1 else place
        try:
            found.append(RawSignature(where, layer.media_type, registry.blob(layer.digest), layer.annotations))
        except RegistryFailed as error:
            unread.append((where, str(error)))
    if len(layers) > MAX_SIGNATURES:
        unread.append((place, f"{len(layers) - MAX_SIGNATURES} more signatures in it are not looked at"))
    if not layers:
        unread.append((place, "it has no layers"))
