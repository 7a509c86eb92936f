"""Name and version of this program, and its clock."""

from datetime import UTC, datetime

from command_line.program import installed_version


def utc_now() -> datetime:
    """The clock of the programs; other packages take it as a parameter."""
    return datetime.now(UTC)


def _version() -> str:
    try:
        return installed_version()
    except ImportError:  # `importlib.metadata.PackageNotFoundError` is one
        return "unknown"


VERSION = _version()
