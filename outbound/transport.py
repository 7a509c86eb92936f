"""Requests to other hosts: an overall deadline, kept connections, local shortages, Retry-After, a rate.

httpcore hands each piece of a body through h11, which copies it four times: a bundle of entries is 650 KB. In
our connections, h11 writes the request and reads the head of the answer, and so decides on valid HTTP. A body whose
length the head tells is then read off the socket as it comes. All others, in chunks or up to the end of the
connection, are h11's.

Bytes that a server sends beyond an answer belong to no request: their connection is closed, and they are never read as
the next answer.
"""

import errno
import ipaddress
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import Enum
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import unquote_to_bytes, urlsplit

import h11
import httpcore
import httpx
from msgspec import Struct
from typing_extensions import override

from outbound.named_authorities import believing
from outbound.names import OWN, STRANGERS, BoundedCalls, look_up, shares

# No file descriptor in this process or on this machine, no memory, no network buffer.
OURS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
_DEEPEST: Final = 20


def own_shortage(error: BaseException) -> str:
    """The resource this machine lacked, as the system names it; "" for any other error.

    A resolver that can open neither its files nor a socket says only that the name is unknown for now, so after such an
    error this function opens a socket as a test.
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


TARGET: Final = "target"
"""Extension of a request: the path and query to ask for, in place of the URL's, as bytes that need no escape."""


class HttpLimits(Struct, frozen=True):
    """Seconds for connecting, for one read or write, and for a whole answer; connections kept open."""

    connect: float = 10.0
    operation: float = 15.0
    total: float = 60.0
    connections: int = 8
    keepalive: float = 120.0


class Deadline:
    """Time by which the request running in this thread must end.

    A server that sends one byte a second beats any timeout per read, so every socket operation is held to this too.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._local = threading.local()

    @contextmanager
    def running(self, seconds: float) -> Iterator[None]:
        """All socket operations of this thread inside the block must end within `seconds` of its start."""
        self._local.at = self._clock() + seconds
        try:
            yield
        finally:
            del self._local.at

    def cut(self, timeout: float | None) -> float | None:
        """Shorten one operation's timeout to the time left. Raises `httpcore.ReadTimeout` when no time is left."""
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
        return self._stream.read(max_bytes, self._deadline.cut(timeout))

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


def resolve(host: str, port: int, seconds: float | None = None, *, calls: BoundedCalls = OWN) -> list[str]:
    """Every address of a host, within `seconds` and at most `LONGEST_LOOKUP`. An address needs no lookup.

    Raises `OSError`, also for a text that can be no name; `CallNotEnded` after the limit.
    """
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return look_up(host, port, seconds, calls=calls)
    return [host]


def resolve_strange(host: str, port: int, seconds: float | None = None) -> list[str]:
    """As `resolve`, for a host that a stranger chose."""
    return resolve(host, port, seconds, calls=STRANGERS)


