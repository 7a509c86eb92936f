"""Search maps built from the indexes, merged, and compared with the kept ones."""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
from msgspec.structs import replace

from monitor.archive.files import ArchiveFault, ArchiveFiles, OtherFormat
from monitor.archive.map_files import (
    ENTRIES_SCHEMA,
    MAPS,
    PART,
    KeptMap,
    KeptMaps,
    MapPart,
    map_lines,
    read_maps,
    to_json,
)
from monitor.archive.ranges import RANGE, ArchivedRange, ArchivedRun, ArchiveManifest
from monitor.archive.search_index import SEARCHED, lines_of
from monitor.archive.search_map import MapLine, MapRoot, appended, line_bytes, merged
from monitor.archive.writing import ManifestWriter, Sink, check_digest, index_parts
from tlog.merkle import Frontier, aligned_subtrees, leaf_hash

_PIECE: Final = 1 << 16  # entry numbers in one row of a file
_AT_ONCE: Final = 1 << 17  # entry numbers held before they are written
_LINES_AT_ONCE: Final = 1 << 13
_HEX: Final = 16
_LINES: Final = ".lines"
_ENTRIES: Final = ".entries"


class MapBuilder:
    """Builds the maps of one archived log from its indexes, into the archive itself or elsewhere."""

    def __init__(self, files: ArchiveFiles, manifest: ArchiveManifest, target: ArchiveFiles) -> None:
        self._files, self._manifest, self._target = files, manifest, target
        self._run = next((each for each in manifest.runs if each.first == 0), None)
        self._sound: ArchivedRange | None = None

    def grown(self, maps: KeptMaps) -> tuple[KeptMaps, set[str]] | None:
        """The maps with one more smallest map, and the files no longer needed; `None` when no map is missing.

        Only a run from entry 0 on has maps. Raises `ArchiveFault`.
        """
        width, first = 1 << maps.smallest, maps.size
        if self._run is None or self._run.last < first + width:
            return None
        new = write_map(self._target, maps.log, (maps.smallest, first >> maps.smallest), self._block(self._run, first))
        kept, roots, written = [*maps.maps, new], [list(each) for each in maps.roots], [*maps.maps, new]
        _put(roots, 0, new.root)
        while len(kept) > 1 and kept[-2].level == kept[-1].level:
            right, left = kept.pop(), kept.pop()
            lines = merged(map_lines(self._target, left), map_lines(self._target, right))
            joined = write_map(self._target, maps.log, (left.level + 1, left.index >> 1), lines)
            kept.append(joined)
            written.append(joined)
            _put(roots, joined.level - maps.smallest, joined.root)
        after = replace(
            maps, maps=tuple(kept), roots=tuple(tuple(each) for each in roots), generation=maps.generation + 1
        )
        return after, _names(written) - _names(kept)

    def _block(self, run: ArchivedRun, first: int) -> Iterator[MapLine]:
        last = first + RANGE
        inside = [each for each in run.ranges if each.first < last and each.last > first]
        pairs = [_pairs(lines, each.first, first, last) for each in inside for lines in self._index_of(each)]
        return block_lines(lines_of(pa.concat_tables(pairs)), first)

    def _index_of(self, each: ArchivedRange) -> Iterator[pa.Table]:
        # A joined range gives sixteen blocks in turn; its digest is compared with the manifest once.
        if self._sound != each:
            check_digest(self._files, each.index)
            self._sound = each
        return index_parts(self._files, self._manifest, each)


def build_maps(writer: ManifestWriter, most: int | None = None, tell: Callable[[int], None] = lambda _: None) -> int:
    """Build and merge missing maps, at most `most` smallest maps; returns their number.

    A run after a crash continues with the first missing map. Raises `ArchiveFault`.
    """
    files, manifest, count = writer.files, writer.reread(), 0
    builder = MapBuilder(files, manifest, files)
    while most is None or count < most:
        maps = read_maps(files, manifest.log)
        found = builder.grown(maps)
        if found is None:
            break
        grown, gone = found
        with writer.locked():
            if read_maps(files, manifest.log).generation == maps.generation:
                # A crash before this line leaves files that no manifest names; after it, they are the maps.
                files.write(f"{manifest.log}/{MAPS}", to_json(grown))
                for name in gone:
                    files.remove(name)
        count += 1
        tell(grown.size)
    return count


