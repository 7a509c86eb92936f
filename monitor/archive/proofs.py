"""Inclusion proofs from stored leaf hashes, without a request to the log."""

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from monitor.archive.files import ArchiveFault, ArchiveFiles
from monitor.archive.ranges import ArchivedRange, ArchivedRun, ArchiveManifest
from monitor.archive.writing import open_parquet
from monitor.proof.evidence import NotEvidence
from monitor.proof.index_coverage import ConsistencyStep, IndexCoverage
from monitor.proof.signing_proof import ProvenEntry, ProvenSignings, check
from tlog.merkle import consistency_ranges, node_hash, range_root, subtree_root
from tlog.nodes import Coordinate, frontier_nodes

_KEPT_LEVEL: Final = 6  # nodes of this level and above are cached; lower ones are cheap to hash again


class RunProver:
    """Proves entries of one run into the head that the run is proven into."""

    def __init__(self, files: ArchiveFiles, manifest: ArchiveManifest, run: ArchivedRun) -> None:
        self._files, self._manifest, self._run = files, manifest, run
        self._known: dict[Coordinate, bytes] = dict(frontier_nodes(run.start))
        for each in run.ranges:
            at = each.first
            for level, root in each.subtrees:
                self._known[level, at >> level] = root
                at += 1 << level
        self._hashes = lru_cache(maxsize=2)(self._read_hashes)

    def prove(self, indexes: Iterable[int], leaves: dict[int, bytes]) -> ProvenSignings:
        """Prove these entries; `leaves` are bytes of some of them. Raises `ArchiveFault` when the hashes do not fit."""
        run, identity, size = self._run, self._manifest.identity, self._run.last
        proven = ProvenSignings(
            identity.log,
            identity.api,
            identity.key_name,
            identity.spki,
            run.head.raw,
            size,
            run.proof,
            tuple(
                ProvenEntry(index, self._leaf(index), tuple(self._path(index, 0, size)), leaves.get(index))
                for index in indexes
            ),
        )
        try:
            check(proven)
        except NotEvidence as error:
            raise ArchiveFault(
                f"{identity.log}: the archive does not prove the entries: {error}. Run `signwatch archive verify`"
            ) from error
        return proven

    def coverage(self, size: int) -> IndexCoverage:
        """Show that the tree of the first `size` entries leads to the head. The run begins at entry 0."""
        last = self._run.last
        steps = [] if size == last else [self._step(size, last)]
        if last < self._run.head.size:
            steps.append(ConsistencyStep(self._run.head.size, self._run.head.root, self._run.proof))
        return IndexCoverage(size, range_root(0, size, self._node), tuple(steps), self._run.head.raw)

    def _step(self, size: int, last: int) -> ConsistencyStep:
        proof = tuple(range_root(first, end, self._node) for first, end in consistency_ranges(size, last))
        return ConsistencyStep(last, range_root(0, last, self._node), proof)

    def _path(self, index: int, first: int, last: int) -> list[bytes]:
        """Siblings of an entry in the tree over `[first, last)`, from the leaf upwards (RFC 6962 2.1.1)."""
        if last - first == 1:
            return []
        middle = first + _half(last - first)
        if index < middle:
            return [*self._path(index, first, middle), self._root(middle, last)]
        return [*self._path(index, middle, last), self._root(first, middle)]

    def _root(self, first: int, last: int) -> bytes:
        size = last - first
        if size & (size - 1) == 0 and first % size == 0:
            return self._node(size.bit_length() - 1, first // size)
        middle = first + _half(size)
        return node_hash(self._root(first, middle), self._root(middle, last))

    def _node(self, level: int, index: int) -> bytes:
        if (known := self._known.get((level, index))) is not None:
            return known
        first, last = index << level, (index + 1) << level
        each = self._range_at(max(first, self._run.first))
        if first >= each.first and last <= each.last and level <= _KEPT_LEVEL:
            return subtree_root(self._hashes(each)[first - each.first : last - each.first])
        if level == 0:
            raise ArchiveFault(f"{self._manifest.log}: the hash of entry {first} is not archived")
        made = node_hash(self._node(level - 1, 2 * index), self._node(level - 1, 2 * index + 1))
        self._known[level, index] = made
        return made

    def _leaf(self, index: int) -> bytes:
        each = self._range_at(index)
        return self._hashes(each)[index - each.first]

    def _range_at(self, index: int) -> ArchivedRange:
        found = next((each for each in self._run.ranges if each.first <= index < each.last), None)
        if found is None:
            raise ArchiveFault(f"{self._manifest.log}: entry {index} is not archived")
        return found

    def _read_hashes(self, each: ArchivedRange) -> list[bytes]:
        column = open_parquet(self._files, self._manifest, each, each.rows).read(columns=["leaf_hash"])["leaf_hash"]
        hashes: list[bytes] = column.to_pylist()
        return hashes


def _half(size: int) -> int:
    """The largest power of two below `size`."""
    return 1 << (size - 1).bit_length() - 1
