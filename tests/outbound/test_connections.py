"""Connections are kept while both sides want it, and no byte of one answer is ever taken for another."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import httpcore
import httpx
import pytest

from outbound.connections import ConnectionPool
from outbound.transport import Deadline, HttpLimits, believed

BODY = b"x" * 3_000_000
WAITS = {"timeout": {"connect": 5.0, "read": 5.0, "write": 5.0, "pool": 5.0}}


def answer(body: bytes, *headers: str, status: str = "200 OK", version: str = "1.1") -> bytes:
    lines = [f"HTTP/{version} {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def chunked(*pieces: bytes) -> bytes:
    parts = [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (*pieces, b"")]
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"".join(parts)


@dataclass
class Server:
    """Gives the answer of a path as it stands in `answers`; `b""` closes. `connections` counts those it accepted."""

    answers: dict[str, bytes]
    connections: int = 0
    url: str = ""
    open: list[socket.socket] = field(default_factory=list)

    def accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                self.connections += 1
                self.open.append(connection)
                threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while head := self.head(connection):
                told = self.answers[head.split()[1].decode()]
                if not told:
                    return
                connection.sendall(told)

    def head(self, connection: socket.socket) -> bytes:
        data = b""
        while not data.endswith(b"\r\n\r\n"):
            more = connection.recv(65536)
            if not more:
                return b""
            data += more
        return data


@contextmanager
def serving(**answers: bytes) -> Iterator[tuple[Server, ConnectionPool]]:
    listener = socket.create_server(("127.0.0.1", 0))
    server = Server({f"/{name}": told for name, told in answers.items()})
    server.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    threading.Thread(target=server.accept, args=(listener,), daemon=True).start()
    pool = ConnectionPool(Deadline(time.monotonic), HttpLimits(connections=2), believed(None))
    try:
        yield server, pool
    finally:
        pool.close()
        listener.close()
        for each in server.open:
            each.close()


def ask(server: Server, pool: ConnectionPool, name: str, method: str = "GET") -> bytes:
    response = pool.handle_request(httpx.Request(method, f"{server.url}/{name}", extensions=WAITS))
    assert isinstance(response.stream, httpx.SyncByteStream)
    try:
        return b"".join(response.stream)
    finally:
        response.close()


@pytest.mark.parametrize(
    "told",
    [
        answer(BODY),
        answer(b""),
        chunked(b"one", BODY),
        answer(b"gone", status="404 Not Found"),
        b"HTTP/1.1 100 Continue\r\n\r\n" + answer(b"x"),
        b"HTTP/1.1 204 No Content\r\n\r\n",
    ],
    ids=["length", "empty", "chunks", "refusal", "interim", "no content"],
)
def test_a_whole_answer_leaves_the_connection_to_the_next_request(told: bytes) -> None:
    with serving(a=told, b=answer(b"next")) as (server, pool):
        for _ in range(3):
            first = ask(server, pool, "a")
            assert ask(server, pool, "b") == b"next"
        assert len(first) in {0, 1, 4, len(BODY), len(BODY) + 3}
        assert server.connections == 1


@pytest.mark.parametrize(
    "told",
    [
        answer(b"first") + answer(b"forged"),
        answer(b"first") + b"\r\n",
        chunked(b"first") + answer(b"forged"),
        answer(b"first", "Connection: close"),
        answer(b"first", version="1.0"),
    ],
    ids=["a second answer", "a line", "a second answer after chunks", "the server said so", "an old server"],
)
def test_what_follows_an_answer_is_never_the_answer_to_the_next_request(told: bytes) -> None:
    with serving(a=told, b=answer(b"next")) as (server, pool):
        assert ask(server, pool, "a") == b"first"
        assert ask(server, pool, "b") == b"next"
        assert server.connections == 2


def test_an_answer_that_was_not_read_to_its_end_takes_its_connection_with_it() -> None:
    with serving(a=answer(BODY), b=answer(b"next")) as (server, pool):
        for _ in range(4):
            response = pool.handle_request(httpx.Request("GET", f"{server.url}/a", extensions=WAITS))
            response.close()
        assert ask(server, pool, "b") == b"next"
        assert server.connections == 5


def test_a_connection_that_the_server_closed_meanwhile_is_not_used_again() -> None:
    with serving(a=answer(b"first")) as (server, pool):
        assert ask(server, pool, "a") == b"first"
        server.open[0].shutdown(socket.SHUT_RDWR)
        time.sleep(0.05)
        assert ask(server, pool, "a") == b"first"
        assert server.connections == 2


@pytest.mark.parametrize(
    "told",
    [
        answer(b"short")[:-1],
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: gzip\r\n\r\na",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 20_000,
        b"\r\n\r\n" + answer(b"x"),
        b"",
    ],
    ids=["cut short", "two lengths", "no length", "strange coding", "long head", "interim for ever", "blank", "closed"],
)
def test_a_broken_answer_is_an_error_and_the_pool_goes_on(told: bytes) -> None:
    with serving(a=told, b=answer(b"next")) as (server, pool):
        for _ in range(3):
            if told.startswith(b"HTTP/1.1 200 OK\r\nContent-Length: 5"):
                threading.Timer(0.2, lambda: server.open[-1].shutdown(socket.SHUT_WR)).start()
            with pytest.raises((httpcore.RemoteProtocolError, httpcore.ReadError)):
                ask(server, pool, "a")
            assert ask(server, pool, "b") == b"next"


def test_no_more_connections_than_allowed() -> None:
    with serving(a=answer(BODY)) as (server, pool):
        held = [pool.handle_request(httpx.Request("GET", f"{server.url}/a", extensions=WAITS)) for _ in range(2)]
        with pytest.raises(httpcore.PoolTimeout):
            pool.handle_request(httpx.Request("GET", f"{server.url}/a", extensions={"timeout": {"pool": 0.1}}))
        held[0].close()
        assert ask(server, pool, "a") == BODY
        held[1].close()


def test_a_head_request_has_no_body() -> None:
    told = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
    with serving(a=told, b=answer(b"next")) as (server, pool):
        assert ask(server, pool, "a", "HEAD") == b""
        assert ask(server, pool, "b") == b"next"
        assert server.connections == 1
