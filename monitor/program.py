"""Name and version of this program, and its clock."""

from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version


def utc_now() -> datetime:
    """The clock of the programs; other packages take it as a parameter."""
    return datetime.now(UTC)


def _version() -> str:
    try:
        return version("signwatch")
    except PackageNotFoundError:
        return "unknown"


VERSION = _version()