def rebuild_maps(writer: ManifestWriter) -> None:
    """Forget the maps, build them again, and remove files that no manifest names. Raises `ArchiveFault`."""
    log = writer.manifest.log
    with writer.locked():
        try:
            read_maps(writer.files, log)
        except OtherFormat:
            raise
        except ArchiveFault:
            pass  # built again below
        writer.files.remove(f"{log}/{MAPS}")
    build_maps(writer)
    named = _names(read_maps(writer.files, log).maps)
    for suffix in (_LINES, _ENTRIES):
        for name in writer.files.names(suffix):
            if name.startswith(f"{log}/maps/") and name not in named:
                writer.files.remove(name)


def _put(roots: list[list[MapRoot]], level: int, root: MapRoot) -> None:
    if level == len(roots):
        roots.append([])
    roots[level].append(root)


def _pairs(lines: pa.Table, at: int, first: int, last: int) -> pa.Table:
    """`(key, entry)` of the searched keys of entries `[first, last)`; entries count from `first`."""
    lists = lines["entries"].combine_chunks()
    owners, numbers = pc.list_parent_indices(lists), pc.add(pc.cast(lists.flatten(), pa.int64()), at)
    inside = pc.and_(pc.greater_equal(numbers, first), pc.less(numbers, last))
    keys = lines["key"].combine_chunks().take(owners.filter(inside))
    entries = pc.cast(pc.subtract(numbers.filter(inside), first), pa.uint32())
    searched = pc.less_equal(pc.binary_slice(keys, 0, 1), bytes((max(SEARCHED),)))
    return pa.table([keys.filter(searched), entries.filter(searched)], names=["key", "entry"])


def block_lines(index: pa.Table, first: int) -> Iterator[MapLine]:
    """Lines of the map over an index whose entries count from `first`."""
    hashes = pa.array(
        [
            sha256(key).digest()
            for part in index.to_batches(max_chunksize=_LINES_AT_ONCE)
            for key in part["key"].to_pylist()
        ],
        pa.binary(),
    )
    entries = index["entries"].combine_chunks()
    order = pc.sort_indices(hashes)
    for at in range(0, len(order), _LINES_AT_ONCE):
        here = order.slice(at, _LINES_AT_ONCE)
        for key_hash, numbers in zip(hashes.take(here).to_pylist(), entries.take(here).to_pylist(), strict=True):
            yield MapLine(key_hash, [[first + each for each in numbers]])


class _PartWriter:
    """Writes lines into parts, and hashes them on the way. Holds one part's lines and some entry numbers."""

    def __init__(self, files: ArchiveFiles, name: str) -> None:
        self._files, self._name = files, name
        self._parts: list[MapPart] = []
        self._frontier = Frontier(0, ())
        self._begin()

    def _begin(self) -> None:
        self._lines, self._hashes = bytearray(), list[bytes]()
        self._sink = Sink(
            ENTRIES_SCHEMA,
            _AT_ONCE,
            {},
            use_dictionary=False,
            column_encoding={"line": "DELTA_BINARY_PACKED", "entries.list.element": "DELTA_BINARY_PACKED"},
        )
        self._rows: list[tuple[int, Sequence[int]]] = []
        self._held = 0

    def add(self, line: MapLine) -> None:
        """Append a line."""
        frontier, count = Frontier(0, ()), 0
        for piece in _pieces(line.pieces):
            self._rows.append((len(self._hashes), piece))
            count += len(piece)
            self._held += len(piece)
            if line.root is None:
                frontier = appended(frontier, piece)
            if self._held >= _AT_ONCE:
                self._flush()
        raw = line_bytes(line.key_hash, count, line.root or frontier.root())
        self._lines += raw
        self._hashes.append(leaf_hash(raw))
        if len(self._hashes) == PART:
            self._end()

    def _flush(self) -> None:
        if not self._rows:
            return
        lines, numbers = [row[0] for row in self._rows], [row[1] for row in self._rows]
        self._sink.write(
            pa.table([pa.array(lines, pa.int64()), pa.array(numbers, ENTRIES_SCHEMA[1].type)], schema=ENTRIES_SCHEMA)
        )
        self._rows, self._held = [], 0

    def _end(self) -> None:
        own = Frontier(0, ())
        for level, root in aligned_subtrees(self._frontier.size, self._hashes):
            self._frontier = self._frontier.stitched(level, root)
        for level, root in aligned_subtrees(0, self._hashes):
            own = own.stitched(level, root)
        self._flush()
        root = own.root()
        name = f"{self._name}-{len(self._parts):05d}-{root.hex()[:_HEX]}"
        lines = self._files.write(f"{name}{_LINES}", bytes(self._lines))
        entries = self._files.write(f"{name}{_ENTRIES}", self._sink.content())
        self._parts.append(MapPart(lines, entries, root))
        self._begin()

    def finish(self) -> tuple[int, bytes, tuple[MapPart, ...]]:
        """Write the remaining lines; returns the number of all lines, their root, and the parts."""
        if self._hashes:
            self._end()
        self._sink.content()
        return self._frontier.size, self._frontier.root(), tuple(self._parts)


