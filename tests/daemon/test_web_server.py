"""Clients of the page take nothing from following and delivery, and a page of another site reads nothing."""

import asyncio
import json
import logging
import os
import resource
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse

from inbound.connections import ConnectionLimits
from monitor.cli import run_command
from monitor.config import WebConfig, parse_config
from monitor.daemon.web import create_app
from monitor.daemon.web_server import WebServer
from monitor.model.errors import OwnFault
from monitor.telemetry.prometheus import PrometheusMeter
from tests.support.log_server import free_port
from tests.support.served_log import ServedLog, served_log, signing_body
from tests.support.waiting import PATIENCE, answers, wait_until

PATHS = ["/", "/api/status.json", "/metrics", "/readyz", "/healthz", "/style.css", "/favicon.ico"]


def app(hosts: tuple[str, ...] = ()) -> FastAPI:
    """The page of a daemon whose database is ill: every path answers."""

    def look() -> None:
        raise OwnFault("ill")

    return create_app(look, PrometheusMeter("test"), hosts)  # type: ignore[arg-type]


@contextmanager
def serving(limits: ConnectionLimits | None = None, hosts: tuple[str, ...] = ()) -> Iterator[str]:
    server = WebServer(app(hosts), WebConfig(("127.0.0.1", 0)), limits)
    server.start()
    try:
        yield server.url
    finally:
        server.stop()


def connected(url: str, sent: bytes = b"") -> socket.socket:
    parts = urlsplit(url)
    assert parts.hostname is not None
    made = socket.create_connection((parts.hostname, parts.port or 80), timeout=30)
    made.sendall(sent)
    return made


def ends(connection: socket.socket) -> bytes:
    """What the server sends until it closes the connection."""
    received = b""
    try:
        while piece := connection.recv(65536):
            received += piece
    except ConnectionResetError:
        pass
    return received


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HTT",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: a",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /",
    ],
    ids=["nothing", "half a line", "half a header", "a second request"],
)
def test_a_request_that_does_not_arrive_is_ended(sent: bytes) -> None:
    is_whole = b"\r\n\r\n" in sent
    # A client that is held up between connecting and sending must still be in time for its answer.
    with serving(ConnectionLimits(headers=5 if is_whole else 0.3, idle=30)) as url, connected(url, sent) as connection:
        assert (b"alive" in ends(connection)) is is_whole


def test_a_connection_without_a_further_request_is_ended() -> None:
    request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with serving(ConnectionLimits(headers=30, idle=1)) as url, connected(url, request) as connection:
        assert b"alive" in ends(connection)


def test_a_body_that_does_not_arrive_is_ended() -> None:
    made = app()

    @made.post("/read")
    async def read(body: dict[str, str]) -> None:
        """Needs its whole body."""

    server = WebServer(made, WebConfig(("127.0.0.1", 0)), ConnectionLimits(headers=30, exchange=0.3))
    server.start()
    try:
        head = b"POST /read HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
        with connected(server.url, head) as connection:
            assert ends(connection) == b""
    finally:
        server.stop()


