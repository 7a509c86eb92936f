"""One row of a negative table: the call must raise exactly this error, and a failure names the row."""

from collections.abc import Callable
from typing import Any

import pytest


def refused(name: str, error: type[Exception], call: Callable[..., object], *arguments: Any) -> None:
    """Fail with the row's name unless `call(*arguments)` raises `error`; any other error passes through."""
    try:
        call(*arguments)
    except error:
        return
    pytest.fail(f"accepted: {name}")
