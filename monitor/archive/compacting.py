"""Joins many ranges into one, so that a search opens fewer files. Rows, keys and hashes stay the same."""

from collections.abc import Iterator
from heapq import merge
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from monitor.archive.files import ArchiveFiles, FileRef
from monitor.archive.ranges import RANGE, ArchivedRange, ArchiveManifest
from monitor.archive.reading import KeySpan, OpenedFile
from monitor.archive.search_index import lines_of
from monitor.archive.writing import (
    ManifestWriter,
    check_digest,
    index_sink,
    meta_of,
    open_parquet,
    read_rows,
    rows_sink,
)
from tlog.merkle import subtree_root

TOGETHER: Final = 16  # ranges that become one: 2^20 entries
_SPLIT: Final = 64  # row groups of one index whose keys are merged at once


def compactable(
    manifest: ArchiveManifest, width: int = RANGE, together: int = TOGETHER
) -> list[tuple[ArchivedRange, ...]]:
    """Groups of full ranges that fill an aligned range `together` times as wide, in order."""
    found = []
    for run in manifest.runs:
        full = [each for each in run.ranges if each.last - each.first == width and each.first % width == 0]
        by_block: dict[int, list[ArchivedRange]] = {}
        for each in full:
            by_block.setdefault(each.first // (width * together), []).append(each)
        found += [tuple(group) for group in by_block.values() if len(group) == together]
    return found


def compact(writer: ManifestWriter, group: tuple[ArchivedRange, ...]) -> None:
    """Write the ranges of `group` as one, and forget their files. A crash at any point loses no entry.

    Memory holds one of the two new files, and one old range's rows or a part of its index. Raises `ArchiveFault`.
    """
    files, manifest = writer.files, writer.manifest
    first, last = group[0].first, group[-1].last
    name = f"{manifest.log}/{{}}/{first:012d}-{last:012d}.parquet"
    meta = meta_of(manifest.identity, first, last)
    rows_file = _joined_rows(files, manifest, group, name.format("rows"), meta)
    index_file = _joined_index(files, manifest, group, name.format("index"), meta)
    roots = [root for each in group for _, root in each.subtrees]
    level = (last - first).bit_length() - 1
    times = [(each.earliest, each.latest) for each in group]
    joined = ArchivedRange(
        first,
        last,
        rows_file,
        index_file,
        ((level, subtree_root(roots)),),
        min((earliest for earliest, _ in times if earliest is not None), default=None),
        max((latest for _, latest in times if latest is not None), default=None),
        sum(each.timeless for each in group),
        sum(each.unreadable for each in group),
        sum(each.defective for each in group),
    )
    with writer.locked():
        writer.manifest = writer.reread()
        for run in writer.manifest.runs:
            if set(group) <= set(run.ranges):
                writer.keep(writer.manifest.replaced(group, joined), group)
                return


def _joined_rows(
    files: ArchiveFiles, manifest: ArchiveManifest, group: tuple[ArchivedRange, ...], name: str, meta: dict[str, str]
) -> FileRef:
    with rows_sink(meta) as rows:
        for each in group:
            rows.write(read_rows(files, manifest, each))
        return files.write(name, rows.content())


def _joined_index(
    files: ArchiveFiles, manifest: ArchiveManifest, group: tuple[ArchivedRange, ...], name: str, meta: dict[str, str]
) -> FileRef:
    with index_sink(meta) as index:
        for lines in _merged(files, manifest, group):
            index.write(lines)
        return files.write(name, index.content())


def _merged(files: ArchiveFiles, manifest: ArchiveManifest, group: tuple[ArchivedRange, ...]) -> Iterator[pa.Table]:
    """Lines of all the indexes as one, sorted; entries count from the first range."""
    opened = []
    for each in group:
        check_digest(files, each.index)
        opened.append(OpenedFile(each.index, open_parquet(files, manifest, each, each.index)))
    lows = list(dict.fromkeys(merge(*(each.group_lows() for each in opened))))
    bounds = [b"", *lows[_SPLIT::_SPLIT]]
    for low, high in zip(bounds, [*bounds[1:], None], strict=True):
        pairs = [
            _pairs(lines, each.first - group[0].first)
            for each, index in zip(group, opened, strict=True)
            for lines in index.lines(KeySpan(low, high))
        ]
        if pairs:
            yield lines_of(pa.concat_tables(pairs))


def _pairs(lines: pa.Table, shift: int) -> pa.Table:
    lists = lines["entries"].combine_chunks()
    keys = lines["key"].combine_chunks().take(pc.list_parent_indices(lists))
    return pa.table([keys, pc.cast(pc.add(lists.flatten(), shift), pa.uint32())], names=["key", "entry"])
