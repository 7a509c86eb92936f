"""Reads ranges of a log again for the archive: proven from end to end like every scan, and written as rows."""

from collections.abc import Callable, Sequence
from datetime import datetime

import pyarrow as pa

from alerts.alert import Alert
from monitor.archive.building import ArchiveProgress, CollectedRows, RowReader, RowSink
from monitor.archive.files import ArchiveFault, ArchiveFiles
from monitor.archive.ranges import ArchiveManifest
from monitor.archive.verifying import Damage
from monitor.archive.writing import ArchiveWriter, ManifestWriter, write_range
from monitor.backscan.progress import ScanState
from monitor.backscan.range import ScanEnvironment, begin_range, scan_range
from monitor.model.log_source import LogSource, TrustedHead
from monitor.model.state import Batch, Finding, Hit
from monitor.store.store import Store
from tlog.merkle import aligned_subtrees


class NoJudge:
    """A judge without rules, for entries that are only archived."""

    def judge(self, hits: Sequence[Hit], now: datetime) -> Sequence[Finding]:  # noqa: ARG002
        """No findings."""
        return ()

    def alerts(self, findings: Sequence[Finding], now: datetime) -> Sequence[Alert]:  # noqa: ARG002
        """No alerts."""
        return ()


def missing_from(manifest: ArchiveManifest | None, first: int, last: int) -> list[tuple[int, int]]:
    """Parts of `[first, last)` that are not archived."""
    gaps, at = [], first
    for start, end in manifest.spans() if manifest is not None else ():
        if start >= last:
            break
        if start > at:
            gaps.append((at, start))
        at = max(at, end)
    if at < last:
        gaps.append((at, last))
    return gaps


def archive_range(
    source: LogSource,
    files: ArchiveFiles,
    known: TrustedHead | None,
    first: int,
    last: int,
    *,
    store: Store | None,
    rows: RowReader,
    world: ScanEnvironment,
    tell: Callable[[int], None] = lambda _: None,
) -> None:
    """Read, prove and archive entries `[first, last)`, which must not be archived yet.

    Batches that were proven before an outage are kept. Raises `FetchFailed`, `LogMisbehaved` with its evidence kept,
    `OwnFault`.
    """
    writer = ArchiveWriter(files, source.identity, source.consistency_proof)
    try:
        _scan(source, writer, known, (first, last), store=store, rows=rows, world=world, tell=tell)
    finally:
        writer.flush()


def mend(
    source: LogSource | None,
    writer: ManifestWriter,
    damage: Damage,
    known: TrustedHead | None,
    *,
    store: Store | None,
    rows: RowReader,
    world: ScanEnvironment,
) -> None:
    """Write a damaged range's files again, from the log.

    Raises `ArchiveFault` when the log now shows other entries than the proven ones, or when a `source` is needed and
    missing; and the errors of reading a log.
    """
    old, manifest = damage.each, writer.manifest
    if source is None:
        raise ArchiveFault(f"{damage.reason}. Its entries must be read again: the log has to be asked")
    collected = CollectedRows()
    _scan(source, collected, known, (old.first, old.last), store=store, rows=rows, world=world)
    table = pa.Table.from_batches(collected.batches)
    if aligned_subtrees(old.first, table["leaf_hash"].to_pylist()) != old.subtrees:
        raise ArchiveFault(f"{manifest.log}: entries {old.first} to {old.last} are not those that were archived before")
    with writer.locked():
        writer.manifest = writer.reread()
        new = write_range(writer.files, manifest.identity, table)
        writer.keep(writer.manifest.replaced([old], new))


def _scan(
    source: LogSource,
    sink: RowSink,
    known: TrustedHead | None,
    span: tuple[int, int],
    *,
    store: Store | None,
    rows: RowReader,
    world: ScanEnvironment,
    tell: Callable[[int], None] = lambda _: None,
) -> None:
    progress = ArchiveProgress(sink, rows.take)

    def on_batch(batch: Batch) -> None:
        tell(batch.end)

    state = ScanState(progress, store, on_batch=on_batch)
    position, end = begin_range(source, known, *span, state=state, world=world)
    state.baseline(position, "")
    scan_range(source, state, NoJudge(), rows, last=end, world=world)
