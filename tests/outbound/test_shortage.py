"""What this machine lacks is our own trouble, and never an outage of the log that could not be asked."""

import errno
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import httpcore
import pytest

from monitor.http_fetcher import Expect, HttpFetcher, Unreachable
from monitor.model.errors import OwnFault
from outbound.transport import OURS, own_shortage

# Nothing listens here: with a descriptor to spare, the connection is refused.
PORT = 1
SOFT = 256


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (SOFT, hard))
    held: list[int] = []
    try:
        with suppress(OSError):
            while len(held) <= SOFT:
                held.append(os.open(os.devnull, os.O_RDONLY))
        assert len(held) < SOFT
        yield
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_no_descriptor_left_is_our_own_fault(host: str) -> None:
    fetcher = HttpFetcher(f"http://{host}:{PORT}")
    with pytest.raises(Unreachable):
        fetcher.get("x", max_bytes=10, expect=Expect.BYTES)
    with no_descriptor_left(), pytest.raises(OwnFault, match="Too many open files on this machine"):
        fetcher.get("x", max_bytes=10, expect=Expect.BYTES)
    fetcher.close()


@pytest.mark.parametrize("number", sorted(OURS))
def test_a_shortage_is_found_below_the_errors_of_libraries(number: int) -> None:
    inner = OSError(number, os.strerror(number))
    outer = httpcore.ConnectError("connection failed")
    outer.__cause__ = RuntimeError("between")
    outer.__cause__.__context__ = inner
    assert own_shortage(outer) == os.strerror(number)


def test_other_errors_tell_of_no_shortage() -> None:
    assert own_shortage(ConnectionRefusedError(errno.ECONNREFUSED, "refused")) == ""
    assert own_shortage(socket.gaierror(socket.EAI_NONAME, "unknown")) == ""
    circle = RuntimeError("a")
    circle.__context__ = ValueError("b")
    circle.__context__.__context__ = circle
    assert own_shortage(circle) == ""
