"""Facts that include what was found a moment ago in the same batch and is not in the database yet.

Without it, a limit of one signing would let any number pass as long as they come in one batch, and findings would
depend on how a log happened to be cut into batches.
"""

from collections.abc import Sequence
from datetime import datetime

from monitor.state import Finding
from monitor.store.findings import digests_of, is_believed, is_certificate_only, sightings, signed_at
from rules.facts import Authorisation, DigestSource, Facts
from sigstore_entries.signing import EntryRef, Signing


class BatchFacts:
    """`rules.facts.Facts` over stored facts plus the findings remembered here, as if they had been stored at `now`."""

    def __init__(self, stored: Facts, now: datetime) -> None:
        self._stored, self._now = stored, now
        self._found: list[Finding] = []

    def remember(self, finding: Finding) -> None:
        """Let later judgements of this batch know of a finding. One nobody vouches for is no past."""
        if is_believed(finding.signing):
            self._found.append(finding)

    def authorisations(self, rule: str, digest: str) -> Sequence[Authorisation]:
        """See `Facts.authorisations`."""
        return self._stored.authorisations(rule, digest)

    def times_signed(self, rule: str, digest: str, besides: EntryRef) -> int:
        """See `Facts.times_signed`."""
        here = sum(digest in digests_of(signing) for signing in self._others(besides, rule))
        return self._stored.times_signed(rule, digest, besides) + here

    def issuers_of(self, identity: str, besides: EntryRef) -> frozenset[str] | None:
        """See `Facts.issuers_of`."""
        return self._with_seen(self._stored.issuers_of(identity, besides), "issuer", identity, besides)

    def repository_identifiers_of(self, repository: str, besides: EntryRef) -> frozenset[str] | None:
        """See `Facts.repository_identifiers_of`."""
        stored = self._stored.repository_identifiers_of(repository, besides)
        return self._with_seen(stored, "repository", repository, besides)

    def signings(self, rule: str, after: datetime, up_to: datetime, besides: EntryRef) -> int:
        """See `Facts.signings`."""
        here = sum(
            not is_certificate_only(signing) and after < signed_at(signing, self._now) <= up_to
            for signing in self._others(besides, rule)
        )
        return self._stored.signings(rule, after, up_to, besides) + here

    def digests_from(self, source: DigestSource) -> frozenset[str] | None:
        """See `Facts.digests_from`."""
        return self._stored.digests_from(source)

    def in_certificate_log(self, fingerprints: Sequence[str]) -> bool | None:
        """See `Facts.in_certificate_log`: another log than the one of this batch answers it."""
        return self._stored.in_certificate_log(fingerprints)

    def in_signature_log(self, fingerprints: Sequence[str]) -> bool | None:
        """See `Facts.in_signature_log`: another log than the one of this batch answers it."""
        return self._stored.in_signature_log(fingerprints)

    def _with_seen(
        self, stored: frozenset[str] | None, fact: str, subject: str, besides: EntryRef
    ) -> frozenset[str] | None:
        if stored is None:
            return None
        return stored | {
            seen.value
            for signing in self._others(besides)
            for seen in sightings(signing)
            if (seen.fact, seen.subject) == (fact, subject)
        }

    def _others(self, besides: EntryRef, rule: str | None = None) -> list[Signing]:
        seen = {
            finding.signing.where: finding.signing
            for finding in self._found
            if finding.signing.where != besides and rule in {None, finding.rule}
        }
        return list(seen.values())
