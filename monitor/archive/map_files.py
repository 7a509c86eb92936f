"""Search maps kept as files beside the ranges: built from the indexes, merged, and named by one manifest.

A map is stored as its lines, 72 bytes each, and the entry numbers that a later merge needs; both are cut into parts.
Roots of merged maps are kept, so that the index root of every earlier size is known. A crash leaves the earlier
manifest, and perhaps files that no manifest names; the next run writes these files again.
"""

import json
import tempfile
from base64 import b64encode
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import groupby
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from monitor.archive.files import ArchiveFault, ArchiveFiles, FileRef, OtherFormat
from monitor.archive.proofs import RunProver
from monitor.archive.ranges import RANGE, ArchivedRange, Manifest, Run
from monitor.archive.reading import KeySpan, OpenedFile
from monitor.archive.rows import DECODER
from monitor.archive.search_index import SEARCHED, KeyKind, lines_of
from monitor.archive.search_map import (
    LINE_SIZE,
    MEDIA_TYPE,
    VERSION,
    MapLine,
    MapRoot,
    appended,
    index_root,
    key_of,
    levels_at,
    line_bytes,
    merged,
)
from monitor.archive.writing import ArchiveWriter, Sink, check_digest, index_parts, open_parquet
from tlog.merkle import Frontier, aligned_subtrees, inclusion_ranges, leaf_hash, range_root, subtree_root

FORMAT: Final = "signwatch-search-map"
MAPS: Final = "maps.json"
PART: Final = 1 << 18  # lines in one file, a power of two: each full part is a subtree of its map
_PIECE: Final = 1 << 16  # entry numbers in one row of a file
_AT_ONCE: Final = 1 << 17  # entry numbers held before they are written
_LINES_AT_ONCE: Final = 1 << 13
_HEX: Final = 16
MOST_LISTED: Final = 10_000  # entry numbers of one line in an answer
_LINES: Final = ".lines"
_ENTRIES: Final = ".entries"
_MEND: Final = "`signwatch archive verify --mend` builds the search maps again"
_SCHEMA: Final = pa.schema(
    [pa.field("line", pa.int64(), nullable=False), pa.field("entries", pa.list_(pa.int64()), nullable=False)]
)


@dataclass(frozen=True, slots=True)
class MapPart:
    """Up to `PART` lines of a map, their root, and the file of their entry numbers."""

    lines: FileRef
    entries: FileRef
    root: bytes

    @property
    def count(self) -> int:
        """Number of lines."""
        return self.lines.size // LINE_SIZE


@dataclass(frozen=True, slots=True)
class KeptMap:
    """The map of entries `[index << level, (index + 1) << level)`."""

    level: int
    index: int
    root: MapRoot
    parts: tuple[MapPart, ...]

    @property
    def first(self) -> int:
        """Index of the first covered entry."""
        return self.index << self.level


@dataclass(frozen=True, slots=True)
class KeptMaps:
    """Maps of one log. `roots[n][i]` is the root of map `i` of `2**n` smallest maps, kept or merged."""

    log: str
    smallest: int
    maps: tuple[KeptMap, ...] = ()
    roots: tuple[tuple[MapRoot, ...], ...] = ()
    generation: int = 0

    @property
    def decoder(self) -> int:
        """Version of the decoder that found the keys."""
        return DECODER

    @property
    def size(self) -> int:
        """Entries covered, from the log's first on."""
        return len(self.roots[0]) << self.smallest if self.roots else 0

    def root_at(self, size: int) -> bytes | None:
        """Index root at a size; `None` for a size that is not covered, or no multiple of the smallest map."""
        maps = self.maps_at(size)
        return None if maps is None else index_root(DECODER, self.smallest, maps)

    def maps_at(self, size: int) -> list[MapRoot] | None:
        """Roots of the maps that exist at a size."""
        if not 0 < size <= self.size or size % (1 << self.smallest):
            return None
        found, at = [], 0
        for level in levels_at(size):
            found.append(self.roots[level - self.smallest][at >> level])
            at += 1 << level
        return found


