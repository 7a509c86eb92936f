"""Expectations on one claim of a Fulcio certificate: the claim is there, reads, and matches one of the patterns."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Final, Self

from rules.pattern import Pattern, read_pattern
from rules.rule import Case, Check, Schema
from settings.document import Node
from settings.reading import read_list

ABSENT: Final = "(not in the certificate)"
PATTERNS: Final[Schema] = {"$ref": "#/$defs/patterns"}


@dataclass(frozen=True, slots=True)
class ClaimExpectation:
    """`claims` are tried in order: the claim itself, then what older certificates carry instead."""

    patterns: tuple[Pattern, ...]

    id: ClassVar[str]
    key: ClassVar[str]
    schema: ClassVar[Schema] = PATTERNS
    claims: ClassVar[tuple[str, ...]]
    sentence: ClassVar[str]

    @classmethod
    def read(cls, node: Node) -> Self:
        """Read a pattern or a list of patterns."""
        return cls(read_list(node, read_pattern))

    def checks(self, case: Case) -> Iterator[Check]:
        """One check for each of the claims the certificate carries; one that fails when it carries none."""
        found = list(self.found(case))
        expected = " or ".join(str(pattern) for pattern in self.patterns)
        if not found:
            sentence = f"{self.sentence} The certificate does not say, so it counts as unexpected."
            yield Check(self.claims[0], expected, ABSENT, ok=False, sentence=sentence)
        for name, value in found:
            ok = any(self.accepts(pattern, value) for pattern in self.patterns)
            yield Check(name, expected, value, ok, self.sentence)

    def found(self, case: Case) -> Iterator[tuple[str, str]]:
        """Names and values of the claims that the certificate carries."""
        for name in self.claims:
            if (value := case.claim(name)) is not None:
                yield name, value

    def accepts(self, pattern: Pattern, value: str) -> bool:
        """Whether the claim is what the pattern means."""
        return pattern.matches(value)


def without_ref(uri: str) -> str:
    """A workflow URI (`https://host/owner/name/path@ref`) without its ref."""
    # A workflow file lies directly in its folder, so its name cannot hold "@refs/"; a branch name can.
    path, at, _ = uri.partition("@refs/")
    return path if at else uri.rpartition("@")[0] or uri
