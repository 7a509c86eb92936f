"""An httpx transport whose sockets obey a deadline for the whole request, not only a timeout for each read."""

import errno
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpcore
import httpx

# A bundle of 256 entries has ten times what httpcore reads at once, and each piece costs tens of microseconds on its
# way up. More than this is slower again: memory for larger pieces is fetched from the system anew each time.
_READ_BYTES: Final = 128 * 1024


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Seconds for connecting, for one read or write, and for a whole answer; connections kept open."""

    connect: float = 10.0
    operation: float = 15.0
    total: float = 60.0
    connections: int = 8
    keepalive: float = 120.0


class Deadline:
    """When the request running in this thread must be over.

    A server that sends one byte a second beats any timeout per read, so every socket operation is held to this too.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._local = threading.local()

    @contextmanager
    def running(self, seconds: float) -> Iterator[None]:
        """Everything this thread does on a socket inside must be over in this many seconds."""
        self._local.at = self._clock() + seconds
        try:
            yield
        finally:
            del self._local.at

    def cut(self, timeout: float | None) -> float | None:
        """Shorten one operation's timeout to what is left. Raises `httpcore.ReadTimeout` when nothing is."""
        at = getattr(self._local, "at", None)
        if at is None:
            return timeout
        left = at - self._clock()
        if left <= 0:
            raise httpcore.ReadTimeout("total deadline passed")
        return float(left) if timeout is None else min(timeout, float(left))


class _DeadlineStream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream, deadline: Deadline) -> None:
        self._stream, self._deadline = stream, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max(max_bytes, _READ_BYTES), self._deadline.cut(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._deadline.cut(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        inner = self._stream.start_tls(ssl_context, server_hostname, self._deadline.cut(timeout))
        return _DeadlineStream(inner, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class DeadlineBackend(httpcore.SyncBackend):
    """Connections whose every operation is held to the deadline."""

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect within what is left of the deadline."""
        stream = super().connect_tcp(host, port, self._deadline.cut(timeout), local_address, socket_options)
        return _DeadlineStream(stream, self._deadline)


class DeadlineTransport(httpx.BaseTransport):
    """httpx's own transport, but over a pool whose sockets obey the deadline."""

    def __init__(self, deadline: Deadline, limits: HttpLimits, context: ssl.SSLContext, proxy: str | None) -> None:
        settings: dict[str, Any] = {
            "ssl_context": context,
            "max_connections": limits.connections,
            "max_keepalive_connections": limits.connections,
            "keepalive_expiry": limits.keepalive,
            "network_backend": DeadlineBackend(deadline),
        }
        if proxy:
            # A proxy that is itself asked over TLS is believed by the same authorities; httpcore refuses one otherwise.
            its_own = {"proxy_ssl_context": settings["ssl_context"]} if proxy.startswith("https:") else {}
            self._pool: httpcore.ConnectionPool = httpcore.HTTPProxy(proxy_url=proxy, **settings, **its_own)
        else:
            self._pool = httpcore.ConnectionPool(**settings)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """See `httpx.BaseTransport.handle_request`. Raises `httpcore`'s errors as they are."""
        url = httpcore.URL(
            scheme=request.url.raw_scheme,
            host=request.url.raw_host,
            port=request.url.port,
            target=request.url.raw_path,
        )
        answer = self._pool.handle_request(
            httpcore.Request(
                request.method, url, headers=request.headers.raw, content=request.stream, extensions=request.extensions
            )
        )
        return httpx.Response(
            answer.status, headers=answer.headers, stream=_BodyStream(answer.stream), extensions=answer.extensions
        )

    def close(self) -> None:
        """Close every connection of the pool."""
        self._pool.close()


def believed(ca_file: str | None) -> ssl.SSLContext:
    """Trusted TLS roots: those of the PEM file alone, else the system's.

    Raises `OSError` (which `ssl.SSLError` is) when the file cannot be read or holds no certificate.
    """
    if ca_file is None:
        return httpx.create_ssl_context(trust_env=False)
    if Path(ca_file).is_dir():
        raise IsADirectoryError(errno.EISDIR, "it is a folder")
    return ssl.create_default_context(cafile=ca_file)


class _BodyStream(httpx.SyncByteStream):
    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        yield from self._stream

    def close(self) -> None:
        self._stream.close()
