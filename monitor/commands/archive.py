"""`signwatch archive`: build, verify and compact the rows of whole logs."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from random import Random
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from msgspec import Struct

from alerts.alert import counted
from alerts.inert import inert_line
from monitor.archive.building import RowMaker, RowReader
from monitor.archive.compacting import compact, compactable
from monitor.archive.files import ArchiveFault, ArchiveFiles, DamagedManifest, OtherFormat
from monitor.archive.map_building import build_maps, check_maps, rebuild_maps
from monitor.archive.ranges import RANGE, ArchiveManifest
from monitor.archive.recovering import recovered
from monitor.archive.rows import RowTrust
from monitor.archive.verifying import Derivation, check_heads, check_ranges, check_sample, unnamed_files
from monitor.archive.verifying import sample as sample_of
from monitor.archive.writing import ManifestWriter, lost_manifests, read_manifest, read_manifests
from monitor.backscan.archiving import archive_range, mend, missing_from
from monitor.backscan.range import NotInLog, ScanEnvironment, waits
from monitor.commands.dask import (
    DaskCaOption,
    DaskCertOption,
    DaskCheckOption,
    DaskKeyOption,
    DaskOption,
    cluster_options,
    connected,
    reading,
)
from monitor.commands.scan_output import json_line, progress
from monitor.commands.terminal import DEFAULT_CONFIG, ConfigOption, Exit, leave, note
from monitor.config import Config, load_config
from monitor.daemon.log_sources import NamedTree, UnknownLogName, only_tree, opened_named, opened_trees
from monitor.daemon.trust_watch import trust_of
from monitor.following.follower import Timing
from monitor.following.workers import usable_jobs
from monitor.judging.active_rules import route_of
from monitor.model.errors import BadConfig, LogMisbehaved
from monitor.model.log_source import LogSource, SignedHead, TrustedHead
from monitor.program import utc_now
from monitor.proof.trusted_head import newest, prove_pair
from monitor.raising.log_alerts import alert_of_evidence
from monitor.store.database import open_database, sqlite_path
from monitor.store.store import Store
from monitor.trust.provider import TrustKeeper

if TYPE_CHECKING:
    from monitor.cluster.workers import ClusterOptions, ClusterWorkers

_NAMED: Final = 10  # files that no manifest names, by name
_MISSING: Final = DamagedManifest("the manifest is missing")


def files_of(config: Config) -> ArchiveFiles:
    """The configured archive's files. Raises `BadConfig` when none is configured."""
    if config.archive is None:
        raise BadConfig(
            f"{config.path}: no archive is configured. Add `archive: {{location: archive}}`; docs/search.md says more."
        )
    return ArchiveFiles(config.archive.location)


def build(
    *,
    log: Annotated[
        str | None, typer.Option("--log", help="Only this log, or one tree of it: NAME or NAME/TREE.")
    ] = None,
    first: Annotated[int, typer.Option("--from", min=0, help="First entry.")] = 0,
    last: Annotated[
        int | None, typer.Option("--to", min=0, help="Entry to stop before; the log's head if left out.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", min=1, max=256, help="Processes; one per core by default.")
    ] = None,
    patience: Annotated[int, typer.Option("--patience", min=0, help="Seconds to wait for a log that is down.")] = 120,
    dask: DaskOption = None,
    dask_check: DaskCheckOption = None,
    dask_tls_ca: DaskCaOption = None,
    dask_tls_cert: DaskCertOption = None,
    dask_tls_key: DaskKeyOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON document for each tree.")] = False,
) -> None:
    """Archive the missing entries of a range of a log, or of all logs, after a proof of every entry.

    After an interruption the same command continues. It may run beside `signwatch run`. With --dask the workers of a
    Dask cluster read the log: this command proves each of their ranges before it archives it (docs/scale.md).

    Examples:
      signwatch archive build
      signwatch archive build --log rekor-v2 --from 0 --to 1000000 --jobs 8
      signwatch archive build --log rekor-v2 --dask tls://scheduler:8786
    """
    if last is not None and log is None:
        raise typer.BadParameter("--to counts the entries of one log: add --log")
    cluster = cluster_options(dask, dask_check, (dask_tls_ca, dask_tls_cert, dask_tls_key), usable_jobs(jobs))
    settings = load_config(config)
    files = files_of(settings)
    with connected(cluster) as workers, _opened(settings, files, 1 if cluster else jobs, patience) as parts:
        try:
            with parts.named(log) as trees:
                if last is not None:
                    only_tree([tree.source for tree in trees], log or "")
                for tree in trees:
                    made = _build(tree, parts, span=(first, last), on=(workers, cluster))
                    if as_json:
                        json_line(made)
        except (UnknownLogName, NotInLog) as error:
            raise typer.BadParameter(str(error)) from error
    raise leave(Exit.FINE)


