"""Only artifacts on a list: the digests of real releases."""

from collections.abc import Iterator
from typing import ClassVar, Final, Self

from msgspec import Struct

from addresses.image_name import BadImageName, parse_image_name
from addresses.url import has_credentials, is_https_or_loopback
from rules.facts import DigestSource, SourceForm
from rules.rule import Case, Check, Schema
from rules.selection import digest_text, read_digest
from settings.document import Misplaced, Node, YamlMapping
from settings.reading import Fields, read_list, read_text

_LONGEST_SHOWN: Final = 5


class DigestsExpectation(Struct, frozen=True):
    """`digests: [sha256:…]`: a digest of the entry is on the list."""

    allowed: frozenset[str]

    id: ClassVar[str] = "digests"
    key: ClassVar[str] = "digests"
    schema: ClassVar[Schema] = {"$ref": "#/$defs/digests"}

    @classmethod
    def read(cls, node: Node) -> Self:
        """Read one digest or a list of them."""
        return cls(frozenset(read_list(node, read_digest)))

    def checks(self, case: Case) -> Iterator[Check]:
        """The list against the digests of the entry."""
        yield check_digests(case, self.allowed, f"one of {len(self.allowed)} listed digests")


class DigestsFromExpectation(Struct, frozen=True):
    """`digests_from: {file: released.txt}`: a digest of the entry is on a list outside the rule file."""

    source: DigestSource

    id: ClassVar[str] = "digests-from"
    key: ClassVar[str] = "digests_from"
    schema: ClassVar[Schema] = {"$ref": "#/$defs/digestSource"}

    @classmethod
    def read(cls, node: Node) -> Self:
        """Read `{file: path}`, `{url: https://…}`, `{url_file: path}` or `{registry: host/name}`."""
        if not isinstance(node, YamlMapping) or len(node.entries) != 1:
            forms = "{file: path}, {url: https://…}, {url_file: path}, {registry: host/name}"
            raise Misplaced(f"digests_from is one of: {forms}", node)
        Fields(node, [form.value for form in SourceForm], "digests_from")
        key, value = node.entries[0]
        form = SourceForm(key.text)
        target = read_text(value)
        if form is SourceForm.URL and not is_https_or_loopback(target):
            raise Misplaced("a list of digests is only fetched over https", value)
        if form is SourceForm.URL and has_credentials(target):
            raise Misplaced("a URL with a user name or password belongs into a file: name it with `url_file`", value)
        if form is SourceForm.REGISTRY:
            target = _read_repository(value, target)
        return cls(DigestSource(form, target))

    def checks(self, case: Case) -> Iterator[Check]:
        """The fetched list against the digests of the entry; a missing list allows no digest."""
        expected = f"on the list from {self.source}"
        allowed = case.facts.known.digests_from(self.source)
        if allowed is None:
            sentence = "The list of allowed digests could not be read, so it allows no digest."
            yield Check("digest", expected, "(no list)", ok=False, sentence=sentence)
            return
        yield check_digests(case, allowed, expected)


def _read_repository(node: Node, text: str) -> str:
    try:
        image = parse_image_name(text)
    except BadImageName as error:
        raise Misplaced(f"{error}; a repository is such as ghcr.io/acme/widget", node) from error
    if image.tag or image.digest:
        raise Misplaced("a repository is written without a tag or digest: every tag in it is on the list", node)
    return image.in_full


def check_digests(case: Case, allowed: frozenset[str], expected: str) -> Check:
    """A check that a digest of the entry is on a list."""
    found = [digest_text(digest) for digest in case.signing.digests]
    if not found:
        return no_digest(case, expected)
    ok = not allowed.isdisjoint(found)
    return Check("digest", expected, ", ".join(found[:_LONGEST_SHOWN]), ok, "The signed digest is not on the list.")


def no_digest(case: Case, expected: str) -> Check:
    """The check of an entry without an artifact: met if the rule waits for a certificate's log entry."""
    if case.certificate_only:
        awaited = any(each.key == "log_entry_within" for each in case.rule.expect)
        sentence = "A certificate names no artifact: add `log_entry_within`, and the rule waits for its log entry and "
        "judges that."
        return Check("digest", expected, "(a certificate, its log entry is awaited)", awaited, sentence)
    sentence = "The entry does not show a digest of the signed artifact."
    return Check("digest", expected, "(the entry names no digest)", ok=False, sentence=sentence)
