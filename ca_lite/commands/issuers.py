"""`ca-lite lint`: issuer configurations."""

from pathlib import Path
from typing import Annotated

import typer

from ca_lite.commands.shared import errors, reported
from ca_lite.issuer_config import load_issuers
from ca_lite.keys import read_limited


@reported
def lint(
    issuers_file: Annotated[Path, typer.Argument(help="Issuer configuration in Fulcio's format.", metavar="FILE")],
) -> None:
    """Check an issuer configuration.

    Example: ca-lite lint ca/issuers.yaml
    """
    issuers = load_issuers(read_limited(issuers_file).decode("utf-8", "replace"), str(issuers_file))
    for warning in issuers.warnings:
        errors.print(f"warning: {warning}", style="yellow", markup=False)
    print(f"{len(issuers.all())} issuers, {len(issuers.warnings)} warnings")  # noqa: T201