def verify(
    *,
    log: Annotated[
        str | None, typer.Option("--log", help="Only this log, or one tree of it: NAME or NAME/TREE.")
    ] = None,
    sample: Annotated[
        int, typer.Option("--sample", min=0, help="Entries to fetch and derive again, for each run.")
    ] = 64,
    every: Annotated[bool, typer.Option("--all", help="Fetch and derive every entry again.")] = False,
    offline: Annotated[
        bool, typer.Option("--offline", help="Send no request to a log: check files, roots and indexes only.")
    ] = False,
    mend_it: Annotated[bool, typer.Option("--mend", help="Write damaged files again.")] = False,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", min=1, max=256, help="Processes that read a damaged range again.")
    ] = None,
    patience: Annotated[int, typer.Option("--patience", min=0, help="Seconds to wait for a log that is down.")] = 120,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Compute every root from the archived leaf hashes again, every index and search map; derive a sample of rows.

    The command names each damaged file. With --mend it writes the file again, from the log, which must show the
    entries that were proven; a damaged or missing manifest from the files that the log's signed head proves, and
    from the log where one does not. Exits 3 when a file stays damaged.

    Examples:
      signwatch archive verify
      signwatch archive verify --offline
      signwatch archive verify --log rekor-v2 --all --mend
    """
    settings = load_config(config)
    files = files_of(settings)
    stored = read_manifests(files)
    manifests = {name: each for name, each in stored.items() if _is_named(name, log)}
    unread = {name: fault for name, fault in stored.unread.items() if _is_named(name, log)}
    lost = {name: why for name, why in lost_manifests(files).items() if _is_named(name, log)}
    if not (manifests or unread or lost):
        raise typer.BadParameter(f"nothing is archived of {log or 'any log'}")
    for why in (*lost.values(), *map(str, unread.values())):
        note(inert_line(why, 2_000), "bold red")
    left = 0
    with _opened(settings, files, jobs, patience) as parts:
        for name, manifest in sorted(manifests.items()):
            if offline:
                left += _verify(manifest, None, parts, count=0, mending=mend_it)
                continue
            with parts.trees(name) as trees:
                left += _verify(
                    manifest, only_tree(trees, name), parts, count=None if every else sample, mending=mend_it
                )
        for name in sorted({*unread, *lost}):
            if not mend_it or offline or not isinstance(unread.get(name, _MISSING), DamagedManifest):
                left += 1
                if mend_it and offline:
                    note(f"{name}: its files prove themselves against the log: leave --offline out", "yellow")
                continue
            try:
                with parts.trees(name) as trees:
                    source = only_tree(trees, name)
                    manifest = _recover(source, parts)
                    left += _verify(manifest, source, parts, count=None if every else sample, mending=True)
            except UnknownLogName as error:
                left += 1
                note(inert_line(f"{name}: {error}", 2_000), "red")
    raise leave(Exit.UNFINISHED if left else Exit.FINE)


def compact_archive(
    *,
    log: Annotated[
        str | None, typer.Option("--log", help="Only this log, or one tree of it: NAME or NAME/TREE.")
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Join full ranges of 65,536 entries into ranges of 1,048,576, so that a search opens fewer files.

    A kill at any point loses no entry. `signwatch run` does the same when it is idle.

    Examples:
      signwatch archive compact
    """
    files = files_of(load_config(config))
    stored = read_manifests(files)
    if log is not None and not any(_is_named(name, log) for name in (*stored, *stored.unread)):
        raise typer.BadParameter(f"nothing is archived of {log}")
    for name, manifest in sorted(stored.items()):
        if not _is_named(name, log):
            continue
        writer = ManifestWriter(files, manifest.identity)
        groups = compactable(manifest)
        for group in groups:
            compact(writer, group)
            note(f"{name}: entries {group[0].first} to {group[-1].last - 1} are one range now")
        note(f"{name}: {counted(len(groups), 'range')} made", "green")
    unread = [str(fault) for name, fault in sorted(stored.unread.items()) if _is_named(name, log)]
    for why in unread:
        note(inert_line(why, 2_000), "bold red")
    raise leave(Exit.UNFINISHED if unread else Exit.FINE)


