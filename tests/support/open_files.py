"""Files that this process holds open."""

from contextlib import suppress
from pathlib import Path


def open_below(folder: Path) -> list[Path]:
    """Paths in the folder, sorted, that a descriptor of this process is of."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the descriptor of the listing itself is closed by now
            found.append(descriptor.readlink())
    return sorted(path for path in found if path.is_relative_to(folder))
