"""Writes docs/commands.md from the programs' own help: `python -m tests.docs.commands_page > docs/commands.md`."""

import sys
from collections.abc import Iterator
from functools import cache
from typing import Any

import typer

from ca_lite.cli import app as ca_lite
from command_line.program import LazyCommand
from log_lite.cli import app as log_lite
from monitor.cli import app as signwatch
from sign_lite.cli import app as sign_lite

PROGRAMS = {"signwatch": signwatch, "log-lite": log_lite, "ca-lite": ca_lite, "sign-lite": sign_lite}
_OPENING = """\
# Commands

Every command of the four programs, as `--help` says it. Exit codes: [exit-codes.md](exit-codes.md).
"""


@cache
def page() -> str:
    """The whole page."""
    parts = [_OPENING]
    for name in PROGRAMS:
        for words, command in _commands(name, program(name)):
            parts.append(_section(words, command))
    return "\n".join(parts)


@cache
def program(name: str) -> Any:
    """The group of all commands of a program."""
    return typer.main.get_command(PROGRAMS[name])


@cache
def loaded(command: Any) -> Any:
    """The command with its arguments and options: a listed one is imported."""
    return command.load() if isinstance(command, LazyCommand) else command


def _commands(words: str, command: Any) -> Iterator[tuple[str, Any]]:
    command = loaded(command)
    yield words, command
    for name, child in getattr(command, "commands", {}).items():
        if not child.hidden:
            yield from _commands(f"{words} {name}", child)


def _section(words: str, command: Any) -> str:
    is_group = hasattr(command, "commands")
    lines = [f"{'##' if ' ' not in words else '###'} {words}", "", *_prose(command.help or ""), ""]
    if is_group:
        return "\n".join(lines)
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    rows = [(f"`{_argument(each)}`", getattr(each, "help", None) or "", "") for each in arguments]
    rows += [
        (", ".join(f"`{flag}`" for flag in (*each.opts, *each.secondary_opts)), each.help or "", _default(each))
        for each in command.params
        if each.param_type_name == "option" and not each.hidden and each.name != "help"
    ]
    if rows:
        lines += ["| | | default |", "|---|---|---|"]
        lines += ["| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in rows]
        lines.append("")
    return "\n".join(lines)


def _argument(argument: Any) -> str:
    name = (argument.metavar or argument.name or "").strip("{}").upper()
    return name if argument.required else f"[{name}]"


def _default(option: Any) -> str:
    if option.required:
        return "required"
    value = option.default
    plain = value is not None and not callable(value) and not isinstance(value, bool) and "Sentinel" not in repr(value)
    return f"`{value}`" if plain and value not in ("", (), []) else ""


def _prose(text: str) -> Iterator[str]:
    """Paragraphs as they are; what follows `Example:` becomes a block."""
    before, mark, after = text.replace("\b", "").strip().partition("Example")
    yield from (line.strip() for line in before.strip().splitlines())
    if mark:
        examples = [line.strip() for line in after.partition(":")[2].strip().splitlines() if line.strip()]
        yield from ("", "```", *examples, "```")


if __name__ == "__main__":
    sys.stdout.write(page())
