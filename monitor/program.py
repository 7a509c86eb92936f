"""Which program this is."""

from importlib.metadata import PackageNotFoundError, version


def _version() -> str:
    try:
        return version("signwatch")
    except PackageNotFoundError:
        return "unknown"


VERSION = _version()