def connect(host: str, port: int, seconds: float) -> socket.socket:
    """A TCP connection within `seconds`: the lookup of the name and all addresses share them. Raises `OSError`."""
    ends = time.monotonic() + seconds
    failure: OSError = TimeoutError(f"{host} took no connection within {seconds:g} seconds")
    for address, share in shares(resolve(host, port, seconds), ends):
        try:
            return socket.create_connection((address, port), share)
        except OSError as error:
            failure = error
    raise failure


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
        """Connect to an address of the host within the time left until the deadline, which all of them share.

        The lookup of the name counts too, and has a limit of its own (`LONGEST_LOOKUP`).
        """
        try:
            addresses = resolve(host, port, self._deadline.cut(None))
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error
        failure: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in addresses:
            left = self._deadline.cut(timeout)
            try:
                stream = super().connect_tcp(address, port, left, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                return _DeadlineStream(stream, self._deadline)
        raise failure


# Larger pieces are slower: each one needs new memory from the system.
_READ_BYTES: Final = 128 * 1024
_LARGEST_HEAD: Final = 100 * 1024
_MOST_HINTS: Final = 100
_OK: Final = 200
_PERSISTENT: Final = b"1.1"


class _State(Enum):
    NEW = "new"
    ACTIVE = "active"
    IDLE = "idle"
    CLOSED = "closed"


class _Pool(httpcore.ConnectionPool):
    """httpcore's pool, without a proxy, with `_Connection`s."""

    def __init__(self, backend: httpcore.NetworkBackend, tls: "Tls", *, connections: int, keepalive: float) -> None:
        super().__init__(
            max_connections=connections,
            max_keepalive_connections=connections,
            keepalive_expiry=keepalive,
            network_backend=backend,
        )
        self._made_of = backend, tls, keepalive

    @override
    def create_connection(self, origin: httpcore.Origin) -> httpcore.ConnectionInterface:
        return _Connection(origin, *self._made_of)


class _Connection(httpcore.ConnectionInterface):
    """Connects with its first request; `keepalive` is the time in seconds that it stays open while idle.

    Raises httpcore's errors.
    """

    def __init__(self, origin: httpcore.Origin, backend: httpcore.NetworkBackend, tls: "Tls", keepalive: float) -> None:
        self._origin, self._backend, self._tls, self._keepalive = origin, backend, tls, keepalive
        self._lock = threading.Lock()
        self._state = _State.NEW
        self._stream: httpcore.NetworkStream | None = None
        self._expires = 0.0

    @override
    def handle_request(self, request: httpcore.Request) -> httpcore.Response:
        with self._lock:
            # The pool may hand an idle connection to two requests; the second one must ask the pool again.
            if self._state not in {_State.NEW, _State.IDLE}:
                raise httpcore.ConnectionNotAvailable
            self._state = _State.ACTIVE
        try:
            timeouts = request.extensions.get("timeout", {})
            stream = self._stream or self._connect(timeouts.get("connect"))
            exchange = _Exchange(stream, timeouts.get("read"))
            head = exchange.ask(request, timeouts.get("write"))
        except BaseException:
            self.close()
            raise
        return httpcore.Response(
            head.status_code,
            headers=head.headers.raw_items(),
            content=_ExchangeBody(self, exchange),
            extensions={"http_version": b"HTTP/" + head.http_version, "reason_phrase": head.reason},
        )

    def _connect(self, timeout: float | None) -> httpcore.NetworkStream:
        host = self._origin.host.decode("ascii")
        context = self._tls() if self._origin.scheme == b"https" else None
        stream = self._stream = self._backend.connect_tcp(host, self._origin.port, timeout)
        if context is not None:
            stream = self._stream = stream.start_tls(context, host, timeout)
        return stream

    def end(self, *, reusable: bool) -> None:
        """End an exchange, read or abandoned: the connection becomes idle or is closed."""
        if not reusable:
            self.close()
            return
        self._expires = time.monotonic() + self._keepalive
        self._state = _State.IDLE

    @override
    def close(self) -> None:
        self._state = _State.CLOSED
        if self._stream is not None:
            self._stream.close()

    @override
    def info(self) -> str:
        return f"{self._origin}, HTTP/1.1, {self._state.value}"

    @override
    def can_handle_request(self, origin: httpcore.Origin) -> bool:
        return origin == self._origin

    @override
    def is_available(self) -> bool:
        return self._state is _State.IDLE

    @override
    def is_idle(self) -> bool:
        return self._state is _State.IDLE

    @override
    def is_closed(self) -> bool:
        return self._state is _State.CLOSED

    @override
    def has_expired(self) -> bool:
        # Under the lock: another thread may begin a request at this moment, and its answer would look like the end of
        # an idle connection. An expired connection serves no further request.
        with self._lock:
            if self._state is not _State.IDLE or self._stream is None:
                return False
            # Readable data on an idle connection is its end by the server, or bytes that belong to no request.
            if time.monotonic() > self._expires or _has_unread(self._stream):
                self._state = _State.CLOSED
                return True
            return False


def _has_unread(stream: httpcore.NetworkStream) -> bool:
    """True if there are bytes to read: in the socket, or in a TLS record of which a part was read."""
    secured = stream.get_extra_info("ssl_object")
    return bool(stream.get_extra_info("is_readable") or (secured is not None and secured.pending()))


class _Exchange:
    """One request and its answer. `whole` is true once the answer is read to its end and the connection reusable."""

    def __init__(self, stream: httpcore.NetworkStream, timeout: float | None) -> None:
        self._stream, self._timeout = stream, timeout
        self._protocol = h11.Connection(h11.CLIENT, max_incomplete_event_size=_LARGEST_HEAD)
        self._length: int | None = None
        self._persistent = False
        self.whole = False

    def ask(self, request: httpcore.Request, timeout: float | None) -> h11.Response:
        """Send a request; returns the head of the answer."""
        try:
            head = h11.Request(method=request.method, target=request.url.target, headers=request.headers)
            # The head goes out together with the first piece of content: one packet in place of two.
            begun = self._protocol.send(head) or b""
            for chunk in request.stream:  # type: ignore[union-attr]  # of a pool without asyncio
                if chunk:
                    self._stream.write(begun + (self._protocol.send(h11.Data(data=chunk)) or b""), timeout)
                    begun = b""
            if rest := begun + (self._protocol.send(h11.EndOfMessage()) or b""):
                self._stream.write(rest, timeout)
        except h11.LocalProtocolError as error:
            raise httpcore.LocalProtocolError(str(error)) from error
        except httpcore.WriteError:
            # A server may answer and close the connection before it has read a whole request.
            pass
        event = self._next_event()
        for _ in range(_MOST_HINTS):
            if isinstance(event, h11.Response):
                break
            event = self._next_event()
        else:
            raise httpcore.RemoteProtocolError(f"more than {_MOST_HINTS} interim answers (HTTP 1xx) before an answer")
        self._length = _length_of(request, event)
        self._persistent = event.http_version == _PERSISTENT and _stays_open(event)
        return event

    def body(self) -> Iterator[bytes]:
        """The body in pieces."""
        if self._length is None:
            yield from self._body_by_events()
            return
        left = self._length
        begun, _ = self._protocol.trailing_data
        excess = len(begun) > left
        begun = begun[:left]
        if begun:
            yield begun
        left -= len(begun)
        while left:
            piece = self._stream.read(min(left, _READ_BYTES), self._timeout)
            if not piece:
                raise httpcore.RemoteProtocolError(
                    f"the server closed the connection {left} bytes before the end of {self._length}"
                )
            left -= len(piece)
            yield piece
        self.whole = self._persistent and not excess

    def _body_by_events(self) -> Iterator[bytes]:
        while not isinstance(event := self._next_event(), h11.EndOfMessage):
            if isinstance(event, h11.Data):
                yield bytes(event.data)
        done = self._protocol.our_state is h11.DONE and self._protocol.their_state is h11.DONE
        self.whole = done and not self._protocol.trailing_data[0]

    def _next_event(self) -> Any:
        while True:
            try:
                event = self._protocol.next_event()
            except h11.RemoteProtocolError as error:
                raise httpcore.RemoteProtocolError(str(error)) from error
            if event is not h11.NEED_DATA:
                return event
            data = self._stream.read(_READ_BYTES, self._timeout)
            if not data and self._protocol.their_state is h11.SEND_RESPONSE:
                raise httpcore.RemoteProtocolError("the server closed the connection without an answer")
            self._protocol.receive_data(data)


def _length_of(request: httpcore.Request, head: h11.Response) -> int | None:
    """Length of the body that follows a head; `None` where h11 must find its end.

    SPEC RFC 9112 6.3: a Transfer-Encoding overrides Content-Length; HEAD and some statuses have no body.
    """
    if head.status_code != _OK or request.method not in {b"GET", b"POST"}:
        return None
    length = None
    for name, value in head.headers:
        if name == b"transfer-encoding":
            return None
        if name == b"content-length":
            length = int(value)  # h11 has already refused a value other than digits, and two different values
    return length


def _stays_open(head: h11.Response) -> bool:
    """SPEC RFC 9112 9.3: an HTTP/1.1 connection persists unless the `close` option is present."""
    return all(value.strip().lower() == b"keep-alive" for name, value in head.headers if name == b"connection")


class _ExchangeBody:
    def __init__(self, connection: _Connection, exchange: _Exchange) -> None:
        self._connection, self._exchange = connection, exchange
        self._ended = False

    def __iter__(self) -> Iterator[bytes]:
        return self._exchange.body()

    def close(self) -> None:
        if not self._ended:
            self._ended = True
            self._connection.end(reusable=self._exchange.whole)


class DeadlineTransport(httpx.BaseTransport):
    """httpx over httpcore's pool, on sockets that obey the deadline."""

    def __init__(self, deadline: Deadline, limits: HttpLimits, tls: "Tls", proxy: str | None) -> None:
        backend = DeadlineBackend(deadline)
        if proxy:
            context = tls()
            settings: dict[str, Any] = {
                "ssl_context": context,
                "max_connections": limits.connections,
                "max_keepalive_connections": limits.connections,
                "keepalive_expiry": limits.keepalive,
                "network_backend": backend,
            }
            # A proxy over TLS is verified by the same authorities; otherwise httpcore refuses it.
            its_own: dict[str, Any] = {"proxy_ssl_context": context} if proxy.startswith("https:") else {}
            parts = urlsplit(proxy)
            if parts.username is not None:
                # httpcore leaves the user name and password in a proxy's URL unread.
                its_own["proxy_auth"] = unquote_to_bytes(parts.username), unquote_to_bytes(parts.password or "")
            self._pool: httpcore.ConnectionPool = httpcore.HTTPProxy(proxy_url=proxy, **settings, **its_own)
        else:
            self._pool = _Pool(backend, tls, connections=limits.connections, keepalive=limits.keepalive)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request over the pool. Raises `httpcore`'s errors as they are."""
        extensions = dict(request.extensions)
        url = httpcore.URL(
            scheme=request.url.raw_scheme,
            host=request.url.raw_host,
            port=request.url.port,
            target=extensions.pop(TARGET, None) or request.url.raw_path,
        )
        answer = self._pool.handle_request(
            httpcore.Request(
                request.method, url, headers=request.headers.raw, content=request.stream, extensions=extensions
            )
        )
        return httpx.Response(
            answer.status, headers=answer.headers, stream=_BodyStream(answer.stream), extensions=answer.extensions
        )

    def close(self) -> None:
        """Close every connection of the pool."""
        self._pool.close()


Tls = Callable[[], ssl.SSLContext]
"""Gives the context of a connection with TLS: a client of an http:// URL calls it never."""


class NoAuthorities(OSError):
    """The usual certificate authorities cannot be read: a fault of this installation, and of no server."""


def believed(ca_file: str | None, *, pem: str = "") -> Tls:
    """TLS with the authorities of the PEM file alone, or of `pem`, else with the usual ones, which all clients share.

    Raises `OSError` (which `ssl.SSLError` is) when the file cannot be read or holds no certificate. For the others the
    first connection raises it.
    """
    if pem:
        return lambda: _for_http(believing(pem=pem))
    if ca_file is None:
        return _usual
    if Path(ca_file).is_dir():
        raise IsADirectoryError(errno.EISDIR, "it is a folder")
    context = _for_http(believing(file=ca_file))
    return lambda: context


def _for_http(context: ssl.SSLContext) -> ssl.SSLContext:
    # Here and not for each connection: a context "is thread-safe as long as it is not reconfigured after being used by
    # a connection" (Python's ssl).
    context.set_alpn_protocols(["http/1.1"])
    return context


_MAKING: Final = threading.Lock()


def _usual() -> ssl.SSLContext:
    # Clients in several threads need it at once: `cache` alone would let each of them make one.
    with _MAKING:
        return _usual_authorities()


@cache
def _usual_authorities() -> ssl.SSLContext:
    # Some hundred authorities, which take 13 ms to read and 0.7 MiB for each further context.
    try:
        return _for_http(httpx.create_ssl_context(trust_env=False))
    except OSError as error:
        why = error.strerror or str(error)
        raise NoAuthorities(f"the usual certificate authorities cannot be read: {why}") from error


class _BodyStream(httpx.SyncByteStream):
    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._stream)

    def close(self) -> None:
        self._stream.close()


