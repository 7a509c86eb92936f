"""Older entries from the archive: a search finds candidates, which are fetched with proof and judged.

No candidate is missed, because an archived range holds a row for every entry, and a row holds every value of the rules'
fields. For rules that a search cannot narrow (regular expressions, claims that are not archived), the log itself is
read.
"""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from monitor.archive.files import ArchiveFault
from monitor.archive.query import BadQuery, MatchMode, Query
from monitor.archive.ranges import ArchiveManifest
from monitor.archive.search import Archive
from monitor.archive.search_index import KeyKind
from monitor.backscan.progress import SomeRules, told_looking_back
from monitor.backscan.step import BackscanStep, LookingBack, recording_of
from monitor.following.follower import wrong_signature
from monitor.following.scan_batch import RuleScanner
from monitor.judging.judge import Judge
from monitor.model.errors import Evidence, FetchFailed, LogMisbehaved
from monitor.model.log_source import LogEntry, LogSource, SignedHead, hashes_of
from monitor.model.state import Batch, Hit, LeftOut, UnreadableEntry
from monitor.proof.trusted_head import newest
from monitor.raising.entry_alerts import alerts_of_dropped
from monitor.raising.log_alerts import alert_of_evidence
from monitor.store.coverage import Gap
from monitor.store.store import Store
from rules.matching.matcher import Matcher
from rules.pattern import Pattern, PatternForm
from rules.rule import Rule
from rules.selection import AllOf, AnyOf, Condition, FieldMatch

_LOG: Final = logging.getLogger(__name__)
_MOST_RULES: Final = 200  # each rule is one search; with more rules, reading the log is faster
_MOST_ENTRIES: Final = 1 << 20  # entries of one step
_MOST_CANDIDATES: Final = 1_000
_KINDS: Final = {
    "identity": KeyKind.IDENTITY,
    "issuer": KeyKind.ISSUER,
    "source_repository_uri": KeyKind.REPOSITORY,
    "build_config_uri": KeyKind.WORKFLOW,
    "build_signer_uri": KeyKind.WORKFLOW,
    "digest": KeyKind.DIGEST,
    "fingerprint": KeyKind.FINGERPRINT,
}


class ServesOther(FetchFailed):
    """The log serves other bytes than the proven ones for an entry; a read of the range will show this."""

    reason = "not-shown"


@dataclass(frozen=True, slots=True)
class ArchiveSearchInputs:
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


def queries_of(condition: Condition) -> list[Query] | None:
    """Searches that together find every entry that the condition selects; `None` if no searches do."""
    match condition:
        case FieldMatch():
            found = [_query(condition.field, pattern) for pattern in condition.patterns]
            return None if None in found else [query for query in found if query is not None]
        case AllOf():
            # Each part alone narrows enough: the part with the fewest searches is taken.
            narrow = [queries for each in condition.conditions if (queries := queries_of(each)) is not None]
            return min(narrow, key=_breadth, default=None)
        case AnyOf():
            parts = [queries_of(each) for each in condition.conditions]
            return None if None in parts else [query for part in parts if part is not None for query in part]
    return None


def _breadth(queries: Sequence[Query]) -> tuple[bool, int]:
    """Sort key: searches for issuers, which most entries share, come last; fewer searches come first."""
    return any(KeyKind.ISSUER in query.kinds for query in queries), len(queries)


def _query(field: str, pattern: Pattern) -> Query | None:
    kind = _KINDS.get(field)
    if kind is None or pattern.form is PatternForm.REGEX:
        return None
    match = MatchMode.GLOB if pattern.form is PatternForm.GLOB else MatchMode.EXACT
    return Query(pattern.text, frozenset({kind}), match)


