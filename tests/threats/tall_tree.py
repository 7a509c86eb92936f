"""A Rekor v2 log of many entries in memory: the oracle's tree, with every full subtree hashed once."""

from hashlib import sha256

from tests.support.misbehaving_log import RekorV2Log
from tests.support.rfc6962_oracle import TreeOracle


class TallTree(TreeOracle):
    """The oracle, with full subtrees in arrays by level instead of a cache of ranges."""

    def __init__(self, leaves: list[bytes]) -> None:
        super().__init__(())
        self._levels = [[sha256(b"\x00" + leaf).digest() for leaf in leaves]]
        while len(self._levels[-1]) > 1:
            below = self._levels[-1]
            pairs = zip(below[::2], below[1::2], strict=False)
            self._levels.append([sha256(b"\x01" + left + right).digest() for left, right in pairs])

        self._range = self.range_root  # type: ignore[assignment]

    def range_root(self, start: int, end: int) -> bytes:
        count = max(end - start, 1)
        level = count.bit_length() - 1
        if count == 1 << level and start % count == 0:
            return self._levels[level][start >> level]
        return self._range_uncached(start, end)


class TallLog(RekorV2Log):
    """A log that never changes, so its tree is made once."""

    def __init__(self, leaves: list[bytes]) -> None:
        super().__init__(leaves)
        self._tall = TallTree(leaves)

    def oracle(self) -> TreeOracle:
        return self._tall


def tall(entries: int) -> TallLog:
    """A log of this many small entries."""
    return TallLog([b'{"kind":"test","number":%d}' % number for number in range(entries)])
