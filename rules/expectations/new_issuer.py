"""An identity that comes from another issuer than before."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Self

from rules.expectations.flag import read_true
from rules.rule import Case, Check, JudgedByPast, Schema
from settings.document import Node


@dataclass(frozen=True, slots=True)
class NewIssuerExpectation(JudgedByPast):
    """`same_issuer: true`: an identity keeps the issuer it was first seen under."""

    id: ClassVar[str] = "new-issuer"
    key: ClassVar[str] = "same_issuer"
    schema: ClassVar[Schema] = {"const": True}

    @classmethod
    def read(cls, node: Node) -> Self:
        """Read `true`."""
        read_true(node)
        return cls()

    def checks(self, case: Case) -> Iterator[Check]:
        """Each name of the signer against the issuers it was seen under. The first sighting of a name is fine."""
        issuer = case.claim("issuer")
        for identity in case.identities:
            known = case.facts.past.issuers_of(case.rule.id, identity, case.certificates)
            if known is None or issuer is None:
                sentence = "It is unknown whether this identity was seen under this issuer before."
                yield Check("issuer", "the issuer seen before", issuer or "(no issuer)", ok=False, sentence=sentence)
            elif known:
                sentence = "This identity was vouched for by another issuer until now."
                yield Check("issuer", " or ".join(sorted(known)), issuer, issuer in known, sentence)
