"""Size of the state on disk, and the days until the disk is full at the past rate of growth."""

import shutil
import stat
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from msgspec import Struct

from alerts.alert import counted
from monitor.config import Config
from monitor.store.reading import Reading
from monitor.store.store import Store


class DiskUse(Struct, frozen=True):
    """Bytes that the state takes, bytes that are free beside it, and the growth a day since it was made.

    `days_left` is the time until the disk is full at that growth; None within the first day, which is too short for
    a rate.
    """

    used: int
    free: int
    bytes_per_day: int | None

    @property
    def days_left(self) -> int | None:
        """Whole days until the disk is full."""
        return None if not self.bytes_per_day else self.free // self.bytes_per_day

    @property
    def line(self) -> str:
        """For a terminal."""
        told = f"disk: the state takes {_size(self.used)}, {_size(self.free)} are free"
        if self.days_left is None:
            return told
        return f"{told}: room for {counted(self.days_left, 'day')} at {_size(self.bytes_per_day or 0)} a day"


def disk_use(config: Config, store: Store, now: datetime) -> DiskUse | None:
    """Size of the SQLite file and of an archive in a folder; None for a database server."""
    path = store.database.path
    if path is None:
        return None
    files = [path, *(path.with_name(path.name + suffix) for suffix in ("-wal", "-shm"))]
    if config.archive is not None and "://" not in config.archive.location:
        files += Path(config.archive.location).rglob("*")
    used = sum(_bytes_of(each) for each in files)
    days = (now - Reading(store.database).begun_at()) / timedelta(days=1)
    return DiskUse(used, shutil.disk_usage(path.parent).free, int(used / days) if days >= 1 else None)


def _bytes_of(path: Path) -> int:
    try:
        found = path.lstat()
    except OSError:
        return 0  # a file of the archive that was joined meanwhile
    return found.st_size if stat.S_ISREG(found.st_mode) else 0


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:  # noqa: PLR2004
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def disk_document(use: DiskUse | None) -> dict[str, Any] | None:
    """Plain JSON types for scripts."""
    if use is None:
        return None
    return {
        "used_bytes": use.used,
        "free_bytes": use.free,
        "bytes_per_day": use.bytes_per_day,
        "days_left": use.days_left,
    }
