"""Names of container images, strictly parsed. SPEC distribution reference grammar; OCI distribution-spec 1.1."""

import re
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

DOCKER_HUB: Final = "index.docker.io"
MAX_NAME: Final = 255
# SPEC distribution-spec: <name> and <reference>.
_REGISTRY: Final = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9a-fA-F:.]{2,45}\])(?::[0-9]{1,5})?"
)
_PATH: Final = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_HUB_NAMES: Final = frozenset({"docker.io", "registry-1.docker.io", DOCKER_HUB})


class BadImageName(ValueError):
    """The text is not a valid image name."""


class ImageName(Struct, frozen=True):
    """Registry host (with a port where it has one), repository, and a tag, a digest (`sha256:…`) or neither."""

    registry: str
    repository: str
    tag: str | None = None
    digest: str | None = None

    @property
    def in_full(self) -> str:
        """Registry and repository, as cosign writes them into a signature (`docker-reference`)."""
        return f"{self.registry}/{self.repository}"

    def at(self, digest: str) -> "ImageName":
        """The image of this repository with the given digest. Raises `BadImageName`."""
        if not is_digest(digest):
            raise BadImageName(f"{digest!r:.80} is no SHA-256 digest")
        return replace(self, tag=None, digest=digest)

    def __str__(self) -> str:
        return self.in_full + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def is_digest(text: object) -> bool:
    """True if the value is a digest as registries write it: `sha256:` and 64 lower-case hexadecimal digits."""
    return isinstance(text, str) and _DIGEST.fullmatch(text) is not None


def is_tag(text: object) -> bool:
    """True if the value is a valid tag."""
    return isinstance(text, str) and _TAG.fullmatch(text) is not None


def parse_image_name(text: str) -> ImageName:
    """Parse `REGISTRY/NAME[:TAG][@sha256:…]`. Raises `BadImageName`.

    A name without a registry is on Docker Hub, as for other clients; a single word is in Docker Hub's `library/`.
    """
    name, _, digest = text.partition("@")
    if digest and not is_digest(digest):
        raise BadImageName(f"{digest!r:.80} is no SHA-256 digest: write @sha256: and 64 lower-case digits")
    if text.endswith("@"):
        raise BadImageName("a digest is missing after @")
    first, slash, rest = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        registry, path = first, rest
    else:
        registry, path = DOCKER_HUB, name
    if registry in _HUB_NAMES:
        registry = DOCKER_HUB
    path, colon, tag = path.partition(":")
    if registry == DOCKER_HUB and "/" not in path:
        path = f"library/{path}"
    if colon and not is_tag(tag):
        raise BadImageName(f"{tag!r:.80} is no tag")
    if not _REGISTRY.fullmatch(registry):
        raise BadImageName(f"{registry!r:.80} is no registry host")
    if len(path) > MAX_NAME or not _PATH.fullmatch(path):
        raise BadImageName(f"{path!r:.80} is no repository: lower-case words with / between them")
    return ImageName(registry, path, tag or None, digest or None)
