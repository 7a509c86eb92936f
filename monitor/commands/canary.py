"""`signwatch canary`: runs of the canary, and the bundle of one that was not seen."""

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from monitor.commands.terminal import DEFAULT_CONFIG, ConfigOption, JsonOption, note, say_json, table, when
from monitor.config import load_config
from monitor.model.errors import OwnFault
from monitor.store.canaries import Canaries
from monitor.store.database import open_database


def list_runs(
    config: ConfigOption = DEFAULT_CONFIG,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="At most this many.")] = 50,
    *,
    as_json: JsonOption = False,
) -> None:
    """List runs of the canary, newest first: time of the signing, time of the alert, result.

    Examples:
      signwatch canary list --limit 10
    """
    settings = load_config(config)
    with closing(open_database(settings.database)) as database:
        runs = Canaries(database).newest(limit)
    if as_json:
        from monitor.daemon.status import run_document  # noqa: PLC0415 - imports what the daemon shows

        say_json({"runs": [run_document(each) for each in runs]})
        return
    rows = [
        (each.number, each.log, each.result, when(each.signed_at), when(each.seen_at), each.detail) for each in runs
    ]
    table(("run", "log", "result", "signed", "seen", "detail"), rows)


def export(
    run: Annotated[int, typer.Argument(help="The run's number; `signwatch canary list` names it.", min=1)],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A file; standard output by default.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Write the Sigstore bundle of a run whose alert did not come: the log's own answer when it took the entry.

    `signwatch check-bundle` then finds a log that took the entry and does not show it here.

    Examples:
      signwatch canary export 12 --output canary.sigstore.json
      signwatch check-bundle canary.sigstore.json
    """
    settings = load_config(config)
    with closing(open_database(settings.database)) as database:
        bundle = Canaries(database).bundle(run)
    if bundle is None:
        raise typer.BadParameter(
            f"no bundle is kept for run {run}: the run was seen, did not sign, or is too old: `signwatch canary list`",
            param_hint="RUN",
        )
    if output is None:
        typer.echo(bundle, nl=False)
        return
    try:
        output.write_bytes(bundle)
    except OSError as error:
        raise OwnFault(f"{output}: cannot be written: {error.strerror}") from error
    note(f"wrote {output}; `signwatch check-bundle {output.name}` checks whether the log shows you this entry")
