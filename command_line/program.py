"""A program of many commands. Its list is known at once; the module of a command is imported when the command is used.

So `--help`, `--version` and the completion of names import no server, no database and no HTTP client. Help is drawn
with boxes and colours on a terminal; a pipe gets plain lines, for which rich's hundred modules are not imported.
"""

import errno
import gc
import importlib
import inspect
import logging
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final, TextIO

import typer
from typer.core import TyperCommand, TyperGroup

from command_line.completion import mend_completion

_FINE: Final = 0
_MISUSED: Final = 2
_UNFINISHED: Final = 3
_INTERRUPTED: Final = 130
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_THRESHOLDS: Final = (5_000, 20, 20)  # Python's defaults are 700, 10, 10
# Variables by which rich takes a pipe for a terminal.
_AS_TERMINAL: Final = ("FORCE_COLOR", "TTY_COMPATIBLE")


def is_for_terminal(stream: TextIO) -> bool:
    """True if rich shall draw what is written to the stream."""
    return stream.isatty() or any(map(os.environ.get, _AS_TERMINAL))


def settle() -> None:
    """Exclude the objects made so far from garbage collection, and collect less often.

    The objects of a batch live until it is committed. With Python's default thresholds the collector traversed the
    objects of 10,000 hits hundreds of times without freeing any, which took a sixth of the time of these hits.
    """
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)


# `gc.get_freeze_count()` would tell it too, and walks over all excluded objects for it.
_settle_once: Final = cache(settle)


