"""Digests under which a log enters the signature of a release: an image, a commit, a file.

A log names the digest of the signed bytes. For images these are a statement about the image, not the image. The
statement of `cosign sign` is fixed, so the digests in the log follow from the image's digest.
"""

import hashlib
import json
from collections.abc import Iterator
from typing import Final

from msgspec import Struct

from addresses.image_name import ImageName

IN_TOTO: Final = "application/vnd.in-toto+json"
IMAGE_SIGNATURE: Final = "https://sigstore.dev/cosign/sign/v1"
STATEMENT: Final = "https://in-toto.io/Statement/v1"
SIMPLE_SIGNING: Final = "cosign container image signature"
_COMPACT: Final = (",", ":")
# SPEC Go protojson: depending on its build, a client writes a space after each comma, or none.
_SPACED: Final = (", ", ":")
_SHA256: Final = "sha256:"


class Release(Struct, frozen=True):
    """A released object, and every digest under which a log may hold one of its signatures: `sha256:…`, or another.

    A P-384 key signs a SHA-384, an Ed25519 key a SHA-512. `what` names the object for people.
    """

    what: str
    digests: tuple[str, ...]


def pre_authentication(payload_type: str, payload: bytes) -> bytes:
    """The bytes that a DSSE signature signs. SPEC DSSE v1, PAE: "DSSEv1", then lengths and texts."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def image_statement(digest: str, *, spaced: bool = False) -> bytes:
    """The statement that `cosign sign` (version 3) and `sign-lite image sign` sign about an image's digest."""
    statement = {
        "_type": STATEMENT,
        "subject": [{"digest": {"sha256": digest.removeprefix(_SHA256)}, "annotations": {}}],
        "predicateType": IMAGE_SIGNATURE,
        "predicate": {},
    }
    return json.dumps(statement, separators=_SPACED if spaced else _COMPACT).encode()


def simple_signing(image: ImageName) -> bytes:
    """The payload that cosign signed about an image before its version 3. SPEC containers/image, simple signing."""
    payload = {
        "critical": {
            "identity": {"docker-reference": image.in_full},
            "image": {"docker-manifest-digest": image.digest},
            "type": SIMPLE_SIGNING,
        },
        "optional": None,
    }
    return json.dumps(payload, separators=_COMPACT).encode()


def released_image(image: ImageName) -> Release:
    """Digests that the logs show for a signature of this image: Rekor v1 the statement's digest, Rekor v2 its PAE's.

    The image must have a digest. A signature with annotations, and any other attestation, has its own statement.
    """
    if image.digest is None:
        raise ValueError(f"{image} has no digest: a tag can be moved, so it does not identify the signed image")
    return Release(f"image {image.in_full}@{image.digest}", tuple(dict.fromkeys(_of_image(image, image.digest))))


def _of_image(image: ImageName, digest: str) -> Iterator[str]:
    statements = [image_statement(digest, spaced=spaced) for spaced in (False, True)]
    for each in statements:
        yield sha256(each)
        yield sha256(pre_authentication(IN_TOTO, each))
    for each in statements:
        for name in ("sha384", "sha512"):
            yield f"{name}:{hashlib.new(name, pre_authentication(IN_TOTO, each)).hexdigest()}"
    yield sha256(simple_signing(image))


def released_commit(commit: str, signed_attributes: bytes | None, kind: str = "commit") -> Release:
    """Digest that the log shows for a signature of this commit or tag (`kind`), by its hexadecimal id.

    gitsign enters the digest of the id as text (its online mode), or that of the signed attributes of the CMS
    signature in the commit (its offline mode), which exist only after signing.
    """
    digests = [sha256(commit.encode())]
    if signed_attributes is not None:
        digests.append(sha256(signed_attributes))
    return Release(f"{kind} {commit}", tuple(digests))


def sha256(content: bytes) -> str:
    """SHA-256 as the rules spell it: `sha256:` and lower-case digits."""
    return _SHA256 + hashlib.sha256(content).hexdigest()
