"""Makes a log's manifest again when it is damaged: from the files that prove themselves against the signed head.

A file of rows proves itself when its leaf hashes lead from the log's own frontier before its first entry to that
behind its last, and its index is that of the rows. What the rows say beside the leaf hash is what was archived:
`archive verify` derives it again, in samples or with `--all` of every entry.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from hashlib import sha256
from typing import Final

from msgspec import Struct

from monitor.archive.files import ArchiveFault, ArchiveFiles, DamagedManifest, FileRef
from monitor.archive.ranges import ArchivedRange, ArchivedRun, ArchiveManifest, to_json
from monitor.archive.rows import SCHEMA
from monitor.archive.writing import (
    ProveConsistency,
    as_made,
    bounds_of,
    locked,
    manifest_name,
    open_parquet,
    read_index,
    read_manifest,
    read_table,
)
from monitor.model.log_source import LogIdentity, SignedHead
from tlog.merkle import Frontier, MalformedFrontier, aligned_subtrees

_NAME: Final = re.compile(r"(\d{12,18})-(\d{12,18})\.parquet", re.ASCII)


class Recovery(Struct, frozen=True):
    """The manifest that was made again, its number of ranges, and the entries `[first, last)` its files were of."""

    manifest: ArchiveManifest
    kept: int
    span: tuple[int, int]


def recovered(
    files: ArchiveFiles,
    identity: LogIdentity,
    head: SignedHead,
    frontier: Callable[[int], Frontier],
    prove: ProveConsistency,
) -> Recovery | None:
    """Make a damaged or missing manifest again, and store it; `None` when another program has done so.

    `frontier` is the log's own at a size, authenticated by `head`. Raises `ArchiveFault`, and what asking the log
    raises.
    """
    with locked(files, identity.log):
        try:
            if read_manifest(files, identity.log) is not None:
                return None
        except DamagedManifest:
            pass
        empty = ArchiveManifest(identity, generation=head.size + 1)  # hardly any archive has changed as often
        known = lru_cache(maxsize=4)(frontier)
        spans = [each for each in _spans(files, identity.log) if each[1] <= head.size]
        kept = list(_proven(files, empty, spans, known))
        runs: list[ArchivedRun] = []
        for together in _together(kept):
            first, last = together[0].first, together[-1].last
            proof = tuple(prove(last, head.size)) if last < head.size else ()
            run = ArchivedRun(known(first), tuple(together), head, proof)
            run.check()
            runs.append(run)
        manifest = ArchiveManifest(identity, tuple(runs), empty.generation)
        # A crash before this leaves the manifest as it was; after it, the archive is what the files prove.
        files.write(manifest_name(identity.log), to_json(manifest))
    span = (spans[0][0], max(last for _, last in spans)) if spans else (0, 0)
    return Recovery(manifest, len(kept), span)


def _spans(files: ArchiveFiles, log: str) -> list[tuple[int, int]]:
    """Entries that files of rows are of, by their names; of those that begin alike the longest first."""
    names = (name.rpartition("/")[2] for name in files.names(".parquet", f"{log}/rows"))
    found = {(int(each[1]), int(each[2])) for name in names if (each := _NAME.fullmatch(name))}
    return sorted(((first, last) for first, last in found if first < last), key=lambda each: (each[0], -each[1]))


def _proven(
    files: ArchiveFiles,
    manifest: ArchiveManifest,
    spans: Sequence[tuple[int, int]],
    frontier: Callable[[int], Frontier],
) -> Iterator[ArchivedRange]:
    """Ranges whose rows prove themselves, none with an entry of another: compaction may leave the parts it joined."""
    at = 0
    for first, last in spans:
        if first < at:
            continue
        try:
            each = _read(files, manifest, first, last)
            end = each.extend(frontier(first))
        except (ArchiveFault, MalformedFrontier):
            continue
        if end == frontier(last):
            yield each
            at = last


def _read(files: ArchiveFiles, manifest: ArchiveManifest, first: int, last: int) -> ArchivedRange:
    """A range as its two files show it. Raises `ArchiveFault`."""
    name = f"{manifest.log}/{{}}/{first:012d}-{last:012d}.parquet"
    rows_file, index_file = _file(files, name.format("rows")), _file(files, name.format("index"))
    each = ArchivedRange(first, last, rows_file, index_file, ())
    rows = read_table(open_parquet(files, manifest, each, rows_file), rows_file, SCHEMA)
    if rows["index"].to_pylist() != list(range(first, last)) or rows["log"].unique().to_pylist() != [manifest.log]:
        raise ArchiveFault(f"archive file {rows_file.name}: does not hold entries {first} to {last - 1} of its log")
    as_made(rows, read_index(files, manifest, each), each)
    subtrees = aligned_subtrees(first, rows["leaf_hash"].to_pylist())
    return ArchivedRange(first, last, rows_file, index_file, subtrees, *bounds_of(rows))


def _file(files: ArchiveFiles, name: str) -> FileRef:
    """A file as it is stored now; of no byte where it is missing."""
    digest, size = sha256(), 0
    if files.size(name) is not None:
        with files.open(name) as opened:
            while part := opened.read(1 << 20):
                digest.update(part)
                size += len(part)
    return FileRef(name, size, digest.hexdigest())


def _together(ranges: Sequence[ArchivedRange]) -> list[list[ArchivedRange]]:
    """Ranges in groups without a gap."""
    groups: list[list[ArchivedRange]] = []
    for each in ranges:
        if groups and groups[-1][-1].last == each.first:
            groups[-1].append(each)
        else:
            groups.append([each])
    return groups
