"""Each channel against a real receiver on loopback: what arrives, and what is said when it does not."""

import base64
import hashlib
import hmac
import io
import json
import os
import socket
import ssl
import stat
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pytest_httpserver import HTTPServer
from werkzeug import Response

from alerts.channels.channel import Channel, DeliveryFailed
from alerts.channels.guarded_http import GuardedPoster, check_url
from alerts.channels.stdout import StdoutChannel
from outbound.transport import parse_retry_after
from settings.document import Misplaced
from tests.support.alerts import NOW, an_alert
from tests.support.channels import channel_of
from tests.support.contracts import keep_their_contracts
from tests.support.log_server import free_port
from tests.support.smtp_server import Mailbox, smtp_server

KEY = "rekor-v2/1/acme-release:hook"
SECRET = b"0123456789abcdef0123456789abcdef"


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    (tmp_path / "webhook").write_text("whsec_" + base64.b64encode(SECRET).decode() + "\n")
    (tmp_path / "password").write_text("hunter2\n")
    (tmp_path / "routing").write_text("r" * 32)
    (tmp_path / "token").write_text("xoxb-1-2\n")
    return tmp_path


@pytest.fixture(scope="module")
def server() -> Iterator[HTTPServer]:
    with HTTPServer(host="127.0.0.1", port=0) as running:
        yield running


@pytest.fixture
def receiver(server: HTTPServer) -> Iterator[HTTPServer]:
    server.clear()
    yield server
    keep_their_contracts(request for request, _ in server.log)


def build(base: Path, **settings: Any) -> Channel:
    return channel_of("hook", settings, base)


def hook(base: Path, receiver: HTTPServer, **more: Any) -> Channel:
    url = receiver.url_for("/hook")
    return build(base, type="webhook", url=url, secret_file="webhook", allow_private=True, **more)


def failure(channel: Channel) -> DeliveryFailed:
    with pytest.raises(DeliveryFailed) as caught:
        channel.send(an_alert(), KEY, NOW)
    return caught.value


# --- standard output and files ---------------------------------------------------------------------------------------


def test_stdout_writes_a_page_or_a_json_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    build(tmp_path, type="stdout").send(an_alert(), KEY, NOW)
    assert capsys.readouterr().out.startswith("[page] Unexpected signing as release@acme.example\n")
    build(tmp_path, type="stdout", format="json").send(an_alert(), KEY, NOW)
    assert json.loads(capsys.readouterr().out)["key"] == KEY


def test_stdout_copes_with_a_terminal_that_knows_only_ascii_and_one_that_is_gone() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    StdoutChannel("console", stream=stream).send(an_alert(title="Zoë"), KEY, NOW)
    assert b"Zo\\xeb" in raw.getvalue()
    stream.close()
    with pytest.raises(DeliveryFailed, match="closed"):
        StdoutChannel("console", stream=stream).send(an_alert(), KEY, NOW)


def test_a_file_is_appended_to_and_private(tmp_path: Path) -> None:
    channel = build(tmp_path, type="jsonl", path="alerts.jsonl")
    for number in (1, 2):
        channel.send(an_alert(number), f"key-{number}", NOW)
    lines = (tmp_path / "alerts.jsonl").read_text().splitlines()
    assert [json.loads(line)["index"] for line in lines] == [1, 2]
    assert stat.S_IMODE((tmp_path / "alerts.jsonl").stat().st_mode) == 0o600


def test_half_a_line_left_by_a_crash_spoils_only_itself(tmp_path: Path) -> None:
    (tmp_path / "alerts.jsonl").write_text('{"id":"old"}\n{"id":"ha')
    build(tmp_path, type="jsonl", path="alerts.jsonl").send(an_alert(), KEY, NOW)
    lines = (tmp_path / "alerts.jsonl").read_text().splitlines()
    assert lines[:2] == ['{"id":"old"}', '{"id":"ha']
    assert json.loads(lines[2])["key"] == KEY


