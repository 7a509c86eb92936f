"""The HTTP client against servers that do not play fair, over real sockets: bounded in bytes and in time."""

import gzip
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import pytest
from msgspec.structs import replace

from monitor.http_fetcher import (
    Expect,
    HttpFetcher,
    NotFound,
    Refused,
    ServerFailed,
    Throttled,
    TimedOut,
    TokenBucket,
    TooLarge,
    Unreachable,
    WrongContent,
)
from monitor.model.errors import FetchFailed, OwnFault
from outbound.transport import HttpLimits
from tests.support.log_server import free_port
from tests.support.waiting import PATIENCE

Script = Callable[[socket.socket], None]
_PATIENT = HttpLimits(total=PATIENCE, operation=PATIENCE, connect=PATIENCE)


@contextmanager
def server(script: Script) -> Iterator[str]:
    """A loopback server that reads one request per connection, then lets `script` have the socket."""
    listener = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            with suppress(OSError):
                connection, _ = listener.accept()
                with connection:
                    connection.settimeout(PATIENCE)
                    # A client may leave before it has asked.
                    while (received := connection.recv(65536)) and not received.endswith((b"\r\n\r\n", b"}")):
                        pass
                    if received:
                        script(connection)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/base"
    finally:
        stop.set()
        with suppress(OSError), socket.create_connection(listener.getsockname(), 1) as last:
            last.sendall(b"\r\n\r\n")
        listener.close()
        thread.join(10)


def reply(body: bytes = b'{"ok":1}', status: str = "200 OK", **headers: str) -> Script:
    fields = {"Content-Type": "application/json", "Content-Length": str(len(body))}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value)
    return lambda s: s.sendall(f"HTTP/1.1 {status}\r\n{head}Connection: close\r\n\r\n".encode() + body)


def drip(start: bytes) -> Script:
    """Send one byte at a time, always soon enough for any timeout per read, for at most three seconds."""

    def script(connection: socket.socket) -> None:
        connection.sendall(start)
        waiting = threading.Event()
        with suppress(OSError):
            for _ in range(60):
                waiting.wait(0.05)
                connection.sendall(b"a")

    return script


def ask(
    script: Script, *, expect: Expect = Expect.JSON, max_bytes: int = 1000, limits: HttpLimits | None = None
) -> bytes:
    with server(script) as url:
        fetcher = HttpFetcher(url, limits=limits or _PATIENT, pause=lambda _: None)
        try:
            return fetcher.get("thing?x=1", max_bytes=max_bytes, expect=expect)
        finally:
            fetcher.close()


def test_a_plain_answer_is_returned_whole() -> None:
    assert ask(reply()) == b'{"ok":1}'
    assert ask(reply(b"x" * 1000, Content_Type="text/plain"), expect=Expect.TEXT) == b"x" * 1000


CHUNKED = {"Content_Length": "", "Transfer_Encoding": "chunked"}
REFUSED: dict[str, tuple[Script, type[FetchFailed]]] = {
    "declared too long": (reply(b"x" * 1001), TooLarge),
    "too long without saying so": (reply(b"3e9\r\n" + b"x" * 1001 + b"\r\n0\r\n\r\n", **CHUNKED), TooLarge),
    "a web page": (reply(Content_Type="text/html; charset=utf-8"), WrongContent),
    "no content type": (reply(Content_Type=""), WrongContent),
    "compressed": (reply(gzip.compress(b"{}"), Content_Encoding="gzip"), WrongContent),
    "compressed some other way": (reply(Content_Encoding="br"), WrongContent),
    "a redirect": (reply(b"", "302 Found", Location="http://169.254.169.254/"), WrongContent),
    "not modified": (reply(b"", "304 Not Modified"), WrongContent),
    "no content": (reply(b"", "204 No Content"), WrongContent),
    "nothing there": (reply(b"", "404 Not Found"), NotFound),
    "a refusal": (reply(b'{"code":400,"message":"too big"}', "400 Bad Request"), Refused),
    "too many": (reply(b"", "429 Too Many Requests", Retry_After="7"), Throttled),
    "busy": (reply(b"", "503 Service Unavailable", Retry_After="7"), Throttled),
    "ill": (reply(b"", "503 Service Unavailable"), ServerFailed),
    "cut short": (reply(b"x" * 10, Content_Length="100"), Unreachable),
    "not HTTP": (lambda s: s.sendall(b"SSH-2.0-OpenSSH_9.2\r\n"), Unreachable),
    "nothing at all": (lambda _: None, Unreachable),
    "endless headers": (lambda s: s.sendall(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 50_000), Unreachable),
}


