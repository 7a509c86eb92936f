"""Leaf ranges whose hashes make up a Merkle proof (RFC 6962 2.1.1, 2.1.2), and the hash of such a range."""

from collections.abc import Callable, Collection, Iterator, Mapping

from tlog.frontier import Frontier
from tlog.merkle import NodeHash, node_hash


def consistency_ranges(size1: int, size2: int) -> Iterator[tuple[int, int]]:
    """Leaf ranges `[start, end)` whose hashes make the consistency proof from `size1` to `size2`, in order.

    SPEC RFC 6962 2.1.2: PROOF(m, D[n]) = SUBPROOF(m, D[n], true), unrolled from the inside out.
    """
    if not 0 < size1 <= size2:
        raise ValueError(f"no consistency proof from size {size1} to {size2}")
    start, end, whole = 0, size2, True
    tail = []
    while size1 - start != end - start:
        split = _split(start, end)
        if size1 <= split:
            tail.append((split, end))
            end = split
        else:
            tail.append((start, split))
            start, whole = split, False
    if not whole:
        yield start, end
    yield from reversed(tail)


def inclusion_ranges(index: int, size: int) -> list[tuple[int, int]]:
    """Leaf ranges `[start, end)` whose hashes make the inclusion proof of a leaf, from the leaf upwards.

    SPEC RFC 6962 2.1.1: PATH(m, D[n]), unrolled from the root down.
    """
    if not 0 <= index < size:
        raise ValueError(f"no inclusion proof of leaf {index} in a tree of {size}")
    start, end, found = 0, size, []
    while end - start > 1:
        split = _split(start, end)
        if index < split:
            found.append((split, end))
            end = split
        else:
            found.append((start, split))
            start = split
    return found[::-1]


def size_beside(size: int, tree_size: int) -> int | None:
    """A size whose consistency proof to `tree_size` gives the frontier of `[0, size)`; `None` in a tree too small.

    A proof from a power of two leaves out that root, and none leads on from the whole tree: then a size beside it.
    """
    for each in (size, size + 1, size - 1, size - 2):
        if 1 < each < tree_size and each.bit_count() > 1:
            ranges = set(consistency_ranges(each, tree_size))
            if all(_is_made_of(start, end, ranges) for start, end in _blocks(size)):
                return each
    return None


def frontier_of_ranges(size: int, held: Mapping[tuple[int, int], bytes]) -> Frontier:
    """Frontier of `[0, size)` out of hashes of leaf ranges. Nothing is verified: compare `root_of_ranges` first.

    Raises `KeyError` for ranges that do not make it up.
    """
    return Frontier(size, tuple(root_of_ranges(start, end, held) for start, end in _blocks(size)))


def root_of_ranges(start: int, end: int, held: Mapping[tuple[int, int], bytes]) -> bytes:
    """Hash of leaves `[start, end)` out of hashes of ranges in it. Raises `KeyError` where one is missing.

    SPEC RFC 6962 2.1: a tree is split at the largest power of two below its size.
    """
    known = held.get((start, end))
    if known is not None:
        return known
    if end - start == 1:
        raise KeyError((start, end))
    split = _split(start, end)
    return node_hash(root_of_ranges(start, split, held), root_of_ranges(split, end, held))


def _is_made_of(start: int, end: int, ranges: Collection[tuple[int, int]]) -> bool:
    if (start, end) in ranges:
        return True
    if end - start == 1:
        return False
    split = _split(start, end)
    return _is_made_of(start, split, ranges) and _is_made_of(split, end, ranges)


def _blocks(size: int) -> Iterator[tuple[int, int]]:
    """Full subtrees of `[0, size)`, largest first: one for each bit of the size."""
    start = 0
    for level in range(size.bit_length() - 1, -1, -1):
        if (size >> level) & 1:
            yield start, start + (1 << level)
            start += 1 << level


def _split(start: int, end: int) -> int:
    return start + (1 << ((end - start - 1).bit_length() - 1))


def range_root(start: int, end: int, node: Callable[[int, int], bytes]) -> NodeHash:
    """Hash of leaves `[start, end)` of a proof. `node(level, index)` is the root of the full subtree there.

    A range of a proof starts at a multiple of its largest subtree, so it splits into full subtrees, largest first.
    """
    parts: list[bytes] = []
    while start < end:
        level = (end - start).bit_length() - 1
        parts.append(node(level, start >> level))
        start += 1 << level
    root = parts.pop()
    while parts:
        root = node_hash(parts.pop(), root)
    return NodeHash(root)
