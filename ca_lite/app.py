"""Puts the routes together, and serves them on every address of the configured host."""

import socket
import threading
from contextlib import ExitStack
from pathlib import PurePosixPath
from typing import Final

from fastapi import FastAPI, Response

from addresses.url import is_loopback_host
from ca_lite.api import certificate_routes, operator_routes, timestamp_routes
from ca_lite.api_oidc import oidc_routes
from ca_lite.errors import ConfigError
from ca_lite.http import install, json_answer
from ca_lite.keys import now, read_limited
from ca_lite.service import CaService
from ca_lite.settings import CaSettings
from ca_lite.tuf_repository import refresh
from inbound.connections import ConnectionLimits
from inbound.serving import guarded, listener
from inbound.serving import serve as run_server

# A quarter of the file descriptors; the journal, key files and the CT log need the rest.
_LIMITS: Final = ConnectionLimits(idle=30, exchange=120.0, most=512, share=4)


def create_app(service: CaService) -> FastAPI:
    """ASGI application of one CA."""
    app = FastAPI(title="ca-lite", openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    install(app, service.metrics, service.settings.cors_origins)
    for router in (
        certificate_routes(service),
        timestamp_routes(service),
        oidc_routes(service),
        operator_routes(service),
    ):
        app.include_router(router)

    refreshing = threading.Lock()

    @app.get("/tuf/{path:path}")
    def tuf_file(path: str) -> Response:
        if path == "timestamp.json":
            with refreshing:  # two requests at once must not sign the same version twice
                refresh(service.layout.tuf, service.layout.tuf_keys, now())
        return _file(service, path)

    return app


def _file(service: CaService, path: str) -> Response:
    """A file of the TUF repository: the name must be that of a file in the folder."""
    wanted = PurePosixPath(path)
    folder = service.layout.tuf / "targets" if wanted.parent == PurePosixPath("targets") else service.layout.tuf
    known = {each.name: each for each in folder.iterdir() if each.is_file() and not each.name.startswith(".")}
    if wanted.parent not in (PurePosixPath("targets"), PurePosixPath()) or wanted.name not in known:
        return json_answer({"code": 5, "message": "Not Found", "details": []}, 404)
    return Response(read_limited(known[wanted.name]), media_type="application/json")


def listen(settings: CaSettings) -> list[socket.socket]:
    """Listening sockets: both loopback addresses for localhost, else the address in `bind`. Raises `ConfigError`.

    The URL's host is bound only if it is loopback, so that a CA is reachable from a network only on request.
    """
    if settings.bind is not None:
        addresses = [settings.bind]
    elif is_loopback_host(settings.host):
        addresses = ["127.0.0.1", "::1"] if settings.host == "localhost" else [settings.host]
    else:
        raise ConfigError(
            f"url is {settings.url}, not this machine: name the address to listen on as `bind` in ca.yaml"
        )
    with ExitStack() as stack:
        sockets = [each for each in (_bound(address, settings.port) for address in addresses) if each is not None]
        for each in sockets:
            stack.callback(each.close)
        if not sockets:
            raise ConfigError(f"no address of {addresses} can be bound")
        stack.pop_all()
    return sockets


def _bound(address: str, port: int) -> socket.socket | None:
    try:
        return listener(address, port)
    except OSError as error:
        if address == "::1":
            return None  # On a machine without IPv6 the CA serves over IPv4.
        raise ConfigError(f"{address} port {port} cannot be listened on: {error.strerror}") from error


def serve(service: CaService, sockets: list[socket.socket], ready: str) -> None:
    """Serve until a signal asks to stop; prints `ready` once requests are answered."""
    config = guarded(create_app(service), _LIMITS)
    run_server(config, sockets, ready)
