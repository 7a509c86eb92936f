"""Shared by the commands: options, and errors as one line with an exit code."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Final, ParamSpec, TypeVar

import typer
from rich.console import Console

from ca_lite.errors import ConfigError
from ca_lite.keys import read_limited
from outbound.json_client import Outage

_P = ParamSpec("_P")
_R = TypeVar("_R")
_PASSPHRASE_VARIABLE: Final = "CA_LITE_PASSPHRASE_FILE"  # noqa: S105  a name

errors: Final = Console(stderr=True, soft_wrap=True, highlight=False)

Directory = Annotated[Path, typer.Option("--dir", help="Directory of the CA.", metavar="DIR")]
PassphraseFile = Annotated[
    Path | None,
    typer.Option(help="File with the passphrase of the private keys.", envvar=_PASSPHRASE_VARIABLE, metavar="FILE"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def reported(command: Callable[_P, _R]) -> Callable[_P, _R]:
    """Turn our errors into one line and an exit code."""

    @wraps(command)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return command(*args, **kwargs)
        except ConfigError as error:
            errors.print(f"ca-lite: {error}", style="red", markup=False)
            raise typer.Exit(2) from error
        except (Outage, OSError) as error:
            errors.print(f"ca-lite: {error}", style="red", markup=False)
            raise typer.Exit(3) from error

    return run


def passphrase(path: Path | None) -> bytes | None:
    """The passphrase in a file, without its line ending."""
    return read_limited(path).rstrip(b"\r\n") if path is not None else None
