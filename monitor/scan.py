"""The real `Scanner`: a cheap look at every entry's bytes, a full decode of the few that some rule may select."""

from collections import Counter
from collections.abc import Sequence

from monitor.examine import Hit, Scan
from monitor.source import LogApi, LogEntry
from monitor.state import UnreadableEntry
from rules.index import Matcher, Matches
from sigstore_entries.ct_leaf import decode_ct
from sigstore_entries.outline import Outline, outline_ct, outline_fingerprints, outline_rekor
from sigstore_entries.rekor import decode_rekor
from sigstore_entries.signing import EntryRef, Signing, Unreadable

_CT = frozenset({LogApi.CT_RFC6962, LogApi.CT_STATIC})


class RuleScanner:
    """Scans with compiled rules. `dropped` counts matches beyond the matcher's cap, since the scanner was made."""

    def __init__(self, matcher: Matcher) -> None:
        self._matcher = matcher
        self.dropped = 0

    def scan(self, entries: Sequence[LogEntry], start: int, log: str, api: LogApi) -> Scan:
        """See `monitor.examine.Scanner.scan`."""
        outline_of = outline_ct if api in _CT else outline_rekor
        outlines = [outline_of(entry.leaf) for entry in entries]
        # Candidates by position: rule numbers, or None when only the decoded signing can tell.
        candidates: dict[int, Sequence[int] | None] = {}
        values: list[Sequence[str]] | None = None
        if self._matcher.needs_digests or self._matcher.needs_fingerprints:
            told = [None if outline is None else self._values(outline) for outline in outlines]
            outlines = [outline if known is not None else None for outline, known in zip(outlines, told, strict=True)]
            values = [known for known in told if known is not None]
        looked_at = [outline for outline in outlines if outline is not None]
        kinds = Counter([outline.kind for outline in looked_at])
        positions: Sequence[int] = range(len(entries))
        if len(looked_at) < len(entries):
            positions = [position for position, outline in enumerate(outlines) if outline is not None]
            # No cheap look to be had at the others: an entry is never passed over because it is unusual.
            candidates = {position: None for position, outline in enumerate(outlines) if outline is None}
        for place, numbers in self._matcher.candidates_batch([outline.haystack for outline in looked_at], values):
            candidates[positions[place]] = numbers
        hits, unreadable, dropped = [], [], []
        for position in sorted(candidates):
            entry = entries[position]
            signing = _decode(entry, EntryRef(log, start + position), api)
            if outlines[position] is None:
                kinds[signing.kind if isinstance(signing, Signing) else "unreadable"] += 1
            if isinstance(signing, Unreadable):
                unreadable.append(UnreadableEntry(signing, entry.leaf))
            else:
                found = self._confirmed(signing, candidates[position])
                if found.rules:
                    hits.append(Hit(signing, tuple(rule.id for rule in found.rules), entry.leaf, entry.extra))
                if found.dropped:
                    dropped.append((start + position, found.dropped))
        return Scan(tuple(hits), tuple(unreadable), dict(kinds), tuple(dropped))

    def _values(self, outline: Outline) -> tuple[str, ...] | None:
        """Values that rules may be filed under and no haystack shows; None when only a full decode tells them."""
        values = outline.digests if self._matcher.needs_digests else ()
        if self._matcher.needs_fingerprints:
            fingerprints = outline_fingerprints(outline)
            return None if fingerprints is None else (*values, *fingerprints)
        return values

    def _confirmed(self, signing: Signing, numbers: Sequence[int] | None) -> Matches:
        found = self._matcher.confirm_all(signing) if numbers is None else self._matcher.confirm(signing, numbers)
        self.dropped += found.dropped
        return found


def _decode(entry: LogEntry, where: EntryRef, api: LogApi) -> Signing | Unreadable:
    if api in _CT:
        return decode_ct(entry.leaf, where, entry.extra)
    return decode_rekor(entry.leaf, where, entry.integrated_time)
