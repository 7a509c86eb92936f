"""RFC 6962 section 2.1, written down recursively: slow, and only there to judge and to feed the fast code."""

from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256


class TreeOracle:
    """The Merkle tree over `leaves` (raw leaf inputs). Make a new one when the leaves change."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        self.leaves = tuple(leaves)
        self._range = lru_cache(maxsize=None)(self._range_uncached)

    def root(self, size: int) -> bytes:
        return self.range_root(0, size)

    def range_root(self, start: int, end: int) -> bytes:
        """MTH(D[start:end])."""
        return self._range(start, end)

    def _range_uncached(self, start: int, end: int) -> bytes:
        if start == end:
            return sha256(b"").digest()
        if end - start == 1:
            return sha256(b"\x00" + self.leaves[start]).digest()
        split = start + _largest_power_below(end - start)
        return sha256(b"\x01" + self._range(start, split) + self._range(split, end)).digest()

    def inclusion_proof(self, index: int, size: int) -> list[bytes]:
        """PATH(m, D[n]), RFC 6962 2.1.1."""
        return self._path(index, 0, size)

    def _path(self, index: int, start: int, end: int) -> list[bytes]:
        if end - start == 1:
            return []
        split = start + _largest_power_below(end - start)
        if index < split:
            return [*self._path(index, start, split), self._range(split, end)]
        return [*self._path(index, split, end), self._range(start, split)]

    def consistency_proof(self, size1: int, size2: int) -> list[bytes]:
        """PROOF(m, D[n]), RFC 6962 2.1.2."""
        return self._subproof(size1, 0, size2, whole=True)

    def _subproof(self, size1: int, start: int, end: int, *, whole: bool) -> list[bytes]:
        if size1 == end:
            return [] if whole else [self._range(start, end)]
        split = start + _largest_power_below(end - start)
        if size1 <= split:
            return [*self._subproof(size1, start, split, whole=whole), self._range(split, end)]
        return [*self._subproof(size1, split, end, whole=False), self._range(start, split)]


def _largest_power_below(count: int) -> int:
    return 1 << ((count - 1).bit_length() - 1)
