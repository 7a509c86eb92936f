"""`ca-lite issued`: the issuance journal."""

import json
import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ca_lite.commands.shared import AsJson, Directory, reported
from ca_lite.journal import Issuance, Journal
from ca_lite.settings import Layout, load_settings


@reported
def issued(
    *,
    directory: Directory,
    name: Annotated[str | None, typer.Option(help="Only this subject alternative name.")] = None,
    issuer: Annotated[str | None, typer.Option(help="Only this OIDC issuer.")] = None,
    serial: Annotated[str | None, typer.Option(help="Only this serial number, in hex.")] = None,
    limit: Annotated[int, typer.Option(help="At most this many, newest first.", min=1, max=100_000)] = 50,
    as_json: AsJson = False,
) -> None:
    """List certificates from the issuance journal.

    Example: ca-lite issued --dir ca --name you@example.com --json
    """
    layout = Layout(directory)
    # Reports a folder without a CA before the missing journal.
    load_settings(layout)
    journal = Journal.open(layout.journal)
    try:
        rows = journal.search(name=name, issuer=issuer, serial=serial.lower() if serial else None, limit=limit)
    finally:
        journal.close()
    if as_json:
        print(json.dumps([_row_json(row) for row in rows], indent=2))  # noqa: T201
        return
    table = Table("serial", "not before", "state", "name", "issuer")
    for row in rows:
        table.add_row(row.serial, f"{row.not_before:%Y-%m-%dT%H:%M:%SZ}", row.state, row.name, row.issuer)
    if sys.stdout.isatty():
        Console(markup=False).print(table)
    else:
        for row in rows:
            print(row.serial, f"{row.not_before:%Y-%m-%dT%H:%M:%SZ}", row.state, row.name, row.issuer, sep="\t")  # noqa: T201


def _row_json(row: Issuance) -> dict[str, Any]:
    fields = row.model_dump(mode="json", exclude={"certificate", "id"})
    return {**fields, "certificate": row.certificate.hex() if row.certificate else None}
