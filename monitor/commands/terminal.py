"""Shared by every command: the configuration option, tables for people, plain lines and JSON for scripts."""

import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from alerts.alert import rfc3339
from alerts.inert import inert_json, inert_line
from command_line.program import is_for_terminal

_LONGEST = 400
_LONGEST_LINE = 10_000
_UNFOLDED = 24
_LEAST_FOLDED = 8
_BETWEEN_COLUMNS = 3


class Exit(IntEnum):
    """Exit codes, the same for every command."""

    FINE = 0
    MISBEHAVED = 1
    MISUSED = 2
    UNFINISHED = 3


DEFAULT_CONFIG = Path("signwatch.yaml")


def config_places(environment: Mapping[str, str]) -> tuple[Path, ...]:
    """Places to look for a configuration when none is named and the working directory has none.

    A user's own (XDG Base Directory Specification) goes before the system's.
    """
    home = environment.get("XDG_CONFIG_HOME") or str(Path(environment.get("HOME") or "/") / ".config")
    return tuple(Path(each) / "signwatch" / DEFAULT_CONFIG for each in (home, "/etc"))


def _found_config(context: typer.Context, parameter: typer.CallbackParam, value: Path) -> Path:
    source = context.get_parameter_source(parameter.name or "")
    if source is None or source.name != "DEFAULT" or value.exists():
        return value
    return next((each for each in config_places(os.environ) if each.is_file()), value)


ConfigOption = Annotated[
    Path,
    typer.Option(
        "--config",
        "-c",
        help="The configuration file; else signwatch.yaml here, in ~/.config/signwatch, or in /etc/signwatch.",
        envvar="SIGNWATCH_CONFIG",
        dir_okay=False,
        callback=_found_config,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document for scripts.")]


def leave(code: Exit) -> typer.Exit:
    """Exception that ends a command with this code."""
    return typer.Exit(int(code))


def say(line: str = "", style: str = "") -> None:
    """Print one line of data, made inert: a line break or a control character in it shows as an escape."""
    _print(sys.stdout, line, style)


def note(line: str, style: str = "") -> None:
    """Print one line for people on standard error, made inert like `say`."""
    _print(sys.stderr, line, style)


def _print(stream: TextIO, line: str, style: str) -> None:
    shown = inert_line(line, _LONGEST_LINE)
    if not is_for_terminal(stream):
        stream.write(f"{shown}\n")
        stream.flush()
        return
    # rich's fifty modules are needed for a terminal only.
    from rich.console import Console  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    Console(file=stream, highlight=False).print(Text(shown, style=style), soft_wrap=True)


def say_json(document: Any) -> None:
    """Print one JSON document; every text in it is escaped to ASCII and cut."""
    sys.stdout.write(json.dumps(inert_json(document), indent=2) + "\n")


def when(at: datetime | None) -> str:
    """A time as every command shows it: UTC to the second, RFC 3339; "-" for none."""
    return "-" if at is None else rfc3339(at)


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table on a terminal, and tab-separated lines into a pipe.

    In a window that is too narrow for the columns, each cell has a line of its own behind its column's name.
    """
    shown = [[inert_line("-" if cell is None else str(cell), _LONGEST) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        for row in shown:
            sys.stdout.write("\t".join(row) + "\n")
        return
    from rich import box  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    # Without a height too, rich takes each terminal of the kind `dumb` for one of 80 columns.
    window = shutil.get_terminal_size()
    console = Console(highlight=False, width=window.columns, height=window.lines)
    widths = [max([len(column), *(len(row[number]) for row in shown)]) for number, column in enumerate(columns)]
    fitted = _fitted(widths, window.columns - _BETWEEN_COLUMNS * len(widths))
    if not fitted:
        for row in shown:
            sys.stdout.write("".join(f"{column}: {cell}\n" for column, cell in zip(columns, row, strict=True)) + "\n")
        return
    drawn = Table(box=box.SIMPLE)
    for column, width in zip(columns, fitted, strict=True):
        # No text is cut: a narrow window folds a cell. rich by itself would cut off the last columns.
        drawn.add_column(column, overflow="fold", width=width)
    for row in shown:
        drawn.add_row(*(Text(cell, overflow="fold") for cell in row))
    console.print(drawn)


def _fitted(widths: Sequence[int], room: int) -> list[int]:
    """Widths that together take at most `room`; empty if the columns would be too narrow to read.

    The first column, which holds the arguments of commands, is folded last.
    """
    fitted = [min(width, _LEAST_FOLDED if number else _UNFOLDED) for number, width in enumerate(widths)]
    spare = room - sum(fitted)
    if spare < 0:
        return []
    for place, number in enumerate(sorted(range(len(widths)), key=lambda each: widths[each] - fitted[each])):
        more = min(widths[number] - fitted[number], spare // (len(widths) - place))
        fitted[number] += more
        spare -= more
    return fitted


def duration(text: str, option: str = "--for") -> timedelta:
    """A length of time such as 6h or 2d. Raises `typer.BadParameter`, which names the option."""
    # `--version` and `--help` read no settings, and so no YAML.
    from settings.document import Misplaced, YamlScalar  # noqa: PLC0415
    from settings.reading import read_duration  # noqa: PLC0415

    try:
        return read_duration(YamlScalar(text, plain=True, line=0, column=0))
    except Misplaced as misplaced:
        raise typer.BadParameter(str(misplaced), param_hint=option) from misplaced