def test_a_file_that_cannot_be_written_is_a_failure_that_names_it(tmp_path: Path) -> None:
    assert "nowhere" in str(failure(build(tmp_path, type="jsonl", path="nowhere/alerts.jsonl")))
    (tmp_path / "elsewhere").write_text("")
    (tmp_path / "link").symlink_to("elsewhere")
    failure(build(tmp_path, type="jsonl", path="link"))
    assert (tmp_path / "elsewhere").read_text() == ""


def test_a_full_disk_is_a_failure(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    assert os.strerror(28) in str(failure(build(tmp_path, type="jsonl", path="/dev/full")))


# --- webhook ---------------------------------------------------------------------------------------------------------


def test_a_webhook_is_signed_so_that_its_receiver_can_check_it(secrets: Path, receiver: HTTPServer) -> None:
    receiver.expect_request("/hook", method="POST").respond_with_data("ok")
    hook(secrets, receiver).send(an_alert(), KEY, NOW)
    headers, body = receiver.log[0][0].headers, receiver.log[0][0].get_data()
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(SECRET, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert headers["webhook-id"] == KEY
    assert headers["webhook-timestamp"] == str(int(NOW.timestamp()))
    assert headers["host"] == f"127.0.0.1:{receiver.port}"
    document = json.loads(body)
    assert document["type"] == "signwatch.unexpected-signing"
    assert document["data"]["id"] == an_alert().id
    assert document["data"]["key"] == KEY


def test_the_published_standard_webhooks_vector_gives_its_signature() -> None:
    """The example of the Standard Webhooks reference libraries."""
    from alerts.channels.webhook import decode_secret, sign  # noqa: PLC0415 - only here

    secret = decode_secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    assert sign(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body) == (
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    )


@pytest.mark.parametrize(
    ("status", "permanent"),
    [(301, False), (302, False), (307, False), (400, True), (401, False), (404, False), (410, True), (500, False)],
)
def test_anything_but_success_is_a_failure(secrets: Path, receiver: HTTPServer, status: int, permanent: bool) -> None:
    """A redirect too: it is not followed, wherever it leads."""
    headers = {"location": receiver.url_for("/elsewhere")}
    receiver.expect_request("/hook").respond_with_data("no\x1b[31m", status=status, headers=headers)
    receiver.expect_request("/elsewhere").respond_with_data("ok")
    failed = failure(hook(secrets, receiver))
    assert failed.permanent is permanent
    assert f"HTTP {status}" in str(failed)
    assert "\x1b" not in str(failed)
    assert [request.path for request, _ in receiver.log] == ["/hook"]


def test_too_many_requests_tells_how_long_to_wait(secrets: Path, receiver: HTTPServer) -> None:
    receiver.expect_request("/hook").respond_with_data("", status=429, headers={"retry-after": "120"})
    failed = failure(hook(secrets, receiver))
    assert (failed.permanent, failed.retry_after) == (False, timedelta(minutes=2))


@pytest.mark.parametrize(
    ("value", "wait"),
    [
        ("120", timedelta(seconds=120)),
        ("Sun, 01 Mar 2026 12:10:00 GMT", timedelta(minutes=10)),
        ("Sun, 01 Mar 2026 11:00:00 GMT", timedelta(0)),
        (None, None),
        ("", None),
        ("-5", None),
        ("٤٢", None),
        ("9" * 400, None),
        ("soon", None),
    ],
)
def test_retry_after_is_read_strictly(value: str | None, wait: timedelta | None) -> None:
    assert parse_retry_after(value, NOW) == wait


def test_a_flooding_answer_is_cut(secrets: Path, receiver: HTTPServer) -> None:
    def flood() -> Iterator[bytes]:
        for _ in range(400):
            yield b"x" * 1024 * 1024

    receiver.expect_request("/hook").respond_with_handler(lambda request: Response(flood(), 200))
    hook(secrets, receiver).send(an_alert(), KEY, NOW)


def test_a_dripping_receiver_is_left_at_the_deadline(secrets: Path) -> None:
    """Each byte comes in time, the whole answer never does: headers without end."""
    stop = threading.Event()
    with closing(socket.create_server(("127.0.0.1", 0))) as server:

        def drip() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
                for _ in range(600):
                    if stop.wait(0.05):
                        return
                    try:
                        connection.sendall(b"x")
                    except OSError:
                        return

        thread = threading.Thread(target=drip)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/hook"
        channel = build(secrets, type="webhook", url=url, secret_file="webhook", allow_private=True, timeout_seconds=1)
        try:
            assert "no complete answer within 1 s" in str(failure(channel))
        finally:
            stop.set()
            thread.join(timeout=10)


def test_nobody_listening_is_a_failure_to_retry(secrets: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}/"
    failed = failure(build(secrets, type="webhook", url=url, secret_file="webhook", allow_private=True))
    assert not failed.permanent


PRIVATE = [
    *("127.0.0.1", "127.9.9.9", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"),
    *("::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "224.0.0.1", "ff02::1"),
    *("64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2002:a9fe:a9fe::", "255.255.255.255", "192.0.2.1"),
]


@pytest.mark.parametrize("address", PRIVATE)
def test_a_name_that_leads_to_a_private_address_is_refused_when_connecting(address: str) -> None:
    poster = GuardedPoster(resolver=lambda host, port, seconds: [address])
    with pytest.raises(DeliveryFailed, match="no public address"):
        poster.post("https://hooks.example/x", b"{}", {}, NOW)


def test_a_name_that_changes_its_mind_is_connected_to_where_it_was_checked(receiver: HTTPServer) -> None:
    """DNS rebinding: the name is resolved once, and what was checked is what is connected to."""
    receiver.expect_request("/x").respond_with_data("ok")
    asked: list[str] = []

    def resolver(host: str, port: int, seconds: float | None) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"]

    poster = GuardedPoster(allow_private=True, resolver=resolver)
    poster.post(f"http://name-that-does-not-exist.invalid:{receiver.port}/x", b"{}", {}, NOW)
    assert asked == ["name-that-does-not-exist.invalid"]
    assert receiver.log[0][0].headers["host"] == f"name-that-does-not-exist.invalid:{receiver.port}"


def test_of_mixed_addresses_only_a_public_one_is_tried() -> None:
    poster = GuardedPoster(resolver=lambda host, port, seconds: ["127.0.0.1", "::1"])
    with pytest.raises(DeliveryFailed, match="leads to no public address"):
        poster.post("https://hooks.example/", b"{}", {}, NOW)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://hooks.example/x", ""),
        ("https://8.8.8.8/x", ""),
        ("http://hooks.example/x", "must be https"),
        ("https://user:password@hooks.example/x", "user name"),
        ("ftp://hooks.example/x", "http(s) URL"),
        ("file:///etc/passwd", "http(s) URL"),
        ("https:///x", "http(s) URL"),
        ("https://hooks.example:0/", "http(s) URL"),
        ("https://hooks.example:99999/", "not a URL"),
        ("https://[::1]/", "not public"),
        ("https://169.254.169.254/latest/meta-data", "not public"),
        ("https://[::ffff:10.0.0.1]/", "not public"),
        ("", "http(s) URL"),
    ],
)
def test_a_url_is_checked_before_anything_is_sent(url: str, said: str) -> None:
    problem = check_url(url, allow_private=False)
    assert (problem == "") is (said == "")
    assert said in problem


def test_a_rotated_secret_is_used_at_once_and_a_lost_one_is_a_failure(secrets: Path, receiver: HTTPServer) -> None:
    receiver.expect_request("/hook").respond_with_data("ok")
    channel = hook(secrets, receiver)
    channel.send(an_alert(), KEY, NOW)
    (secrets / "webhook").write_text("whsec_" + base64.b64encode(b"z" * 32).decode())
    channel.send(an_alert(), KEY, NOW)
    first, second = (request.headers["webhook-signature"] for request, _ in receiver.log)
    assert first != second
    (secrets / "webhook").unlink()
    assert "cannot be read" in str(failure(channel))


# --- Slack and PagerDuty ---------------------------------------------------------------------------------------------


def slack_webhook(secrets: Path, receiver: HTTPServer) -> Channel:
    (secrets / "slack").write_text(receiver.url_for("/services/T/B/x"))
    return build(secrets, type="slack", webhook_url_file="slack", allow_private=True)


def test_slack_gets_blocks_and_an_escaped_notification(secrets: Path, receiver: HTTPServer) -> None:
    receiver.expect_request("/services/T/B/x", method="POST").respond_with_data("ok")
    slack_webhook(secrets, receiver).send(an_alert(title="<!channel> & co"), KEY, NOW)
    document = json.loads(receiver.log[0][0].get_data())
    assert document["text"] == "[page] &lt;!channel&gt; &amp; co"
    assert document["blocks"][0]["text"]["text"] == "🔴 <!channel> & co"
    assert document["blocks"][0]["text"]["type"] == "plain_text"


def test_slack_saying_later_is_a_failure_with_its_wait(secrets: Path, receiver: HTTPServer) -> None:
    receiver.expect_request("/services/T/B/x").respond_with_data("slow", status=429, headers={"Retry-After": "30"})
    failed = failure(slack_webhook(secrets, receiver))
    assert (failed.permanent, failed.retry_after) == (False, timedelta(seconds=30))
    assert len(receiver.log) == 1, "the client must not retry by itself"


def test_slack_refusing_the_blocks_is_permanent_and_shows_no_secret(secrets: Path, receiver: HTTPServer) -> None:
    receiver.expect_request("/services/T/B/x").respond_with_data("invalid_blocks", status=400)
    failed = failure(slack_webhook(secrets, receiver))
    assert failed.permanent
    assert "/services/" not in str(failed)


def slack_bot(secrets: Path, receiver: HTTPServer) -> Channel:
    base_url = receiver.url_for("/api/")
    return build(secrets, type="slack", token_file="token", channel="#alerts", base_url=base_url, allow_private=True)


def test_a_slack_bot_posts_to_its_channel(secrets: Path, receiver: HTTPServer) -> None:
    receiver.expect_request("/api/chat.postMessage").respond_with_json({"ok": True})
    slack_bot(secrets, receiver).send(an_alert(), KEY, NOW)
    request = receiver.log[0][0]
    assert request.headers["authorization"] == "Bearer xoxb-1-2"
    document = json.loads(request.get_data())
    assert (document["channel"], document["link_names"], document["parse"]) == ("#alerts", False, "none")


@pytest.mark.parametrize(
    ("answer", "permanent", "wait"),
    [
        (({"ok": False, "error": "invalid_blocks"}, 200, {}), True, None),
        (({"ok": False, "error": "channel_not_found"}, 200, {}), False, None),
        (({"ok": False, "error": "invalid_auth"}, 200, {}), False, None),
        (({"ok": False, "error": "ratelimited"}, 429, {"Retry-After": "7"}), False, timedelta(seconds=7)),
        (({"ok": False, "error": "internal_error"}, 500, {}), False, None),
    ],
)
def test_a_slack_bots_refusals_are_told_apart(
    secrets: Path, receiver: HTTPServer, answer: tuple[Any, int, Mapping[str, str]], permanent: bool, wait: Any
) -> None:
    document, status, headers = answer
    receiver.expect_request("/api/chat.postMessage").respond_with_json(document, status=status, headers=headers)
    failed = failure(slack_bot(secrets, receiver))
    assert (failed.permanent, failed.retry_after) == (permanent, wait)
    assert "xoxb" not in str(failed)


def test_slack_answering_nonsense_is_a_failure_not_a_crash(secrets: Path, receiver: HTTPServer) -> None:
    receiver.expect_request("/api/chat.postMessage").respond_with_data("<html>proxy</html>")
    assert not failure(slack_bot(secrets, receiver)).retry_after


def test_pagerduty_gets_one_incident_per_key(secrets: Path, receiver: HTTPServer) -> None:
    receiver.expect_request("/v2/enqueue", method="POST").respond_with_json({"status": "success"}, status=202)
    url = receiver.url_for("/v2/enqueue")
    channel = build(secrets, type="pagerduty", routing_key_file="routing", url=url, allow_private=True)
    channel.send(an_alert(), KEY, NOW)
    document = json.loads(receiver.log[0][0].get_data())
    assert (document["dedup_key"], document["event_action"], document["routing_key"]) == (KEY, "trigger", "r" * 32)
    assert document["payload"]["severity"] == "critical"
    assert "identity: release@acme.example" in document["payload"]["custom_details"]["facts"]["facts"]


# --- e-mail ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tls_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for localhost."""
    folder, key = tmp_path_factory.mktemp("tls"), ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW - timedelta(days=3650))
        .not_valid_after(NOW + timedelta(days=36500))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "ca.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (folder / "key.pem").write_bytes(key.private_bytes(pem, pkcs8, serialization.NoEncryption()))
    return folder


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    with smtp_server() as box:
        yield box


@pytest.fixture
def secure_mailbox(tls_files: Path) -> Iterator[Mailbox]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls_files / "ca.pem", tls_files / "key.pem")
    with smtp_server(context) as box:
        yield box


