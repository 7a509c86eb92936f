"""`signwatch peers`: compare the heads that the logs signed for this and for another installation."""

import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import lru_cache
from typing import Annotated

import typer

from monitor.commands.terminal import DEFAULT_CONFIG, ConfigOption, Exit, JsonOption, leave, note, say_json, table
from monitor.config import ArchiveConfig, load_config
from monitor.crosscheck.peers import (
    MAX_CHECKPOINTS,
    BoundIndex,
    IndexOf,
    PeerComparison,
    PeerRelation,
    compare_with_peer,
    no_index,
)
from monitor.daemon.assembly import assemble
from monitor.daemon.log_sources import own_sources
from monitor.following.follower import Timing
from monitor.http_fetcher import HttpFetcher
from monitor.model.errors import OwnFault
from monitor.program import utc_now
from monitor.telemetry.hooks import Meter

_NOTHING_SHOWN = frozenset(
    {PeerRelation.NOT_SIGNED, PeerRelation.UNPROVEN, PeerRelation.INDEX_DIFFERS, PeerRelation.INDEX_UNBOUND}
)


def index_reader(archive: ArchiveConfig | None, tell: Callable[[str], None]) -> IndexOf:
    """Reader of the archive's search indexes, each at most once a minute.

    It reports a damaged index and leaves it out.
    """
    if archive is None:
        return no_index
    # pyarrow takes a quarter of a second: only where there is an archive.
    from monitor.archive.files import ArchiveFault, ArchiveFiles  # noqa: PLC0415
    from monitor.archive.map_files import read_maps  # noqa: PLC0415
    from monitor.archive.proofs import RunProver  # noqa: PLC0415
    from monitor.archive.writing import read_manifest  # noqa: PLC0415

    @lru_cache(maxsize=MAX_CHECKPOINTS)
    def read(log: str, _minute: int) -> BoundIndex | None:
        try:
            files = ArchiveFiles(archive.location)
            maps, manifest = read_maps(files, log), read_manifest(files, log)
            run = None if manifest is None else next((each for each in manifest.runs if each.first == 0), None)
            if manifest is None or run is None or not 0 < maps.size <= run.last:
                return None
            return BoundIndex(maps, RunProver(files, manifest, run).coverage(maps.size))
        except ArchiveFault as fault:
            tell(str(fault))
            return None

    return lambda log: read(log, int(time.monotonic() // 60))


def compare(
    url: Annotated[str, typer.Argument(help="Base URL of the other installation's web address.")],
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    as_json: JsonOption = False,
) -> None:
    """Compare the newest signed heads with another Signwatch: a log that shows two histories cannot hide it from both.

    Only the logs' signatures count, so the other installation needs no trust. This installation keeps a
    contradiction as evidence and sends an alert; the other side finds it when it compares with you. Exits 1 when a
    log contradicted itself, 3 when a
    head could not be compared, or the search indexes differ: one of the two installations leaves out or adds entries.

    Examples:
      signwatch peers compare https://signwatch.example.org
      signwatch peers compare --json http://127.0.0.1:9464
    """
    timing = Timing(utc_now, time.sleep)
    settings = load_config(config)
    monitor = assemble(settings, Meter(), timing)
    with ExitStack() as parts:
        parts.callback(monitor.close)
        sources = own_sources(monitor, parts)()
        index_of = index_reader(settings.archive, lambda fault: note(fault, "yellow"))
        try:
            fetcher = HttpFetcher(url)
        except OwnFault as error:
            raise typer.BadParameter(f"{error}: it begins with https:// or http://", param_hint="URL") from error
        with closing(fetcher):
            comparisons = compare_with_peer(fetcher, sources, monitor.store, utc_now, index_of)
    followed = [source.identity.log for source in sources]
    missing = sorted(set(followed) - {each.log for each in comparisons})
    if as_json:
        say_json({"peer": url, "logs": [each.document() for each in comparisons], "not_compared": missing})
    else:
        table(("log", "verdict", "detail"), [(each.log, each.relation.value, each.detail) for each in comparisons])
    if missing:
        note(f"not compared, because the other side does not show them: {', '.join(missing)}", "yellow")
    raise leave(_code(comparisons))


def _code(comparisons: list[PeerComparison]) -> Exit:
    relations = {each.relation for each in comparisons}
    if PeerRelation.CONTRADICTION in relations:
        return Exit.MISBEHAVED
    return Exit.UNFINISHED if relations & _NOTHING_SHOWN or not relations else Exit.FINE