def body_within(response: httpx.Response, most: int) -> tuple[bytes, bool]:
    """The first `most` bytes of an answer as sent, and true if more follow. Raises httpcore's errors."""
    # A list of pieces of two bytes takes thirty times the memory of the bytes.
    body = BytesIO()
    size = 0
    for piece in cast(httpx.SyncByteStream, response.stream):
        size += body.write(piece)
        if size > most:
            return body.getvalue()[:most], True
    return body.getvalue(), False


_MAX_DIGITS: Final = 9  # thirty years of seconds


def parse_retry_after(value: str | None, now: datetime | None) -> timedelta | None:
    """The delay in a Retry-After header: seconds or an HTTP date; None when absent or malformed.

    `now` is the reference of a date: the answer's own Date, or this machine's clock. Without it a date gives None.
    """
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit() and len(value) <= _MAX_DIGITS:
        return timedelta(seconds=int(value))
    at = parse_http_date(value)
    return None if at is None or now is None else max(at - now, timedelta(0))


def parse_http_date(value: str | None) -> datetime | None:
    """Return the time of an HTTP date (RFC 9110 5.6.7), None for other text."""
    try:
        at = parsedate_to_datetime(value or "")
    except (TypeError, ValueError):
        return None
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


class Tokens:
    """At most `rate` a second on average, `burst` at once. `now` counts seconds. Raises `ValueError` for no rate."""

    def __init__(self, rate: float, burst: float, now: float) -> None:
        if rate <= 0 or burst < 1:
            raise ValueError(f"a rate of {rate}/s with a burst of {burst} lets nothing through")
        self._rate, self._burst = rate, burst
        self._left, self._at = burst, now

    def borrow(self, now: float) -> float:
        """Take a token in any case; returns the seconds to wait before its use.

        The count may go below zero: each waiter then waits for its own share, so waiting needs no queue.
        """
        self._fill(now)
        self._left -= 1
        return max(0.0, -self._left / self._rate)

    def take(self, now: float) -> float:
        """Take a token if there is one, and return 0; otherwise the seconds until there is one."""
        self._fill(now)
        if self._left < 1:
            return (1 - self._left) / self._rate
        self._left -= 1
        return 0.0

    def _fill(self, now: float) -> None:
        self._left = min(self._burst, self._left + max(0.0, now - self._at) * self._rate)
        self._at = now
