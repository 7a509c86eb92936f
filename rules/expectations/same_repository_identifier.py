"""A repository that keeps its name and changes its number: deleted and made again, perhaps by a stranger."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Self

from rules.expectations.flag import read_true
from rules.pattern import repository_key
from rules.rule import Case, Check, JudgedByPast, Schema
from settings.document import Node


@dataclass(frozen=True, slots=True)
class SameRepositoryIdentifierExpectation(JudgedByPast):
    """`same_repository_identifier: true`: a repository keeps the identifier it was first seen with."""

    id: ClassVar[str] = "repository-identifier-changed"
    key: ClassVar[str] = "same_repository_identifier"
    schema: ClassVar[Schema] = {"const": True}

    @classmethod
    def read(cls, node: Node) -> Self:
        """Read `true`."""
        read_true(node)
        return cls()

    def checks(self, case: Case) -> Iterator[Check]:
        """The identifier against those seen with this repository. The first sighting of a repository is fine."""
        label = "source_repository_identifier"
        repository = repository_key(case.signer) if case.signer is not None else None
        found = case.claim(label)
        known = (
            case.facts.past.repository_identifiers_of(case.rule.id, repository, case.certificates)
            if repository is not None
            else None
        )
        if known is None or found is None:
            sentence = "It is unknown whether this is the repository that signed before."
            yield Check(
                label, "the identifier seen before", found or "(not in the certificate)", ok=False, sentence=sentence
            )
        elif known:
            sentence = "A repository of this name signed before, but it was another one: made again or replaced."
            yield Check(label, " or ".join(sorted(known)), found, found in known, sentence)