def mail(base: Path, box: Mailbox, **more: Any) -> Channel:
    settings = {"host": "localhost", "port": box.port, "security": "none", "from": "watch@example.org"}
    return build(base, type="email", **{**settings, "to": ["a@example.org", "b@example.org"], **more})


def test_a_mail_holds_the_page_as_text_and_html(tmp_path: Path, mailbox: Mailbox) -> None:
    mail(tmp_path, mailbox).send(an_alert(), KEY, NOW)
    message = mailbox.messages[0]
    assert message["Subject"] == "[page] Unexpected signing as release@acme.example"
    assert message["From"] == "Signwatch <watch@example.org>"
    assert mailbox.recipients == [["a@example.org", "b@example.org"]]
    text, html = message.get_body(("plain",)), message.get_body(("html",))
    assert text is not None
    assert html is not None
    assert "What to do" in text.get_content()
    assert "<h1" in html.get_content()


def test_the_same_key_is_the_same_message_id(tmp_path: Path, mailbox: Mailbox) -> None:
    for key in (KEY, KEY, "other"):
        mail(tmp_path, mailbox).send(an_alert(), key, NOW)
    first, again, other = (message["Message-ID"] for message in mailbox.messages)
    assert first == again != other


def test_a_subject_cannot_smuggle_headers_or_recipients(tmp_path: Path, mailbox: Mailbox) -> None:
    title = "x\r\nBcc: everybody@example.org\r\n\r\n.\r\nRCPT TO:<evil@example.org>"
    mail(tmp_path, mailbox).send(an_alert(title=title, summary=".\r\n.\r\nQUIT"), KEY, NOW)
    assert mailbox.messages[0]["Bcc"] is None
    assert mailbox.recipients == [["a@example.org", "b@example.org"]]


