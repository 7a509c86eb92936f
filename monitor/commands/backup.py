"""`signwatch backup` and `signwatch restore`: the state in one file, made while the daemon runs."""

from pathlib import Path
from typing import Annotated

import typer

from alerts.alert import counted
from alerts.inert import inert_line
from monitor.archive.backup import InstallationPaths, write_backup
from monitor.archive.backup import restore as put_back
from monitor.commands.terminal import DEFAULT_CONFIG, ConfigOption, Exit, leave, note, say
from monitor.config import Config, load_config
from monitor.model.errors import BadConfig
from monitor.program import VERSION, utc_now
from monitor.store.database import open_database, sqlite_path


def backup(
    into: Annotated[Path, typer.Argument(help="The file to write; it must not exist.", metavar="FILE")],
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Write database, archive and trust metadata into one file. A daemon may go on meanwhile.

    The file holds all findings, so only its owner may read it. It does not hold the keys and secrets that the
    configuration names.

    A damaged archive does not prevent a backup: the command names the parts that it leaves out, and exits 3.

    Examples:
      signwatch backup /backup/signwatch-2026-01-31.tar
    """
    settings = load_config(config)
    places = _places(settings)
    # Reports a fault of the database before any file is copied.
    open_database(settings.database).close()
    found = write_backup(places, into, utc_now(), VERSION)
    say(f"{into}: {counted(found.files, 'file')}, {counted(found.size, 'byte')}")
    for each in found.left_out:
        note(inert_line(each, 2_000), "bold red")
    if found.left_out:
        note("The backup holds all else. `signwatch archive verify --mend` mends the archive here", "yellow")
    raise leave(Exit.UNFINISHED if found.left_out else Exit.FINE)


def restore(
    source: Annotated[Path, typer.Argument(help="The file that `signwatch backup` wrote.", metavar="FILE")],
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Put the state of a backup at the places in the configuration.

    Overwrites no file: move the present files away first.

    Following continues from the backup's position, and every log has to prove that it extends the tree at that
    position.

    Examples:
    signwatch restore /backup/signwatch-2026-01-31.tar
    """
    settings = load_config(config)
    if not source.is_file():
        raise BadConfig(f"{source}: there is no file here")
    found = put_back(source, _places(settings))
    say(f"restored {counted(found.files, 'file')}, {counted(found.size, 'byte')}, to {settings.database}")
    for each in found.left_out:
        note(inert_line(f"not in the backup as it should be: {each}", 2_000), "yellow")
    note("Run `signwatch fsck`, then start the daemon; after an upgrade `signwatch migrate` first.")


def _places(settings: Config) -> InstallationPaths:
    database = sqlite_path(settings.database)
    if database is None:
        raise BadConfig(
            f"{settings.path}: the database is a server's: back it up and restore it with its own tools (pg_dump), and "
            "the folders of `archive` and `trust` with yours."
        )
    archive = settings.archive.location if settings.archive is not None else None
    if archive is not None and "://" in archive:
        note(f"{archive}: the archive is in an object store and is not part of a backup", "yellow")
        archive = None
    trust = settings.trust.folder if settings.trust.tuf is not None else None
    return InstallationPaths(database, trust, None if archive is None else Path(archive))
