"""`signwatch rules lint`, which runs in every build: it imports no reader of log entries or certificates."""

from pathlib import Path
from typing import Annotated

import typer
from msgspec.structs import asdict

from alerts.alert import counted
from monitor.commands.terminal import DEFAULT_CONFIG, ConfigOption, JsonOption, note, say, say_json
from monitor.config import load_config
from monitor.judging.rule_file import read_rules
from monitor.model.errors import BadConfig
from rules.lint import lint as lint_rules
from rules.matching.matcher import TooManyUnindexed, compile_rules


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
        note(f"{path}: there is no rule in it, so Signwatch would watch no signing", "yellow")
    told = f"; {counted(len(hints), 'hint')}" if hints else ""
    say(f"{path}: {counted(len(found.rules), 'rule')}, usable{told}")