def test_a_password_travels_only_inside_tls(secrets: Path, tls_files: Path, secure_mailbox: Mailbox) -> None:
    ca = str(tls_files / "ca.pem")
    more = {"username": "watch", "password_file": "password", "security": "starttls", "ca_file": ca}
    mail(secrets, secure_mailbox, **more).send(an_alert(), KEY, NOW)
    assert secure_mailbox.logins == [("watch", "hunter2")]
    assert len(secure_mailbox.messages) == 1
    assert [line.split()[0].upper() for line in secure_mailbox.in_clear] == ["EHLO", "STARTTLS"]


def test_a_server_nobody_vouches_for_gets_nothing(secrets: Path, secure_mailbox: Mailbox) -> None:
    more = {"username": "watch", "password_file": "password", "security": "starttls"}
    assert "CERTIFICATE_VERIFY_FAILED" in str(failure(mail(secrets, secure_mailbox, **more)))
    assert secure_mailbox.logins == []
    assert secure_mailbox.messages == []


def test_a_server_without_starttls_gets_nothing(secrets: Path, mailbox: Mailbox) -> None:
    """A machine on the path may have removed the offer."""
    more = {"username": "watch", "password_file": "password", "security": "starttls"}
    assert "STARTTLS" in str(failure(mail(secrets, mailbox, **more)))
    assert (mailbox.logins, mailbox.messages) == ([], [])


