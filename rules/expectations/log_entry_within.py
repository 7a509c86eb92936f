"""A certificate in a CT log whose signature never reaches a signature log: signed in secret, or never used."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ClassVar, Self

from rules.expectations.delayed import check_seen, due_at
from rules.rule import Case, Check, DelayedExpectation, Schema
from settings.document import Node
from settings.reading import read_duration


@dataclass(frozen=True, slots=True)
class LogEntryWithinExpectation(DelayedExpectation):
    """`log_entry_within: 1h`: a certificate is followed by an entry in a signature log."""

    within: timedelta

    id: ClassVar[str] = "certificate-without-entry"
    key: ClassVar[str] = "log_entry_within"
    schema: ClassVar[Schema] = {"$ref": "#/$defs/duration"}

    @classmethod
    def read(cls, node: Node) -> Self:
        """Read a duration."""
        return cls(read_duration(node))

    def due_at(self, case: Case) -> datetime | None:
        """When the log entry must have appeared; `None` for entries that are no certificate."""
        return due_at(self.within, case) if case.certificate_only else None

    def checks(self, case: Case) -> Iterator[Check]:
        """Once the time is over, an entry signed with this very certificate must have been seen."""
        due = self.due_at(case)
        if due is not None and case.signer is not None and case.now >= due:
            sentence = "A certificate was issued for this identity and no signature made with it was logged."
            yield from check_seen(
                "log entry", self.within, case.facts.known.in_signature_log(case.signer.issued), sentence
            )
