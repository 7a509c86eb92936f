"""`signwatch rules`: write, check, try and explain rules."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from monitor.commands.entry_file import read_capped
from monitor.commands.terminal import DEFAULT_CONFIG, ConfigOption, Exit, JsonOption, leave, note, say, say_json
from monitor.config import load_config
from monitor.judging.active_rules import read_rules
from monitor.model.errors import BadConfig
from rules.lint import lint as lint_rules
from rules.matching.matcher import TooManyUnindexed, compile_rules
from rules.rekor_monitor import import_rekor_monitor
from rules.starter import starter_rule
from settings.document import DocumentError


def init_rule(
    subject: Annotated[str, typer.Argument(help="A repository URL or an e-mail address.")],
) -> None:
    """Print a rule file for a repository or an e-mail address.

    Examples:
      signwatch rules init https://github.com/acme/widget > rules.yaml
      signwatch rules init release@acme.example
    """
    try:
        typer.echo(starter_rule(subject), nl=False)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="SUBJECT") from error


def import_rules(
    file: Annotated[
        Path,
        typer.Argument(
            help="A rekor-monitor configuration, or a GitHub workflow that holds one (YAML).", dir_okay=False
        ),
    ],
) -> None:
    """Print a rule file made from a rekor-monitor configuration.

    What it watches and the rules do not is named on standard error with its line, and the command exits with 3; what
    else is left out stands in comments at the top.

    Examples:
      signwatch rules import monitor-config.yaml > rules.yaml
      signwatch rules import .github/workflows/monitor.yml > rules.yaml
    """
    try:
        found = import_rekor_monitor(read_capped(file).decode("utf-8"), str(file))
    except (DocumentError, UnicodeDecodeError) as error:
        raise BadConfig(f"{error}\nNothing was imported.") from error
    typer.echo(found.text, nl=False)
    for problem in found.lost:
        note(f"{file}:{problem.line}:{problem.column}: {problem.message}", "yellow")
    if found.lost:
        note(f"{_count(len(found.lost), 'part')} of the configuration is not watched by these rules", "yellow")
        raise leave(Exit.UNFINISHED)


def lint(
    file: Annotated[Path | None, typer.Argument(help="A rule file; the configured one by default.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    as_json: JsonOption = False,
) -> None:
    """Check a rule file: every problem and every hint at once, with its place. Exits 2 when it cannot be used.

    Examples:
      signwatch rules lint
      signwatch rules lint rules.yaml
    """
    settings = load_config(config) if file is None else None
    path = settings.rules if settings is not None else file
    if path is None:
        raise typer.BadParameter("name a rule file")
    found = read_rules(path, settings.channels if settings is not None else None)
    try:
        compile_rules(found.rules)
    except TooManyUnindexed as error:
        raise BadConfig(f"{path}: {error}") from error
    hints = lint_rules(found)
    if as_json:
        say_json({"rules": len(found.rules), "hints": [asdict(hint) for hint in hints]})
        return
    for hint in hints:
        place = f"{path}:{hint.line}:{hint.column}" if hint.line else str(path)
        note(f"{place}: {hint.id}: rule {hint.rule}: {hint.message}", "yellow")
    if not found.rules:
        note(f"{path}: there is no rule in it, so nothing is watched", "yellow")
    told = f"; {_count(len(hints), 'hint')}" if hints else ""
    say(f"{path}: {_count(len(found.rules), 'rule')}, usable{told}")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