def read_maps(files: ArchiveFiles, log: str) -> KeptMaps:
    """The kept maps of a log; empty before the first build. Raises `ArchiveFault` when damaged."""
    smallest = RANGE.bit_length() - 1
    name = f"{log}/{MAPS}"
    raw = files.read(name)
    if raw is None:
        return KeptMaps(log, smallest)
    try:
        document = json.loads(raw)
        _check_version(document, name)
        if document["format"] != FORMAT or (document["smallest"], document["log"]) != (smallest, log):
            raise ArchiveFault(f"archive file {name}: not the search maps of this log. {_MEND}")
        maps = KeptMaps(
            log,
            smallest,
            tuple(_read_map(each) for each in document["maps"]),
            tuple(
                tuple(MapRoot(smallest + level, int(lines), bytes.fromhex(root)) for lines, root in each)
                for level, each in enumerate(document["roots"])
            ),
            int(document["generation"]),
        )
        _check_maps(maps)
    except (KeyError, TypeError, ValueError, IndexError, RecursionError) as error:
        raise ArchiveFault(f"archive file {name}: damaged: {error!s:.200}. {_MEND}") from error
    return maps


def _check_version(document: Any, name: str) -> None:
    version, decoder = document["version"], document["decoder"]
    if document["format"] == FORMAT and (version, decoder) != (VERSION, DECODER):
        raise OtherFormat(
            f"archive file {name}: of format {version!r:.20}, decoder {decoder!r:.20}; this release reads format "
            f"{VERSION}, decoder {DECODER}. It is left as it is: use the release that wrote it, or move it away and "
            "run `signwatch archive build`, which builds search maps of this release's format"
        )


def _check_maps(maps: KeptMaps) -> None:
    blocks = len(maps.roots[0]) if maps.roots else 0
    if [len(each) for each in maps.roots] != [blocks >> level for level in range(blocks.bit_length())]:
        raise ValueError("roots are missing")
    kept = [each.root for each in maps.maps]
    if kept != (maps.maps_at(maps.size) or []):
        raise ValueError("its maps are not those of its size")


class MapBuilder:
    """Builds the maps of one archived log from its indexes, into the archive itself or elsewhere."""

    def __init__(self, files: ArchiveFiles, manifest: Manifest, target: ArchiveFiles) -> None:
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

    def _block(self, run: Run, first: int) -> Iterator[MapLine]:
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


def build_maps(writer: ArchiveWriter, most: int | None = None, tell: Callable[[int], None] = lambda _: None) -> int:
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
                files.write(f"{manifest.log}/{MAPS}", _to_json(grown))
                for name in gone:
                    files.remove(name)
        count += 1
        tell(grown.size)
    return count


def rebuild_maps(writer: ArchiveWriter) -> None:
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


def map_lines(files: ArchiveFiles, each: KeptMap) -> Iterator[MapLine]:
    """Lines of a kept map, with their entry numbers. Raises `ArchiveFault` during iteration."""
    for part in each.parts:
        raw = part_lines(files, part)
        for at, rows in groupby(_entry_rows(files, part), lambda row: row[0]):
            line = raw[at * LINE_SIZE : (at + 1) * LINE_SIZE]
            yield MapLine(line[:32], (numbers for _, numbers in rows), line[40:])


def part_lines(files: ArchiveFiles, part: MapPart) -> bytes:
    """All lines of a part, whose SHA-256 is the manifest's. Raises `ArchiveFault`."""
    raw = files.read(part.lines.name, PART * LINE_SIZE)
    if raw is None or sha256(raw).hexdigest() != part.lines.sha256:
        raise ArchiveFault(f"archive file {part.lines.name}: {'is missing' if raw is None else 'is damaged'}. {_MEND}")
    return raw


def _entry_rows(files: ArchiveFiles, part: MapPart, line: int | None = None) -> Iterator[tuple[int, list[int]]]:
    try:
        if line is None:
            check_digest(files, part.entries)
        opened = pq.ParquetFile(files.open(part.entries.name), page_checksum_verification=True)
        for group in range(opened.metadata.num_row_groups):
            bounds = opened.metadata.row_group(group).column(0).statistics
            if line is not None and bounds is not None and not bounds.min <= line <= bounds.max:
                continue
            rows = opened.read_row_group(group)
            if line is not None:
                rows = rows.filter(pc.equal(rows["line"], line))
            yield from zip(rows["line"].to_pylist(), rows["entries"].to_pylist(), strict=True)
    except (pa.ArrowException, OSError) as error:
        raise ArchiveFault(f"archive file {part.entries.name}: cannot be read: {error}. {_MEND}") from error


