"""`signwatch evidence`: list the evidence kept against logs, export it, and verify an exported file anywhere."""

import json
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from monitor.commands.terminal import DEFAULT_CONFIG, ConfigOption, JsonOption, note, say, say_json, table, when
from monitor.config import load_config
from monitor.daemon.trust_watch import history_of
from monitor.judging.active_rules import route_of
from monitor.model.errors import OwnFault
from monitor.program import utc_now
from monitor.store.database import open_database
from monitor.store.reading import KeptEvidence, Reading
from monitor.store.store import Store
from monitor.trust.provider import TrustKeeper
from monitor.trust.trust_root import TrustRoot

_MANY = 10_000
_LONGEST = 2_000


def list_evidence(
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    open_only: Annotated[bool, typer.Option("--open", help="Only open evidence.")] = False,
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
                        "kept_at": when(each.kept_at),
                        "strength": each.document.get("strength"),
                        "detail": each.document.get("detail"),
                        "closed_at": when(each.closed_at) if each.closed_at is not None else None,
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
            when(each.kept_at),
            each.document.get("strength"),
            "open" if each.closed_at is None else f"closed {when(each.closed_at)}: {each.note}",
        )
        for each in kept
    ]
    table(("id", "log", "kind", "kept at", "strength", "state"), rows)


def close(
    ids: Annotated[list[str], typer.Argument(help="The id, or its beginning; several at once.", metavar="ID...")],
    why: Annotated[str, typer.Option("--note", help="The result of the investigation, and the steps taken.")],
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Close evidence after the matter is settled. The evidence and the note stay; the log can be green again.

    Until then `audit`, `run --once` and `status` exit with 1, and the status page and /readyz name the evidence.

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
                at = f"at {when(piece.closed_at)}" if piece.closed_at is not None else "a moment ago"
                raise typer.BadParameter(f"{piece.id} was closed {at}: {piece.note}", param_hint="ID")
            say(f"{piece.id}: closed")


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
    note(f"wrote {output}; any person who knows the log's key can check it: `signwatch evidence verify {output.name}`")


def _kept(config: Path, prefix: str, *, open_only: bool = False) -> list[KeptEvidence]:
    settings = load_config(config)
    with closing(open_database(settings.database)) as database:
        return Reading(database).evidence(_MANY, prefix=prefix, open_only=open_only)


def _only_one(found: list[KeptEvidence], prefix: str) -> KeptEvidence:
    """The one piece of evidence with this prefix of its id."""
    if len(found) != 1:
        what = "no evidence begins" if not found else f"{len(found)} pieces of evidence begin"
        raise typer.BadParameter(f"{what} with {prefix!r}; see `signwatch evidence list`", param_hint="ID")
    return found[0]


def configured_root(path: Path) -> TrustRoot:
    """Every log that the trust root of a configuration names or named. Raises `OwnFault`, `FetchFailed`."""
    settings = load_config(path)
    trust = TrustKeeper(settings.trust, utc_now)
    if "://" in settings.database or Path(settings.database).exists():
        # A log may leave the trust root: earlier recorded roots still hold its key.
        with closing(open_database(settings.database)) as database:
            trust.remember(history_of(Store(database, clock=utc_now, route=route_of(settings, None))))
    return trust.history().followable()
