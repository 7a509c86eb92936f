"""What judgements of a scan may ask about: what the scan itself has read, so that its findings depend on nothing else.

Only what people decide (authorisations, digest lists) and what other logs show is asked of the monitor's database.
"""

from collections.abc import Sequence
from datetime import datetime

from monitor.judging.history import FactStore
from monitor.model.state import Hit
from rules.facts import Authorisation, DigestSource, Facts
from sigstore_entries.signing import EntryRef


class ScanFacts:
    """`monitor.judging.history.FactStore`: the past from `read`, the rest from `known`."""

    def __init__(self, read: FactStore, known: FactStore) -> None:
        self._read, self._known = read, known

    def ahead(self, hits: Sequence[Hit]) -> Facts:
        """See `FactStore.ahead`."""
        return _PastAndRest(self._read.ahead(hits), self._known.ahead(hits))


class _PastAndRest:
    """`rules.facts.Facts`: the past from `read`, the rest from `known`."""

    def __init__(self, read: Facts, known: Facts) -> None:
        self._read, self._known = read, known

    def authorisations(self, rule: str, digest: str) -> Sequence[Authorisation]:
        """See `Facts.authorisations`."""
        return self._known.authorisations(rule, digest)

    def times_signed(self, rule: str, digest: str, besides: EntryRef) -> int:
        """See `Facts.times_signed`."""
        return self._read.times_signed(rule, digest, besides)

    def issuers_of(self, identity: str, besides: EntryRef) -> frozenset[str] | None:
        """See `Facts.issuers_of`."""
        return self._read.issuers_of(identity, besides)

    def repository_identifiers_of(self, repository: str, besides: EntryRef) -> frozenset[str] | None:
        """See `Facts.repository_identifiers_of`."""
        return self._read.repository_identifiers_of(repository, besides)

    def signings(self, rule: str, after: datetime, up_to: datetime, besides: EntryRef) -> int:
        """See `Facts.signings`."""
        return self._read.signings(rule, after, up_to, besides)

    def digests_from(self, source: DigestSource) -> frozenset[str] | None:
        """See `Facts.digests_from`."""
        return self._known.digests_from(source)

    def in_certificate_log(self, fingerprints: Sequence[str]) -> bool | None:
        """See `Facts.in_certificate_log`."""
        return self._known.in_certificate_log(fingerprints)

    def in_signature_log(self, fingerprints: Sequence[str]) -> bool | None:
        """See `Facts.in_signature_log`."""
        return self._known.in_signature_log(fingerprints)
