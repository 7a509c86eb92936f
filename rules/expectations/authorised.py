"""An earlier authorisation to sign: one digest, a number of times, until a date."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Self

from rules.expectations.digests import no_digest
from rules.facts import Authorisation
from rules.rule import Case, Check, JudgedByFacts, Schema
from rules.selection import digest_text, read_digest
from settings.document import Misplaced, Node, YamlSequence
from settings.reading import Fields, read_number, read_text, read_timestamp


@dataclass(frozen=True, slots=True)
class AuthorisedExpectation(JudgedByFacts):
    """`authorised: [{digest: sha256:…, count: 1, expires: 2026-12-01T00:00:00Z}]`; `[]` for recorded ones alone."""

    inline: tuple[Authorisation, ...]

    id: ClassVar[str] = "authorised"
    key: ClassVar[str] = "authorised"
    schema: ClassVar[Schema] = {"type": "array", "items": {"$ref": "#/$defs/authorisation"}}

    @classmethod
    def read(cls, node: Node) -> Self:
        """Read a list of authorisations, which may be empty."""
        if not isinstance(node, YamlSequence):
            raise Misplaced("authorised is a list; [] allows only authorisations recorded with the monitor", node)
        return cls(tuple(_read_one(item) for item in node.items))

    def checks(self, case: Case) -> Iterator[Check]:
        """Some digest of the entry has a valid authorisation that is not used up."""
        expected = "a digest authorised beforehand"
        found = [digest_text(digest) for digest in case.signing.digests]
        if not found:
            yield no_digest(case, expected)
            return
        refusals: list[str] = []
        for digest in dict.fromkeys(found):
            refusal = self._refusal(digest, case)
            if refusal is None:
                yield Check("digest", expected, digest, ok=True, sentence="")
                return
            refusals.append(refusal)
        yield Check("digest", expected, "; ".join(refusals), ok=False, sentence="This signing was not authorised.")

    def _refusal(self, digest: str, case: Case) -> str | None:
        known = [each for each in self.inline if each.digest == digest]
        known += case.facts.authorised.authorisations(case.rule.id, digest)
        # Without a time in the entry, the time of reading it decides, which can only be later.
        when = case.signed_at or case.now
        live = [each for each in known if when <= each.expires]
        if not live:
            return f"{digest} ({'its authorisation has expired' if known else 'not authorised'})"
        counted = dict.fromkeys(each for authorisation in live for each in authorisation.digests)
        count = sum(each.count for each in live)
        used = sum(case.facts.past.times_signed(case.rule.id, each, case.signing.where) for each in counted)
        return None if used < count else f"{digest} (authorised signings: {count}, made already: {used})"


def _read_one(node: Node) -> Authorisation:
    fields = Fields(node, ("digest", "count", "expires", "note"), "an authorisation")
    return Authorisation(
        digest=read_digest(fields.need("digest")),
        count=fields.read("count", _read_count, 1),
        expires=read_timestamp(fields.need("expires")),
        note=fields.read("note", read_text, ""),
    )


def _read_count(node: Node) -> int:
    number = read_number(node)
    if not number:
        raise Misplaced("a count is at least 1", node)
    return number
