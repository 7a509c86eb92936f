"""The real `Scanner`: a cheap look at every entry's bytes, a full decode of the few that some rule may select."""

from collections import Counter
from collections.abc import Sequence

from typing_extensions import override

from monitor.following.scan_batch import BatchMatches, Scanner
from monitor.model.log_source import CT_APIS, LogApi, LogEntry, unread_entry
from monitor.model.state import Hit, UnreadableEntry
from rules.asking import LayeredMatcher
from rules.matching.matcher import Matcher, Matches
from sigstore_entries.ct_leaf import decode_ct
from sigstore_entries.field_texts import FieldTexts
from sigstore_entries.outline import Outline, outline_ct, outline_fingerprints, outline_rekor
from sigstore_entries.rekor import decode_rekor
from sigstore_entries.signing import EntryRef, Signing, Unreadable, left_out

_VALUES = frozenset({"digest", "fingerprint"})


class RuleScanner(Scanner):
    """Scans with compiled rules. `dropped` counts matches beyond the matcher's cap, since the scanner was made."""

    def __init__(self, matcher: Matcher | LayeredMatcher) -> None:
        self._matcher = matcher
        self._texts = FieldTexts(matcher.fields)
        self.dropped = 0

    @override
    def scan(self, entries: Sequence[LogEntry], start: int, log: str, api: LogApi) -> BatchMatches:
        outline_of = outline_ct if api in CT_APIS else outline_rekor
        outlines = [outline_of(entry.leaf) for entry in entries]
        kinds = Counter([outline.kind for outline in outlines if outline is not None])
        candidates = self._candidates(outlines)
        hits, unreadable, dropped = [], [], []
        for position in sorted(candidates):
            entry, outline = entries[position], outlines[position]
            signing = _decode(entry, EntryRef(log, start + position), api)
            kinds[signing.kind if isinstance(signing, Signing) else "unreadable"] += 1
            if outline is not None:
                kinds[outline.kind] -= 1
            if isinstance(signing, Unreadable):
                unreadable.append(UnreadableEntry(signing, entry.leaf))
                continue
            if (rest := left_out(signing)) is not None:
                unreadable.append(UnreadableEntry(rest, entry.leaf))
            found = self._confirmed(signing, candidates[position])
            if found.rules:
                hits.append(Hit(found.signing, tuple(rule.id for rule in found.rules), entry.leaf, entry.extra))
            if found.dropped:
                dropped.append((start + position, found.dropped))
        return BatchMatches(tuple(hits), tuple(unreadable), dict(+kinds), tuple(dropped))

    def _candidates(self, outlines: Sequence[Outline | None]) -> dict[int, Sequence[int] | None]:
        """Rule numbers by position; `None` where only the decoded signing can tell, and so for all that is unusual."""
        looked_at = [outline.haystack for outline in outlines if outline is not None]
        shown = self._texts.find(looked_at)
        texts, owners, unsure = shown.texts, shown.owners, shown.unsure
        if len(looked_at) < len(outlines):
            positions = [position for position, outline in enumerate(outlines) if outline is not None]
            owners, unsure = [positions[owner] for owner in owners], [positions[owner] for owner in unsure]
            unsure += [position for position, outline in enumerate(outlines) if outline is None]
        if not self._matcher.fields.isdisjoint(_VALUES):
            for position, outline in enumerate(outlines):
                values = () if outline is None else self._values(outline)
                if values is None:
                    unsure.append(position)
                else:
                    texts += values
                    owners += [position] * len(values)
        candidates: dict[int, Sequence[int] | None] = {}
        if self._matcher.unindexed:
            candidates.update(dict.fromkeys(range(len(outlines)), self._matcher.unindexed))
        candidates.update(self._matcher.candidates_batch(texts, owners))
        candidates.update(dict.fromkeys(unsure))
        return candidates

    def _values(self, outline: Outline) -> tuple[str, ...] | None:
        """Digests and fingerprints, as far as rules are about them; None when only a full decode tells."""
        values = outline.digests if "digest" in self._matcher.fields else ()
        if "fingerprint" in self._matcher.fields:
            fingerprints = outline_fingerprints(outline)
            return None if fingerprints is None else (*values, *fingerprints)
        return values

    def _confirmed(self, signing: Signing, numbers: Sequence[int] | None) -> Matches:
        found = self._matcher.confirm_all(signing) if numbers is None else self._matcher.confirm(signing, numbers)
        self.dropped += found.dropped
        return found


def _decode(entry: LogEntry, where: EntryRef, api: LogApi) -> Signing | Unreadable:
    if entry.unread:
        return unread_entry(where, entry.unread)
    if api in CT_APIS:
        return decode_ct(entry.leaf, where, entry.extra)
    return decode_rekor(entry.leaf, where, entry.integrated_time)
