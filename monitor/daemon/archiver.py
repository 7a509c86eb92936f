"""Keeps the archive of one configured log beside following: proven batches go in, gaps are read again.

Following never waits for it. It raises a full disk, or any other fault of the archive, to the daemon, which reports
it; batches of that time are dropped, and read from the log again once the archive can be written.
"""

import logging
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import pyarrow as pa
from typing_extensions import override

from monitor.archive.building import RowMaker
from monitor.archive.compacting import compact, compactable
from monitor.archive.files import ArchiveFiles
from monitor.archive.handover import Archiver, Handover, Handovers, ProvenBatch
from monitor.archive.map_building import build_maps
from monitor.archive.rows import RowTrust, rows_of
from monitor.archive.writing import ArchiveWriter
from monitor.backscan.archiving import archive_range, missing_from
from monitor.backscan.planner import Services
from monitor.backscan.range import ScanEnvironment
from monitor.config import ArchiveConfig
from monitor.logs.opening import LogTrees, OpenTrees
from monitor.model.log_source import LogApi
from monitor.store.reading import Reading
from monitor.telemetry.hooks import ArchiveMeter

_LOG: Final = logging.getLogger(__name__)
_STEP: Final = {LogApi.REKOR_V1: 256}
_STEP_OTHERWISE: Final = 8192
_MANY: Final = 1024  # entries of which rows are made in another process, so that following keeps this one
_FIRST_RETRY: Final = timedelta(seconds=15)
_LONGEST_RETRY: Final = timedelta(minutes=15)


@dataclass(slots=True)
class _ArchivedTree:
    """One tree: its writer, the time since which rows wait, and the state of its gap."""

    log: str
    handover: Handover
    mapped: int | None = None  # generation of the manifest of which every search map is built
    writer: ArchiveWriter | None = None
    waiting_since: datetime | None = None
    gap: tuple[int, int] | None = None
    failures: int = 0
    retry_at: datetime | None = None
    trouble: Exception | None = field(default=None, repr=False)


