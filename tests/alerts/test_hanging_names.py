"""A receiver whose name hangs holds the delivery of its channel no longer than the channel's limit."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from alerts.channels.apprise_urls import AppriseChannel
from alerts.channels.channel import DeliveryFailed
from alerts.channels.mail import MailChannel, Security, Server
from outbound.names import OWN, look_up
from tests.support.alerts import NOW, an_alert
from tests.support.channels import channel_of
from tests.support.hanging_names import HangingNames, hanging_names
from tests.support.smtp_server import smtp_server
from tests.support.waiting import PATIENCE

HOST = "receiver.hanging.example"
CHANNELS: dict[str, dict[str, Any]] = {
    "webhook": {"type": "webhook", "url": f"https://{HOST}/x", "unsigned": True},
    "alertmanager": {"type": "alertmanager", "url": f"https://{HOST}"},
    "pagerduty": {"type": "pagerduty", "url": f"https://{HOST}/v2", "routing_key_file": "secret"},
    "github-issues": {
        "type": "github-issues",
        "url": f"https://{HOST}",
        "repository": "acme/app",
        "token_file": "secret",
    },
    "slack": {"type": "slack", "webhook_url_file": "url"},
    "slack bot": {"type": "slack", "token_file": "secret", "channel": "#a", "base_url": f"https://{HOST}/api/"},
    "email": {"type": "email", "host": HOST, "from": "a@example.org", "to": ["b@example.org"]},
}


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[HangingNames]:
    with hanging_names(monkeypatch) as names:
        yield names


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text("a" * 32)
    (tmp_path / "url").write_text(f"https://{HOST}/services/x")
    (tmp_path / "apprise").write_text(f"json://{HOST}/x")
    return tmp_path


@pytest.mark.parametrize("name", CHANNELS)
def test_a_receiver_whose_name_hangs_is_a_failure_to_retry_with_its_name(
    folder: Path, hanging: HangingNames, name: str
) -> None:
    channel = channel_of("hook", {**CHANNELS[name], "timeout_seconds": 1}, folder)
    with pytest.raises(DeliveryFailed, match=rf"the name {HOST} was not resolved") as caught:
        channel.send(an_alert(), "key", NOW)
    assert not caught.value.permanent
    assert hanging.lookups == [HOST]
    assert not hanging.released.is_set()


@pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")
def test_apprise_whose_lookup_hangs_is_left_behind(folder: Path, hanging: HangingNames) -> None:
    pytest.importorskip("apprise", reason="the apprise extra is not installed")
    channel = channel_of("hook", {"type": "apprise", "urls_file": "apprise"}, folder)
    assert isinstance(channel, AppriseChannel)
    with pytest.raises(DeliveryFailed, match=rf"Apprise did not end: .*{HOST}"):
        replace(channel, seconds=0.2).send(an_alert(), "key", NOW)
    assert not hanging.released.is_set()


DRIPPED: dict[str, dict[str, Any]] = {
    "slack": CHANNELS["slack"] | {"allow_private": True, "timeout_seconds": 1},
    "slack bot": CHANNELS["slack bot"] | {"allow_private": True, "timeout_seconds": 1},
    "apprise": {"type": "apprise", "urls_file": "apprise"},
}


@pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")
@pytest.mark.parametrize("name", DRIPPED)
def test_a_receiver_whose_answer_never_ends_takes_no_thread_from_the_lookups(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Else one such receiver keeps every log from being asked, after as many alerts as there are threads."""
    if name == "apprise":
        pytest.importorskip("apprise", reason="the apprise extra is not installed")
    monkeypatch.setattr(OWN, "_most", 1)
    with dripping(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", threading.Event()) as port:
        (folder / "url").write_text(f"http://127.0.0.1:{port}/services/x")
        (folder / "apprise").write_text(f"json://127.0.0.1:{port}/x")
        url = {"base_url": f"http://127.0.0.1:{port}/api/"} if name == "slack bot" else {}
        channel = channel_of("hook", DRIPPED[name] | url, folder)
        if isinstance(channel, AppriseChannel):
            channel = replace(channel, seconds=1.0)
        with pytest.raises(DeliveryFailed, match="not within"):
            channel.send(an_alert(), "key", NOW)
        assert "127.0.0.1" in look_up("localhost", 443, PATIENCE)


def test_a_mail_goes_out_within_its_limit_while_the_name_of_this_machine_hangs(
    hanging: HangingNames, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getfqdn", lambda: hanging.hang("this machine"))
    monkeypatch.setattr("alerts.channels.mail._NAME_SECONDS", 24.0)
    with smtp_server() as box:
        server = Server("127.0.0.1", box.port, Security.NONE, seconds=12.0)
        MailChannel("mail", server, "a@example.org", ("b@example.org",)).send(an_alert(), "key", NOW)
        assert len(box.messages) == 1


def test_a_mail_goes_out_while_the_name_of_this_machine_hangs(
    hanging: HangingNames, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name is for the greeting only. SPEC RFC 5321 4.1.4: an address literal stands in for it."""

    def hang() -> str:
        hanging.hang("this machine")
        return "never.example"

    monkeypatch.setattr(socket, "getfqdn", hang)
    monkeypatch.setattr("alerts.channels.mail._NAME_SECONDS", 0.05)
    with smtp_server() as box:
        server = Server("127.0.0.1", box.port, Security.NONE, seconds=PATIENCE)
        MailChannel("mail", server, "a@example.org", ("b@example.org",)).send(an_alert(), "key", NOW)
        assert box.in_clear[0].upper() == "EHLO [127.0.0.1]"
        assert len(box.messages) == 1


@contextmanager
def dripping(start: bytes, ended: threading.Event) -> Iterator[int]:
    """A server that sends `start` and then a byte now and then, until its client hangs up."""

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        connection.settimeout(PATIENCE)
        with connection, suppress(OSError):
            connection.sendall(start)
            while not ended.wait(0.02):
                connection.sendall(b"2")
            # A whole answer after all: libraries leave a socket unclosed behind one that breaks off.
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(1 << 16):
                pass
        ended.set()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE)
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            ended.set()
            thread.join(PATIENCE)


# The begin of a greeting, and of a record of a TLS handshake.
BEGINS = {Security.NONE: b"220-", Security.STARTTLS: b"220-", Security.TLS: b"\x16\x03\x03\x3f\xff"}


@pytest.mark.parametrize("security", list(Security))
def test_a_mail_server_whose_greeting_never_ends_is_left_at_the_deadline(security: Security) -> None:
    ended = threading.Event()
    # An end of the server would end the conversation as well; a conversation without a limit waits for it.
    stop = threading.Timer(PATIENCE, ended.set)
    stop.daemon = True
    with dripping(BEGINS[security], ended) as port:
        stop.start()
        server = Server("127.0.0.1", port, security, context=ssl.create_default_context(), seconds=0.3)
        channel = MailChannel("mail", server, "a@example.org", ("b@example.org",))
        with pytest.raises(DeliveryFailed):
            channel.send(an_alert(), "key", NOW)
        assert not stop.finished.is_set(), "the client hung up first"
        stop.cancel()
