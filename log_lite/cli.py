"""A small transparency log: Rekor v1, Rekor v2 and CT behind one URL.

Exit codes: 0 fine, 1 the stored log is not what was signed, 2 misused, 3 could not finish.
"""

import logging
import sys

import typer

from command_line.log_format import LogFormat, formatter
from command_line.program import LazyCommand, ToStandardError, VersionOption, listing, run

app = typer.Typer(
    name="log-lite",
    cls=listing(
        LazyCommand("init", "log_lite.commands.directory:init", "Make keys, database and trust.json."),
        LazyCommand("serve", "log_lite.commands.serving:serve_command", "Serve the log until it is stopped."),
        LazyCommand("export-trust", "log_lite.commands.directory:export_trust", "Print trust.json."),
        LazyCommand("rotate", "log_lite.commands.directory:rotate", "End the active tree and start a new one."),
        LazyCommand("freeze", "log_lite.commands.directory:freeze", "Make a log read-only for ever."),
        LazyCommand("fault", "log_lite.commands.directory:fault", "Make the log misbehave, or be honest again."),
        LazyCommand("verify", "log_lite.commands.directory:verify", "Check every entry against the signed heads."),
        LazyCommand("import", "log_lite.commands.directory:import_command", "Add raw leaf bodies, for drills."),
    ),
    help=__doc__,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.callback()
def _options(*, _version: VersionOption = False) -> None:
    """Options of the program itself."""


def main() -> None:
    """Entry point of `log-lite`."""
    logging.basicConfig(level=logging.INFO, handlers=[ToStandardError(formatter(LogFormat.TEXT))])
    sys.exit(run(app, "log-lite", sys.argv[1:]))
