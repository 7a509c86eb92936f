"""Checks an archive against itself and against the log: files, hashes up to the signed head, index, and rows.

The check recomputes the SHA-256 of every file, the root of every range from its rows' leaf hashes, and each index
from its rows (but for the keys of certificates, which the index alone keeps), and verifies the head's signature. With
a source, it derives rows again from entries fetched from the log, whose leaf hashes must equal the archived ones.
"""

from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from random import Random
from typing import Final

import pyarrow as pa
from msgspec import Struct, field

from monitor.archive.files import ArchiveFault, ArchiveFiles
from monitor.archive.ranges import ArchivedRange, ArchivedRun, ArchiveManifest
from monitor.archive.rows import NOT_FROM_LEAF, RowTrust, rows_of
from monitor.archive.writing import as_made, bounds_of, read_index, read_made, read_manifest, read_rows
from monitor.model.errors import FetchFailed
from monitor.model.log_source import LogApi, LogSource, SignedHead, read_head
from tlog.merkle import aligned_subtrees

_AT_ONCE: Final = 256  # entries requested at once; Rekor v1 needs several requests for them


class Damage(Struct, frozen=True):
    """One damaged range, and why."""

    each: ArchivedRange
    reason: str


class Derivation(Struct, frozen=True):
    """Derives rows again from the entries that `source` shows up to `head`, and chains by the known trust `roots`.

    `unknown` counts, by fingerprint of the root, the rows that another root judged: their chains are not derived again.
    """

    source: LogSource
    head: SignedHead
    roots: Mapping[str, RowTrust]
    unknown: Counter[str] = field(default_factory=Counter)


def check_heads(manifest: ArchiveManifest) -> None:
    """Verify the signature of each run's head by the manifest's key. Raises `ArchiveFault`."""
    identity = manifest.identity
    for run in manifest.runs:
        try:
            signed = read_head(run.head.raw, identity.api, identity.key_name, identity.spki)
        except ValueError as error:
            raise ArchiveFault(f"{manifest.log}: an archived head is not signed by the log's key: {error}") from error
        if (signed.size, signed.root) != (run.head.size, run.head.root):
            raise ArchiveFault(f"{manifest.log}: an archived head is not the one that was signed")


def check_ranges(
    files: ArchiveFiles, manifest: ArchiveManifest, tell: Callable[[int], None] = lambda _: None
) -> Iterator[Damage]:
    """Check both files of every range, its leaf hashes, and its index. Yields each damaged part."""
    for run in manifest.runs:
        for each in run.ranges:
            yield from _damage(files, manifest, each)
            tell(each.last)


def unnamed_files(files: ArchiveFiles, log: str) -> list[str]:
    """Files beside the rows and indexes of a log that its manifest does not name. Raises `ArchiveFault`.

    Searches ignore these files; other data tools read them. A running writer leaves some briefly, a crash for longer.
    """
    there = [name for folder in ("rows", "index") for name in files.names(".parquet", f"{log}/{folder}")]
    manifest = read_manifest(files, log)
    runs = () if manifest is None else manifest.runs
    named = {file.name for run in runs for each in run.ranges for file in (each.rows, each.index)}
    return [name for name in there if name not in named]


def _damage(files: ArchiveFiles, manifest: ArchiveManifest, each: ArchivedRange) -> Iterator[Damage]:
    try:
        rows = read_rows(files, manifest, each)
        _check_rows(manifest, each, rows)
        as_made(rows, read_index(files, manifest, each), each)
    except ArchiveFault as fault:
        yield Damage(each, str(fault))


def _check_rows(manifest: ArchiveManifest, each: ArchivedRange, rows: pa.Table) -> None:
    """Raise `ArchiveFault` if these are not the rows of the range, by number, log, and proven leaf hashes."""
    name = f"archive file {each.rows.name}"
    if rows["index"].to_pylist() != list(range(each.first, each.last)):
        raise ArchiveFault(f"{name}: does not hold entries {each.first} to {each.last - 1}, each once and in order")
    if rows["log"].unique().to_pylist() != [manifest.log]:
        raise ArchiveFault(f"{name}: holds rows of another log")
    if aligned_subtrees(each.first, rows["leaf_hash"].to_pylist()) != each.subtrees:
        raise ArchiveFault(f"{name}: its leaf hashes do not lead to the root that was proven")
    if bounds_of(rows) != (each.earliest, each.latest, each.timeless, each.unreadable, each.defective):
        raise ArchiveFault(f"{name}: its times and counts are not those in the manifest")


def sample(run: ArchivedRun, count: int | None, random: Random) -> list[int]:
    """Indexes of a run's entries to derive again: `count` of them at random, or all for `None`."""
    numbers = range(run.first, run.last)
    return list(numbers) if count is None or count >= len(numbers) else sorted(random.sample(numbers, count))


def check_sample(
    files: ArchiveFiles,
    manifest: ArchiveManifest,
    derivation: Derivation,
    wanted: Sequence[int],
    *,
    unsound: Container[int] = (),
) -> Iterator[Damage]:
    """Fetch entries again and derive their rows; yields the ranges of which a row differs.

    Ranges that begin at one of the `unsound` entries are known to be damaged, and are left out.

    Raises `FetchFailed` when the log does not answer, or serves other bytes than the proven ones.
    """
    ranges = [each for run in manifest.runs for each in run.ranges]
    for each in ranges:
        here = [index for index in wanted if each.first <= index < each.last]
        if not here or each.first in unsound:
            continue
        stored = read_made(files, manifest, each)
        if (differs := _differing(stored, each, derivation, here)) is not None:
            yield Damage(each, f"archive file {each.rows.name}: the row of entry {differs} differs from the entry")


def _differing(stored: pa.Table, each: ArchivedRange, derivation: Derivation, wanted: Sequence[int]) -> int | None:
    source, roots = derivation.source, derivation.roots
    log, api = source.identity.log, source.identity.api
    for first, last in _spans(wanted):
        at = first
        while at < last:
            entries = source.entries(at, min(last, at + _AT_ONCE), derivation.head)
            kept = stored.slice(at - each.first, len(entries))
            again = {
                root: pa.Table.from_batches([rows_of(entries, at, log, api, roots.get(root))])
                for root in kept["trust_root"].unique().to_pylist()
            }
            if any(rows["leaf_hash"] != kept["leaf_hash"] for rows in again.values()):
                raise FetchFailed(f"{log}: serves other entries from {at} on than were proven and archived")
            for offset, root in enumerate(kept["trust_root"].to_pylist()):
                left_out = _left_out(api, root, derivation)
                if _told(again[root], offset, left_out) != _told(kept, offset, left_out):
                    return at + offset
            at += len(entries)
    return None


def _told(rows: pa.Table, offset: int, left_out: Container[str]) -> dict[str, object]:
    """One row as values."""
    (row,) = rows.slice(offset, 1).to_pylist()
    return {name: value for name, value in row.items() if name not in left_out}


def _left_out(api: LogApi, root: str | None, derivation: Derivation) -> frozenset[str]:
    """Columns of a row that cannot be derived again."""
    # Rekor v1's time is the log's claim beside the leaf.
    columns = frozenset({"time", "time_source"} if api is LogApi.REKOR_V1 else ())
    if root is None or root in derivation.roots:
        return columns
    derivation.unknown[root] += 1
    return columns | frozenset(NOT_FROM_LEAF)


def _spans(wanted: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Runs of successive numbers, as `(first, last)`."""
    begin = previous = wanted[0]
    for index in wanted[1:]:
        if index != previous + 1:
            yield begin, previous + 1
            begin = index
        previous = index
    yield begin, previous + 1
