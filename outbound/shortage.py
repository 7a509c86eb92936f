"""Whether a request failed because this machine lacks file descriptors or memory; the other side is not to blame."""

import errno
import os
import socket
from typing import Final

# No more descriptors in this process or on this machine, no memory, no buffers of the network.
OURS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
_DEEPEST: Final = 20


def own_shortage(error: BaseException) -> str:
    """What this machine lacked, in its own words; "" when the error tells of no such thing.

    A resolver that can open neither its files nor a socket says only that the name is unknown for now, so after such an
    error a socket is opened to see.
    """
    seen: BaseException | None = error
    for _ in range(_DEEPEST):
        if seen is None:
            break
        if isinstance(seen, socket.gaierror):
            return _missing_now()
        if isinstance(seen, OSError) and seen.errno in OURS:
            return os.strerror(seen.errno)
        seen = seen.__cause__ or seen.__context__
    return ""


def _missing_now() -> str:
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket(socket.AF_INET, socket.SOCK_DGRAM):
            return ""
    except OSError as error:
        return os.strerror(error.errno) if error.errno in OURS else ""
