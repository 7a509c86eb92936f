"""A secret of this installation in a file of its own: made at the first start, whole or not at all, then read."""

import errno
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

# SMB shares have no hard links.
_WITHOUT_LINKS: Final = frozenset({errno.EPERM, errno.ENOTSUP, errno.ENOSYS})


def read_or_make(path: Path, make: Callable[[], bytes]) -> bytes:
    """Content of the file, which only its owner can read. Two processes that make it at once read the same.

    A crash leaves no file or the whole file: half a key would be refused at every later start. Raises `OSError`.
    """
    with suppress(FileNotFoundError):
        return path.read_bytes()
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(make())
            file.flush()
            os.fsync(file.fileno())
        _put(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return path.read_bytes()


def _put(draft: Path, path: Path) -> None:
    """Link the file, because a rename would replace the key that another process made meanwhile."""
    try:
        os.link(draft, path)
    except FileExistsError:
        return
    except OSError as error:
        if error.errno not in _WITHOUT_LINKS:
            raise
        draft.replace(path)