@pytest.mark.parametrize("name", REFUSED)
def test_any_other_answer_is_a_failure_with_its_own_class(name: str) -> None:
    script, error = REFUSED[name]
    with pytest.raises(error) as caught:
        ask(script)
    assert type(caught.value) is error


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nX-Slow: ",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n",
    ],
    ids=["status line", "header", "body"],
)
def test_a_server_that_trickles_is_cut_off_by_the_total_deadline(start: bytes) -> None:
    with pytest.raises(TimedOut):
        ask(drip(start), limits=replace(_PATIENT, total=0.3))


def test_after_a_timeout_the_next_request_of_the_same_client_works() -> None:
    later = 0.0

    def hold(connection: socket.socket) -> None:
        """Let the time for the answer pass, then trickle."""
        nonlocal later
        later = 2 * PATIENCE
        drip(b"")(connection)

    scripts = [reply(), hold]

    def script(connection: socket.socket) -> None:
        if scripts:
            scripts.pop()(connection)

    with server(script) as url:
        # One connection only: a request that timed out must not keep its place in the pool.
        fetcher = HttpFetcher(url, limits=replace(_PATIENT, connections=1), clock=lambda: time.monotonic() + later)
        with pytest.raises(TimedOut):
            fetcher.get("a", max_bytes=10, expect=Expect.JSON)
        assert fetcher.get("a", max_bytes=10, expect=Expect.JSON) == b'{"ok":1}'
        fetcher.close()