def entries_of(files: ArchiveFiles, part: MapPart, line: int) -> list[int]:
    """Entry numbers of the line at place `line` of a part. Raises `ArchiveFault`."""
    return [number for _, numbers in _entry_rows(files, part, line) for number in numbers]


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
            _SCHEMA,
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
        self._sink.write(pa.table([pa.array(lines, pa.int64()), pa.array(numbers, _SCHEMA[1].type)], schema=_SCHEMA))
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


class MapReader:
    """Looks keys up in one kept map, with the paths that prove the answer."""

    def __init__(self, files: ArchiveFiles, kept: KeptMap, most: int) -> None:
        self._files, self._map, self._most = files, kept, most

    def answer(self, key_hash: bytes) -> dict[str, Any]:
        """The line of a key, or its neighbours. Raises `ArchiveFault`."""
        at = self._place(key_hash)
        if at < self._map.root.lines and self._line(at)[:32] == key_hash:
            shown = self._shown(at)
            if shown["count"] <= self._most:
                shown["entries"] = entries_of(self._files, self._map.parts[at // PART], at % PART)
            return {"line": shown}
        return {
            "before": self._shown(at - 1) if at else None,
            "after": self._shown(at) if at < self._map.root.lines else None,
        }

    def _place(self, key_hash: bytes) -> int:
        """Number of lines whose key's hash is smaller."""
        # The last part whose first line is at or before the key.
        low, high = 0, len(self._map.parts)
        while high - low > 1:
            middle = (low + high) // 2
            if self._line(middle * PART)[:32] <= key_hash:
                low = middle
            else:
                high = middle
        if not self._map.parts:
            return 0
        raw = part_lines(self._files, self._map.parts[low])
        inside = bisect_left(range(len(raw) // LINE_SIZE), key_hash, key=lambda at: raw[at * LINE_SIZE :][:32])
        return low * PART + inside

    def _line(self, at: int) -> bytes:
        part = self._map.parts[at // PART]
        with suppress(OSError), self._files.open(part.lines.name) as opened:
            opened.seek(at % PART * LINE_SIZE)
            raw: bytes = opened.read(LINE_SIZE)
            if len(raw) == LINE_SIZE:
                return raw
        raise ArchiveFault(f"archive file {part.lines.name}: cannot be read. {_MEND}")

    def _shown(self, at: int) -> dict[str, Any]:
        raw = self._line(at)
        lines = part_lines(self._files, self._map.parts[at // PART])
        first = at // PART * PART
        hashes = [leaf_hash(lines[start : start + LINE_SIZE]) for start in range(0, len(lines), LINE_SIZE)]
        part_level = PART.bit_length() - 1

        def node(level: int, index: int) -> bytes:
            if level >= part_level:
                return subtree_root(
                    [
                        each.root
                        for each in self._map.parts[index << level - part_level : index + 1 << level - part_level]
                    ]
                )
            begin = index << level
            if first <= begin < first + len(hashes):
                return subtree_root(hashes[begin - first : begin - first + (1 << level)])
            other = part_lines(self._files, self._map.parts[begin // PART])
            offset = begin % PART
            return subtree_root(
                [
                    leaf_hash(other[each * LINE_SIZE : (each + 1) * LINE_SIZE])
                    for each in range(offset, offset + (1 << level))
                ]
            )

        path = [range_root(start, end, node) for start, end in inclusion_ranges(at, self._map.root.lines)]
        return {
            "position": at,
            "key_hash": raw[:32].hex(),
            "count": int.from_bytes(raw[32:40], "big"),
            "entries_root": raw[40:].hex(),
            "path": [each.hex() for each in path],
        }


def answer_document(
    files: ArchiveFiles, manifest: Manifest, wanted: Sequence[tuple[KeyKind, str]], most: int = MOST_LISTED
) -> dict[str, Any]:
    """The proofs that the maps hold about some keys, as docs/search-index.md specifies. Raises `ArchiveFault`.

    At most `most` entries of a line are listed. Entries beyond the maps are answered from the index, without proof.
    """
    maps = read_maps(files, manifest.log)
    if not maps.size:
        raise ArchiveFault(
            f"{manifest.log}: there is no search map yet: it takes the first {RANGE} entries of the log. "
            f"`signwatch archive build --log {manifest.log}` archives them and builds it{_begins(manifest)}"
        )
    run = next(each for each in manifest.runs if each.first == 0)
    covers = RunProver(files, manifest, run).coverage(maps.size)
    readers = [MapReader(files, each, most) for each in maps.maps]
    answers = []
    for kind, value in wanted:
        key = key_of(kind, value)
        shown = [reader.answer(sha256(key).digest()) for reader in readers]
        answers.append({"kind": kind.word, "value": value, "maps": shown, "tail": _tail(files, manifest, maps, key)})
    root = maps.root_at(maps.size)
    assert root is not None  # noqa: S101  the size is covered
    return {
        "mediaType": MEDIA_TYPE,
        "version": VERSION,
        "log": manifest.log,
        "api": manifest.identity.api.value,
        "origin": manifest.identity.origin,
        "key": sha256(manifest.identity.spki).hexdigest(),
        "key_name": manifest.identity.key_name,
        "spki": b64encode(manifest.identity.spki).decode(),
        "covers": covers.document(),
        "decoder": DECODER,
        "kinds": list(SEARCHED),
        "smallest": maps.smallest,
        "size": maps.size,
        "index_root": root.hex(),
        "maps": [
            {"level": each.level, "lines": each.lines, "root": each.root.hex()}
            for each in (kept.root for kept in maps.maps)
        ],
        "answers": answers,
    }


def _begins(manifest: Manifest) -> str:
    """First archived entries where the log's first entry is not archived: no answer covers earlier ones."""
    spans = manifest.spans()
    if not spans or spans[0][0] == 0:
        return ""
    kept = ", ".join(f"{first} to {last - 1}" for first, last in spans)
    return f". Archived are entries {kept}: of entries before {spans[0][0]} nothing can be said"


def _tail(files: ArchiveFiles, manifest: Manifest, maps: KeptMaps, key: bytes) -> dict[str, Any]:
    """Entries of a key beyond the maps, up to the first gap in the archive."""
    run = next(each for each in manifest.runs if each.first == 0)
    found: list[int] = []
    for each in run.ranges:
        if each.last > maps.size:
            opened = OpenedFile(each.index, open_parquet(files, manifest, each, each.index))
            for lines in opened.lines(KeySpan(key, key)):
                found += [each.first + number for numbers in lines["entries"].to_pylist() for number in numbers]
    return {"first": maps.size, "last": run.last, "entries": [each for each in found if each >= maps.size]}


def check_maps(files: ArchiveFiles, manifest: Manifest) -> str | None:
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


def _again(files: ArchiveFiles, manifest: Manifest, elsewhere: ArchiveFiles, size: int) -> KeptMaps:
    builder, maps = MapBuilder(files, manifest, elsewhere), KeptMaps(manifest.log, RANGE.bit_length() - 1)
    while maps.size < size and (found := builder.grown(maps)) is not None:
        maps, gone = found
        for name in gone:
            elsewhere.remove(name)
    return maps


def _names(maps: Sequence[KeptMap]) -> set[str]:
    return {file.name for each in maps for part in each.parts for file in (part.lines, part.entries)}


def _to_json(maps: KeptMaps) -> bytes:
    document = {
        "format": FORMAT,
        "version": VERSION,
        "decoder": DECODER,
        "smallest": maps.smallest,
        "log": maps.log,
        "generation": maps.generation,
        "maps": [
            {
                "level": each.level,
                "index": each.index,
                "lines": each.root.lines,
                "root": each.root.root.hex(),
                "parts": [[*_file(part.lines), *_file(part.entries), part.root.hex()] for part in each.parts],
            }
            for each in maps.maps
        ],
        "roots": [[[each.lines, each.root.hex()] for each in level] for level in maps.roots],
    }
    return json.dumps(document).encode() + b"\n"


def _file(file: FileRef) -> tuple[str, int, str]:
    return file.name, file.size, file.sha256


def _read_map(document: Any) -> KeptMap:
    level = int(document["level"])
    parts = tuple(
        MapPart(_inside(FileRef(*each[:3])), _inside(FileRef(*each[3:6])), bytes.fromhex(each[6]))
        for each in document["parts"]
    )
    root = MapRoot(level, int(document["lines"]), bytes.fromhex(document["root"]))
    if sum(part.count for part in parts) != root.lines:
        raise ValueError("a map lacks lines")
    return KeptMap(level, int(document["index"]), root, parts)


def _inside(file: FileRef) -> FileRef:
    if not isinstance(file.name, str) or file.name.startswith("/") or ".." in file.name.split("/"):
        raise ValueError("a file outside the archive")
    return file
