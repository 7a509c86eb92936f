"""The CA waits for no server longer than it said, however the answer trickles in."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from outbound.json_client import JsonClient, Outage
from outbound.transport import believed
from tests.support.waiting import PATIENCE

_PIECES = 60
HEADERS = b"HTTP/1.1 200 OK\r\nX-Slow: "
REST = b"\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"


def _trickle(listening: socket.socket, pause: float) -> None:
    """Answer one connection, one byte of a header at a time."""
    connection, _ = listening.accept()
    with connection:
        connection.recv(4096)
        try:
            connection.sendall(HEADERS)
            for _ in range(_PIECES):
                connection.sendall(b"a")
                time.sleep(pause)
            connection.sendall(REST)
        except OSError:
            return


@pytest.fixture(params=[0.0, 0.05], ids=["at once", "slowly"])
def server(request: pytest.FixtureRequest) -> Iterator[tuple[str, bool]]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(PATIENCE)
        thread = threading.Thread(target=_trickle, args=(listening, request.param), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/x", request.param > 0
        thread.join(PATIENCE)


@pytest.mark.parametrize("url", ["https://localhost/\ud800", "https://\ud800/", "https://[::1", "ftp://localhost/"])
def test_an_address_of_a_server_that_is_no_url_is_an_outage(url: str) -> None:
    """A discovery document names addresses; its JSON can hold half of a surrogate pair."""
    with JsonClient(believed(None)) as client, pytest.raises(Outage) as refused:
        client.request_json(url, limit=100, seconds=PATIENCE)
    assert str(refused.value).isprintable()


def test_an_answer_whose_headers_trickle_in_is_an_outage(server: tuple[str, bool]) -> None:
    url, is_slow = server
    with JsonClient(believed(None)) as client:
        if not is_slow:
            assert client.request_json(url, limit=100, seconds=PATIENCE) == (200, {}), "control"
            return
        with pytest.raises(Outage, match="no complete answer within"):
            client.request_json(url, limit=100, seconds=0.5)
