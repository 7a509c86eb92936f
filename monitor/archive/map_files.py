"""Search maps kept as files beside the ranges: built from the indexes, merged, and named by one manifest.

A map is stored as its lines, 72 bytes each, and the entry numbers that a later merge needs; both are cut into parts.
Roots of merged maps are kept, so that the index root of every earlier size is known. A crash leaves the earlier
manifest, and perhaps files that no manifest names; the next run writes these files again.
"""

import json
from collections.abc import Iterator
from hashlib import sha256
from itertools import groupby
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from msgspec import Struct

from monitor.archive.files import ArchiveFault, ArchiveFiles, FileRef, OtherFormat
from monitor.archive.ranges import RANGE
from monitor.archive.rows import DECODER
from monitor.archive.search_map import LINE_SIZE, VERSION, MapLine, MapRoot, index_root, levels_at
from monitor.archive.writing import check_digest

FORMAT: Final = "signwatch-search-map"
MAPS: Final = "maps.json"
PART: Final = 1 << 18  # lines in one file, a power of two: each full part is a subtree of its map
MEND: Final = "`signwatch archive verify --mend` builds the search maps again"
ENTRIES_SCHEMA: Final = pa.schema(
    [pa.field("line", pa.int64(), nullable=False), pa.field("entries", pa.list_(pa.int64()), nullable=False)]
)


class MapPart(Struct, frozen=True):
    """Up to `PART` lines of a map, their root, and the file of their entry numbers."""

    lines: FileRef
    entries: FileRef
    root: bytes

    @property
    def count(self) -> int:
        """Number of lines."""
        return self.lines.size // LINE_SIZE


class KeptMap(Struct, frozen=True):
    """The map of entries `[index << level, (index + 1) << level)`."""

    level: int
    index: int
    root: MapRoot
    parts: tuple[MapPart, ...]

    @property
    def first(self) -> int:
        """Index of the first covered entry."""
        return self.index << self.level


class KeptMaps(Struct, frozen=True):
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
            raise ArchiveFault(f"archive file {name}: not the search maps of this log. {MEND}")
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
        raise ArchiveFault(f"archive file {name}: damaged: {error!s:.200}. {MEND}") from error
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
        raise ArchiveFault(f"archive file {part.lines.name}: {'is missing' if raw is None else 'is damaged'}. {MEND}")
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
        raise ArchiveFault(f"archive file {part.entries.name}: cannot be read: {error}. {MEND}") from error


def entries_of(files: ArchiveFiles, part: MapPart, line: int) -> list[int]:
    """Entry numbers of the line at place `line` of a part. Raises `ArchiveFault`."""
    return [number for _, numbers in _entry_rows(files, part, line) for number in numbers]


def to_json(maps: KeptMaps) -> bytes:
    """The manifest of the maps."""
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
