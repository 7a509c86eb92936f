"""Checks an archive against itself and against the log: files, hashes up to the signed head, index, and rows.

What is computed again: the SHA-256 of every file, the root of every range from its rows' leaf hashes, the head's
signature, and each index from its rows. With a source, rows are derived again from entries fetched from the log, whose
leaf hashes must be the archived ones.
"""

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

import pyarrow as pa

from monitor.archive.files import ArchiveFault, ArchiveFiles
from monitor.archive.ranges import ArchivedRange, Manifest, Run
from monitor.archive.rows import NOT_FROM_LEAF, rows_of
from monitor.archive.search_index import index_of
from monitor.archive.writing import bounds_of, read_index, read_rows
from monitor.model.errors import FetchFailed
from monitor.model.log_source import LogApi, LogSource, SignedHead
from monitor.proof.evidence import read_head
from tlog.frontier import aligned_subtrees

_AT_ONCE: Final = 256  # entries asked for at once; a range of Rekor v1 takes some questions


@dataclass(frozen=True, slots=True)
class Damage:
    """One range that is not as it should be, and why. With `index_only` its rows are sound: no log need be asked."""

    each: ArchivedRange
    reason: str
    index_only: bool = False


def check_heads(manifest: Manifest) -> None:
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
    files: ArchiveFiles, manifest: Manifest, tell: Callable[[int], None] = lambda _: None
) -> Iterator[Damage]:
    """Check both files of every range, its leaf hashes, and its index. Yields what is damaged."""
    for run in manifest.runs:
        for each in run.ranges:
            yield from _damage(files, manifest, each)
            tell(each.last)


def _damage(files: ArchiveFiles, manifest: Manifest, each: ArchivedRange) -> Iterator[Damage]:
    try:
        rows = read_rows(files, manifest, each)
        _check_rows(manifest, each, rows)
    except ArchiveFault as fault:
        yield Damage(each, str(fault))
        return
    try:
        is_index = read_index(files, manifest, each).equals(index_of(rows, each.first))
    except ArchiveFault as fault:
        yield Damage(each, str(fault), index_only=True)
        return
    if not is_index:
        yield Damage(each, f"archive file {each.index.name}: is not the index of its rows", index_only=True)


def _check_rows(manifest: Manifest, each: ArchivedRange, rows: pa.Table) -> None:
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


def sample(run: Run, count: int | None, random: Random) -> list[int]:
    """Indexes of a run's entries to derive again: so many at random, or all of them."""
    numbers = range(run.first, run.last)
    return list(numbers) if count is None or count >= len(numbers) else sorted(random.sample(numbers, count))


def check_sample(
    files: ArchiveFiles,
    manifest: Manifest,
    source: LogSource,
    head: SignedHead,
    wanted: Sequence[int],
    *,
    unsound: Container[int] = (),
) -> Iterator[Damage]:
    """Fetch entries again and derive their rows; yields the ranges of which a row differs.

    Ranges that begin at one of the `unsound` entries are known to be damaged, and left out.

    Raises `FetchFailed` when the log cannot be asked, or serves other bytes than were proven.
    """
    ranges = [each for run in manifest.runs for each in run.ranges]
    for each in ranges:
        here = [index for index in wanted if each.first <= index < each.last]
        if not here or each.first in unsound:
            continue
        stored = read_rows(files, manifest, each)
        if (differs := _differing(stored, each, source, head, here)) is not None:
            yield Damage(each, f"archive file {each.rows.name}: the row of entry {differs} is not what the entry says")


def _differing(
    stored: pa.Table, each: ArchivedRange, source: LogSource, head: SignedHead, wanted: Sequence[int]
) -> int | None:
    for first, last in _spans(wanted):
        at = first
        while at < last:
            entries = source.entries(at, min(last, at + _AT_ONCE), head)
            again = pa.Table.from_batches([rows_of(entries, at, source.identity.log, source.identity.api)])
            kept = stored.slice(at - each.first, len(entries))
            if again["leaf_hash"] != kept["leaf_hash"]:
                raise FetchFailed(
                    f"{source.identity.log}: serves other entries from {at} on than were proven and archived"
                )
            for offset in range(len(entries)):
                if _told(again, offset, source.identity.api) != _told(kept, offset, source.identity.api):
                    return at + offset
            at += len(entries)
    return None


def _told(rows: pa.Table, offset: int, api: LogApi) -> dict[str, object]:
    """What of a row follows from the leaf alone."""
    (row,) = rows.slice(offset, 1).to_pylist()
    # Rekor v1's time is the log's claim beside the leaf.
    left_out = (*NOT_FROM_LEAF, "time", "time_source") if api is LogApi.REKOR_V1 else NOT_FROM_LEAF
    return {name: value for name, value in row.items() if name not in left_out}


def _spans(wanted: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Runs of successive numbers, as `(first, last)`."""
    begin = previous = wanted[0]
    for index in wanted[1:]:
        if index != previous + 1:
            yield begin, previous + 1
            begin = index
        previous = index
    yield begin, previous + 1
