"""A program of many commands. Its list is known at once; the module of a command is imported when the command is used.

So `--help`, `--version` and the completion of names import no server, no database and no HTTP client.
"""

import gc
import importlib
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Final, TextIO

import typer
from typer.core import TyperCommand, TyperGroup

from command_line.completion import mend_completion

_FINE: Final = 0
_MISUSED: Final = 2
_UNFINISHED: Final = 3
_INTERRUPTED: Final = 130
_THRESHOLDS: Final = (5_000, 20, 20)  # Python's own are 700, 10, 10


def settle() -> None:
    """Leave what was imported out of later collections, and collect more seldom.

    The objects of a batch live until it is committed. With Python's own thresholds the collector went through those of
    10,000 hits hundreds of times, a sixth of their cost, and found nothing.
    """
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)


@contextmanager
def uncollected() -> Iterator[None]:
    """Import modules without the garbage collector, which would look through them again and again and find nothing.

    It was a sixth of a command's start. What stays is not looked at later either: a program runs one command.
    """
    was_enabled, is_first = gc.isenabled(), not gc.get_freeze_count()
    gc.disable()
    try:
        yield
    finally:
        if is_first:
            settle()
        if was_enabled:
            gc.enable()


class LazyCommand(TyperCommand):
    """A listed command. `where` is `module:function`, `summary` the first line of the function's docstring."""

    def __init__(self, name: str, where: str, summary: str) -> None:
        super().__init__(name, help=summary)
        self._where = where

    def load(self) -> Any:
        """Import the function; returns the command with its arguments and options."""
        module, _, function = self._where.partition(":")
        single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        # httpx imports its own command line where it finds one, with click and pygments: half of its time. `None` says
        # that there is none, as `importlib` reads it.
        sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
        with uncollected():
            single.command(self.name)(getattr(importlib.import_module(module), function))
            return typer.main.get_command(single)

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Begin a use of the command: a run, its `--help`, the completion of its options."""
        command = self.load()
        return command.make_context(info_name, _with_left_out(command.params, args), parent, **extra)


def _with_left_out(params: Sequence[Any], args: Sequence[str]) -> list[str]:
    """Arguments with an empty value behind each option that stands without one and may: its metavar is in brackets."""
    optional = {name for each in params if (each.metavar or "").startswith("[") for name in each.opts}
    found: list[str] = []
    for at, word in enumerate(args):
        found.append(word)
        if word == "--":
            return [*found, *args[at + 1 :]]
        if word in optional and (at + 1 == len(args) or args[at + 1].startswith("-")):
            found.append("")
    return found


Listed = LazyCommand | TyperGroup


def group(name: str, summary: str, *commands: Listed) -> TyperGroup:
    """Commands under a common word."""
    return TyperGroup(name=name, help=summary, commands=commands, no_args_is_help=True)


def listing(*commands: Listed) -> type[TyperGroup]:
    """The class of a program with these commands, for `typer.Typer(cls=…)`."""

    class Listing(TyperGroup):
        def __init__(self, **attributes: Any) -> None:
            super().__init__(**attributes)
            for command in commands:
                self.add_command(command)

    return Listing


def _show_version(context: typer.Context, wanted: bool) -> None:
    if wanted:
        # Reading metadata of packages costs more than the rest of --version.
        metadata = importlib.import_module("importlib.metadata")
        typer.echo(f"{context.info_name} {metadata.version('signwatch')}")
        raise typer.Exit


VersionOption = Annotated[
    bool,
    typer.Option(
        "--version",
        help="Show the version and end.",
        callback=_show_version,
        is_eager=True,
        # NAME_VERSION is a name that build systems use for the version itself.
        allow_from_autoenv=False,
    ),
]


class ToStandardError(logging.StreamHandler[TextIO]):
    """Writes to standard error as it is when a line is logged, which may have been replaced since the start."""

    def __init__(self, formatter: logging.Formatter | None = None) -> None:
        logging.Handler.__init__(self)
        self.setFormatter(formatter)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]  # a plain attribute there
        """Standard error of now."""
        return sys.stderr


def misuse(error: Exception) -> str | None:
    """Show an error of typer about wrong arguments and return its message; `None` for any other error."""
    show: Any = getattr(error, "show", None)
    if show is None:
        return None
    show()
    message: Any = getattr(error, "format_message", None)
    return str(error) if message is None else str(message())


def only_misuse(error: Exception) -> int | None:
    """Tell an error about wrong arguments, as `run` wants it, of a program whose commands tell every other error."""
    return None if misuse(error) is None else _MISUSED


def run(
    app: typer.Typer, name: str, words: Sequence[str], tell: Callable[[Exception], int | None] = only_misuse
) -> int:
    """Run one command line; returns its exit code.

    `tell` shows an error to the user and returns its exit code, or `None` for a defect of ours, which is raised again.
    """
    command: Any = typer.main.get_command(app)
    mend_completion(command)
    try:
        # Every option has a variable: SIGNWATCH_AUDIT_JUNIT for `signwatch audit --junit`.
        prefix = name.upper().replace("-", "_")
        code = command.main(list(words), prog_name=name, standalone_mode=False, auto_envvar_prefix=prefix)
    except (typer.Abort, BrokenPipeError):
        return _unfinished()
    except SystemExit as ended:
        # Completion ends the program itself. So does rich when the reader of our output has gone, with 1, which here
        # would say that a log misbehaved.
        return _unfinished() if ended.code else _FINE
    except Exception as error:
        told = tell(error)
        if told is None:
            raise
        return told
    if code == _INTERRUPTED:
        return _UNFINISHED
    return int(code or _FINE)


def _unfinished() -> int:
    # The reader of our output has read enough (`| head`): what is still buffered has nowhere to go.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return _UNFINISHED