def _is_named(tree: str, log: str | None) -> bool:
    return log is None or log in {tree, tree.partition("/")[0]}


def _verify(
    manifest: ArchiveManifest, source: LogSource | None, parts: "_Parts", *, count: int | None, mending: bool
) -> int:
    """Check one log's archive; returns the number of ranges that stay damaged."""
    check_heads(manifest)
    entries = sum(last - first for first, last in manifest.spans())
    with progress(manifest.log, 0, max((run.last for run in manifest.runs), default=0), 0) as tell:
        damaged = {each.each.first: each for each in check_ranges(parts.files, manifest, tell)}
    if source is not None:
        if source.identity.spki != manifest.identity.spki:
            raise ArchiveFault(f"{manifest.log}: the archive is of a log under another key than the trust root names")
        head = parts.newest(source, manifest)
        roots = {each.root.fingerprint: RowTrust.of(each.root) for each in parts.trust.history().roots}
        derivation = Derivation(source, head, roots)
        for run in manifest.runs:
            wanted = sample_of(run, count, Random())  # noqa: S311  any sample will do
            found = check_sample(parts.files, manifest, derivation, wanted, unsound=damaged)
            damaged |= {each.each.first: each for each in found}
        for fingerprint, rows in derivation.unknown.items():
            note(
                f"{manifest.log}: {counted(rows, 'row')} judged by the trust root {fingerprint[:16]}…, unknown "
                "here: trust has changed since, and their chains were not derived again",
                "yellow",
            )
    left = 0
    for each in damaged.values():
        note(inert_line(each.reason, 2_000), "red")
        if mending:
            writer = ManifestWriter(parts.files, manifest.identity)
            mend(source, writer, each, parts.known(manifest.log), store=parts.store, rows=parts.rows, world=parts.world)
            note(f"{manifest.log}: entries {each.each.first} to {each.each.last - 1} were written again", "green")
        else:
            left += 1
    if not left:
        left += _verify_maps(ManifestWriter(parts.files, manifest.identity), mending=mending)
    _tell_unnamed(parts.files, manifest.log)
    if not left:
        note(
            f"{manifest.log}: the hashes of {counted(entries, 'entry')} lead to the heads that the log signed", "green"
        )
    return left


def _recover(source: LogSource, parts: "_Parts") -> ArchiveManifest:
    """Make a damaged or missing manifest again, and read the entries again of which no file proves itself.

    Raises `ArchiveFault`, and what asking the log raises.
    """
    log, files = source.identity.log, parts.files
    head = parts.newest(source, ArchiveManifest(source.identity))
    made = recovered(files, source.identity, head, lambda size: source.frontier(size, head), source.consistency_proof)
    writer = ManifestWriter(files, source.identity)
    if made is None:
        return writer.manifest
    gaps = missing_from(made.manifest, *made.span)
    for first, last in gaps:
        archive_range(
            source, files, parts.known(log), first, last, store=parts.store, rows=parts.rows, world=parts.world
        )
    again = sum(last - first for first, last in gaps)
    note(
        f"{log}: its manifest was made again: {counted(made.kept, 'file')} of entries are proven by the log's signed "
        f"head, and {counted(again, 'entry')} were read again",
        "green",
    )
    return writer.reread()


def _tell_unnamed(files: ArchiveFiles, log: str) -> None:
    """Name files that are in the log's folder and no part of its archive."""
    unnamed = unnamed_files(files, log)
    for name in unnamed[:_NAMED]:
        note(
            f"{inert_line(name, 200)}: the manifest does not name it, and no search reads it. Other data tools do: "
            "move it away, unless another program writes the archive now",
            "yellow",
        )
    if len(unnamed) > _NAMED:
        note(f"{log}: and {counted(len(unnamed) - _NAMED, 'more such file')}", "yellow")


def _verify_maps(writer: ManifestWriter, *, mending: bool) -> int:
    """Check the search maps of a log whose ranges are sound; returns 1 when they stay damaged."""
    try:
        wrong = check_maps(writer.files, writer.manifest)
    except OtherFormat as fault:
        note(inert_line(str(fault), 2_000), "red")
        return 1
    if wrong is None:
        return 0
    note(inert_line(wrong, 2_000), "red")
    if not mending:
        return 1
    rebuild_maps(writer)
    note(f"{writer.manifest.log}: its search maps were built again", "green")
    return 0


