"""Expectations that the certificate log and the signature logs agree, some time after an entry was seen."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ClassVar, Final, Self

from rules.rule import Case, Check, DelayedExpectation, Schema
from settings.document import Node
from settings.reading import read_duration
from sigstore_entries.signing import SignerForm

_FOUND: Final = {True: "seen", False: "not seen", None: "(those logs were not followed)"}


@dataclass(frozen=True, slots=True)
class _WithinExpectation(DelayedExpectation):
    within: timedelta

    schema: ClassVar[Schema] = {"$ref": "#/$defs/duration"}

    @classmethod
    def read(cls, node: Node) -> Self:
        """Read a duration."""
        return cls(read_duration(node))

    def _due(self, case: Case) -> datetime:
        return (case.signed_at or case.now) + self.within

    def _check(self, label: str, sentence: str, *, seen: bool | None) -> Iterator[Check]:
        """A check that the other log showed the certificate or entry; unknown counts as no."""
        yield Check(label, f"within {self.within}", _FOUND[seen], seen is True, sentence)


class LogEntryWithinExpectation(_WithinExpectation):
    """`log_entry_within: 1h`: a certificate in a CT log is followed by an entry in a signature log.

    One without an entry was used in secret, or never.
    """

    __slots__ = ()
    id: ClassVar[str] = "certificate-without-entry"
    key: ClassVar[str] = "log_entry_within"

    def due_at(self, case: Case) -> datetime | None:
        """Time by which the log entry must have appeared; `None` for entries other than certificates."""
        return self._due(case) if case.certificate_only else None

    def checks(self, case: Case) -> Iterator[Check]:
        """Once the time is over, an entry signed with this very certificate must have been seen."""
        due = self.due_at(case)
        if due is not None and case.signer is not None and case.now >= due:
            seen = case.facts.known.in_signature_log(case.signer.issued)
            sentence = "A certificate was issued for this identity and no signature made with it was logged."
            yield from self._check("log entry", sentence, seen=seen)


class CertificateLogWithinExpectation(_WithinExpectation):
    """`certificate_log_within: 15m`: the certificate of an entry is seen in a CT log too.

    One that no CT log shows was issued in secret by an authority that is trusted.
    """

    __slots__ = ()
    id: ClassVar[str] = "entry-without-certificate"
    key: ClassVar[str] = "certificate_log_within"

    def due_at(self, case: Case) -> datetime | None:
        """Time by which the certificate must have been seen; `None` for an entry without a certificate."""
        has_one = case.signer is not None and case.signer.form is SignerForm.CERTIFICATE
        return self._due(case) if has_one and not case.certificate_only else None

    def checks(self, case: Case) -> Iterator[Check]:
        """Once the time is over, this very certificate must have been seen in a CT log."""
        due = self.due_at(case)
        if due is not None and case.signer is not None and case.now >= due:
            seen = case.facts.known.in_certificate_log(case.signer.issued)
            sentence = "The certificate of this entry is in none of the certificate logs."
            yield from self._check("certificate log", sentence, seen=seen)
