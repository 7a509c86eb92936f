"""Scans a batch of entries: hashes them for the tree, and finds every signing that some rule may select.

Every entry gets a fast check of its bytes; the few that some rule may select are decoded in full. Pure: bytes in,
values out, so the same function runs inline, in a pool of processes, or on other machines.
"""

import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Protocol

from msgspec import Struct, field
from msgspec.structs import replace
from typing_extensions import override

from monitor.model.log_source import CT_APIS, LogApi, LogEntry, TimedEntry, hashes_of, unread_entry
from monitor.model.state import Hit, LeftOut, UnreadableEntry
from rules.matching.matcher import LayeredMatcher, Matcher, Matches
from sigstore_entries.entry import (
    Outline,
    decode_ct,
    decode_rekor,
    outline_ct,
    outline_fingerprints,
    outline_rekor,
    readable_part,
)
from sigstore_entries.field_texts import FieldTexts
from sigstore_entries.signing import EntryRef, Signing, Unreadable, left_out
from tlog.merkle import Frontier, LeafHash, aligned_subtrees

_PIECE: Final = 128  # entries hashed and read at a time
# One thread of a process scans at a time. `hashlib` gives up the interpreter for each entry of 2 KiB or more: two
# threads that hash would hand it to each other with every entry, which costs more than the second core adds.
_SCANNING: Final = threading.Lock()
MAX_MATCHES: Final = 10_000
"""Matches of entries and rules from which on a batch takes no further entry: each is a finding in one transaction."""


def timed_entries(entries: Sequence[LogEntry], start: int) -> list[TimedEntry]:
    """Entries for which the log claims a time, `start` being the index of the first one."""
    return [
        TimedEntry(index, entry.integrated_time)
        for index, entry in enumerate(entries, start)
        if entry.integrated_time is not None
    ]


def size_of(entries: Sequence[LogEntry]) -> int:
    """Bytes that were served for these entries."""
    return sum([len(entry.leaf) + len(entry.extra) for entry in entries])


class BatchMatches(Struct, frozen=True):
    """Result of reading a batch: hits, undecodable entries, and the number of entries of each kind.

    `dropped` are entries that more rules select than are judged.
    """

    hits: tuple[Hit, ...] = ()
    unreadable: tuple[UnreadableEntry, ...] = ()
    kinds: Mapping[str, int] = field(default_factory=dict)
    dropped: tuple[LeftOut, ...] = ()


class Scanner(Protocol):
    """Decodes entries and matches them against the active rules, without any I/O."""

    def scan(self, entries: Sequence[LogEntry], start: int, log: str, api: LogApi) -> BatchMatches:
        """Read entries `[start, start + len(entries))`. No content of an entry raises an exception."""


class ScannedBatch(Struct, frozen=True):
    """A batch, hashed and read. `subtrees` are `(level, root)` of aligned full subtrees covering the batch in order."""

    start: int
    end: int
    subtrees: tuple[tuple[int, bytes], ...]
    scan: BatchMatches

    def extend(self, frontier: Frontier) -> Frontier:
        """Append this batch to the frontier it follows. Raises `MalformedFrontier` when it follows another."""
        for level, root in self.subtrees:
            frontier = frontier.stitched(level, root)
        return frontier


class Fetched(Struct, frozen=True):
    """Entries `[start, end)` of one tree, as served.

    If they were `scanned` on arrival, their bytes are dropped: `entries` holds them only for a single entry.
    """

    start: int
    entries: tuple[LogEntry, ...]
    scanned: ScannedBatch | None = None
    scanned_timed: tuple[TimedEntry, ...] = ()

    @property
    def end(self) -> int:
        """Index after the last entry."""
        return self.start + len(self.entries) if self.scanned is None else self.scanned.end

    @property
    def timed(self) -> Sequence[TimedEntry]:
        """Entries for which the log claims a time, in its order."""
        return timed_entries(self.entries, self.start) if self.scanned is None else self.scanned_timed

    @property
    def size(self) -> int:
        """Bytes that were served for the entries it holds."""
        return size_of(self.entries)


class BatchScan:
    """Hashes and reads the entries of one batch as they come, from index `start` of one tree.

    It is full when it has `most` matches: a name may have ten thousand subscribers who each have a past of their own.
    """

    def __init__(self, start: int, log: str, api: LogApi, scanner: Scanner, most: int | None = None) -> None:
        self._start, self._log, self._api, self._scanner = start, log, api, scanner
        self._hashes: list[LeafHash] = []
        self._scans: list[BatchMatches] = []
        self._most, self._matches = most, 0

    def add(self, entries: Sequence[LogEntry]) -> int:
        """Take the entries that follow, and return how many: fewer than all when the batch is full."""
        for first in range(0, len(entries), _PIECE):
            with _SCANNING:
                fits = self._add_piece(entries[first : first + _PIECE])
            if self.is_full:
                return first + fits
        return len(entries)

    def _add_piece(self, piece: Sequence[LogEntry]) -> int:
        at = self._start + len(self._hashes)
        scan = self._scanner.scan(piece, at, self._log, self._api)
        fits = self._fitting(scan, at, len(piece))
        if fits < len(piece):
            piece = piece[:fits]
            scan = self._scanner.scan(piece, at, self._log, self._api)
        # The bytes just read are still in the processor's cache for hashing.
        self._hashes += hashes_of(piece)
        self._scans.append(scan)
        return fits

    @property
    def is_full(self) -> bool:
        """True if no further entry belongs to this batch."""
        return self._most is not None and self._matches >= self._most

    def _fitting(self, scan: BatchMatches, at: int, size: int) -> int:
        """Number of entries of a piece up to the one that fills the batch, that one included."""
        for hit in scan.hits:
            self._matches += len(hit.rules)
            if self.is_full:
                return hit.signing.where.index - at + 1
        return size

    def done(self) -> ScannedBatch:
        """All entries that were added."""
        end = self._start + len(self._hashes)
        return ScannedBatch(self._start, end, aligned_subtrees(self._start, self._hashes), joined(self._scans))


