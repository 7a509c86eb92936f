"""Older entries from the archive: its columns give candidates, which are fetched with proof and judged.

No candidate is missed, because an archived range holds a row for every entry, and
`monitor.archive.candidates` leaves out no entry that a rule selects. For rules about which the columns say nothing,
the log itself is read.
"""

import logging
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Final

from msgspec import Struct

from monitor.archive.candidates import CandidateSearch
from monitor.archive.files import ArchiveFault
from monitor.archive.ranges import ArchiveManifest
from monitor.archive.search import Archive
from monitor.backscan.progress import SomeRules, told_looking_back
from monitor.backscan.step import BackscanStep, LookingBack, recording_of
from monitor.following.follower import wrong_signature
from monitor.following.scan_batch import MAX_MATCHES, RuleScanner
from monitor.judging.judge import Judge
from monitor.model.errors import Evidence, FetchFailed, LogMisbehaved
from monitor.model.log_source import LogApi, LogSource, SignedHead, hashes_of
from monitor.model.state import Batch, Hit, LeftOut, UnreadableEntry
from monitor.proof.trusted_head import newest
from monitor.raising.entry_alerts import alerts_of_dropped
from monitor.raising.log_alerts import alert_of_evidence
from monitor.store.coverage import Gap
from monitor.store.store import Store
from rules.matching.matcher import Matcher, TooManyUnindexed

_LOG: Final = logging.getLogger(__name__)
_MOST_ENTRIES: Final = 1 << 20  # entries of one step
_MOST_CANDIDATES: Final = 1_000
# Candidates among so many entries are asked for together; most logs answer with these entries at any rate.
_AT_ONCE: Final = {LogApi.CT_RFC6962: 32}


class ServesOther(FetchFailed):
    """The log serves other bytes than the proven ones for an entry; a read of the range will show this."""

    reason = "not-shown"


class ArchiveSearchInputs(Struct, frozen=True):
    """Inputs of searches in the archive: rules in force (id to selection), their judge, a clock.

    `on_batch` receives every committed batch, `on_evidence` all evidence.
    """

    archive: Archive
    store: Store
    matcher: Matcher
    rules: Mapping[str, str]
    judge: Judge
    clock: Callable[[], datetime]
    on_batch: Callable[[Batch], None] = lambda _: None
    on_evidence: Callable[[Evidence], None] = lambda _: None


def offer_archived(asked: ArchiveSearchInputs, source: LogSource, gap: Gap) -> BackscanStep | None:
    """Offer entries from the beginning of `gap` to its rules, as far as the archive holds them.

    `None` when the log itself must be read: the archive is damaged or does not hold the first entry, its columns say
    nothing about a rule, or the log serves another entry than the proven one. Raises `FetchFailed`, `LogMisbehaved`
    with its evidence kept, `OwnFault`.
    """
    try:
        manifest = asked.archive.manifests().get(source.identity.log)
        return None if manifest is None else _archived_step(asked, source, gap, manifest)
    except (ArchiveFault, ServesOther) as error:
        _LOG.warning("archive_not_asked log=%s detail=%s", source.identity.log, error)
        return None


def _archived_step(
    asked: ArchiveSearchInputs, source: LogSource, gap: Gap, manifest: ArchiveManifest
) -> BackscanStep | None:
    run, log, rules = manifest.run_at(gap.first), manifest.log, asked.matcher
    if run is None or any(rules.rule(rule) is None for rule in gap.rules):
        return None
    search = _search_for(rules, log)
    if search is None:
        return None
    last = min(gap.last, run.last, gap.first + _MOST_ENTRIES)
    wanted, last = _candidates(asked.archive, search, log, gap.first, last)
    now = asked.clock()
    head = _newest(asked.store, source, now) if wanted else run.head
    read = _Read(RuleScanner(rules), source)
    for start, stop in _together(list(wanted), source.identity.api):
        if read.matches < MAX_MATCHES:
            read.add(start, stop, head, wanted)
    if read.matches >= MAX_MATCHES:
        last = read.end
    judge = LookingBack(SomeRules(asked.judge, gap.rules))
    findings = tuple(judge.judge(read.hits, now))
    batch = Batch(log, gap.first, last, findings, tuple(read.unreadable), {}, tuple(read.dropped))
    alerts = told_looking_back([*judge.alerts(findings, now), *alerts_of_dropped(log, read.dropped, now)])
    if (evidence := wrong_signature(source.identity, findings, head)) is not None:
        asked.store.keep_evidence(evidence, ())
        asked.on_evidence(evidence)
    recording = recording_of(gap.rules, asked.rules, asked.clock)
    asked.store.record_scan(batch, {rule: asked.rules[rule] for rule in gap.rules}, alerts, not_before=recording.due())
    asked.on_batch(batch)
    found = Counter(finding.verdict.outcome.value for finding in findings)
    return BackscanStep(log, gap.first, last, gap.rules, found, batch.matches_dropped, read.fetched)