def test_nobody_listening_is_unreachable() -> None:
    fetcher = HttpFetcher(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(Unreachable):
        fetcher.get("x", max_bytes=10, expect=Expect.BYTES)
    fetcher.close()


def test_a_post_carries_its_document_and_no_compression_is_offered() -> None:
    seen: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        for _ in range(2):
            connection, _ = listener.accept()
            with connection:
                data = b""
                while not data.endswith(b"}"):
                    data += connection.recv(65536)
                seen.append(data)
                reply()(connection)

    thread = threading.Thread(target=serve)
    thread.start()
    fetcher = HttpFetcher(f"http://me:p@127.0.0.1:{listener.getsockname()[1]}/base/")
    for indexes in ([1], [1, 22]):
        assert fetcher.post_json("api/x", {"logIndexes": indexes}, max_bytes=100) == b'{"ok":1}'
    thread.join(10)
    listener.close()
    fetcher.close()
    for sent, content in zip(seen, (b'{"logIndexes": [1]}', b'{"logIndexes": [1, 22]}'), strict=True):
        head, _, body = sent.partition(b"\r\n\r\n")
        assert head.startswith(b"POST /base/api/x HTTP/1.1\r\n")
        told = dict(line.split(b": ") for line in head.lower().split(b"\r\n")[1:])
        assert told[b"accept-encoding"] == b"identity"
        assert (told[b"content-type"], told[b"content-length"]) == (b"application/json", b"%d" % len(content))
        assert told[b"authorization"] == b"basic bwu6ca=="
        assert body == content


def recorded(asked: int, script: Script, at: str = "127.0.0.1") -> list[bytes]:
    """What a server was sent in as many requests of one fetcher, each over a connection of its own."""
    seen: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        for _ in range(asked):
            connection, _ = listener.accept()
            with connection:
                seen.append(connection.recv(65536))
                script(connection)

    thread = threading.Thread(target=serve)
    thread.start()
    fetcher = HttpFetcher(f"http://{at}:{listener.getsockname()[1]}/base/")
    for _ in range(asked):
        fetcher.get("x", max_bytes=100, expect=Expect.JSON)
    thread.join(10)
    listener.close()
    fetcher.close()
    return seen


def test_a_cookie_of_a_server_is_neither_kept_nor_sent_back() -> None:
    """Kept cookies would let a log fill our memory, one more with every answer."""
    first, second = recorded(2, reply(Set_Cookie="seen=1; Path=/"))
    assert first.startswith(b"GET /base/x HTTP/1.1\r\n")
    assert b"cookie" not in second.lower()


def test_a_name_and_password_in_the_url_are_sent_as_such_and_the_url_without_them() -> None:
    (asked,) = recorded(1, reply(), at="reader:pass%20word@127.0.0.1")
    assert b"Basic cmVhZGVyOnBhc3Mgd29yZA==\r\n" in asked
    assert b"reader" not in asked
    assert b"\r\nhost: 127.0.0.1:" in asked.lower()


def test_gzip_is_unpacked_where_it_is_allowed_and_never_beyond_the_cap() -> None:
    def gzipped(raw: bytes) -> Script:
        return reply(raw, Content_Type="application/octet-stream", Content_Encoding="gzip")

    assert ask(gzipped(gzip.compress(b"tile" * 100)), expect=Expect.GZIP_ALLOWED) == b"tile" * 100
    for bad, error in (
        (gzip.compress(b"\0" * 100_000), TooLarge),
        (gzip.compress(b"tile")[:-1], WrongContent),
        (gzip.compress(b"tile") + b"more", WrongContent),
        (b"no gzip", WrongContent),
    ):
        with pytest.raises(error):
            ask(gzipped(bad), expect=Expect.GZIP_ALLOWED)


def test_what_the_server_asks_for_is_passed_on_but_bounded() -> None:
    new_year = {"Retry_After": "Sat, 01 Jan 2000 00:00:00 GMT"}
    for headers, expected in (
        ({"Retry_After": "7"}, 7.0),
        ({"Retry_After": "999999999"}, 3600.0),
        ({"Retry_After": "-1"}, None),
        (new_year, None),
        # A date counts from the answer's own, not from our clock.
        (new_year | {"Date": "Fri, 31 Dec 1999 23:59:30 GMT"}, 30.0),
        (new_year | {"Date": "Sat, 01 Jan 2000 00:00:30 GMT"}, 0.0),
    ):
        with pytest.raises(Throttled) as caught:
            ask(reply(b"", "429 Too Many Requests", **headers))
        assert caught.value.retry_after == expected


@dataclass
class Waiting:
    """A server that answers `busy` this often before it answers, and a clock that only pauses move."""

    busy: list[Script]
    now: float = 0.0
    asked: int = 0
    questions: int = 0
    waited: list[float] = field(default_factory=list)

    def script(self, connection: socket.socket) -> None:
        self.asked += 1
        answer = self.busy.pop(0) if self.busy else reply()
        with suppress(OSError):
            answer(connection)

    def pause(self, seconds: float) -> None:
        self.waited.append(seconds)
        self.now += seconds

    def ask(self) -> bytes:
        with server(self.script) as url:
            fetcher = HttpFetcher(url, clock=lambda: self.now, pause=self.pause)
            try:
                return fetcher.get("a", max_bytes=10, expect=Expect.JSON)
            finally:
                # The server is connected to once more, to end it.
                self.questions = self.asked
                fetcher.close()


def too_many(**headers: str) -> Script:
    return reply(b"", "429 Too Many Requests", **headers)


def test_a_short_rest_is_waited_for_and_the_question_asked_again() -> None:
    waiting = Waiting([too_many(Retry_After="2"), reply(b"", "503 Service Unavailable", Retry_After="3"), too_many()])
    assert waiting.ask() == b'{"ok":1}'
    assert (waiting.questions, waiting.waited[:2]) == (4, [2.0, 3.0])


def test_waiting_for_a_server_that_wants_rest_has_an_end() -> None:
    for headers in ({"Retry_After": "0"}, {"Retry_After": "2"}, {}):
        waiting = Waiting([too_many(**headers)] * 100)
        with pytest.raises(Throttled):
            waiting.ask()
        assert waiting.questions <= 11
        assert sum(waiting.waited) <= 10
    waiting = Waiting([too_many(Retry_After="11")])
    with pytest.raises(Throttled):
        waiting.ask()
    assert (waiting.questions, waiting.waited) == (1, [])


def test_a_server_that_wants_rest_is_left_alone_for_as_long() -> None:
    asked: list[int] = []
    now = [0.0]

    def script(connection: socket.socket) -> None:
        asked.append(1)
        answer = reply(b"", "429 Too Many Requests", Retry_After="30") if len(asked) == 1 else reply()
        with suppress(OSError):
            answer(connection)

    with server(script) as url:
        fetcher = HttpFetcher(url, clock=lambda: now[0])
        for _ in range(3):
            with pytest.raises(Throttled):
                fetcher.get("a", max_bytes=10, expect=Expect.JSON)
        assert len(asked) == 1
        now[0] += 31
        assert fetcher.get("a", max_bytes=10, expect=Expect.JSON) == b'{"ok":1}'
        fetcher.close()


@pytest.mark.parametrize(
    "url", ["", "localhost", "ftp://x/", "file:///etc/passwd", "http://", "http://x/?q", "http://x/#f"]
)
def test_only_http_urls_are_asked(url: str) -> None:
    with pytest.raises(OwnFault):
        HttpFetcher(url)


def test_a_token_bucket_lets_its_rate_through_and_no_more() -> None:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    bucket = TokenBucket(5, 10, clock=lambda: now[0], sleep=sleep)
    for _ in range(10):
        bucket.take()
    assert now[0] == 0
    for _ in range(50):
        bucket.take()
    assert now[0] == pytest.approx(10.0)
    now[0] += 1000
    for _ in range(10):
        bucket.take()
    assert now[0] == pytest.approx(1010.0)
    with pytest.raises(OwnFault):
        TokenBucket(0, 1, clock=lambda: 0.0, sleep=sleep)