class LogArchiver(Archiver):
    """Archives one configured log, all trees of it; `step` is called by one thread at a time.

    `open_trees` opens sources for the archive alone, so that requests of following never wait for requests of the
    archive.
    """

    def __init__(
        self,
        name: str,
        open_trees: OpenTrees,
        services: Services,
        *,
        config: ArchiveConfig,
        handovers: Handovers,
    ) -> None:
        self._name, self._config, self._handovers = name, config, handovers
        self._store, self._timing, self._trust = services.store, services.timing, services.trust
        self._meter: ArchiveMeter = services.meter
        self._log_trees = LogTrees(open_trees, services.timing.clock)
        self._trees: dict[str, _ArchivedTree] = {}
        self._process: ProcessPoolExecutor | None = None

    @property
    @override
    def name(self) -> str:
        return self._name

    @override
    def step(self) -> bool:
        """Archive some of the waiting batches of each tree. The first fault is raised until it is over."""
        more = False
        for log in self._handovers.trees(self.name):
            tree = self._trees.setdefault(log, _ArchivedTree(log, self._handovers.of(log)))
            more = self._step(tree) or more
        troubles = [tree.trouble for tree in self._trees.values() if tree.trouble is not None]
        if troubles:
            raise troubles[0]
        return more

    @override
    def finish(self) -> None:
        # No batch is waiting, so a gap that appears twice in a row is read now, not a second later.
        while self.step() or self.step():
            pass
        for tree in self._trees.values():
            if tree.writer is not None:
                tree.writer.flush()

    @override
    def forget_sources(self) -> None:
        self._log_trees.forget()

    @override
    def close(self) -> None:
        for tree in self._trees.values():
            if tree.writer is not None and tree.trouble is None:
                try:
                    tree.writer.flush()
                except Exception as error:  # noqa: BLE001  what is lost here is read from the log again
                    _LOG.warning("archive_not_written log=%s detail=%s", tree.log, error)
        if self._process is not None:
            self._process.shutdown()

    def _step(self, tree: _ArchivedTree) -> bool:
        now = self._timing.clock()
        if tree.retry_at is not None:
            if now < tree.retry_at:
                return False
            tree.handover.reopen()
        try:
            more = self._archive(tree, now)
        except Exception as error:  # noqa: BLE001  told by `step`, which goes on with the other trees
            self._failed(tree, error, now)
            return False
        tree.trouble, tree.failures, tree.retry_at = None, 0, None
        return more

    def _archive(self, tree: _ArchivedTree, now: datetime) -> bool:
        position = self._store.position(tree.log)
        if position is None:
            return False
        if tree.writer is None:
            source = self._log_trees.source(tree.log)
            tree.writer = ArchiveWriter(ArchiveFiles(self._config.location), source.identity, self._prover(tree.log))
        writer, size = tree.writer, position.frontier.size
        began = Reading(self._store.database).followed()[tree.log].baseline_size
        batch = tree.handover.first()
        end = size if batch is None else batch.after.frontier.size
        missing = missing_from(writer.manifest, began, end) if writer.end is None else [(writer.end, end)]
        self._meter.archived(tree.log, missing[0][0] if missing else end, size - (missing[0][0] if missing else end))
        if batch is not None:
            tree.gap = None
            return self._take(tree, writer, batch, missing, now)
        self._write_in_time(tree, writer, now)
        if writer.end is not None:
            return False
        if not missing:
            return self._tidy(tree, writer)
        # A batch may be committed and still in the queue: entries count as missing if they are missing twice in a row.
        seen, tree.gap = tree.gap, missing[0]
        return seen is not None and seen[0] == tree.gap[0] and self._fill(tree, writer, *missing[0])

    def _take(
        self,
        tree: _ArchivedTree,
        writer: ArchiveWriter,
        batch: ProvenBatch,
        missing: Sequence[tuple[int, int]],
        now: datetime,
    ) -> bool:
        """Archive the oldest waiting batch, or a part of the gap before it. `missing` are gaps up to its end."""
        whole = (batch.before.frontier.size, batch.after.frontier.size)
        if not missing or missing[0][0] >= whole[1]:
            tree.handover.remove()
            return True
        if missing[0] == whole:
            writer.add(self._rows(tree.log, batch), batch.before.frontier, batch.after)
            tree.handover.remove()
            tree.waiting_since = tree.waiting_since or now
            self._write_in_time(tree, writer, now)
            return True
        writer.flush()
        first, last = missing[0]
        return self._fill(tree, writer, first, last if first >= whole[0] else min(last, whole[0]))

    def _write_in_time(self, tree: _ArchivedTree, writer: ArchiveWriter, now: datetime) -> None:
        if writer.pending and tree.waiting_since is not None and now - tree.waiting_since >= self._config.write_every:
            writer.flush()
        if not writer.pending:
            tree.waiting_since = None

    def _fill(self, tree: _ArchivedTree, writer: ArchiveWriter, first: int, last: int) -> bool:
        """Read a part of the gap `[first, last)` from the log again."""
        source = self._log_trees.source(tree.log)
        end = min(last, first + _STEP.get(source.identity.api, _STEP_OTHERWISE))
        known = self._store.position(tree.log)
        _LOG.info("archive_gap log=%s first=%d last=%d", tree.log, first, end)
        world = ScanEnvironment(self._timing, patience=(), pauses=(1.0,))
        archive_range(
            source,
            writer.files,
            known.head if known is not None else None,
            first,
            end,
            store=self._store,
            rows=RowMaker(1, self._trusted),
            world=world,
        )
        writer.manifest = writer.reread()
        tree.gap = (end, last)
        return True

    def _tidy(self, tree: _ArchivedTree, writer: ArchiveWriter) -> bool:
        """Join ranges, or build and merge search maps, when idle."""
        group = next(iter(compactable(writer.manifest)), None)
        if group is None:
            generation = writer.manifest.generation
            if tree.mapped == generation:
                return False
            if build_maps(writer, most=1):
                return True
            tree.mapped = generation
            return False
        _LOG.info("archive_compacting log=%s first=%d last=%d", tree.log, group[0].first, group[-1].last)
        compact(writer, group)
        return True

    def _rows(self, log: str, batch: ProvenBatch) -> pa.RecordBatch:
        api, start = self._log_trees.source(log).identity.api, batch.before.frontier.size
        trust = self._trusted()
        if len(batch.entries) < _MANY:
            return rows_of(batch.entries, start, log, api, trust)
        if self._process is None:
            self._process = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
        return self._process.submit(rows_of, batch.entries, start, log, api, trust).result()

    def _trusted(self) -> RowTrust:
        return RowTrust.of(self._trust.kept().root)

    def _failed(self, tree: _ArchivedTree, error: Exception, now: datetime) -> None:
        if tree.writer is not None:
            tree.writer.discard()
        tree.handover.close()
        tree.writer = tree.waiting_since = tree.gap = None
        tree.trouble = error
        tree.retry_at = now + min(_FIRST_RETRY * 2 ** min(tree.failures, 16), _LONGEST_RETRY)
        tree.failures += 1

    def _prover(self, log: str) -> Callable[[int, int], Sequence[bytes]]:
        return lambda size1, size2: self._log_trees.source(log).consistency_proof(size1, size2)
