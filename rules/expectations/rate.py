"""The greatest number of signings in a period."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar, Self

from rules.rule import Case, Check, JudgedByFacts, Schema
from settings.document import Node
from settings.reading import Fields, read_duration, read_number


@dataclass(frozen=True, slots=True)
class RateExpectation(JudgedByFacts):
    """`rate: {at_most: 5, per: 1d}`."""

    at_most: int
    per: timedelta

    id: ClassVar[str] = "rate"
    key: ClassVar[str] = "rate"
    schema: ClassVar[Schema] = {"$ref": "#/$defs/rate"}

    @classmethod
    def read(cls, node: Node) -> Self:
        """Read a count and a duration."""
        fields = Fields(node, ("at_most", "per"), "rate")
        return cls(read_number(fields.need("at_most")), read_duration(fields.need("per")))

    def checks(self, case: Case) -> Iterator[Check]:
        """Count the signings under this rule up to and including this one."""
        if case.certificate_only:
            return  # its log entry is the one counted
        when = case.signed_at or case.now
        count = case.facts.past.signings(case.rule.id, when - self.per, when, case.signing.where) + 1
        expected = f"at most {self.at_most} in {self.per}"
        yield Check(
            "rate", expected, str(count), count <= self.at_most, "There were more signings than the rule allows for."
        )
