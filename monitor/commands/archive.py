"""`signwatch archive`: build, verify and compact the rows of whole logs."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Annotated

import typer

from monitor.archive.building import RowMaker
from monitor.archive.files import ArchiveFiles
from monitor.archive.writing import read_manifest
from monitor.backscan.archiving import archive_range, missing_from
from monitor.backscan.range import NotInLog, World, waits
from monitor.commands.scan_output import progress
from monitor.commands.terminal import DEFAULT_CONFIG, ConfigOption, Exit, leave, note
from monitor.config import Config, load_config
from monitor.daemon.assembly import route_of
from monitor.daemon.named_logs import UnknownLog, only_tree, opened_trees
from monitor.daemon.trust_watch import trust_of
from monitor.following.pool import usable_jobs
from monitor.following.timing import Timing
from monitor.model.errors import BadConfig
from monitor.model.log_source import LogSource
from monitor.program import utc_now
from monitor.store.database import open_database, sqlite_path
from monitor.store.store import Store


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
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Archive what is not archived yet of a range of a log, or of all logs. Every entry is proven first.

    Ended at any point, the same command goes on where it was. It may run beside `signwatch run`.

    Examples:
      signwatch archive build
      signwatch archive build --log rekor-v2 --from 0 --to 1000000 --jobs 8
    """
    if last is not None and log is None:
        raise typer.BadParameter("--to counts the entries of one log: add --log")
    settings = load_config(config)
    files = files_of(settings)
    with ExitStack() as parts:
        store = _store(settings)
        if store is not None:
            parts.callback(store.close)
        trust = trust_of(settings.trust, utc_now, store)
        used = usable_jobs(jobs)
        rows = RowMaker(used)
        parts.callback(rows.close)
        executor = parts.enter_context(ThreadPoolExecutor(used + 1, thread_name_prefix="fetch"))
        world = World(utc_now, time.sleep, executor, used + 1, waits(patience))
        try:
            trees = parts.enter_context(opened_trees(settings, trust, store, Timing(utc_now, time.sleep), log))
            for source in trees if last is None else [only_tree(trees, log or "")]:
                _build(source, files, store, rows, world, span=(first, last))
        except (UnknownLog, NotInLog) as error:
            raise typer.BadParameter(str(error)) from error
    raise leave(Exit.FINE)


def _build(
    source: LogSource,
    files: ArchiveFiles,
    store: Store | None,
    rows: RowMaker,
    world: World,
    *,
    span: tuple[int, int | None],
) -> None:
    first, last = span
    log = source.identity.log
    known = store.position(log) if store is not None else None
    end = source.latest().size if last is None else last
    gaps = missing_from(read_manifest(files, log), min(first, end), end)
    for begin, stop in gaps:
        with progress(log, begin, stop, begin) as tell:
            archive_range(
                source,
                files,
                known.head if known is not None else None,
                begin,
                stop,
                store=store,
                rows=rows,
                world=world,
                tell=tell,
            )
    count = sum(stop - begin for begin, stop in gaps)
    note(f"{log}: {count} entries archived; entries {first} to {end} are there now", "green")


def _store(config: Config) -> Store | None:
    path = sqlite_path(config.database)
    if path is not None and not path.exists():
        note("there is no database yet: nothing the log signed before is known to compare with", "yellow")
        return None
    return Store(open_database(config.database), clock=utc_now, route=route_of(config, None))
