"""The past including what was found a moment ago in the same batch and is not in the database yet.

Without it, a limit of one signing would let any number pass as long as they come in one batch, and findings would
depend on how a log happened to be cut into batches.
"""

from bisect import bisect_right, insort
from collections import defaultdict
from datetime import datetime

from typing_extensions import override

from monitor.model.state import Finding
from monitor.store.findings import digests_of, is_certificate_only, is_past, seen_in, signed_at
from rules.facts import Past
from sigstore_entries.signing import EntryRef


class BatchPast(Past):
    """The stored past plus the findings remembered here, as if they had been stored at `now`."""

    def __init__(self, stored: Past, now: datetime) -> None:
        self._stored, self._now = stored, now
        self._digests = defaultdict[tuple[str, str], set[EntryRef]](set)
        self._seen = defaultdict[tuple[str, str, str], dict[str, set[bytes]]](dict)
        self._times = defaultdict[str, list[datetime]](list)
        self._time_of: dict[tuple[str, EntryRef], datetime] = {}

    def remember(self, finding: Finding) -> None:
        """Let later judgements of this batch know of a finding. Signers that are not vouched for are no past."""
        signing, rule = finding.signing, finding.rule
        if not finding.selected.vouched:
            return
        for digest in digests_of(signing):
            self._digests[rule, digest].add(signing.where)
        for seen in seen_in(finding) if is_past(finding) else ():
            self._seen[rule, seen.fact, seen.subject].setdefault(seen.value, set()).add(seen.certificate)
        if not is_certificate_only(signing) and (rule, signing.where) not in self._time_of:
            self._time_of[rule, signing.where] = at = signed_at(finding.selected, self._now)
            insort(self._times[rule], at)

    @override
    def times_signed(self, rule: str, digest: str, besides: EntryRef) -> int:
        here = self._digests.get((rule, digest), set())
        return self._stored.times_signed(rule, digest, besides) + len(here) - (besides in here)

    @override
    def issuers_of(self, rule: str, identity: str, besides: frozenset[bytes]) -> frozenset[str] | None:
        stored = self._stored.issuers_of(rule, identity, besides)
        return self._with_seen(stored, (rule, "issuer", identity), besides)

    @override
    def repository_identifiers_of(self, rule: str, repository: str, besides: frozenset[bytes]) -> frozenset[str] | None:
        stored = self._stored.repository_identifiers_of(rule, repository, besides)
        return self._with_seen(stored, (rule, "repository", repository), besides)

    @override
    def signings(self, rule: str, after: datetime, up_to: datetime, besides: EntryRef) -> int:
        times = self._times.get(rule, ())
        own = self._time_of.get((rule, besides))
        here = bisect_right(times, up_to) - bisect_right(times, after) - (own is not None and after < own <= up_to)
        return self._stored.signings(rule, after, up_to, besides) + here

    @override
    def absent_at(self, where: EntryRef) -> datetime | None:
        """The pass that met the entry has not ended."""
        return self._stored.absent_at(where)

    def _with_seen(
        self, stored: frozenset[str] | None, key: tuple[str, str, str], besides: frozenset[bytes]
    ) -> frozenset[str] | None:
        if stored is None:
            return None
        seen = self._seen.get(key, {})
        return stored | {value for value, certificates in seen.items() if certificates - besides}
