"""A kept connection gives each answer to its own request, also where a server sends more than it was asked for."""

import socket
import ssl
import threading
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from monitor.http_fetcher import Expect, HttpFetcher, TimedOut, Unreachable
from outbound.transport import HttpLimits, body_within
from tests.support.private_network import PrivateCa, private_ca
from tests.support.waiting import PATIENCE

LARGE = bytes(range(256)) * 4096
OTHER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nother"


def answer(body: bytes, *fields: str, version: str = "1.1") -> bytes:
    head = "".join(f"{each}\r\n" for each in ("Content-Type: application/octet-stream", *fields))
    return f"HTTP/{version} 200 OK\r\n{head}\r\n".encode() + body


def sized(body: bytes, *fields: str, version: str = "1.1") -> bytes:
    return answer(body, f"Content-Length: {len(body)}", *fields, version=version)


@dataclass
class Server:
    """Serves `answers` to one request each, however many connections they come over; closes one where it says so."""

    answers: list[bytes]
    closing_after: bool = False
    tls: ssl.SSLContext | None = None
    connections: int = 0
    targets: list[bytes] = field(default_factory=list)
    closed: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def serve(self, listener: socket.socket) -> None:
        while self.answers:
            connection, _ = listener.accept()
            self.connections += 1
            connection.settimeout(PATIENCE)
            if self.tls is not None:
                connection = self.tls.wrap_socket(connection, server_side=True)
            with connection, suppress(OSError):
                self._answer(connection)
            self.closed.release()

    def _answer(self, connection: socket.socket) -> None:
        while self.answers:
            request = b""
            while not request.endswith(b"\r\n\r\n"):
                more = connection.recv(65536)
                if not more:
                    return
                request += more
            self.targets.append(request.split()[1])
            connection.sendall(self.answers.pop(0))
            if self.closing_after:
                return


@contextmanager
def serving(
    *answers: bytes, closing_after: bool = False, ca: PrivateCa | None = None
) -> Iterator[tuple[Server, HttpFetcher]]:
    server = Server(list(answers), closing_after, ca.context if ca else None)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE)
        thread = threading.Thread(target=server.serve, args=(listener,))
        thread.start()
        limits = HttpLimits(total=PATIENCE, operation=PATIENCE, connect=PATIENCE)
        url = f"{'https' if ca else 'http'}://127.0.0.1:{listener.getsockname()[1]}/log"
        with closing(HttpFetcher(url, limits=limits, ca_file=str(ca.file) if ca else None)) as fetcher:
            yield server, fetcher
        thread.join(PATIENCE)
        assert not thread.is_alive()


def get(fetcher: HttpFetcher, path: str = "tile/entries/000") -> bytes:
    return fetcher.get(path, max_bytes=2 * len(LARGE), expect=Expect.BYTES)


KEPT = {
    "a large body": sized(LARGE),
    "a small body": sized(b"first"),
    "no body": sized(b""),
    "in chunks": answer(b"5\r\nfirst\r\n6\r\n body.\r\n0\r\n\r\n", "Transfer-Encoding: chunked"),
    "a length beside chunks": answer(b"5\r\nfirst\r\n0\r\n\r\n", "Content-Length: 3", "Transfer-Encoding: chunked"),
    "said to be kept": sized(b"first", "Connection: keep-alive"),
    "after a hint": b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + sized(b"first"),
    "the same length twice": answer(b"first", "Content-Length: 5", "Content-Length: 5"),
}
BODIES = {"a large body": LARGE, "no body": b"", "in chunks": b"first body."}


@pytest.mark.parametrize("name", KEPT)
def test_a_connection_serves_the_next_request_after(name: str) -> None:
    with serving(KEPT[name], sized(LARGE), sized(b"last")) as (server, fetcher):
        assert get(fetcher) == BODIES.get(name, b"first")
        assert get(fetcher) == LARGE
        assert get(fetcher) == b"last"
    assert server.connections == 1


NOT_KEPT = {
    "it says it closes": sized(b"first", "Connection: close"),
    "it says so among others": sized(b"first", "Connection: keep-alive, close"),
    "it speaks HTTP/1.0": sized(b"first", version="1.0"),
    "an answer that nothing asked for follows": sized(b"first") + OTHER,
    "such an answer follows a large body": sized(LARGE) + OTHER,
    "such an answer follows chunks": answer(b"5\r\nfirst\r\n0\r\n\r\n", "Transfer-Encoding: chunked") + OTHER,
    "bytes follow": sized(b"first") + b"\r\n",
}


@pytest.mark.parametrize("name", NOT_KEPT)
def test_the_next_request_goes_over_a_new_connection_where(name: str) -> None:
    with serving(NOT_KEPT[name], sized(b"next")) as (server, fetcher):
        assert get(fetcher) == (LARGE if "large" in name else b"first")
        assert get(fetcher) == b"next"
    assert server.connections == 2


