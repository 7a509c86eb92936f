"""The server under the status page and the site: which names it answers to, and its thread."""

import ipaddress
import logging
import socket
import threading
from collections.abc import Iterable
from typing import Final

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from inbound.connections import ConnectionLimits
from inbound.serving import QuietServer, guarded, listener
from monitor.config import WebConfig
from monitor.model.errors import OwnFault

_LOG: Final = logging.getLogger(__name__)
SITE_LIMITS: Final = ConnectionLimits(most=512, share=2)
_MOST_HEADER_BYTES: Final = 16 * 1024
_LOCAL_NAMES: Final = frozenset({"localhost", "ip6-localhost"})


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

    def __init__(
        self, app: FastAPI, config: WebConfig, limits: ConnectionLimits | None = None, part: str = "web"
    ) -> None:
        self._socket = _bound(config, part)
        self.url = _url(config.host, self._socket.getsockname()[1])
        configured = guarded(app, limits or ConnectionLimits(), h11_max_incomplete_event_size=_MOST_HEADER_BYTES)
        self._server = QuietServer(configured)
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


def _bound(config: WebConfig, part: str) -> socket.socket:
    try:
        # One socket on `[::]` answers IPv4 as well.
        return listener(config.host, config.port, only_v6=False)
    except OSError as error:
        raise OwnFault(
            f"{part}.listen: {config.host}:{config.port} cannot be had: {error.strerror or error}. Nothing was "
            f"started: stop what listens there, or set another address under `{part}`."
        ) from error


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
