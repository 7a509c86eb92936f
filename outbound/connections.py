"""HTTP/1.1 for httpx over sockets that obey a deadline. h11 reads the heads; a body of a told length is read at once.

A log's answers have half a megabyte. httpcore copies each piece of one four times on its way up; here the kernel writes
a body where the caller reads it.
"""

import io
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import h11
import httpcore
import httpx
from typing_extensions import Buffer, override

from outbound.transport import Deadline, HttpLimits, ProxyTransport

_PIECE: Final = 1024 * 1024  # bytes of a body that are read at once; what a server says of more is not believed
_BUFFER: Final = 64 * 1024
_MAX_HEAD: Final = 100 * 1024  # bytes, as httpcore has it
_OK: Final = 200
_Origin = tuple[str, str, int]


class ConnectionPool(httpx.BaseTransport):
    """Connections to servers, kept open between requests. Safe to use from several threads.

    Raises `httpcore`'s errors, as httpx's own transport does below httpx's names for them.
    """

    def __init__(self, deadline: Deadline, limits: HttpLimits, context: ssl.SSLContext) -> None:
        context.set_alpn_protocols(["http/1.1"])
        self._deadline, self._limits, self._context = deadline, limits, context
        self._room = threading.BoundedSemaphore(limits.connections)
        self._lock = threading.Lock()
        self._idle: list[tuple[_Origin, float, _Connection]] = []

    @override
    def handle_request(self, request: httpx.Request) -> httpx.Response:
        timeouts: dict[str, float | None] = request.extensions.get("timeout", {})
        if not self._room.acquire(timeout=self._deadline.cut(timeouts.get("pool"))):
            raise httpcore.PoolTimeout("every connection is in use")
        connection: _Connection | None = None
        try:
            connection = self._taken(request, timeouts)
            answer, body = connection.ask(request, timeouts)
        except BaseException:
            self._room.release()
            if connection is not None:
                connection.close()
            raise
        origin = _origin(request)
        stream = _Body(body, lambda: self._given_back(origin, connection))
        return httpx.Response(
            answer.status_code,
            headers=answer.headers.raw_items(),
            stream=stream,
            extensions={"http_version": b"HTTP/" + answer.http_version, "reason_phrase": answer.reason},
        )

    @override
    def close(self) -> None:
        """Close every connection that is not in use."""
        with self._lock:
            idle, self._idle = self._idle, []
        for _, _, connection in idle:
            connection.close()

    def _taken(self, request: httpx.Request, timeouts: dict[str, float | None]) -> "_Connection":
        """The connection to the request's server that was used last, or a new one."""
        origin = _origin(request)
        oldest = time.monotonic() - self._limits.keepalive
        with self._lock:
            kept = [each for each in self._idle if each[1] >= oldest]
            old = [each for each in self._idle if each[1] < oldest]
            found = next((each for each in reversed(kept) if each[0] == origin), None)
            if found is not None:
                kept.remove(found)
            self._idle = kept
        for _, _, connection in old:
            connection.close()
        if found is not None:
            if not found[2].is_readable():
                return found[2]
            # The server closed it, or says something that it was not asked.
            found[2].close()
        return _Connection(self._connect(origin, timeouts.get("connect")), self._deadline)

    def _connect(self, origin: _Origin, timeout: float | None) -> socket.socket:
        scheme, host, port = origin
        with _named(httpcore.ConnectTimeout, httpcore.ConnectError):
            plain = socket.create_connection((host, port), self._deadline.cut(timeout))
            try:
                plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if scheme != "https":
                    return plain
                plain.settimeout(self._deadline.cut(timeout))
                return self._context.wrap_socket(plain, server_hostname=host)
            except BaseException:
                plain.close()
                raise

    def _given_back(self, origin: _Origin, connection: "_Connection") -> None:
        if connection.is_reusable:
            with self._lock:
                self._idle.append((origin, time.monotonic(), connection))
        else:
            connection.close()
        self._room.release()


def transport(
    deadline: Deadline, limits: HttpLimits, context: ssl.SSLContext, proxy: str | None
) -> httpx.BaseTransport:
    """What httpx asks servers through, straight or by way of a proxy."""
    return ProxyTransport(deadline, limits, context, proxy) if proxy else ConnectionPool(deadline, limits, context)


class _Received(io.RawIOBase):
    """What a socket receives, each read held to the deadline. `count` bytes came so far."""

    def __init__(self, connected: socket.socket, deadline: Deadline) -> None:
        self._socket, self._deadline = connected, deadline
        self.timeout: float | None = None
        self.count = 0

    @override
    def readable(self) -> bool:
        return True

    @override
    def readinto(self, into: Buffer, /) -> int:
        wanted = self._deadline.cut(self.timeout)
        if wanted != self._socket.gettimeout():
            self._socket.settimeout(wanted)
        with _named(httpcore.ReadTimeout, httpcore.ReadError):
            received = self._socket.recv_into(into)
        self.count += received
        return received


