"""Listening sockets, and a uvicorn server with limits that prints a line once it serves and shuts down in order."""

import asyncio
import contextlib
import logging
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any, Final

import uvicorn
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send
from typing_extensions import override

from inbound.connections import ConnectionLimits, GuardedProtocol

_LOG: Final = logging.getLogger(__name__)
_BACKLOG: Final = 512
# Connections that asyncio accepts from a socket at once, before it handles the first of them.
_AT_ONCE: Final = 4
_WAKE_SECONDS: Final = 1.0


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


def guarded(app: ASGIApp, limits: ConnectionLimits, **options: Any) -> uvicorn.Config:
    """Configuration of a server of HTTP/1.1 with limits on its connections; `options` are further ones of uvicorn."""
    protocol: Any = partial(GuardedProtocol, limits, {})
    return uvicorn.Config(
        _Abandoned(app),
        http=protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        # Below the level of errors uvicorn only logs clients' mistakes, with which a client could fill the disk.
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=_AT_ONCE,
        timeout_keep_alive=limits.idle,
        timeout_graceful_shutdown=5,
        **options,
    )


class _Abandoned:
    """ASGI middleware: a client that disconnects before its whole request arrived is no error of the application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with contextlib.suppress(ClientDisconnect):
            await self._app(scope, receive, send)


def serve(config: uvicorn.Config, sockets: list[socket.socket], ready: str) -> None:
    """Serve until SIGTERM or SIGINT; prints `ready` once requests are answered."""
    _Announcing(config, ready).run(sockets)


def wait_for_end(ended: threading.Event) -> None:
    """Wait in the main thread until a handler of a signal sets `ended`.

    The system may hand the signal to any thread, as after SIGCONT; Python runs the handler in the main thread once that
    wakes up. A wait without an end would sleep on.
    """
    while not ended.wait(_WAKE_SECONDS):
        pass


class QuietServer(uvicorn.Server):
    """A server that logs each kind of event-loop error once, without a traceback."""

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        told: set[str] = set()

        def tell(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
            error = context.get("exception")
            kind = f"{context.get('message')}: {type(error).__name__}"
            if kind not in told:
                told.add(kind)
                _LOG.error("server_trouble detail=%s", f"{kind}: {error}")

        asyncio.get_running_loop().set_exception_handler(tell)
        await super().startup(sockets)
        for each in sockets or ():
            # asyncio set the kernel's queue to the number of connections that it accepts at once.
            each.listen(_BACKLOG)


class _Announcing(QuietServer):
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
            # A script waits for this line.
            sys.stdout.write(self._ready + "\n")
            sys.stdout.flush()