def _begin_command() -> None:
    """Collect garbage from now on, but not what was imported: a program runs one command."""
    _settle_once()
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
        # httpx imports its own command line if it finds one, with click and pygments: half of its import time. For
        # `importlib` the value `None` means that there is no such module.
        sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
        single.command(self.name, cls=_Loaded)(getattr(importlib.import_module(module), function))
        return typer.main.get_command(single)

    def get_short_help_str(self, limit: int = 0) -> str:  # noqa: ARG002
        """The whole summary: plain lines are folded, not cut."""
        return self.help or ""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Import the command and make its context, for a run, its `--help` or the completion of its options."""
        command = self.load()
        context = command.make_context(info_name, _with_left_out(command.params, args), parent, **extra)
        _begin_command()
        return context


class _Loaded(TyperCommand):
    def format_help_text(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        """Write the text as plain lines: paragraphs are filled, the lines of examples are kept."""
        text = inspect.cleandoc(self.help or "")
        parts = [f"\b\n{part}" if part.startswith("Example") else part for part in text.split("\n\n")]
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text("\n\n".join(parts))


def _with_left_out(params: Sequence[Any], args: Sequence[str]) -> list[str]:
    """Arguments, with an empty value added to each option without one whose metavar, in brackets, makes it optional."""
    optional = {name for each in params if (each.metavar or "").startswith("[") for name in each.opts}
    found: list[str] = []
    for at, word in enumerate(args):
        found.append(word)
        if word == "--":
            return [*found, *args[at + 1 :]]
        if word in optional and (at + 1 == len(args) or args[at + 1].startswith("-")):
            found.append("")
    return found


class _Group(TyperGroup):
    def get_short_help_str(self, limit: int = 0) -> str:  # noqa: ARG002
        """The whole summary: plain lines are folded, not cut."""
        return self.help or ""


Listed = LazyCommand | TyperGroup


def group(name: str, summary: str, *commands: Listed) -> TyperGroup:
    """Commands under a common word."""
    return _Group(name=name, help=summary, commands=commands, no_args_is_help=True)


def listing(*commands: Listed) -> type[TyperGroup]:
    """The class of a program with these commands, for `typer.Typer(cls=…)`."""

    class CommandGroup(TyperGroup):
        def __init__(self, **attributes: Any) -> None:
            super().__init__(**attributes)
            for command in commands:
                self.add_command(command)

    return CommandGroup


def _show_version(context: typer.Context, wanted: bool) -> None:
    if wanted:
        typer.echo(f"{context.info_name} {installed_version()}")
        raise typer.Exit


def installed_version() -> str:
    """Version of the installation, from its metadata (PyPA, Core metadata specifications)."""
    # `importlib.metadata` imports an e-mail parser, an archive reader and 50 other modules for this line.
    for folder in sys.path:
        for file in Path(folder or ".").glob("signwatch-*.dist-info/METADATA"):
            head = file.read_text(encoding="utf-8").partition("\n\n")[0]
            found = [line.removeprefix("Version: ") for line in head.split("\n") if line.startswith("Version: ")]
            if len(found) == 1:
                return found[0].strip()
    return str(importlib.import_module("importlib.metadata").version("signwatch"))


VersionOption = Annotated[
    bool,
    typer.Option(
        "--version",
        help="Show the version and end.",
        callback=_show_version,
        is_eager=True,
        # Build systems set a variable NAME_VERSION to the version itself.
        allow_from_autoenv=False,
    ),
]


class ToStandardError(logging.StreamHandler[TextIO]):
    """Writes to the current `sys.stderr`, which may have been replaced since the start of the program."""

    def __init__(self, formatter: logging.Formatter | None = None) -> None:
        logging.Handler.__init__(self)
        self.setFormatter(formatter)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]  # a plain attribute there
        """The current standard error."""
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
    """A `tell` for `run` that only shows errors about wrong arguments: the commands show every other error."""
    return None if misuse(error) is None else _MISUSED


def run(
    app: typer.Typer, name: str, words: Sequence[str], tell: Callable[[Exception], int | None] = only_misuse
) -> int:
    """Run one command line; returns its exit code.

    `tell` shows an error to the user and returns its exit code, or `None` for a defect of the program. A defect, and
    output that cannot be written, are 3: Python would end with 1, the exit code for a misbehaving log here.
    """
    _open_closed_streams()
    # Imports leave nothing to collect: the collector took a sixth of a start. The command itself has it, as told above.
    gc.disable()
    # pydantic, which reads the options, would open a file of every installed package to find plugins for itself.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    command: Any = typer.main.get_command(app)
    mend_completion(command)
    typer.core.HAS_RICH = is_for_terminal(sys.stdout)
    try:
        # Every option has a variable: SIGNWATCH_AUDIT_JUNIT for `signwatch audit --junit`.
        prefix = name.upper().replace("-", "_")
        code = command.main(list(words), prog_name=name, standalone_mode=False, auto_envvar_prefix=prefix)
        sys.stdout.flush()
    except (typer.Abort, BrokenPipeError):
        return _unfinished()
    except SystemExit as ended:
        # Completion ends the program itself. Rich ends it with 1 when the reader of the output has gone, and 1 is the
        # exit code for a misbehaving log here.
        return _unfinished() if ended.code else _FINE
    except Exception as error:  # noqa: BLE001  defects too
        return _told(error, tell, name)
    finally:
        gc.enable()
    if code == _INTERRUPTED:
        return _UNFINISHED
    return int(code or _FINE)


def _open_closed_streams() -> None:
    """Open standard streams that the caller closed (`>&-`), else the next file opened, a database, would be one."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))


def _told(error: Exception, tell: Callable[[Exception], int | None], name: str) -> int:
    try:
        code = tell(error)
        if code is None and isinstance(error, OSError) and error.errno in _NO_ROOM:
            sys.stderr.write(f"{name}: the output, or a file, cannot be written: {error.strerror}\n")
        elif code is None:
            traceback.print_exception(error)
        sys.stdout.flush()
    except OSError:  # the output, or the error itself, cannot be written
        _discard(sys.stdout)
        _discard(sys.stderr)
        code = None
    return _UNFINISHED if code is None else code


def _unfinished() -> int:
    # The reader closed the pipe (`| head`): the buffered output cannot be written.
    _discard(sys.stdout)
    return _UNFINISHED


def _discard(stream: TextIO) -> None:
    """Throw away what the stream still holds, and all further output."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
