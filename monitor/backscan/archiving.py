"""Ranges of a log read again for the archive: proven from end to end like every scan, and written as rows."""

from collections.abc import Callable, Sequence
from datetime import datetime

from alerts.alert import Alert
from monitor.archive.building import ArchiveProgress, RowMaker
from monitor.archive.files import ArchiveFiles
from monitor.archive.ranges import Manifest
from monitor.archive.writing import ArchiveWriter
from monitor.backscan.progress import ScanState
from monitor.backscan.range import World, begin_range, scan_range
from monitor.model.heads import TrustedHead
from monitor.model.log_source import LogSource
from monitor.model.state import Batch, Finding, Hit
from monitor.store.store import Store


class NoJudge:
    """Judges nothing: no rule is asked while entries are archived."""

    def judge(self, hits: Sequence[Hit], now: datetime) -> Sequence[Finding]:  # noqa: ARG002
        """No findings."""
        return ()

    def alerts(self, findings: Sequence[Finding], now: datetime) -> Sequence[Alert]:  # noqa: ARG002
        """No alerts."""
        return ()


def missing_from(manifest: Manifest | None, first: int, last: int) -> list[tuple[int, int]]:
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
    rows: RowMaker,
    world: World,
    tell: Callable[[int], None] = lambda _: None,
) -> None:
    """Read, prove and archive entries `[first, last)`, of which none is archived yet.

    What was proven before an outage is kept. Raises `FetchFailed`, `LogMisbehaved` with its evidence kept, `OwnFault`.
    """
    writer = ArchiveWriter(files, source.identity, source.consistency_proof)
    progress = ArchiveProgress(writer, rows.take)

    def on_batch(batch: Batch) -> None:
        tell(batch.end)

    state = ScanState(progress, store, on_batch=on_batch)
    position, end = begin_range(source, known, first, last, state=state, world=world)
    state.baseline(position, "")
    try:
        scan_range(source, state, NoJudge(), rows, last=end, world=world)
    finally:
        writer.flush()
