"""The `signwatch` command: the list of its commands, and one place for errors and exit codes.

A command is a function in a file of `monitor.commands`; its file is imported when the command is used.

Exit codes: 0 success, 1 a log misbehaved or there was an unexpected signing, 2 wrong usage, 3 could not finish.
"""

import json
import logging
import sys
from collections.abc import Sequence
from typing import Annotated, Final

import typer

from alerts.alert import Owner
from alerts.inert import inert_json
from command_line.log_format import LogFormat, LogLevel, formatter
from command_line.program import LazyCommand, ToStandardError, VersionOption, group, listing, misuse, run
from monitor.commands.terminal import Exit, note
from monitor.model.errors import BadConfig, FetchFailed, LogMisbehaved, OwnFault

_CODES: Final[Sequence[tuple[type[Exception], Exit, str]]] = (
    (BadConfig, Exit.MISUSED, "misused"),
    (LogMisbehaved, Exit.MISBEHAVED, Owner.LOG_MISBEHAVED.value),
    (OwnFault, Exit.UNFINISHED, Owner.OURSELVES.value),
    (FetchFailed, Exit.UNFINISHED, Owner.COULD_NOT_ASK.value),
)
_COMMANDS: Final = (
    LazyCommand(
        "init", "monitor.commands.init:init", "Write starting files, make the database, set each log's first entry."
    ),
    LazyCommand("run", "monitor.commands.run:run", "Follow the logs, judge, deliver alerts, serve the status page."),
    LazyCommand("site", "monitor.commands.site:site", "Serve only the site for subscribers, beside a daemon."),
    LazyCommand("status", "monitor.commands.status:status", "Show the position of every log, and every fault."),
    LazyCommand("audit", "monitor.commands.audit:audit", "Check every log once, and each new entry against the rules."),
    LazyCommand("scan", "monitor.commands.scan:scan", "Run rules over a range of a log, on all cores."),
    LazyCommand("backscan", "monitor.commands.backscan:backscan", "Offer rules the older entries that they lack."),
    LazyCommand("search", "monitor.commands.search:search", "Find every archived entry with a value."),
    LazyCommand(
        "report", "monitor.commands.report:report", "Report on a period: coverage, findings, alerts, evidence."
    ),
    LazyCommand(
        "check-bundle",
        "monitor.commands.check_bundle:check_bundle",
        "Compare the proofs in bundles with this monitor's history.",
    ),
    LazyCommand(
        "check-image",
        "monitor.commands.check_release:check_image",
        "Show for each signature of an image its signer, whether the log has it, and whether the rules expect it.",
    ),
    LazyCommand("check-commit", "monitor.commands.check_release:check_commit", "The same for a signed commit or tag."),
    LazyCommand(
        "fsck", "monitor.commands.fsck:fsck", "Recompute derived values of the database, and print differences."
    ),
    LazyCommand("backup", "monitor.commands.backup:backup", "Write database, archive and trust into one file."),
    LazyCommand("restore", "monitor.commands.backup:restore", "Put the state of a backup in place."),
    LazyCommand("migrate", "monitor.commands.fsck:migrate", "Bring an older database to this version's schema."),
    LazyCommand(
        "demo", "monitor.commands.demo:demo", "Sign as expected, sign as a stranger, fork the log: see the alerts."
    ),
    LazyCommand("doctor", "monitor.commands.doctor:doctor", "Check this installation, machine and configuration."),
    group(
        "archive",
        "The archive that `search` reads: build, verify, compact.",
        LazyCommand("build", "monitor.commands.archive:build", "Archive the missing entries of logs."),
        LazyCommand(
            "verify", "monitor.commands.archive:verify", "Compute roots and indexes again; repair damaged files."
        ),
        LazyCommand("compact", "monitor.commands.archive:compact_archive", "Join ranges, to open fewer files."),
    ),
    group(
        "config",
        "The configuration file: check it, its JSON Schema.",
        LazyCommand("check", "monitor.commands.config:check", "Check the configuration and every file that it names."),
        LazyCommand("schema", "monitor.commands.config:schema", "Print the JSON Schema of the configuration."),
    ),
    group(
        "rules",
        "Identity rules: write, check, try, explain.",
        LazyCommand(
            "init",
            "monitor.commands.rules:init_rule",
            "Print a rule file for a repository, an organisation, a person or a key.",
        ),
        LazyCommand("import", "monitor.commands.rules:import_rules", "Print a rule file made from rekor-monitor's."),
        LazyCommand(
            "lint", "monitor.commands.rules_lint:lint", "Check a rule file: every problem and every hint at once."
        ),
        LazyCommand("test", "monitor.commands.rules_on_entries:try_rules", "Judge entries as if a log held them now."),
        LazyCommand("explain", "monitor.commands.rules_on_entries:explain", "Explain a rule's verdict on one entry."),
    ),
    group(
        "alerts",
        "Alerts: list, show, acknowledge, silence, test channels, replay.",
        LazyCommand("list", "monitor.commands.alerts:list_alerts", "List alerts, newest first, with their deliveries."),
        LazyCommand("test", "monitor.commands.alerts:send_test", "Send a test alert straight to each channel."),
        LazyCommand("show", "monitor.commands.alerts:show", "Show one alert whole, with its history."),
        LazyCommand("ack", "monitor.commands.alerts:ack", "Record that a person has seen an alert."),
        LazyCommand("patterns", "monitor.commands.alerts:patterns", "List acknowledged patterns."),
        LazyCommand("revoke", "monitor.commands.alerts:revoke", "End an acknowledged pattern."),
        LazyCommand("resolve", "monitor.commands.alerts:resolve", "Record that the condition of an alert is over."),
        LazyCommand("reopen", "monitor.commands.alerts:reopen", "Open an alert again."),
        LazyCommand("silence", "monitor.commands.alerts:silence", "Record alerts for a while, without sending them."),
        LazyCommand("silences", "monitor.commands.alerts:silences", "List silences with the number of their alerts."),
        LazyCommand("unsilence", "monitor.commands.alerts:unsilence", "End a silence early."),
        LazyCommand(
            "replay", "monitor.commands.alerts:replay", "Put deliveries that were given up back into the outbox."
        ),
    ),
    group(
        "evidence",
        "Evidence against logs: list, export, verify, close.",
        LazyCommand("list", "monitor.commands.evidence:list_evidence", "List all evidence, newest first."),
        LazyCommand("export", "monitor.commands.evidence:export", "Write evidence as a file that verifies anywhere."),
        LazyCommand("close", "monitor.commands.evidence:close", "Close evidence that was investigated, with a note."),
        LazyCommand("verify", "monitor.commands.evidence_file:verify", "Check an evidence file by itself."),
    ),
    group(
        "subscribers",
        "Accounts of the site: list, show, suspend, delete, move.",
        LazyCommand("list", "monitor.commands.subscribers:list_subscribers", "List accounts of the site."),
        LazyCommand("show", "monitor.commands.subscribers:show", "Show all stored data of one account."),
        LazyCommand("suspend", "monitor.commands.subscribers:suspend", "Stop messages to an account, or resume them."),
        LazyCommand("delete", "monitor.commands.subscribers:delete", "Delete an account and its address everywhere."),
        LazyCommand("invite", "monitor.commands.subscribers:invite", "Let an address subscribe."),
        LazyCommand("export", "monitor.commands.subscribers:export", "Write every account as a line of JSON."),
        LazyCommand("import", "monitor.commands.subscribers:bring", "Bring accounts from another installation."),
        LazyCommand("stats", "monitor.commands.subscribers:stats", "Count accounts and the stages they reached."),
    ),
    group(
        "authorise",
        "Authorisations to sign one artifact: add, list, revoke.",
        LazyCommand("add", "monitor.commands.authorise:add", "Authorise a number of signings of one digest."),
        LazyCommand("list", "monitor.commands.authorise:list_authorisations", "List every authorisation and its use."),
        LazyCommand("revoke", "monitor.commands.authorise:revoke", "End an authorisation."),
    ),
    group(
        "canary",
        "Runs of the canary: list, export the bundle of a missed one.",
        LazyCommand("list", "monitor.commands.canary:list_runs", "List runs of the canary, newest first."),
        LazyCommand("export", "monitor.commands.canary:export", "Write the bundle of a run that was not seen."),
    ),
    group(
        "peers",
        "Compare what the logs signed with another installation.",
        LazyCommand("compare", "monitor.commands.peers:compare", "Compare the newest heads with another Signwatch's."),
    ),
)
app = typer.Typer(
    name="signwatch",
    cls=listing(*_COMMANDS),
    help="Watches Sigstore's transparency logs, proves what they showed, alerts on unexpected signings.\n\n"
    "Exit codes: 0 fine, 1 a log misbehaved or something unexpected was signed, 2 misused, 3 could not finish.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.callback()
def _options(
    *,
    _version: VersionOption = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="The same as --log-level debug.")] = False,
    log_level: Annotated[
        LogLevel,
        typer.Option("--log-level", help="Least important record that is logged.", envvar="SIGNWATCH_LOG_LEVEL"),
    ] = LogLevel.INFO,
    log_format: Annotated[
        LogFormat,
        typer.Option("--log-format", help="How records are written to standard error.", envvar="SIGNWATCH_LOG_FORMAT"),
    ] = LogFormat.TEXT,
) -> None:
    logging.getLogger().setLevel("DEBUG" if verbose else log_level.upper())
    for handler in logging.getLogger().handlers:
        if isinstance(handler, ToStandardError):
            handler.setFormatter(formatter(log_format))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    sys.exit(run_command(arguments))


