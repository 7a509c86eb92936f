"""What a batch of entries holds: their hashes for the tree, and every signing some rule may want to know of.

Pure: bytes in, values out, so the same function runs inline, in a pool of processes, or on other machines.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from monitor.model.log_source import LogApi, LogEntry, hashes_of
from monitor.model.state import Hit, UnreadableEntry
from tlog.frontier import Frontier, aligned_subtrees
from tlog.merkle import LeafHash

_PIECE: Final = 128  # entries hashed and read at a time


@dataclass(frozen=True, slots=True)
class BatchMatches:
    """Result of reading a batch: hits, undecodable entries, and how many entries of each kind there were.

    `dropped` are entries that more rules select than are judged, with how many of them are left out.
    """

    hits: tuple[Hit, ...] = ()
    unreadable: tuple[UnreadableEntry, ...] = ()
    kinds: Mapping[str, int] = field(default_factory=dict)
    dropped: tuple[tuple[int, int], ...] = ()


class Scanner(Protocol):
    """Decodes entries and matches them against the active rules, without any I/O."""

    def scan(self, entries: Sequence[LogEntry], start: int, log: str, api: LogApi) -> BatchMatches:
        """Read entries `[start, start + len(entries))`. Never raises because of what an entry holds."""


@dataclass(frozen=True, slots=True)
class ScannedBatch:
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


def scan_batch(entries: Sequence[LogEntry], start: int, log: str, api: LogApi, scanner: Scanner) -> ScannedBatch:
    """Hash and read entries `[start, start + len(entries))` of one tree."""
    hashes: list[LeafHash] = []
    scans: list[BatchMatches] = []
    for first in range(0, len(entries), _PIECE):
        # What was just hashed is still in the processor's cache when it is read.
        piece = entries[first : first + _PIECE]
        hashes += hashes_of(piece)
        scans.append(scanner.scan(piece, start + first, log, api))
    return ScannedBatch(start, start + len(entries), aligned_subtrees(start, hashes), _together(scans))


def _together(scans: Sequence[BatchMatches]) -> BatchMatches:
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
