"""One daemon for a database in a file: a lock beside it."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from monitor.model.errors import OwnFault


@contextmanager
def only_daemon(path: Path | None) -> Iterator[None]:
    """Hold the lock beside an SQLite database for as long as a daemon runs on it. Raises `OwnFault` when one does."""
    if path is None:
        yield
        return
    lock = path.with_name(path.name + ".lock")
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise OwnFault(f"{lock}: the lock file cannot be made: {error.strerror}. Make the folder writable.") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise OwnFault(
                f"{path}: another daemon runs on this database. Stop the other one first, or use PostgreSQL to run "
                "several."
            ) from error
        yield
    finally:
        os.close(descriptor)
