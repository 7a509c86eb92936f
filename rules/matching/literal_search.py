"""Many literals searched for in many texts at once: one Aho-Corasick pass, however many literals there are."""

import bisect
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Final

from ahocorasick_rs import BytesAhoCorasick, Implementation

from rules.matching.keys import MAX_LITERAL

WINDOW: Final = 256 * 1024  # bytes searched at once: bounds the list of hits a text stuffed with literals can cause
_TABLE_BYTES: Final = 64 * 1024  # of literals that a full transition table (faster, some 200 times as big) is made for
_BETWEEN: Final = b"\n"


class LiteralSearch:
    """Finds literals, each known by its place in the order given."""

    def __init__(self, literals: Iterable[bytes]) -> None:
        found = list(literals)
        small = sum(map(len, found)) <= _TABLE_BYTES
        self._automaton = BytesAhoCorasick(found, implementation=Implementation.DFA if small else None)

    def find(self, texts: Sequence[str]) -> Iterator[tuple[int, int]]:
        """Every literal in every text, once for each pair, as (number of text, number of literal); perhaps others."""
        encoded = [text.encode("utf-8", "replace") for text in texts]
        ends: list[int] = []
        seen: set[tuple[int, int]] = set()
        for literal, start in self._hits(_BETWEEN.join(encoded)):
            ends = ends or list(accumulate(len(each) + len(_BETWEEN) for each in encoded))
            pair = bisect.bisect_right(ends, start), literal
            if pair not in seen:
                seen.add(pair)
                yield pair

    def _hits(self, data: bytes) -> Iterator[tuple[int, int]]:
        """Literal and place of each hit. Overlapping ones too: one must not hide another."""
        for offset in range(0, max(len(data), 1), WINDOW - MAX_LITERAL):
            window = data[offset : offset + WINDOW] if len(data) > WINDOW else data
            for literal, start, _ in self._automaton.find_matches_as_indexes(window, overlapping=True):
                yield literal, start + offset
            if len(data) <= WINDOW:
                return