@lru_cache(maxsize=4)
def _search_for(rules: Matcher, log: str) -> CandidateSearch | None:
    """Search for candidates; `None` when the columns say nothing about a rule, or too many rules have no key."""
    try:
        search = CandidateSearch(rules, log)
    except TooManyUnindexed:
        return None
    return None if search.undecided() else search


def _candidates(
    archive: Archive, search: CandidateSearch, log: str, first: int, last: int
) -> tuple[dict[int, str], int]:
    """Leaf hashes by index of the candidates in `[first, last)`, and the end of the entries that they are all of."""
    chosen: list[int] = []
    for at, rows in archive.rows(log, first, last, search.columns, search.fingerprints):
        chosen += [at + number for number in search.find(rows)]
        if len(chosen) > _MOST_CANDIDATES:
            last = chosen[_MOST_CANDIDATES]
            break
    chosen = chosen[:_MOST_CANDIDATES]
    return archive.leaf_hashes(log, chosen), last


def _together(indexes: Sequence[int], api: LogApi) -> Iterator[tuple[int, int]]:
    """Ranges of entries to ask for, which hold these ascending indexes."""
    at_once, at = _AT_ONCE.get(api, api.answer_entries), 0
    while at < len(indexes):
        start = indexes[at]
        at = bisect_left(indexes, (start // at_once + 1) * at_once, at)
        yield start, indexes[at - 1] + 1


class _Read:
    """Candidates fetched from the log and scanned, up to `end`."""

    def __init__(self, scanner: RuleScanner, source: LogSource) -> None:
        self._scanner, self._source = scanner, source
        self.hits: list[Hit] = []
        self.unreadable: list[UnreadableEntry] = []
        self.dropped: list[LeftOut] = []
        self.matches = self.fetched = self.end = 0

    def add(self, start: int, stop: int, head: SignedHead, wanted: Mapping[int, str]) -> None:
        """Fetch entries `[start, stop)`, and scan the wanted ones up to the one that fills a batch.

        The leaf hash of each of these must equal the archived, proven one. Raises `ServesOther`.
        """
        identity = self._source.identity
        while start < stop and self.matches < MAX_MATCHES:
            entries = self._source.entries(start, stop, head)
            self.fetched += len(entries)
            for index, entry in enumerate(entries, start):
                if index not in wanted or self.matches >= MAX_MATCHES:
                    continue
                if hashes_of([entry])[0].hex() != wanted[index]:
                    raise ServesOther(f"{identity.log}: serves another entry at {index} than was proven and archived")
                scan = self._scanner.scan([entry], index, identity.log, identity.api)
                self.hits += scan.hits
                self.unreadable += scan.unreadable
                self.dropped += scan.dropped
                self.matches += sum(len(hit.rules) for hit in scan.hits)
                self.end = index + 1
            start += len(entries)


def _newest(store: Store, source: LogSource, now: datetime) -> SignedHead:
    known = store.position(source.identity.log)
    try:
        return newest(source, known.head if known is not None else None, store.record_head).head
    except LogMisbehaved as misbehaved:
        store.keep_evidence(misbehaved.evidence, [alert_of_evidence(misbehaved.evidence, now)])
        raise
