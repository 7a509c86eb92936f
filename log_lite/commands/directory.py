"""Commands on a log's directory, most of them also while it is served."""

import contextlib
import functools
import json
import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from log_lite import home
from log_lite.commands.shared import MISBEHAVED, MISUSED, Dir, errors, exit_codes, progress, stop
from log_lite.faults.modes import MODES, PARTS
from log_lite.faults.switch import switch
from log_lite.fsck import check_tree
from log_lite.importing import import_bodies
from log_lite.ledger import DATABASE
from log_lite.sequencer import wall_clock_ms
from log_lite.store import LedgerDatabase
from log_lite.trust import trust_document


class LogName(StrEnum):
    """The three logs of one server."""

    V1 = "v1"
    V2 = "v2"
    CT = "ct"


def init(
    folder: Dir,
    url: Annotated[
        str, typer.Option(help="Base URL clients will use; its host is the logs' origin.")
    ] = "http://localhost:3000",
) -> None:
    """Make keys, database and trust.json in a new directory.

    Example: log-lite init --dir log --url http://localhost:3000
    """
    with exit_codes():
        home.initialise(folder, url, wall_clock_ms())
        _write_trust(folder)
    typer.echo(f"log in {folder} for {url}; serve it with: log-lite serve --dir {folder}")


def export_trust(folder: Dir) -> None:
    """Print trust.json: the log entries of a trusted root and a signing config.

    Example: log-lite export-trust --dir log > trust.json
    """
    with exit_codes():
        typer.echo(_trust_text(folder))


def rotate(
    folder: Dir,
    log: Annotated[
        LogName, typer.Option(help="v1: a new active tree; v2: a new shard, the old one frozen.")
    ] = LogName.V1,
    url: Annotated[
        str | None, typer.Option(help="Base URL of a new v2 shard; a loopback log picks the next address.")
    ] = None,
) -> None:
    """End the active tree and start a new one, also while the log is served.

    Example: log-lite rotate --dir log --log v2
    """
    with exit_codes(), home.opened(folder, wall_clock_ms()) as ledger:
        if log is LogName.CT:
            raise stop(home.NotApplicable("a CT log is not rotated: start a new one with `log-lite init`"), MISUSED)
        now = wall_clock_ms()
        row = home.rotate_v1(ledger, now) if log is LogName.V1 else home.rotate_v2(ledger, now, url)
    with exit_codes():
        _write_trust(folder)
    typer.echo(f"{row.origin}\t{row.url}")


def freeze(folder: Dir, log: Annotated[LogName, typer.Option(help="Which log to freeze.")] = LogName.V2) -> None:
    """Make a log read-only for ever, also while it is served.

    Example: log-lite freeze --dir log --log v2
    """
    with exit_codes(), home.opened(folder, wall_clock_ms()) as ledger:
        row = home.freeze(ledger, log.value, wall_clock_ms())
    with exit_codes():
        _write_trust(folder)
    typer.echo(f"{row.origin}\tfrozen")


def fault(
    folder: Dir,
    mode: Annotated[str, typer.Argument(help="The fault, or `none`. `list` prints all of them.")],
    log: Annotated[
        LogName | None, typer.Option(help="Only this log; default: every log the fault makes sense for.")
    ] = None,
    index: Annotated[int | None, typer.Option(help="The entry (or, for rewind, the size) to lie about.")] = None,
    on: Annotated[str, typer.Option(help=f"Part of the API, for HTTP faults: {', '.join(PARTS)}.")] = "reads",
) -> None:
    """Make the log misbehave; the fault `none` ends it. Works on a running server and survives a restart.

    Example: log-lite fault --dir log fork --log v2
    """
    with exit_codes():
        if mode == "list":
            for row in MODES.values():
                typer.echo(f"{row.name}\t{','.join(row.logs)}\t{row.summary}")
            return
        if on not in PARTS:
            raise stop(home.NotApplicable(f"--on {on!r} is none of {', '.join(PARTS)}"), MISUSED)
        with home.opened(folder, wall_clock_ms()) as ledger:
            for name, settings in switch(ledger, mode, log.value if log else None, index, on):
                detail = f"entry {settings.index}, size {settings.size}, {settings.part}" if settings else "honest"
                typer.echo(f"{name}\t{mode}\t{detail}")


def verify(
    folder: Dir, as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per tree.")] = False
) -> None:
    """Check every stored entry against the heads this log has signed. Exit code 1: the log is damaged.

    Example: log-lite verify --dir log
    """
    with exit_codes(), contextlib.closing(LedgerDatabase.open(folder / DATABASE)) as store, progress(errors) as bar:
        reports = []
        for row in store.trees():
            task = bar.add_task(row.origin, total=store.count(row.name))
            reports.append(check_tree(store, row, folder, functools.partial(bar.advance, task)))
    for report in reports:
        typer.echo(json.dumps(report.as_json()) if as_json else report.line())
    if any(report.defects for report in reports):
        raise typer.Exit(MISBEHAVED)


def import_command(
    folder: Dir,
    file: Annotated[
        Path, typer.Argument(help="JSON lines: base64 strings, or objects with body or canonicalizedBody.")
    ],
    log: Annotated[LogName, typer.Option(help="Which log to add them to.")] = LogName.V1,
) -> None:
    """Add raw leaf bodies without a check of their content, for tests and drills.

    Example: log-lite import --dir log bodies.jsonl --log v2
    """
    with exit_codes(), home.opened(folder, wall_clock_ms()) as ledger, progress(errors) as bar:
        task = bar.add_task("importing", total=file.stat().st_size if file.is_file() else None)
        added, skipped = import_bodies(ledger, log.value, file, wall_clock_ms, functools.partial(bar.advance, task))
    typer.echo(f"{added} added, {skipped} there already")


def _trust_text(folder: Path) -> str:
    with home.opened(folder, wall_clock_ms()) as ledger:
        return json.dumps(trust_document(ledger), indent=2)


def _write_trust(folder: Path) -> None:
    # Readers see the old file or the new one, never a part of it.
    text, temporary = _trust_text(folder) + "\n", folder / "trust.json.new"
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / "trust.json")
