"""A mailbox for the demonstration: an SMTP server on loopback that keeps each mail as a file."""

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Final

from typing_extensions import override

_MAX_LINE: Final = 4_096
_MAX_MAIL: Final = 1 << 20
_SECONDS: Final = 20
_REPLIES: Final = {
    "EHLO": "250 localhost",
    "HELO": "250 localhost",
    "MAIL": "250 ok",
    "RCPT": "250 ok",
    "RSET": "250 ok",
    "NOOP": "250 ok",
}


class Mailbox:
    """Mails in a folder, the newest last."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, 0

    def mails(self) -> list[EmailMessage]:
        """Every mail that arrived so far."""
        found = []
        for path in sorted(self.folder.glob("*.eml")):
            message = message_from_bytes(path.read_bytes(), policy=default)
            if isinstance(message, EmailMessage):
                found.append(message)
        return found


class _Session(socketserver.StreamRequestHandler):
    timeout = _SECONDS
    server: "_Server"

    @override
    def handle(self) -> None:
        self._say("220 localhost")
        while line := self.rfile.readline(_MAX_LINE):
            word = line[:4].decode("ascii", "replace").upper()
            if word == "QUIT":
                self._say("221 bye")
                return
            if word == "DATA":
                self._say("354 go on")
                self._keep()
            else:
                self._say(_REPLIES.get(word, "502 not here"))

    def _keep(self) -> None:
        mail = b""
        while (line := self.rfile.readline(_MAX_LINE)) not in (b".\r\n", b""):
            mail += line.removeprefix(b".")
            if len(mail) > _MAX_MAIL:
                return
        self.server.keep(mail)
        self._say("250 taken")

    def _say(self, line: str) -> None:
        self.wfile.write(line.encode() + b"\r\n")


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Session)
        self._folder, self._lock, self._number = folder, threading.Lock(), 0

    def keep(self, mail: bytes) -> None:
        """Write one mail atomically."""
        with self._lock:
            self._number += 1
            path = self._folder / f"{self._number:04}.eml"
            draft = path.with_suffix(".new")
            draft.write_bytes(mail)
            draft.rename(path)


@contextmanager
def mailbox(folder: Path) -> Iterator[Mailbox]:
    """Serve a mailbox in a thread of this process."""
    folder.mkdir(exist_ok=True)
    made = Mailbox(folder)
    with _Server(folder) as server:
        made.port = int(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True)
        thread.start()
        try:
            yield made
        finally:
            server.shutdown()
            thread.join(5)
