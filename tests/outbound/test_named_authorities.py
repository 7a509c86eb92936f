"""An authority that an operator names is believed on every supported Python, and no other is."""

import os
import socket
import ssl
import subprocess
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Barrier, Thread
from urllib.parse import urlsplit

import certifi
import pytest

from monitor.http_fetcher import Expect, HttpFetcher
from monitor.model.errors import OwnFault
from outbound import transport
from outbound.json_client import JsonClient, Outage
from outbound.named_authorities import believing
from outbound.transport import Tls, believed
from tests.packaging.test_house import sources
from tests.support.private_network import Front, private_ca, tls_front
from tests.support.pythons import ROOT, python, supported
from tests.support.waiting import PATIENCE

# Nothing listens there: the handshake is over before it would be asked.
_PLAIN = "http://127.0.0.1:9"
_CLIENTS = 8
_SHAKE_HANDS = """
import socket, sys
from pathlib import Path
from outbound.named_authorities import believing
how, file, port = sys.argv[1:]
context = believing(file=file) if how == "file" else believing(pem=Path(file).read_text())
with socket.create_connection(("127.0.0.1", int(port)), 60) as plain:
    with context.wrap_socket(plain, server_hostname="localhost"):
        print("believed")
"""


def shake_hands(version: str, how: str, authority: Path, front: Front) -> subprocess.CompletedProcess[str]:
    """What another Python says of a server: that room needs nothing but the standard library."""
    return subprocess.run(
        [python(version), "-B", "-c", _SHAKE_HANDS, how, str(authority), str(urlsplit(front.url).port)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.mark.parametrize("how", ["file", "pem"])
@pytest.mark.parametrize("version", supported())
def test_an_authority_without_a_key_usage_is_believed_when_it_is_named(version: str, how: str, tmp_path: Path) -> None:
    ca, other = private_ca(tmp_path), private_ca(tmp_path, "other")
    with tls_front(ca, _PLAIN) as front:
        told = shake_hands(version, how, ca.file, front)
        assert told.stdout == "believed\n", told.stderr
        refused = shake_hands(version, how, other.file, front)
        assert refused.stdout == ""
        assert "CERTIFICATE_VERIFY_FAILED" in refused.stderr


def test_of_a_named_authority_all_else_is_checked(tmp_path: Path) -> None:
    context = believing(file=private_ca(tmp_path).file)
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert [each["subject"] for each in context.get_ca_certs()] == [((("commonName", "ca root"),),)]


def test_named_authorities_are_believed_by_no_other_means() -> None:
    elsewhere = [
        path
        for path, text in sources()
        if "create_default_context(c" in text and path != "outbound/named_authorities.py"
    ]
    assert elsewhere == []


def test_all_clients_share_one_list_of_the_usual_authorities() -> None:
    transport._usual_authorities.cache_clear()
    at_once = Barrier(_CLIENTS)

    def connect(_: int) -> ssl.SSLContext:
        tls = believed(None)
        at_once.wait(30)
        return tls()

    with ThreadPoolExecutor(_CLIENTS) as pool:
        made = list(pool.map(connect, range(_CLIENTS)))
    assert len({id(each) for each in made}) == 1


def test_a_client_reads_no_authorities_before_its_first_connection_over_tls() -> None:
    transport._usual_authorities.cache_clear()
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server, JsonClient(believed(None)) as client:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            place = f"127.0.0.1:{server.server_port}/"
            assert client.request_json(f"http://{place}", limit=4_096, seconds=PATIENCE)[0] == 501
            assert transport._usual_authorities.cache_info().currsize == 0
            with pytest.raises(Outage):
                client.request_json(f"https://{place}", limit=4_096, seconds=PATIENCE)
            assert transport._usual_authorities.cache_info().currsize == 1
        finally:
            server.shutdown()


@pytest.fixture
def without_authorities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's list of authorities was removed, as an upgrade of its package does while a daemon runs."""
    monkeypatch.setattr(certifi, "where", lambda: str(tmp_path / "cacert.pem"))
    transport._usual_authorities.cache_clear()


@pytest.mark.usefixtures("without_authorities")
@pytest.mark.parametrize("proxy", [None, _PLAIN], ids=["direct", "proxy"])
def test_authorities_that_cannot_be_read_are_our_own_fault_and_no_outage_of_the_log(proxy: str | None) -> None:
    with pytest.raises(OwnFault, match="usual certificate authorities cannot be read: No such file"):
        HttpFetcher("https://127.0.0.1:9", proxy=proxy).get("x", max_bytes=10, expect=Expect.BYTES)


@pytest.mark.usefixtures("without_authorities")
def test_a_service_is_not_reached_without_authorities() -> None:
    with JsonClient(believed(None)) as client, pytest.raises(Outage, match="usual certificate authorities"):
        client.request_json("https://127.0.0.1:9", limit=10, seconds=PATIENCE)


class Counted(ssl.SSLContext):
    """Counts the changes of its protocols."""

    changes = 0

    def set_alpn_protocols(self, alpn_protocols: Iterable[str]) -> None:
        self.changes += 1
        super().set_alpn_protocols(alpn_protocols)


def test_a_context_that_threads_share_is_changed_by_no_connection(tmp_path: Path) -> None:
    # "It is thread-safe as long as it is not reconfigured after being used by a connection" (Python's ssl).
    ca, context = private_ca(tmp_path), Counted(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(ca.file)
    with tls_front(ca, _PLAIN) as front, JsonClient(lambda: context) as client:
        for _ in range(2):
            with pytest.raises(Outage):
                client.request_json(front.url, limit=10, seconds=PATIENCE)
        assert front.served == 2, "control: both connections were made"
    assert context.changes == 0


def test_every_client_offers_http_1_1_alone(tmp_path: Path) -> None:
    ca = private_ca(tmp_path)
    ca.context.set_alpn_protocols(["h2", "http/1.1"])
    named: list[Tls] = [believed(str(ca.file)), believed(None, pem=ca.file.read_text())]
    with tls_front(ca, _PLAIN) as front:
        for tls in named:
            with (
                socket.create_connection(("127.0.0.1", urlsplit(front.url).port or 0), PATIENCE) as plain,
                tls().wrap_socket(plain, server_hostname="localhost") as secure,
            ):
                assert secure.selected_alpn_protocol() == "http/1.1"
