"""`signwatch evidence`: list what was kept against logs, export it, and verify an exported file anywhere."""

import json
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from monitor.commands.terminal import DEFAULT_CONFIG, ConfigOption, Exit, JsonOption, leave, note, say, say_json, table
from monitor.config import load_config
from monitor.daemon.assembly import utc_now
from monitor.model.errors import OwnFault
from monitor.proof.evidence import MAX_SIZE, NotEvidence, verify_evidence
from monitor.store.database import open_database
from monitor.store.reading import KeptEvidence, Reading
from monitor.store.store import Store

app = typer.Typer(name="evidence", help="Evidence against logs: list, export, verify, close.", no_args_is_help=True)
_MANY = 10_000


@app.command("list")
def list_evidence(
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    open_only: Annotated[bool, typer.Option("--open", help="Only what was not closed.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List all evidence, newest first.

    Examples:
      signwatch evidence list
      signwatch evidence list --open
    """
    kept = _kept(config, "", open_only=open_only)
    if as_json:
        say_json(
            {
                "evidence": [
                    {
                        "id": each.id,
                        "log": each.log,
                        "kind": each.kind,
                        "kept_at": each.kept_at.isoformat(),
                        "strength": each.document.get("strength"),
                        "detail": each.document.get("detail"),
                        "closed_at": each.closed_at.isoformat() if each.closed_at is not None else None,
                        "note": each.note,
                    }
                    for each in kept
                ]
            }
        )
        return
    rows = [
        (
            each.id,
            each.log,
            each.kind,
            f"{each.kept_at:%Y-%m-%d %H:%M:%S}Z",
            each.document.get("strength"),
            "open" if each.closed_at is None else f"closed {each.closed_at:%Y-%m-%d %H:%M:%S}Z: {each.note}",
        )
        for each in kept
    ]
    table(("id", "log", "kind", "kept at", "strength", "state"), rows)


@app.command()
def close(
    ids: Annotated[list[str], typer.Argument(help="The id, or its beginning; several at once.", metavar="ID...")],
    why: Annotated[str, typer.Option("--note", help="What was found out, and what was done.")],
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Close evidence that was dealt with. The evidence and the note stay; the log can be green again.

    Until then `audit`, `run --once` and `status` exit with 1, and the status page and /readyz say why.

    Examples:
      signwatch evidence close 3f2a --note "told the operator, ticket 81, they restored a backup"
    """
    if not why.strip():
        raise typer.BadParameter("say what was found out", param_hint="--note")
    settings = load_config(config)
    with closing(open_database(settings.database)) as database:
        store, reading = Store(database, clock=utc_now, route=lambda _alert: ()), Reading(database)
        for piece in [_only_one(reading.evidence(_MANY, prefix=each), each) for each in ids]:
            if not store.close_evidence(piece.id, why):
                at = f"{piece.closed_at:%Y-%m-%d %H:%M:%S}Z" if piece.closed_at is not None else "a moment ago"
                raise typer.BadParameter(f"{piece.id} was closed {at}: {piece.note}", param_hint="ID")
            say(f"{piece.id}: closed")


@app.command()
def export(
    evidence_id: Annotated[str, typer.Argument(help="The id, or its beginning.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A file; standard output by default.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Write one piece of evidence as a file that verifies without this program's state.

    Examples:
      signwatch evidence export 3f2a --output fork.json
    """
    found = _only_one(_kept(config, evidence_id), evidence_id)
    text = json.dumps(found.document, indent=2) + "\n"
    if output is None:
        typer.echo(text, nl=False)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OwnFault(f"{output}: cannot be written: {error.strerror}") from error
    note(f"wrote {output}; anybody can check it with `signwatch evidence verify {output.name}`")


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(help="An exported evidence file.", dir_okay=False)],
    *,
    as_json: JsonOption = False,
) -> None:
    """Check an evidence file by itself: every signature in it, and what it shows. Exits 1 when it shows nothing.

    Examples:
      signwatch evidence verify fork.json
    """
    try:
        with file.open("rb") as opened:
            raw = opened.read(MAX_SIZE + 1)
    except OSError as error:
        raise typer.BadParameter(f"{file}: cannot be read: {error.strerror}", param_hint="FILE") from error
    try:
        conclusion = verify_evidence(raw)
    except NotEvidence as error:
        if as_json:
            say_json({"verified": False, "reason": str(error)})
        note(f"{file}: this is no evidence of anything: {error}", "bold red")
        raise leave(Exit.MISBEHAVED) from error
    if as_json:
        say_json({"verified": True, "transferable": conclusion.transferable, "shows": list(conclusion.sentences)})
        return
    say(f"verified, {'transferable' if conclusion.transferable else 'a record only'}")
    for sentence in conclusion.sentences:
        say(sentence)


def _only_one(found: list[KeptEvidence], prefix: str) -> KeptEvidence:
    """Return the one piece of evidence that a prefix stands for."""
    if len(found) != 1:
        what = "no evidence begins" if not found else f"{len(found)} pieces of evidence begin"
        raise typer.BadParameter(f"{what} with {prefix!r}; see `signwatch evidence list`", param_hint="ID")
    return found[0]


def _kept(config: Path, prefix: str, *, open_only: bool = False) -> list[KeptEvidence]:
    settings = load_config(config)
    with closing(open_database(settings.database)) as database:
        return Reading(database).evidence(_MANY, prefix=prefix, open_only=open_only)
