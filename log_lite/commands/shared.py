"""Shared by the commands: the directory, exit codes, progress."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.progress import Progress

from log_lite import home
from log_lite.keys import KeyUnusable
from log_lite.ledger import LogDamaged
from log_lite.store import StoreUnusable, WrongFolder

MISBEHAVED: Final = 1
MISUSED: Final = 2
_UNFINISHED: Final = 3
errors: Final = Console(stderr=True, highlight=False)
Dir = Annotated[Path, typer.Option("--dir", help="The log's directory.", file_okay=False)]


@contextlib.contextmanager
def exit_codes(*unfinished: type[Exception]) -> Iterator[None]:
    """End the command with the code of the error; `unfinished` are errors of one command that end with 3."""
    try:
        yield
    except (home.NotApplicable, WrongFolder) as error:
        raise stop(error, MISUSED) from error
    except LogDamaged as error:
        raise stop(error, MISBEHAVED) from error
    except (StoreUnusable, KeyUnusable) as error:
        raise stop(error, _UNFINISHED) from error
    except unfinished as error:
        raise stop(error, _UNFINISHED) from error


def progress(console: Console) -> Progress:
    """Return a progress bar, silent unless stderr is a terminal."""
    return Progress(console=console, transient=True, disable=not console.is_terminal)


def stop(error: Exception, code: int) -> typer.Exit:
    """Print the error; returns the exception that ends the command."""
    errors.print(f"log-lite: {error}", markup=False, soft_wrap=True)
    return typer.Exit(code)