class _Parts(Struct, frozen=True):
    """Parts for reading logs again."""

    config: Config
    files: ArchiveFiles
    store: Store | None
    trust: TrustKeeper
    rows: RowMaker
    world: ScanEnvironment

    def trees(self, log: str | None) -> AbstractContextManager[list[LogSource]]:
        """Trees of one log, or of all."""
        return opened_trees(self.config, self.trust, self.store, Timing(utc_now, time.sleep), log)

    def named(self, log: str | None) -> AbstractContextManager[list[NamedTree]]:
        """The same trees, each with the parts that opened it."""
        return opened_named(self.config, self.trust, self.store, Timing(utc_now, time.sleep), log)

    def newest(self, source: LogSource, manifest: ArchiveManifest) -> SignedHead:
        """The log's newest head, consistent with what following trusts and with each archived head.

        Raises `FetchFailed`, and `LogMisbehaved` with its evidence kept.
        """
        record = self.store.record_head if self.store is not None else lambda _: None
        try:
            head = newest(source, self.known(manifest.log), record).head
            for run in manifest.runs:
                prove_pair(source, run.head, head)
        except LogMisbehaved as misbehaved:
            if self.store is not None:
                self.store.keep_evidence(misbehaved.evidence, [alert_of_evidence(misbehaved.evidence, utc_now())])
            raise
        return head

    def known(self, log: str) -> TrustedHead | None:
        """The head that following trusts."""
        position = self.store.position(log) if self.store is not None else None
        return None if position is None else position.head


@contextmanager
def _opened(config: Config, files: ArchiveFiles, jobs: int | None, patience: int) -> Iterator[_Parts]:
    with ExitStack() as parts:
        store = _store(config)
        if store is not None:
            parts.callback(store.close)
        used = usable_jobs(jobs)
        trust = trust_of(config.trust, utc_now, store)
        rows = RowMaker(used, lambda: RowTrust.of(trust.kept().root))
        parts.callback(rows.close)
        executor = parts.enter_context(ThreadPoolExecutor(used + 1, thread_name_prefix="fetch"))
        world = ScanEnvironment(Timing(utc_now, time.sleep), executor, used + 1, waits(patience))
        yield _Parts(config, files, store, trust, rows, world)


def _build(
    tree: NamedTree,
    parts: _Parts,
    *,
    span: tuple[int, int | None],
    on: "tuple[ClusterWorkers | None, ClusterOptions | None]",
) -> dict[str, Any]:
    """Archive the missing entries of one tree, on workers if there are any; returns a summary."""
    source, (first, last) = tree.source, span
    log = source.identity.log
    end = source.latest().size if last is None else last
    try:
        manifest = read_manifest(parts.files, log)
        why = lost_manifests(parts.files).get(log) if manifest is None else None
    except DamagedManifest as fault:
        why = str(fault)
    if why is not None:
        note(inert_line(why, 2_000), "bold red")
        manifest = _recover(source, parts)
    gaps = missing_from(manifest, min(first, end), end)
    with ExitStack() as stack:
        reader: RowReader = parts.rows
        scan_workers, (workers, options) = None, on
        if workers is not None and options is not None and gaps:
            from monitor.cluster.pipeline import ClusterScanWorkers

            shared = stack.enter_context(reading(workers, tree, None, RowTrust.of(parts.trust.kept().root)))
            reader = scan_workers = ClusterScanWorkers(shared, source, options.checked)
        for begin, stop in gaps:
            tell = stack.enter_context(progress(log, begin, stop, begin))
            known = parts.known(log)
            archive_range(
                source, parts.files, known, begin, stop, store=parts.store, rows=reader, world=parts.world, tell=tell
            )
    parts.rows.close()  # its processes would only hold memory while maps are built
    _build_maps(ManifestWriter(parts.files, source.identity))
    count = sum(stop - begin for begin, stop in gaps)
    note(f"{log}: {counted(count, 'entry')} archived; entries {first} to {end} are there now", "green")
    done = {"log": log, "from": first, "to": end, "archived": count}
    return done | ({} if scan_workers is None else {"dask": scan_workers.document()})


def _build_maps(writer: ManifestWriter) -> None:
    run = next((each for each in writer.manifest.runs if each.first == 0), None)
    if run is not None and run.last >= RANGE:
        with progress(f"{writer.manifest.log}, search maps", 0, run.last, 0) as tell:
            build_maps(writer, tell=tell)
    else:
        build_maps(writer)


def _store(config: Config) -> Store | None:
    path = sqlite_path(config.database)
    if path is not None and not path.exists():
        note("there is no database yet, so the log's heads are compared with no earlier ones", "yellow")
        return None
    return Store(open_database(config.database), clock=utc_now, route=route_of(config, None))
