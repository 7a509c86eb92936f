"""Listening sockets, and a uvicorn server that says when it serves and ends in order."""

import contextlib
import signal
import socket
import sys
from collections.abc import Iterator

import uvicorn
from typing_extensions import override

_BACKLOG = 512


def listener(host: str, port: int, *, only_v6: bool = True, backlog: int = _BACKLOG) -> socket.socket:
    """A listening socket on an address. `only_v6` keeps an IPv6 socket from answering IPv4. Raises `OSError`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio switches Nagle's algorithm off: without, every answer waits 40 ms for an ACK.
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6 and only_v6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind((host, port))
        made.listen(backlog)
    except OSError:
        made.close()
        raise
    return made


def serve(config: uvicorn.Config, sockets: list[socket.socket], ready: str) -> None:
    """Serve until SIGTERM or SIGINT; prints `ready` once requests are answered."""
    _Announcing(config, ready).run(sockets)


class _Announcing(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, ready: str) -> None:
        super().__init__(config)
        self._ready = ready

    @contextlib.contextmanager
    @override
    def capture_signals(self) -> Iterator[None]:
        """End in order on SIGTERM and SIGINT. uvicorn's own version raises the signal again and skips our `finally`."""
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            # The one line that a script waits for.
            sys.stdout.write(self._ready + "\n")
            sys.stdout.flush()
