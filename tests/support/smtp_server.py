"""A small real SMTP server on loopback: EHLO, STARTTLS, AUTH PLAIN, MAIL, RCPT, DATA, with faults to choose."""

import base64
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default

_MAX_LINE = 100_000
_MAX_LINES = 20_000


@dataclass
class Mailbox:
    """What arrived, and what to answer. `refusals` maps a command word (or `END`, after the data) to a reply."""

    messages: list[EmailMessage] = field(default_factory=list)
    recipients: list[list[str]] = field(default_factory=list)
    logins: list[tuple[str, str]] = field(default_factory=list)
    in_clear: list[str] = field(default_factory=list)
    refusals: dict[str, str] = field(default_factory=dict)
    refused_recipients: dict[str, str] = field(default_factory=dict)
    hang_up_after_data: bool = False
    tls: ssl.SSLContext | None = None
    port: int = 0


class _Session(socketserver.StreamRequestHandler):
    server: "_Server"
    timeout = 10

    def handle(self) -> None:
        self.box, self.to, self.secure = self.server.box, list[str](), False
        self.reply("220 localhost ready")
        for _ in range(_MAX_LINES):
            line = self.rfile.readline(_MAX_LINE).decode("utf-8", "replace").rstrip("\r\n")
            word = line.partition(" ")[0].upper()
            if not line:
                return
            if not self.secure:
                self.box.in_clear.append(line)
            if word in self.box.refusals:
                self.reply(self.box.refusals[word])
            elif not getattr(self, f"do_{word.lower()}", self.unknown)(line):
                return

    def finish(self) -> None:
        super().finish()
        # Where TLS replaced the socket, the server closes only the one it accepted.
        self.connection.close()

    def reply(self, line: str) -> bool:
        self.wfile.write(line.encode() + b"\r\n")
        return True

    def unknown(self, line: str) -> bool:
        return self.reply("502 what?")

    def do_ehlo(self, line: str) -> bool:
        self.reply("250-localhost")
        if self.box.tls is not None and not self.secure:
            self.reply("250-STARTTLS")
        return self.reply("250 AUTH PLAIN")

    def do_starttls(self, line: str) -> bool:
        assert self.box.tls is not None
        self.reply("220 go ahead")
        self.connection = self.box.tls.wrap_socket(self.connection, server_side=True)
        self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", buffering=0)
        self.secure = True
        return True

    def do_auth(self, line: str) -> bool:
        _, user, password = base64.b64decode(line.split()[2]).decode().split("\0")
        self.box.logins.append((user, password))
        return self.reply("235 welcome")

    def do_mail(self, line: str) -> bool:
        self.to = []
        return self.reply("250 ok")

    def do_rcpt(self, line: str) -> bool:
        address = line.partition("<")[2].partition(">")[0]
        if address in self.box.refused_recipients:
            return self.reply(self.box.refused_recipients[address])
        self.to.append(address)
        return self.reply("250 ok")

    def do_rset(self, line: str) -> bool:
        return self.reply("250 ok")

    def do_data(self, line: str) -> bool:
        self.reply("354 go on")
        lines = []
        for _ in range(_MAX_LINES):
            received = self.rfile.readline(_MAX_LINE)
            if received in {b".\r\n", b""}:
                break
            lines.append(received.removeprefix(b"."))
        if "END" in self.box.refusals:
            return self.reply(self.box.refusals["END"])
        self.box.messages.append(message_from_bytes(b"".join(lines), policy=default))
        self.box.recipients.append(self.to)
        if self.box.hang_up_after_data:
            return False
        return self.reply("250 taken")

    def do_quit(self, line: str) -> bool:
        self.reply("221 bye")
        return False


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, box: Mailbox) -> None:
        super().__init__(("127.0.0.1", 0), _Session)
        self.box = box

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hung up is not news."""


@contextmanager
def smtp_server(tls: ssl.SSLContext | None = None) -> Iterator[Mailbox]:
    """A server that lives as long as the block."""
    box = Mailbox(tls=tls)
    with _Server(box) as server:
        box.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield box
        finally:
            server.shutdown()
            thread.join(timeout=10)
