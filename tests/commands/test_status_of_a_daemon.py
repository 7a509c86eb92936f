"""`signwatch status` beside a daemon that hangs, breaks off or is another program."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from monitor.cli import run_command
from monitor.commands import running_daemon
from tests.support.served_log import ServedLog, served_log, signing_body


@pytest.fixture
def served(tmp_path: Path) -> Iterator[ServedLog]:
    """A log that is followed to its end, so that its status is green."""
    with served_log(tmp_path) as log:
        for word in ("init", "audit"):
            assert run_command([word, "--config", str(log.config)]) == 0
        yield log


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second for an answer that never comes. On a busy machine other answers may take longer."""
    monkeypatch.setattr(running_daemon, "_ANSWER_SECONDS", 1)


Handle = Callable[[socket.socket], None]
Status = Callable[..., tuple[int, str, dict[str, Any]]]


@pytest.fixture
def status(served: ServedLog, capsys: pytest.CaptureFixture[str]) -> Status:
    """Runs `status` for a person and for a script: its exit code, the lines for people, and the document."""

    def run() -> tuple[int, str, dict[str, Any]]:
        capsys.readouterr()
        code = run_command(["status", "--config", str(served.config)])
        told = capsys.readouterr()
        assert run_command(["status", "--json", "--config", str(served.config)]) == code
        return code, told.out + told.err, json.loads(capsys.readouterr().out)

    return run


@contextmanager
def daemon(served: ServedLog, handle: Handle) -> Iterator[None]:
    """A program at the address under `web`: each connection is handed to `handle`, in a thread of its own."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server, ExitStack() as held:

        def accept() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                held.callback(connection.close)
                threading.Thread(target=handle, args=(connection,), daemon=True).start()

        served.write_files(server.getsockname()[1])
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(10)


def answering(content: bytes, kind: bytes = b"application/json", line: bytes = b"200 OK") -> Handle:
    head = b"HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n" % (line, kind, len(content))

    def handle(connection: socket.socket) -> None:
        if connection.recv(1 << 16):
            connection.sendall(head + content)

    return handle


def hang(_connection: socket.socket) -> None:
    """Take the connection and do nothing, as a process in a deadlock does."""


def trickle(connection: socket.socket) -> None:
    """Send a byte now and then: no single read takes long."""
    ended = threading.Event()
    try:
        connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
        for _ in range(300):
            connection.sendall(b"x")
            ended.wait(0.1)
    except OSError:
        pass


def test_status_is_green_beside_a_daemon_that_answers_and_beside_none(served: ServedLog, status: Status) -> None:
    code, _, document = status()
    assert (code, document["daemon"]) == (0, None), "the configuration names no port"
    with daemon(served, answering(b'{"ready": true, "reasons": [], "daemon": []}')):
        code, told, document = status()
    assert (code, document["daemon"]["state"], document["ready"]) == (0, "answers", True)
    assert "daemon" not in told
    code, told, document = status()
    assert (code, document["daemon"]["state"], document["ready"]) == (0, "absent", True), "it ended"
    assert "daemon" not in told
    with daemon(served, answering(b'{"ready": false, "reasons": ["a"], "daemon": ["the disk is full"]}')):
        code, told, document = status()
    assert (code, document["daemon"]["state"], document["reasons"]) == (3, "answers", ["the disk is full"])


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("handle", [hang, trickle], ids=["hangs", "trickles"])
def test_a_daemon_that_takes_the_connection_and_gives_no_answer_is_told(
    served: ServedLog, status: Status, handle: Handle
) -> None:
    with daemon(served, handle):
        code, told, document = status()
    assert code == 3
    assert (document["ready"], document["daemon"]["state"]) == (False, "silent")
    [reason] = document["reasons"]
    assert f"ourselves: the daemon at {document['daemon']['url']} accepts connections and does not answer" in reason
    assert f"asked at {document['daemon']['asked']}, no whole answer within 1 second" in reason
    assert f"the newest pass over a log was at {document['logs'][0]['last_pass']}" in reason
    assert "start it again" in reason
    for words in ("does not answer", "no whole answer within 1 second", "start it again"):
        assert words in told


def test_a_daemon_that_breaks_the_connection_off_is_told(served: ServedLog, status: Status) -> None:
    with daemon(served, lambda connection: connection.close()):
        code, told, document = status()
    assert (code, document["daemon"]["state"]) == (3, "silent")
    assert "the connection broke" in told


def test_a_stopped_daemon_whose_queue_of_connections_is_full_is_told(served: ServedLog, status: Status) -> None:
    with closing(socket.socket()) as server, ExitStack() as waiting:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(8):
            client = waiting.enter_context(closing(socket.socket()))
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        served.write_files(server.getsockname()[1])
        code, told, document = status()
    assert (code, document["daemon"]["state"]) == (3, "silent")
    assert "takes no connection and does not answer" in told


def test_a_daemon_that_is_ill_is_told(served: ServedLog, status: Status) -> None:
    with daemon(served, answering(b'{"ready": false, "reasons": ["the database is gone"]}', line=b"503 Unavailable")):
        code, told, document = status()
    assert (code, document["daemon"]["state"]) == (3, "ill")
    assert "the database is gone" in told


@pytest.mark.parametrize(
    "handle",
    [
        answering(b"<p>Welcome", b"text/html"),
        answering(b"{}", line=b"404 Not Found"),
        answering(b"{}", line=b"429 Too Many Requests\r\nRetry-After: 5"),
        answering(b'{"daemon": 5}'),
        answering(b'{"reasons": []}'),
        answering(b"[" * 100_000),
    ],
    ids=["a page", "404", "429", "no list", "no reasons of a daemon", "nested"],
)
def test_another_program_at_the_address_is_named_and_no_fault_of_the_state(
    served: ServedLog, status: Status, handle: Handle
) -> None:
    with daemon(served, handle):
        code, told, document = status()
    assert (code, document["ready"], document["daemon"]["state"]) == (0, True, "stranger")
    assert "is none of Signwatch's daemon" in told
    assert "Signwatch's daemon" in document["daemon"]["detail"]


@pytest.mark.usefixtures("soon")
def test_open_evidence_outweighs_a_silent_daemon(served: ServedLog, status: Status) -> None:
    served.log.append(signing_body())
    served.log.rewrite_from(1)
    assert run_command(["audit", "--config", str(served.config)]) == 1
    with daemon(served, hang):
        code, told, _ = status()
    assert code == 1
    assert "does not answer" in told
