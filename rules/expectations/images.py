"""Only images on a list: the digests under which a log shows a signature of each."""

from collections.abc import Iterator
from typing import ClassVar, Self

from msgspec import Struct

from addresses.image_name import BadImageName, parse_image_name
from rules.expectations.digests import check_digests
from rules.rule import Case, Check, Schema
from settings.document import Misplaced, Node
from settings.reading import read_list, read_text
from sigstore_entries.release import Release, released_image


class ImagesExpectation(Struct, frozen=True):
    """`images: [ghcr.io/acme/app@sha256:…]`: the entry is of a signature by cosign or sign-lite of a listed image."""

    releases: tuple[Release, ...]
    allowed: frozenset[str]

    id: ClassVar[str] = "images"
    key: ClassVar[str] = "images"
    schema: ClassVar[Schema] = {"$ref": "#/$defs/images"}

    @classmethod
    def read(cls, node: Node) -> Self:
        """Read one image name with its digest, or a list of them."""
        releases = tuple(read_list(node, _read_image))
        return cls(releases, frozenset(digest for each in releases for digest in each.digests))

    def checks(self, case: Case) -> Iterator[Check]:
        """The digests that follow from the images against the digests of the entry."""
        yield check_digests(case, self.allowed, f"a signature of one of {len(self.releases)} listed images")


def _read_image(node: Node) -> Release:
    try:
        return released_image(parse_image_name(read_text(node)))
    except (BadImageName, ValueError) as error:
        raise Misplaced(f"{error}; an image is REGISTRY/NAME@sha256:…", node) from error
