"""What judgements of a scan may ask about: what the scan itself has read, so that its findings depend on nothing else.

Only what people decide (authorisations, digest lists) and what other logs show is asked of the monitor's database.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from typing_extensions import override

from monitor.model.state import FactStore, Hit
from rules.facts import Authorisation, DigestSource, Facts
from sigstore_entries.signing import EntryRef


class ScanFacts(FactStore):
    """`monitor.judging.history.FactStore`: the past from `read`, the rest from `known`."""

    def __init__(self, read: FactStore, known: FactStore) -> None:
        self._read, self._known = read, known

    @override
    def revisions(self, rules: Collection[str]) -> Mapping[str, int]:
        """Of the scan's own past."""
        return self._read.revisions(rules)

    @override
    def ahead(self, hits: Sequence[Hit]) -> Facts:
        return _PastAndRest(self._read.ahead(hits), self._known.ahead(hits))


class _PastAndRest(Facts):
    """`rules.facts.Facts`: the past from `read`, the rest from `known`."""

    def __init__(self, read: Facts, known: Facts) -> None:
        self._read, self._known = read, known

    @override
    def authorisations(self, rule: str, digest: str) -> Sequence[Authorisation]:
        return self._known.authorisations(rule, digest)

    @override
    def times_signed(self, rule: str, digest: str, besides: EntryRef) -> int:
        return self._read.times_signed(rule, digest, besides)

    @override
    def issuers_of(self, rule: str, identity: str, besides: frozenset[bytes]) -> frozenset[str] | None:
        return self._read.issuers_of(rule, identity, besides)

    @override
    def repository_identifiers_of(self, rule: str, repository: str, besides: frozenset[bytes]) -> frozenset[str] | None:
        return self._read.repository_identifiers_of(rule, repository, besides)

    @override
    def signings(self, rule: str, after: datetime, up_to: datetime, besides: EntryRef) -> int:
        return self._read.signings(rule, after, up_to, besides)

    @override
    def digests_from(self, source: DigestSource) -> frozenset[str] | None:
        return self._known.digests_from(source)

    @override
    def in_certificate_log(self, certificate: bytes | None) -> bool | None:
        return self._known.in_certificate_log(certificate)

    @override
    def in_signature_log(self, certificate: bytes | None) -> bool | None:
        return self._known.in_signature_log(certificate)

    @override
    def absent_at(self, where: EntryRef) -> datetime | None:
        """A scan reads what was logged before."""
        return self._read.absent_at(where)
