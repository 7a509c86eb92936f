"""The `signwatch` command: one subcommand per file in `monitor.commands`, one place for errors and exit codes.

Exit codes: 0 fine, 1 a log misbehaved or something unexpected was signed, 2 misused, 3 could not finish.
"""

import json
import logging
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any, Final, TextIO

import typer

from alerts.alert import Owner
from alerts.inert import inert_json
from monitor.commands import alerts, authorise, doctor, evidence, peers, rules
from monitor.commands.audit import audit
from monitor.commands.backscan import backscan
from monitor.commands.check_bundle import check_bundle
from monitor.commands.demo import demo
from monitor.commands.fsck import fsck, migrate
from monitor.commands.init import init
from monitor.commands.run import run
from monitor.commands.scan import scan
from monitor.commands.status import status
from monitor.commands.terminal import Exit, note
from monitor.config import BadConfig
from monitor.model.errors import FetchFailed, LogMisbehaved, OwnFault
from monitor.program import VERSION

_CODES: Final[Sequence[tuple[type[Exception], Exit, str]]] = (
    (BadConfig, Exit.MISUSED, "misused"),
    (LogMisbehaved, Exit.MISBEHAVED, Owner.LOG_MISBEHAVED.value),
    (OwnFault, Exit.UNFINISHED, Owner.OURSELVES.value),
    (FetchFailed, Exit.UNFINISHED, Owner.COULD_NOT_ASK.value),
)
app = typer.Typer(
    name="signwatch",
    help="Watches Sigstore's transparency logs, proves what they showed, alerts on signings nobody expected.\n\n"
    "Exit codes: 0 fine, 1 a log misbehaved or something unexpected was signed, 2 misused, 3 could not finish.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for command in (init, run, status, audit, scan, backscan, check_bundle, fsck, migrate, demo):
    app.command()(command)
app.command("doctor")(doctor.doctor)
for group in (rules.app, alerts.app, evidence.app, authorise.app, peers.app):
    app.add_typer(group)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"signwatch {VERSION}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    _version: Annotated[
        bool, typer.Option("--version", help="Show the version and end.", callback=_show_version, is_eager=True)
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more to standard error.")] = False,
) -> None:
    logging.getLogger().setLevel(logging.DEBUG if verbose else logging.INFO)


class _ToStandardError(logging.StreamHandler[TextIO]):
    """Writes to whatever standard error is when something is logged, which may not be what it was at the start."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]  # a plain attribute there
        """Standard error of now."""
        return sys.stderr


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    sys.exit(run_command(arguments))


def run_command(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; returns its exit code. Whatever is wrong becomes a sentence, never a traceback."""
    logging.basicConfig(
        level=logging.INFO, handlers=[_ToStandardError()], format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    for chatty in ("alembic", "apscheduler", "httpx", "httpcore", "uvicorn", "tuf"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    command: Any = typer.main.get_command(app)
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        # A copy: click takes the list apart.
        with command.make_context("signwatch", list(words)) as context:
            command.invoke(context)
    except (typer.Exit, typer.Abort) as ended:
        return int(getattr(ended, "exit_code", Exit.UNFINISHED))
    except KeyboardInterrupt:
        return int(Exit.UNFINISHED)
    except (BrokenPipeError, SystemExit):
        # Whoever read our output has read enough (`| head`). What is still buffered has nowhere to go. Rich ends the
        # program with 1 then, which here would say that a log misbehaved.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(Exit.UNFINISHED)
    except Exception as error:  # noqa: BLE001  what is not ours to explain is raised again
        return _told(error, as_json="--json" in words)
    return int(Exit.FINE)


def _told(error: Exception, *, as_json: bool) -> int:
    """Say what went wrong and return whose trouble it was; a defect of ours goes on as it is.

    Who asked for JSON gets the error as one line of it besides: a script reads standard output.
    """
    show: Any = getattr(error, "show", None)
    if show is not None:
        # What click and typer say about wrong arguments, whichever of them raised it.
        show()
        message: Any = getattr(error, "format_message", None)
        return _document(str(error) if message is None else message(), Exit.MISUSED, "misused", as_json=as_json)
    for kind, code, trouble in _CODES:
        if isinstance(error, kind):
            for line in f"signwatch: {error}".split("\n"):
                note(line, "red")
            return _document(str(error), code, trouble, as_json=as_json)
    raise error


def _document(message: str, code: Exit, trouble: str, *, as_json: bool) -> int:
    if as_json:
        told = {"error": {"trouble": trouble, "message": message}, "exit_code": int(code)}
        sys.stdout.write(json.dumps(inert_json(told)) + "\n")
    return int(code)
