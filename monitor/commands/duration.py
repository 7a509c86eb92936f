"""A length of time on the command line, written as in the configuration."""

from datetime import timedelta

import typer

from settings.document import Misplaced, Scalar
from settings.reading import read_duration


def duration(text: str, option: str = "--for") -> timedelta:
    """A length of time such as 6h or 2d. Raises `typer.BadParameter`, which names the option."""
    try:
        return read_duration(Scalar(text, plain=True, line=0, column=0))
    except Misplaced as misplaced:
        raise typer.BadParameter(str(misplaced), param_hint=option) from misplaced