@pytest.mark.parametrize(
    ("refusals", "permanent"),
    [
        ({"EHLO": "421 busy", "HELO": "421 busy"}, False),
        ({"MAIL": "550 who?"}, False),
        ({"RCPT": "550 nobody"}, False),
        ({"DATA": "451 later"}, False),
        ({"END": "452 full"}, False),
        ({"END": "554 looks like spam"}, True),
    ],
)
def test_a_mail_servers_refusals_are_told_apart(
    tmp_path: Path, mailbox: Mailbox, refusals: dict[str, str], permanent: bool
) -> None:
    mailbox.refusals = refusals
    assert failure(mail(tmp_path, mailbox)).permanent is permanent
    assert mailbox.messages == []


def test_a_server_that_vanishes_after_the_data_leaves_us_in_doubt_and_the_repeat_has_the_same_id(
    tmp_path: Path, mailbox: Mailbox
) -> None:
    mailbox.hang_up_after_data = True
    failure(mail(tmp_path, mailbox))
    mailbox.hang_up_after_data = False
    mail(tmp_path, mailbox).send(an_alert(), KEY, NOW)
    first, again = mailbox.messages
    assert first["Message-ID"] == again["Message-ID"]


def test_one_bad_recipient_does_not_cost_the_others_their_mail(tmp_path: Path, mailbox: Mailbox) -> None:
    mailbox.refused_recipients = {"a@example.org": "550 nobody"}
    mail(tmp_path, mailbox).send(an_alert(), KEY, NOW)
    assert mailbox.recipients == [["b@example.org"]]
    mailbox.refused_recipients = {"a@example.org": "451 later"}
    assert "put off a@example.org" in str(failure(mail(tmp_path, mailbox)))


