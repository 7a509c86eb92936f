"""RFC 6962 section 2.1 transcribed as it is written: slow, recursive, and used only to judge and to feed the fast code.

It shares nothing with `tlog`: not the hashing, not the splitting, not the proof shapes.
"""

from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256


class TreeOracle:
    """The Merkle tree over `leaves` (raw leaf inputs), every range hashed once. Make a new one when the leaves change.

    The RFC cuts the list of leaves; here ranges `[start, end)` of one list are cut, so that what was hashed is known.
    """

    def __init__(self, leaves: Sequence[bytes]) -> None:
        self.leaves = tuple(leaves)
        self._range = lru_cache(maxsize=None)(self._range_uncached)

    def root(self, size: int) -> bytes:
        """2.1: the Merkle Tree Hash MTH(D[0:size]), 32 bytes."""
        return self.range_root(0, size)

    def range_root(self, start: int, end: int) -> bytes:
        """2.1: MTH(D[start:end])."""
        return self._range(start, end)

    def _range_uncached(self, start: int, end: int) -> bytes:
        if start == end:
            return sha256(b"").digest()
        if end - start == 1:
            return sha256(b"\x00" + self.leaves[start]).digest()
        k = start + largest_power_of_two_below(end - start)
        return sha256(b"\x01" + self._range(start, k) + self._range(k, end)).digest()

    def inclusion_proof(self, index: int, size: int) -> list[bytes]:
        """2.1.1: PATH(m, D[n]), the audit path of leaf m."""
        return self._path(index, 0, size)

    def _path(self, index: int, start: int, end: int) -> list[bytes]:
        if end - start == 1:
            return []
        k = start + largest_power_of_two_below(end - start)
        if index < k:
            return [*self._path(index, start, k), self._range(k, end)]
        return [*self._path(index, k, end), self._range(start, k)]

    def consistency_proof(self, size1: int, size2: int) -> list[bytes]:
        """2.1.2: PROOF(m, D[n]) = SUBPROOF(m, D[n], true), for 0 < m < n."""
        return self._subproof(size1, 0, size2, complete=True)

    def _subproof(self, size1: int, start: int, end: int, *, complete: bool) -> list[bytes]:
        """2.1.2: SUBPROOF(m, D[n], b)."""
        if size1 == end:
            return [] if complete else [self._range(start, end)]
        k = start + largest_power_of_two_below(end - start)
        if size1 <= k:
            return [*self._subproof(size1, start, k, complete=complete), self._range(k, end)]
        return [*self._subproof(size1, k, end, complete=False), self._range(start, k)]


def mth(leaves: Sequence[bytes]) -> bytes:
    """MTH(D[n]) of all leaves."""
    return TreeOracle(leaves).root(len(leaves))


def path(m: int, leaves: Sequence[bytes]) -> list[bytes]:
    """PATH(m, D[n]) in the tree of all leaves."""
    return TreeOracle(leaves).inclusion_proof(m, len(leaves))


def proof(m: int, leaves: Sequence[bytes]) -> list[bytes]:
    """PROOF(m, D[n]) up to the tree of all leaves."""
    return TreeOracle(leaves).consistency_proof(m, len(leaves))


def largest_power_of_two_below(n: int) -> int:
    """2.1: "let k be the largest power of two smaller than n (i.e., k < n <= 2k)"."""
    k = 1
    while k * 2 < n:
        k *= 2
    return k