def offer_archived(asked: ArchiveSearchInputs, source: LogSource, gap: Gap) -> BackscanStep | None:
    """Offer entries from the beginning of `gap` to its rules, as far as the archive holds them.

    `None` when the log itself must be read: the archive is damaged or does not hold the first entry, a rule cannot be
    searched for, or the log serves another entry than the proven one. Raises `FetchFailed`, `LogMisbehaved` with its
    evidence kept, `OwnFault`.
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
    run = manifest.run_at(gap.first)
    chosen = [rule for rule in asked.matcher.rules if rule.id in gap.rules]
    if run is None or len(chosen) > _MOST_RULES or len(chosen) < len(gap.rules):
        return None
    queries = _all_queries(chosen)
    if queries is None:
        return None
    last = min(gap.last, run.last, gap.first + _MOST_ENTRIES)
    wanted, last = _candidates(asked.archive, queries, manifest.log, gap.first, last)
    now = asked.clock()
    head = _newest(asked.store, source, now) if wanted else run.head
    scanner = RuleScanner(asked.matcher)
    log, api = manifest.log, source.identity.api
    hits: list[Hit] = []
    unreadable: list[UnreadableEntry] = []
    dropped: list[LeftOut] = []
    for index, leaf_hash in wanted.items():
        entry = _fetch(source, index, head, leaf_hash)
        scan = scanner.scan([entry], index, log, api)
        hits += scan.hits
        unreadable += scan.unreadable
        dropped += scan.dropped
    judge = LookingBack(SomeRules(asked.judge, gap.rules))
    findings = tuple(judge.judge(hits, now))
    batch = Batch(log, gap.first, last, findings, tuple(unreadable), {}, tuple(dropped))
    alerts = told_looking_back([*judge.alerts(findings, now), *alerts_of_dropped(log, dropped, now)])
    if (evidence := wrong_signature(source.identity, findings, head)) is not None:
        asked.store.keep_evidence(evidence, ())
        asked.on_evidence(evidence)
    recording = recording_of(gap.rules, asked.rules, asked.clock)
    asked.store.record_scan(batch, {rule: asked.rules[rule] for rule in gap.rules}, alerts, not_before=recording.due())
    asked.on_batch(batch)
    found = Counter(finding.verdict.outcome.value for finding in findings)
    return BackscanStep(log, gap.first, last, gap.rules, found, batch.matches_dropped, len(wanted))


def _all_queries(rules: Sequence[Rule]) -> list[Query] | None:
    found: list[Query] = []
    for rule in rules:
        queries = queries_of(rule.select)
        if queries is None:
            return None
        found += queries
    return list(dict.fromkeys(found))


def _candidates(
    archive: Archive, queries: Sequence[Query], log: str, first: int, last: int
) -> tuple[dict[int, str], int]:
    """Leaf hashes by index of the entries that a query finds in `[first, last)`; and the end of that list's range."""
    numbers: set[int] = set()
    for query in queries:
        try:
            for each, found in archive.numbers(query, log):
                if each.last > first and each.first < last:
                    numbers.update(index for index in found if first <= index < last)
        except BadQuery:
            # A pattern that no value can match, such as a digest of no known length.
            continue
    chosen = sorted(numbers)
    if len(chosen) > _MOST_CANDIDATES:
        last = chosen[_MOST_CANDIDATES]
        chosen = chosen[:_MOST_CANDIDATES]
    return archive.leaf_hashes(log, chosen), last


def _newest(store: Store, source: LogSource, now: datetime) -> SignedHead:
    known = store.position(source.identity.log)
    try:
        return newest(source, known.head if known is not None else None, store.record_head).head
    except LogMisbehaved as misbehaved:
        store.keep_evidence(misbehaved.evidence, [alert_of_evidence(misbehaved.evidence, now)])
        raise


def _fetch(source: LogSource, index: int, head: SignedHead, leaf_hash: str) -> LogEntry:
    """Fetch one entry, whose leaf hash must equal the archived, proven one. Raises `ServesOther`."""
    (entry, *_) = source.entries(index, index + 1, head)
    if hashes_of([entry])[0].hex() != leaf_hash:
        raise ServesOther(f"{source.identity.log}: serves another entry at {index} than was proven and archived")
    return entry