def test_an_answer_that_its_client_takes_slowly_arrives_whole_however_short_a_connection_may_idle() -> None:
    body = bytes(32 * 1024 * 1024)
    made = FastAPI()

    @made.get("/large")
    async def large() -> Response:
        return Response(body)

    # All of the answer is handed to the system, which takes a part of it, before the client has read a byte.
    server = WebServer(made, WebConfig(("127.0.0.1", 0)), ConnectionLimits(headers=30, idle=0))
    server.start()
    try:
        with connected(server.url, b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n") as connection:
            received = ends(connection)
    finally:
        server.stop()
    assert len(received.partition(b"\r\n\r\n")[2]) == len(body)


@pytest.mark.parametrize("when", ["with the request", "before the answer", "during the answer", "after the answer"])
def test_a_body_that_is_no_http_closes_its_connection_and_writes_no_error(
    when: str, caplog: pytest.LogCaptureFixture
) -> None:
    made = FastAPI()
    arrived = asyncio.Event()

    @made.post("/before")
    async def before(request: Request) -> Response:
        await request.body()
        return Response()

    @made.post("/during")
    async def during(request: Request) -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"begun"
            await arrived.wait()
            yield b"rest"

        return StreamingResponse(pieces())

    @made.post("/with")
    @made.post("/after")
    async def after() -> Response:
        return Response(b"begun")

    server = WebServer(made, WebConfig(("127.0.0.1", 0)))
    server.start()
    head = f"POST /{when.split(maxsplit=1)[0]} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    try:
        wrong = "zz\r\n"
        at_once = wrong if when == "with the request" else ""
        with connected(server.url, (head + at_once).encode()) as connection:
            begun = b""
            while when in {"during the answer", "after the answer"} and b"begun" not in begun:
                begun += connection.recv(65536)
            if not at_once:
                connection.sendall(wrong.encode())
            rest = ends(connection)
    finally:
        server.stop()
    assert (b" 400 " in rest) is (when in {"with the request", "before the answer"})
    assert b"rest" not in rest
    assert [each for each in caplog.records if each.levelno >= logging.ERROR] == []


def test_a_probe_is_answered_while_more_connections_are_held_than_there_may_be() -> None:
    with serving(ConnectionLimits(headers=60, most=8)) as url, ExitStack() as held:
        idle = [held.enter_context(connected(url, b"GET / HTT")) for _ in range(40)]
        for _ in range(5):
            assert httpx.get(f"{url}/healthz", trust_env=False, timeout=PATIENCE).text == "alive\n"
        assert ends(idle[0]) == b"", "the one that waited longest made room"


@pytest.mark.parametrize("kind", ["half a body", "an answer that is not read"])
def test_a_connection_that_waits_for_its_client_makes_room(kind: str) -> None:
    made = app()

    @made.post("/read")
    async def read(body: dict[str, str]) -> None:
        """Needs its whole body."""

    @made.get("/large")
    async def large() -> Response:
        return Response(bytes(32 * 1024 * 1024))

    sent = {
        "half a body": b"POST /read HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{",
        "an answer that is not read": b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n",
    }[kind]
    server = WebServer(made, WebConfig(("127.0.0.1", 0)), ConnectionLimits(headers=60, exchange=60, most=8))
    server.start()
    try:
        with ExitStack() as held:
            for _ in range(16):
                held.enter_context(connected(server.url, sent))
            assert httpx.get(f"{server.url}/healthz", trust_env=False, timeout=PATIENCE).text == "alive\n"
    finally:
        server.stop()


@pytest.mark.parametrize("path", [*PATHS, "/nothing"])
def test_head_is_answered_wherever_get_is(path: str) -> None:
    with serving() as url, httpx.Client(base_url=url, trust_env=False, timeout=PATIENCE) as client:
        full, head = client.get(path), client.head(path)
        assert (head.status_code, head.content) == (full.status_code, b"")
        differing = {"date", "content-length"} if path == "/metrics" else {"date"}
        assert {k: v for k, v in head.headers.items() if k not in differing} == {
            k: v for k, v in full.headers.items() if k not in differing
        }


@pytest.mark.parametrize(
    ("host", "is_ours"),
    [
        *(
            ("localhost", True),
            ("localhost:9464", True),
            ("LOCALHOST.", True),
            ("127.0.0.1:1", True),
            ("[::1]:9464", True),
        ),
        *(("10.1.2.3", True), ("[::1]", True), ("signwatch.example.org:443", True), ("Signwatch.Example.org", True)),
        *(("attacker.example", False), ("localhost.attacker.example", False), ("127.0.0.1.attacker.example:80", False)),
        *(("localhost@attacker.example", False), ("localhost:80:90", False), ("localhost:x", False), ("", False)),
    ],
)
@pytest.mark.parametrize("path", ["/", "/api/status.json", "/metrics"])
def test_only_a_name_of_this_server_is_answered(host: str, is_ours: bool, path: str) -> None:
    with serving(hosts=("signwatch.example.org",)) as url:
        answer = httpx.get(url + path, headers={"Host": host}, trust_env=False, timeout=PATIENCE)
        assert (answer.status_code != 421) is is_ours
        if not is_ours:
            assert "web.hosts" in answer.text
            assert "content-security-policy" in answer.headers


def test_names_of_the_page_are_configured(tmp_path: Path) -> None:
    text = "version: 1\ndatabase: a.db\ntrust: {trusted_root: r.json}\nrules: r.yaml\n"
    text += "web: {listen: '0.0.0.0:1', hosts: [%s]}\n"
    config = parse_config(text % "signwatch.example.org, signwatch", tmp_path / "signwatch.yaml")
    assert config.web is not None
    assert config.web.names == ("0.0.0.0", "signwatch.example.org", "signwatch")
    for wrong in ("'http://signwatch'", "'signwatch:9464'", "'*'"):
        with pytest.raises(OwnFault, match="name of a host"):
            parse_config(text % wrong, tmp_path / "signwatch.yaml")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[ServedLog]:
    with served_log(tmp_path) as log:
        yield log


def test_four_hundred_idle_connections_stop_no_alert(served: ServedLog) -> None:
    """A daemon with 256 descriptors, and a client that holds open every connection it is given."""
    port = free_port()
    served.write_files(port)
    assert run_command(["init", "--config", str(served.config)]) == 0
    errors, url = served.folder / "daemon.err", f"http://127.0.0.1:{port}"
    command = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256)); from monitor.cli import main; main()"
    )
    arguments = [sys.executable, "-c", command, "run", "--config", str(served.config)]
    with errors.open("wb") as stream:
        process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=stream, env=dict(os.environ))
    try:
        with ExitStack() as held:
            wait_until("an answer", lambda: answers(f"{url}/healthz"), process)
            assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 500, "this test needs the descriptors itself"
            for _ in range(400):
                held.enter_context(connected(url, b"GET / HTTP/1.1\r\nHost: local"))
            served.log.append(signing_body("refs/heads/evil"))
            alerts = served.folder / "alerts.jsonl"
            wait_until("the alert", lambda: alerts.exists() and alerts.read_text("utf-8").endswith("\n"), process)
            assert json.loads(alerts.read_text(encoding="utf-8"))["kind"] == "unexpected-signing"
            wait_until("an answer", lambda: answers(f"{url}/healthz"), process)
        told = errors.read_text(encoding="utf-8")
        assert "Traceback" not in told
        assert len(told) < 10_000
    finally:
        process.terminate()
        process.wait(PATIENCE)