def test_a_silent_mail_server_is_left_at_the_deadline(tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        box = Mailbox(port=server.getsockname()[1])
        assert not failure(mail(tmp_path, box, host="127.0.0.1", timeout_seconds=1)).permanent


# --- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")
def test_apprise_reads_its_urls_from_a_file(secrets: Path, receiver: HTTPServer) -> None:
    pytest.importorskip("apprise", reason="the apprise extra is not installed")
    receiver.expect_request("/notify").respond_with_data("ok")
    (secrets / "urls").write_text(f"# ours\njson://127.0.0.1:{receiver.port}/notify\n")
    build(secrets, type="apprise", urls_file="urls").send(an_alert(title="@everyone <b>"), KEY, NOW)
    document = json.loads(receiver.log[0][0].get_data())
    assert document["title"] == "(page) @\u2060everyone \u2039b\u203a"
    (secrets / "urls").write_text("nonsense\n")
    assert "line 1" in str(failure(build(secrets, type="apprise", urls_file="urls")))


MAIL = {"type": "email", "host": "h", "from": "a@b.example", "to": "c@d.example"}
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no type": (
        {},
        "must be one of alertmanager, apprise, command, email, github-issues, jsonl, pagerduty, slack, stdout, webhook",
    ),
    "unknown type": ({"type": "pigeon"}, "must be one of"),
    "type is a list": ({"type": ["stdout"]}, "must be one of"),
    "unknown key": ({"type": "stdout", "colour": True}, "has no key 'colour': known keys: "),
    "wrong choice": ({"type": "stdout", "format": "xml"}, "is not one of: text, json"),
    "missing path": ({"type": "jsonl"}, "'path' is missing"),
    "path is a list": ({"type": "jsonl", "path": ["a"]}, "one text"),
    "path with a newline": ({"type": "jsonl", "path": "a\nb"}, "line break"),
    "no template file": ({"type": "stdout", "text_template": "none.j2"}, "cannot be read"),
    "webhook unsigned": ({"type": "webhook", "url": "https://h.example/"}, "unsigned: true"),
    "webhook inline secret": ({"type": "webhook", "url": "https://h.example/", "secret": "x"}, "secret_file"),
    "webhook secret too weak": (
        {"type": "webhook", "url": "https://h.example/", "secret_file": "password"},
        "openssl rand",
    ),
    "webhook over http": ({"type": "webhook", "url": "http://h.example/", "secret_file": "webhook"}, "must be https"),
    "webhook to metadata": ({"type": "webhook", "url": "https://169.254.169.254/", "unsigned": True}, "not public"),
    "flag as text": ({"type": "webhook", "url": "https://h.example/", "unsigned": "yes"}, "true or false"),
    "timeout too long": ({"type": "webhook", "url": "https://h.example/", "timeout_seconds": 1e9}, "from 1 to 120"),
    "timeout as bool": ({"type": "webhook", "url": "https://h.example/", "timeout_seconds": True}, "from 1 to 120"),
    "slack without anything": ({"type": "slack"}, "webhook_url_file"),
    "slack bot without channel": ({"type": "slack", "token_file": "token"}, "channel (slack): is required"),
    "slack file is no url": ({"type": "slack", "webhook_url_file": "token"}, "its URL"),
    "missing secret file": ({"type": "pagerduty", "routing_key_file": "none"}, "cannot be read"),
    "empty secret file": ({"type": "pagerduty", "routing_key_file": "empty"}, "is empty"),
    "mail without recipients": ({"type": "email", "host": "h", "from": "a@b.example", "to": []}, "an empty list"),
    "mail to nobody": ({"type": "email", "host": "h", "from": "a@b.example", "to": "nobody"}, "not an e-mail address"),
    "mail header injection": (
        {"type": "email", "host": "h", "from": "a@b.example", "to": "c@d.example\r\nBcc: e@f.example"},
        "control character",
    ),
    "mail password in clear": (
        {"type": "email", "host": "h", "from": "a@b.example", "to": "c@d.example"}
        | {"username": "u", "password_file": "password", "security": "none"},
        "in clear",
    ),
    "mail user without password": (
        {**MAIL, "username": "u"},
        "password_file",
    ),
    "no such ca file": (
        {**MAIL, "ca_file": "none.pem"},
        "PEM",
    ),
}


def test_a_good_setting_builds(secrets: Path) -> None:
    for settings in ({"type": "stdout"}, {"type": "webhook", "url": "https://h.example/", "unsigned": True}):
        assert channel_of("ok", settings, secrets).name == "ok"


@pytest.mark.parametrize(("settings", "said"), BAD.values(), ids=BAD)
def test_a_wrong_setting_is_refused_with_what_to_write_instead(
    secrets: Path, settings: dict[str, Any], said: str
) -> None:
    (secrets / "empty").write_text(" \n")
    with pytest.raises(Misplaced) as caught:
        channel_of("hook", settings, secrets)
    assert said in str(caught.value)
    assert "channels.hook" in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "a b", "a:b", "a\nb", "-a", "x" * 64, "ü"])
def test_a_channels_name_is_plain(name: str) -> None:
    with pytest.raises(Misplaced, match="channel name"):
        channel_of(name, {"type": "stdout"})