def _pieces(pieces: Iterable[Sequence[int]]) -> Iterator[Sequence[int]]:
    """The same numbers in fewer pieces of at most `_PIECE`."""
    held: list[int] = []
    for piece in pieces:
        held.extend(piece)
        while len(held) >= _PIECE:
            yield held[:_PIECE]
            held = held[_PIECE:]
    if held:
        yield held


def write_map(files: ArchiveFiles, log: str, at: tuple[int, int], lines: Iterator[MapLine]) -> KeptMap:
    """Write the map at `(level, index)`; the manifest does not name it yet. Raises `ArchiveFault`."""
    level, index = at
    writer = _PartWriter(files, f"{log}/maps/{level:02d}-{index:010d}")
    for line in lines:
        writer.add(line)
    count, root, parts = writer.finish()
    return KeptMap(level, index, MapRoot(level, count, root), parts)


def check_maps(files: ArchiveFiles, manifest: ArchiveManifest) -> str | None:
    """Build the maps again elsewhere, from the indexes, and compare; returns the defect of the kept maps.

    Raises `ArchiveFault` when an index cannot be read.
    """
    try:
        kept = read_maps(files, manifest.log)
        for each in kept.maps:
            for part in each.parts:
                check_digest(files, part.lines)
                check_digest(files, part.entries)
    except OtherFormat:
        raise
    except ArchiveFault as fault:
        return str(fault)
    with tempfile.TemporaryDirectory(prefix="signwatch-maps-") as folder:
        again = _again(files, manifest, ArchiveFiles(folder), kept.size)
    for level, (stored, made) in enumerate(zip(kept.roots, again.roots, strict=False)):
        for index, (one, other) in enumerate(zip(stored, made, strict=False)):
            if one != other:
                span = index << kept.smallest + level, index + 1 << kept.smallest + level
                return (
                    f"{manifest.log}: the search map of entries {span[0]} to {span[1] - 1} is not that of its index: "
                    "one of the two was changed. `signwatch archive verify --all` says whether it was the index"
                )
    if again.roots != kept.roots:
        return f"{manifest.log}: search maps cover entries that are not archived without a gap"
    return None


def _again(files: ArchiveFiles, manifest: ArchiveManifest, elsewhere: ArchiveFiles, size: int) -> KeptMaps:
    builder, maps = MapBuilder(files, manifest, elsewhere), KeptMaps(manifest.log, RANGE.bit_length() - 1)
    while maps.size < size and (found := builder.grown(maps)) is not None:
        maps, gone = found
        for name in gone:
            elsewhere.remove(name)
    return maps


def _names(maps: Sequence[KeptMap]) -> set[str]:
    return {file.name for each in maps for part in each.parts for file in (part.lines, part.entries)}
