"""Expectations that a name keeps what it was first seen with."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Self

from rules.pattern import repository_key
from rules.rule import ABSENT, Case, Check, JudgedByFacts, Schema
from settings.document import Misplaced, Node
from settings.reading import read_flag


@dataclass(frozen=True, slots=True)
class _UnchangedExpectation(JudgedByFacts):
    schema: ClassVar[Schema] = {"const": True}

    @classmethod
    def read(cls, node: Node) -> Self:
        """Accept `true` alone. Raises `Misplaced`: `false` would look like a setting and mean nothing."""
        if not read_flag(node):
            raise Misplaced("write true, or leave the key out", node)
        return cls()


class NewIssuerExpectation(_UnchangedExpectation):
    """`same_issuer: true`: an identity keeps the issuer it was first seen under."""

    __slots__ = ()
    id: ClassVar[str] = "new-issuer"
    key: ClassVar[str] = "same_issuer"

    def checks(self, case: Case) -> Iterator[Check]:
        """Each name of the signer against its earlier issuers. The first issuer of a name is expected."""
        issuer = case.claim("issuer")
        for identity in case.identities:
            known = case.facts.past.issuers_of(case.rule.id, identity, case.certificates)
            if known is None or issuer is None:
                sentence = "It is unknown whether this identity signed under this issuer before."
                yield Check("issuer", "the issuer seen before", issuer or "(no issuer)", ok=False, sentence=sentence)
            elif known:
                sentence = "Until now, this identity signed with certificates of another issuer."
                yield Check("issuer", " or ".join(sorted(known)), issuer, issuer in known, sentence)


class SameRepositoryIdentifierExpectation(_UnchangedExpectation):
    """`same_repository_identifier: true`: a repository keeps the identifier it was first seen with.

    One that keeps its name and changes its number was deleted and made again, perhaps by a stranger.
    """

    __slots__ = ()
    id: ClassVar[str] = "repository-identifier-changed"
    key: ClassVar[str] = "same_repository_identifier"

    def checks(self, case: Case) -> Iterator[Check]:
        """The identifier against earlier ones of this repository. The first identifier of a repository is expected."""
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
            yield Check(label, "the identifier seen before", found or ABSENT, ok=False, sentence=sentence)
        elif known:
            sentence = "A repository of this name signed before, but it was another one: made again or replaced."
            yield Check(label, " or ".join(sorted(known)), found, found in known, sentence)
