"""Leaf ranges whose hashes make up a Merkle proof (RFC 6962 2.1.1, 2.1.2), and the hash of such a range."""

from collections.abc import Callable, Iterator

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
        split = start + (1 << ((end - start - 1).bit_length() - 1))
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
        split = start + (1 << ((end - start - 1).bit_length() - 1))
        if index < split:
            found.append((split, end))
            end = split
        else:
            found.append((start, split))
            start = split
    return found[::-1]


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