def run_command(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; returns its exit code. Every error becomes a sentence, never a traceback."""
    logging.basicConfig(level=logging.INFO, handlers=[ToStandardError(formatter(LogFormat.TEXT))])
    for chatty in ("alembic", "httpx", "httpcore", "uvicorn", "tuf"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # It warns whenever a job takes longer than its interval, which most jobs may.
    logging.getLogger("apscheduler").setLevel(logging.ERROR)
    words = list(sys.argv[1:] if arguments is None else arguments)
    return run(app, "signwatch", words, lambda error: _tell(error, as_json="--json" in words))


def _tell(error: Exception, *, as_json: bool) -> int | None:
    """Print the error and return the exit code of its owner; `None` for a defect of Signwatch.

    With `--json`, standard output gets the error as one line of JSON as well.
    """
    message = misuse(error)
    if message is not None:
        return _document(message, Exit.MISUSED, "misused", as_json=as_json)
    for kind, code, trouble in _CODES:
        if isinstance(error, kind):
            for line in f"signwatch: {error}".split("\n"):
                note(line, "red")
            return _document(str(error), code, trouble, as_json=as_json)
    return None


def _document(message: str, code: Exit, trouble: str, *, as_json: bool) -> int:
    if as_json:
        told = {"error": {"trouble": trouble, "message": message}, "exit_code": int(code)}
        sys.stdout.write(json.dumps(inert_json(told)) + "\n")
    return int(code)