@pytest.mark.parametrize("name", [*KEPT, *NOT_KEPT])
def test_each_request_has_its_own_answer_over_tls(tmp_path: Path, name: str) -> None:
    """A record may hold the end of an answer and more, which is then read neither from the socket nor by a request."""
    with serving({**KEPT, **NOT_KEPT}[name], sized(b"next"), ca=private_ca(tmp_path)) as (server, fetcher):
        assert get(fetcher) == (LARGE if "large" in name else BODIES.get(name, b"first"))
        assert get(fetcher) == b"next"
    assert server.connections == (1 if name in KEPT else 2)


BROKEN = {
    "it ends before its length": answer(LARGE[:-1], f"Content-Length: {len(LARGE)}"),
    "nothing of it comes": answer(b"", "Content-Length: 5"),
    "two lengths differ": answer(b"first", "Content-Length: 5", "Content-Length: 6"),
    "its length is no number": answer(b"first", "Content-Length: +5"),
    "its length is negative": answer(b"first", "Content-Length: -5"),
    "an unknown coding": answer(b"first", "Transfer-Encoding: gzip"),
    "hints without an end precede it": b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000 + sized(b"first"),
    "chunks end before their end": answer(b"5\r\nfirst\r\n", "Transfer-Encoding: chunked"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_an_answer_is_refused_and_its_connection_closed_where(name: str) -> None:
    with serving(BROKEN[name], sized(b"next"), closing_after=True) as (server, fetcher):
        with pytest.raises(Unreachable):
            get(fetcher)
        assert get(fetcher) == b"next"
    assert server.connections == 2


def test_a_body_without_a_length_ends_with_the_connection() -> None:
    with serving(answer(LARGE), sized(b"next"), closing_after=True) as (server, fetcher):
        assert get(fetcher) == LARGE
        assert get(fetcher) == b"next"
    assert server.connections == 2


def test_a_connection_that_the_server_closed_while_idle_is_not_used_again() -> None:
    with serving(sized(b"first"), sized(b"next"), closing_after=True) as (server, fetcher):
        assert get(fetcher) == b"first"
        assert server.closed.acquire(timeout=PATIENCE), "it may close it later than the answer is read"
        assert get(fetcher) == b"next"
    assert server.connections == 2


def test_a_path_is_asked_for_as_httpx_asks() -> None:
    paths = ["checkpoint", "tile/0/x001/234.p/7", "a/../b", "a/./b", "api?x=a b", "ü", "100%", "/tile//0", ""]
    with serving(*[sized(b"x")] * len(paths)) as (server, fetcher):
        for path in paths:
            get(fetcher, path)
    asked = [httpx.URL(f"http://127.0.0.1/log/{path.lstrip('/')}").raw_path for path in paths]
    assert server.targets == asked
    assert server.connections == 1


class Pieces(httpx.SyncByteStream):
    """A body of pieces of two bytes each."""

    def __iter__(self) -> Iterator[bytes]:
        return (bytes((number & 0xFF, 1)) for number in range(100_000))


def test_a_body_in_many_small_pieces_takes_the_memory_of_its_bytes() -> None:
    tracemalloc.start()
    try:
        body, more = body_within(httpx.Response(200, stream=Pieces()), 1_000_000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (len(body), more) == (200_000, False)
    assert peak < 4 * len(body)


def test_the_deadline_holds_for_all_addresses_of_a_name_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name with a thousand addresses that do not answer would otherwise take a thousand times the limit."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    looked_up = socket.getaddrinfo

    def many(host: str, *others: Any, **named: Any) -> list[Any]:
        if host != "many.example":
            return list(looked_up(host, *others, **named))
        found = looked_up("127.0.0.1", *others, **named)
        return [(*each[:4], (f"127.0.0.{number}", port)) for each in found for number in range(1, 101)]

    monkeypatch.setattr(socket, "getaddrinfo", many)
    # A clock that is a second later each time it is read.
    clock = count().__next__
    limits = HttpLimits(total=10)
    fetcher = HttpFetcher(f"http://many.example:{port}", limits=limits, clock=clock)
    with closing(fetcher), pytest.raises(TimedOut):
        get(fetcher)


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "a..example"])
def test_a_host_that_can_be_no_name_is_unreachable(host: str) -> None:
    with closing(HttpFetcher(f"http://{host}")) as fetcher, pytest.raises(Unreachable):
        get(fetcher)


class Echo(BaseHTTPRequestHandler):
    """Answers with the path of the request, many times."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = self.path.encode() * 50_000
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_threads_that_ask_at_once_each_get_their_own_answers() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    server.daemon_threads = True
    serving = threading.Thread(target=server.serve_forever, daemon=True)
    serving.start()
    # Fewer connections than threads: some requests wait for a connection that another one has.
    limits = HttpLimits(total=PATIENCE, operation=PATIENCE, connections=3)
    try:
        with (
            closing(HttpFetcher(f"http://127.0.0.1:{server.server_port}", limits=limits)) as fetcher,
            ThreadPoolExecutor(8) as threads,
        ):
            bodies = list(threads.map(lambda number: get(fetcher, f"entry/{number}"), range(100)))
    finally:
        server.shutdown()
        serving.join(10)
        server.server_close()
    assert bodies == [f"/entry/{number}".encode() * 50_000 for number in range(100)]
