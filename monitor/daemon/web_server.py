"""The server under the status page: a client that holds connections open can take nothing from following or delivery.

Each connection has a time for its request and a time for the whole exchange. There are few connections, so that the
process keeps its file descriptors for logs, database and channels. When all are taken, the one that has waited longest
without a request makes room: a probe is answered while a client holds connections open.
"""

import asyncio
import ipaddress
import logging
import resource
import socket
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send
from typing_extensions import override
from uvicorn.protocols.http.h11_impl import H11Protocol

from inbound.serving import listener
from monitor.config import WebConfig
from monitor.model.errors import OwnFault

_LOG: Final = logging.getLogger(__name__)
_MOST_CONNECTIONS: Final = 64
_LEAST_CONNECTIONS: Final = 4
# Of the descriptors that the process may have, one in this many is for clients of the page.
_SHARE: Final = 8
# As many connections are accepted before the first of them is looked at: more than the limit for a moment.
_AT_ONCE: Final = 8
_BACKLOG: Final = 128
_MOST_HEADER_BYTES: Final = 16 * 1024
_LOCAL_NAMES: Final = frozenset({"localhost", "ip6-localhost"})


@dataclass(frozen=True, slots=True)
class WebLimits:
    """Seconds for a request's headers, between two requests, and for a whole exchange; connections at once.

    `connections` left out: a share of the descriptors that the process may have.
    """

    headers: float = 10.0
    idle: int = 5
    exchange: float = 60.0
    connections: int | None = None

    def most_connections(self) -> int:
        """Connections that may be open at once."""
        if self.connections is not None:
            return self.connections
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft == resource.RLIM_INFINITY:
            return _MOST_CONNECTIONS
        return max(_LEAST_CONNECTIONS, min(_MOST_CONNECTIONS, soft // _SHARE))


class HostAndHead:
    """ASGI middleware: answers only to a name of this server, and to HEAD wherever GET is answered.

    A page of another site can have its own name resolve to this address (DNS rebinding), and its browser then sends
    that name as `Host`. An IP address cannot be rebound, so every address is answered; names only if they are known.
    """

    def __init__(self, app: ASGIApp, names: Iterable[str]) -> None:
        self._app = app
        self._names = _LOCAL_NAMES | {name.lower().rstrip(".") for name in names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI specification)."""
        if scope["type"] == "http":
            hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
            if not all(self._is_ours(host) for host in hosts):
                await _misdirected(send)
                return
            if scope["method"] == "HEAD":
                # The server leaves the body out: its own scope still says HEAD.
                scope = {**scope, "method": "GET"}
        await self._app(scope, receive, send)

    def _is_ours(self, host: str) -> bool:
        name, _, port = host.rpartition(":") if _has_port(host) else (host, "", "")
        if port and not (port.isascii() and port.isdigit()):
            return False
        name = name.lower().rstrip(".")
        if name.startswith("[") and name.endswith("]"):
            name = name[1:-1]
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name in self._names
        return True


def _has_port(host: str) -> bool:
    return ":" in host and not host.endswith("]")


async def _misdirected(send: Send) -> None:
    # RFC 9110 15.5.20: 421 Misdirected Request.
    body = b"This server is not known under that name. Add it to `web.hosts` in the configuration.\n"
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 421, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class WebServer:
    """The application on an address, in a thread of its own. Raises `OwnFault` when the address cannot be had.

    `part` is the part of the configuration that names the address.
    """

    def __init__(self, app: FastAPI, config: WebConfig, limits: WebLimits | None = None, part: str = "web") -> None:
        self._socket = _bound(config, part)
        self.url = _url(config.host, self._socket.getsockname()[1])
        protocol: Any = partial(GuardedProtocol, limits or WebLimits(), {})
        self._server = _QuietServer(
            uvicorn.Config(
                app,
                http=protocol,
                ws="none",
                lifespan="off",
                log_config=None,
                # Below an error only a client's mistakes are told: a client with many would fill the disk.
                log_level="error",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                backlog=_AT_ONCE,
                timeout_keep_alive=(limits or WebLimits()).idle,
                timeout_graceful_shutdown=5,
                h11_max_incomplete_event_size=_MOST_HEADER_BYTES,
            )
        )
        self._thread = threading.Thread(target=self._run, name=part, daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Answer requests under way, then end."""
        self._server.should_exit = True
        self._thread.join(10)
        self._socket.close()

    def _run(self) -> None:
        try:
            self._server.run(sockets=[self._socket])
        except Exception:  # noqa: BLE001  following goes on without a page
            _LOG.exception("web_failed")


class _QuietServer(uvicorn.Server):
    """A server that tells trouble of its event loop once, without a traceback for each connection."""

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        told: set[str] = set()

        def tell(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
            error = context.get("exception")
            detail = f"{context.get('message')}: {type(error).__name__}: {error}"
            kind = f"{context.get('message')}: {type(error).__name__}"
            if kind not in told:
                told.add(kind)
                _LOG.error("web_trouble detail=%s", detail)

        asyncio.get_running_loop().set_exception_handler(tell)
        await super().startup(sockets=sockets)


class GuardedProtocol(H11Protocol):
    """One connection. `waiting` are the server's connections without a request under way, the longest one first."""

    def __init__(self, limits: WebLimits, waiting: dict["GuardedProtocol", None], **of_uvicorn: Any) -> None:
        super().__init__(**of_uvicorn)
        self._limits, self._waiting, self._most = limits, waiting, limits.most_connections()
        self._alarm: asyncio.TimerHandle | None = None

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._waiting[self] = None
        self._arm(self._limits.headers)
        if len(self.connections) > self._most:
            # Its own connection is the newest that waits, so it goes only while every other one is being answered.
            longest = next(iter(self._waiting))
            self._waiting.pop(longest)
            longest.transport.abort()

    @override
    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self in self._waiting and self._is_busy():
            self._waiting.pop(self)
            self._arm(self._limits.exchange)

    @override
    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            return
        self._waiting.pop(self, None)
        if not self._is_busy():
            self._waiting[self] = None
        self._arm(self._limits.exchange if self._is_busy() else self._limits.headers)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._waiting.pop(self, None)
        if self._alarm is not None:
            self._alarm.cancel()
        super().connection_lost(exc)

    def _is_busy(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _arm(self, seconds: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self.loop.call_later(seconds, self.transport.abort)


def _bound(config: WebConfig, part: str) -> socket.socket:
    try:
        # One socket on `[::]` answers IPv4 as well.
        return listener(config.host, config.port, only_v6=False, backlog=_BACKLOG)
    except OSError as error:
        raise OwnFault(
            f"{part}.listen: {config.host}:{config.port} cannot be had: {error.strerror or error}. Nothing was "
            f"started: stop what listens there, or set another address under `{part}`."
        ) from error


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
