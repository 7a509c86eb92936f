"""A log entry whose certificate no CT log shows: issued in secret by an authority that is trusted."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ClassVar, Self

from rules.expectations.delayed import check_seen, due_at
from rules.rule import Case, Check, DelayedExpectation, Schema
from settings.document import Node
from settings.reading import read_duration
from sigstore_entries.signing import SignerForm


@dataclass(frozen=True, slots=True)
class CertificateLogWithinExpectation(DelayedExpectation):
    """`certificate_log_within: 15m`: the certificate of an entry is seen in a CT log too."""

    within: timedelta

    id: ClassVar[str] = "entry-without-certificate"
    key: ClassVar[str] = "certificate_log_within"
    schema: ClassVar[Schema] = {"$ref": "#/$defs/duration"}

    @classmethod
    def read(cls, node: Node) -> Self:
        """Read a duration."""
        return cls(read_duration(node))

    def due_at(self, case: Case) -> datetime | None:
        """When the certificate must have been seen; `None` without a certificate, which is no matter of CT."""
        has_one = case.signer is not None and case.signer.form is SignerForm.CERTIFICATE
        return due_at(self.within, case) if has_one and not case.certificate_only else None

    def checks(self, case: Case) -> Iterator[Check]:
        """Once the time is over, this very certificate must have been seen in a CT log."""
        due = self.due_at(case)
        if due is not None and case.signer is not None and case.now >= due:
            seen = case.facts.known.in_certificate_log(case.signer.issued)
            sentence = "The certificate of this entry is in none of the certificate logs."
            yield from check_seen("certificate log", self.within, seen, sentence)