def scan_batch(entries: Sequence[LogEntry], start: int, log: str, api: LogApi, scanner: Scanner) -> ScannedBatch:
    """Hash and read entries `[start, start + len(entries))` of one tree."""
    scan = BatchScan(start, log, api, scanner)
    scan.add(entries)
    return scan.done()


def scan_in_parts(
    fetched: Fetched, log: str, api: LogApi, scanner: Scanner, most: int = MAX_MATCHES
) -> Iterator[tuple[Fetched, ScannedBatch]]:
    """Hash and read a batch whose entries are held; it is cut where it has `most` matches."""
    entries, start = fetched.entries, fetched.start
    while True:
        scan = BatchScan(start, log, api, scanner, most)
        taken = scan.add(entries)
        yield (fetched if taken == len(fetched.entries) else Fetched(start, entries[:taken])), scan.done()
        entries, start = entries[taken:], start + taken
        if not entries:
            return


def joined(scans: Sequence[BatchMatches]) -> BatchMatches:
    """Readings of batches that follow each other, as one."""
    kinds: Counter[str] = Counter()
    for scan in scans:
        kinds.update(scan.kinds)
    return BatchMatches(
        hits=tuple(each for scan in scans for each in scan.hits),
        unreadable=tuple(each for scan in scans for each in scan.unreadable),
        kinds=dict(kinds),
        dropped=tuple(each for scan in scans for each in scan.dropped),
    )


def together(of_file: BatchMatches, asked: BatchMatches) -> BatchMatches:
    """Two readings of the same entries by different rules, as one. Kinds are those of the first."""
    by_index = {hit.signing.where.index: hit for hit in of_file.hits}
    for hit in asked.hits:
        index = hit.signing.where.index
        known = by_index.get(index)
        if known is None:
            by_index[index] = hit
        else:
            shown = known.signing.signers
            more = tuple(signer for signer in hit.signing.signers if signer not in shown)
            signing = replace(known.signing, signers=(*shown, *more))
            by_index[index] = replace(known, signing=signing, rules=(*known.rules, *hit.rules))
    known_unreadable = {each.unreadable.where.index for each in of_file.unreadable}
    more_unreadable = [each for each in asked.unreadable if each.unreadable.where.index not in known_unreadable]
    kinds = Counter(of_file.kinds)
    kinds["unreadable"] += len(more_unreadable)
    return BatchMatches(
        hits=tuple(by_index[index] for index in sorted(by_index)),
        unreadable=(*of_file.unreadable, *more_unreadable),
        kinds=dict(+kinds),
        dropped=(*of_file.dropped, *asked.dropped),
    )


_VALUES = frozenset({"digest", "fingerprint"})


class RuleScanner(Scanner):
    """Scans with compiled rules."""

    def __init__(self, matcher: Matcher | LayeredMatcher) -> None:
        self._matcher = matcher
        self._texts = FieldTexts(matcher.fields)

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
                dropped.append(LeftOut(start + position, found.dropped, readable_part(entry.leaf)))
        return BatchMatches(tuple(hits), tuple(unreadable), dict(+kinds), tuple(dropped))

    def _candidates(self, outlines: Sequence[Outline | None]) -> dict[int, Sequence[int] | None]:
        """Rule numbers by position; `None` for an unusual entry, which only the decoded signing can decide."""
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
        """Digests and fingerprints that rules compare; None when only a full decode gives them."""
        values = outline.digests if "digest" in self._matcher.fields else ()
        if "fingerprint" in self._matcher.fields:
            fingerprints = outline_fingerprints(outline)
            return None if fingerprints is None else (*values, *fingerprints)
        return values

    def _confirmed(self, signing: Signing, numbers: Sequence[int] | None) -> Matches:
        return self._matcher.confirm_all(signing) if numbers is None else self._matcher.confirm(signing, numbers)


def _decode(entry: LogEntry, where: EntryRef, api: LogApi) -> Signing | Unreadable:
    if entry.unread:
        return unread_entry(where, entry.unread)
    if api in CT_APIS:
        return decode_ct(entry.leaf, where, entry.extra)
    return decode_rekor(entry.leaf, where, entry.integrated_time)