class _Connection:
    """One connection: a request, its answer, and the next request, as long as both sides want."""

    def __init__(self, connected: socket.socket, deadline: Deadline) -> None:
        self._socket, self._deadline = connected, deadline
        self._received = _Received(connected, deadline)
        self._reader = io.BufferedReader(self._received, _BUFFER)
        self._read = 0
        self.is_reusable = False

    def ask(self, request: httpx.Request, timeouts: dict[str, float | None]) -> tuple[h11.Response, Iterator[bytes]]:
        """Send a request; returns the head of its answer and what yields its body."""
        self.is_reusable, self._received.timeout = False, timeouts.get("read")
        protocol = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD)
        with _as_protocol_error():
            self._send(protocol, request, timeouts.get("write"))
            answer = self._head(protocol)
        length = _told_length(request, answer)
        return answer, self._framed(protocol) if length is None else self._whole(length, _keeps_open(answer))

    def is_readable(self) -> bool:
        """Whether the other side sent something, or closed."""
        look = select.poll()
        look.register(self._socket, select.POLLIN)
        return bool(look.poll(0))

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _send(self, protocol: h11.Connection, request: httpx.Request, timeout: float | None) -> None:
        target = request.url.raw_path
        parts = [protocol.send(h11.Request(method=request.method, target=target, headers=request.headers.raw))]
        parts.append(protocol.send(h11.Data(data=request.read())))
        parts.append(protocol.send(h11.EndOfMessage()))
        self._socket.settimeout(self._deadline.cut(timeout))
        with _named(httpcore.WriteTimeout, httpcore.WriteError):
            self._socket.sendall(b"".join(part for part in parts if part))

    def _head(self, protocol: h11.Connection) -> h11.Response:
        size = 0
        while True:
            event = protocol.next_event()
            if isinstance(event, h11.Response):
                return event
            if event is h11.NEED_DATA:
                head = self._lines(_MAX_HEAD - size)
                size += len(head)
                protocol.receive_data(head)
            elif not isinstance(event, h11.InformationalResponse):
                raise httpcore.RemoteProtocolError("the server closed the connection without an answer")

    def _lines(self, most: int) -> bytes:
        """Bytes up to and with an empty line, or the end; never a byte of a body."""
        lines: list[bytes] = []
        size = 0
        while not lines or lines[-1].strip(b"\r\n"):
            line = self._reader.readline(most - size)
            if not line and size < most:
                break
            lines.append(line)
            size += len(line)
            if size >= most:
                raise httpcore.RemoteProtocolError(f"the head of the answer is longer than {_MAX_HEAD} bytes")
        self._read += size
        return b"".join(lines)

    def _whole(self, length: int, keeps_open: bool) -> Iterator[bytes]:
        """A body of this length."""
        left = length
        while left:
            piece = self._reader.read(min(left, _PIECE))
            self._read += len(piece)
            left -= len(piece)
            if not piece:
                raise httpcore.RemoteProtocolError(
                    f"the server closed the connection after {length - left} of {length} bytes of the answer"
                )
            yield piece
        # Bytes behind the answer would be taken for the next one.
        self.is_reusable = keeps_open and self._read == self._received.count

    def _framed(self, protocol: h11.Connection) -> Iterator[bytes]:
        """A body in chunks, without a length, or none."""
        with _as_protocol_error():
            while True:
                event = protocol.next_event()
                if isinstance(event, h11.Data):
                    yield bytes(event.data)
                elif event is h11.NEED_DATA:
                    some = self._reader.read1(_BUFFER)
                    self._read += len(some)
                    protocol.receive_data(some)
                else:
                    break
        at_end = protocol.their_state is h11.DONE and protocol.our_state is h11.DONE
        self.is_reusable = at_end and not protocol.trailing_data[0] and self._read == self._received.count


class _Body(httpx.SyncByteStream):
    def __init__(self, pieces: Iterator[bytes], done: Callable[[], object]) -> None:
        self._pieces, self._done = pieces, done
        self._closed = False

    @override
    def __iter__(self) -> Iterator[bytes]:
        return self._pieces

    @override
    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._done()


def _origin(request: httpx.Request) -> _Origin:
    url = request.url
    return url.scheme, url.raw_host.decode("ascii"), url.port or (443 if url.scheme == "https" else 80)


def _told_length(request: httpx.Request, answer: h11.Response) -> int | None:
    """The length of a body that a `Content-Length` alone gives; h11 has refused two that differ."""
    if answer.status_code != _OK or request.method == "HEAD":
        return None
    told = {name: value for name, value in answer.headers if name in {b"content-length", b"transfer-encoding"}}
    return int(told[b"content-length"]) if set(told) == {b"content-length"} else None


def _keeps_open(answer: h11.Response) -> bool:
    if answer.http_version < b"1.1":
        return False
    said = [part.strip() for name, value in answer.headers if name == b"connection" for part in value.split(b",")]
    return b"close" not in [each.lower() for each in said]


@contextmanager
def _named(timeout: type[Exception], failure: type[Exception]) -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise timeout(str(error)) from error
    except OSError as error:
        raise failure(str(error)) from error


@contextmanager
def _as_protocol_error() -> Iterator[None]:
    try:
        yield
    except h11.RemoteProtocolError as error:
        raise httpcore.RemoteProtocolError(str(error)) from error
    except h11.LocalProtocolError as error:
        raise httpcore.LocalProtocolError(str(error)) from error
