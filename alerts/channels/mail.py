"""Alerts as e-mail over SMTP: TLS unless the operator says otherwise, text and HTML, no attachment."""

import hashlib
import logging
import smtplib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from enum import StrEnum
from typing import Final

from msgspec import Struct, field

from alerts.alert import Alert, Severity
from alerts.channels.channel import DeliveryFailed
from alerts.channels.settings import SecretFile, SecretUnreadable
from alerts.inert import inert_line
from alerts.rendering import Renderer
from outbound.names import own_name
from outbound.transport import connect

_LOG: Final = logging.getLogger(__name__)
_MAX_SUBJECT: Final = 250
_PERMANENT: Final = 500
_ASCII: Final = 0x7F
_NAME_SECONDS: Final = 5.0


class Security(StrEnum):
    """Protection of the connection."""

    STARTTLS = "starttls"
    TLS = "tls"
    NONE = "none"


class Server(Struct, frozen=True):
    """An SMTP server with its login. `seconds` bounds the whole conversation."""

    host: str
    port: int
    security: Security = Security.STARTTLS
    username: str | None = None
    password: SecretFile | None = None
    context: ssl.SSLContext = field(default_factory=ssl.create_default_context)
    seconds: float = 30.0


class MailChannel(Struct, frozen=True):
    """Sends each alert to all of `to` in one message."""

    name: str
    server: Server
    sender: str
    to: tuple[str, ...]
    renderer: Renderer = field(default_factory=Renderer)
    digests: bool = True

    def send(self, alert: Alert, key: str, now: datetime) -> None:
        """Send one message; returns when the server has taken it."""
        try:
            message = compose(alert, key, now, sender=self.sender, to=self.to, renderer=self.renderer)
        except (MessageError, ValueError) as error:
            raise DeliveryFailed(f"the message cannot be composed: {error}", permanent=True) from error
        try:
            with conversation(self.server) as smtp:
                refused = smtp.send_message(message, self.sender, list(self.to))
        except SecretUnreadable as error:
            raise DeliveryFailed(str(error)) from error
        except smtplib.SMTPDataError as error:
            raise _refused(self.server, error, permanent=error.smtp_code >= _PERMANENT) from error
        except (smtplib.SMTPException, OSError, ValueError) as error:
            raise _refused(self.server, error, permanent=False) from error
        _check_recipients(refused)


def compose(
    alert: Alert, key: str, now: datetime, *, sender: str, to: tuple[str, ...], renderer: Renderer
) -> EmailMessage:
    """The message. Its Message-ID comes from `key`: mail programs show a repeat once."""
    domain = Address(addr_spec=sender).domain
    identifier = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:40]
    message = EmailMessage(policy=SMTP)
    message["From"] = Address(display_name="Signwatch", addr_spec=sender)
    message["To"] = [Address(addr_spec=address) for address in to]
    # The policy refuses a line break in a header; inert_line removes them before.
    message["Subject"] = inert_line(renderer.subject(alert, key), _MAX_SUBJECT)
    message["Date"] = format_datetime(now)
    message["Message-ID"] = f"<{identifier}@{domain}>"
    # RFC 3834: no vacation notices in return.
    message["Auto-Submitted"] = "auto-generated"
    message["X-Signwatch-Severity"] = alert.severity.value
    if alert.severity is Severity.PAGE:
        message["Importance"] = "high"
    text, html = renderer.text(alert, key), renderer.html(alert, key)
    message.set_content(text, cte=_encoding(text))
    message.add_alternative(html, subtype="html", cte=_encoding(html))
    return message


def _encoding(text: str) -> str:
    """Quoted-printable, which is readable in a mail's source; base64 if that is shorter."""
    raw = text.encode()
    return "quoted-printable" if 3 * sum(byte > _ASCII for byte in raw) < len(raw) // 3 else "base64"


@contextmanager
def conversation(server: Server) -> Iterator[smtplib.SMTP]:
    """A connection that is protected and logged in, closed within `server.seconds`. Raises `SecretUnreadable`."""
    ends = time.monotonic() + server.seconds
    plain = connect(server.host, server.port, server.seconds)
    # A second handle of the connection, because TLS takes the first one over. smtplib's timeout is for one read; a
    # server that drips a byte at a time, in its greeting too, would hold this thread for ever.
    with plain, plain.dup() as handle:
        watchdog = threading.Timer(max(0.0, ends - time.monotonic()), _hang_up, [handle])
        watchdog.daemon = True
        watchdog.start()
        try:
            with closing(_Smtp(server, plain, _greeting_name(server, plain))) as smtp:
                if server.security is Security.STARTTLS:
                    smtp.starttls(context=server.context)
                if server.username is not None and server.password is not None:
                    smtp.login(server.username, server.password.read())
                yield smtp
                _say_goodbye(smtp)
        finally:
            watchdog.cancel()
            watchdog.join()


class _Smtp(smtplib.SMTP):
    """SMTP over a connection that exists; smtplib itself looks names up without a limit."""

    def __init__(self, server: Server, plain: socket.socket, name: str) -> None:
        self._server, self._plain = server, plain
        super().__init__(server.host, server.port, name, server.seconds)

    def _get_socket(self, host: str, _port: int, timeout: float) -> socket.socket:
        self._plain.settimeout(timeout)
        if self._server.security is Security.TLS:
            return self._server.context.wrap_socket(self._plain, server_hostname=host)
        return self._plain


def _greeting_name(server: Server, plain: socket.socket) -> str:
    """Name for EHLO. SPEC RFC 5321 4.1.4: an address literal where the client has no name."""
    address = str(plain.getsockname()[0]).partition("%")[0]
    literal = f"[IPv6:{address}]" if ":" in address else f"[{address}]"
    # Of a short limit most is left for the conversation.
    return own_name(min(_NAME_SECONDS, server.seconds / 6)) or literal


def _hang_up(handle: socket.socket) -> None:
    try:
        handle.shutdown(socket.SHUT_RDWR)
    except OSError as error:
        _LOG.debug("mail_already_closed error=%s", error)


def _say_goodbye(smtp: smtplib.SMTP) -> None:
    # The server accepted the message; an error at the end of the conversation must not cause a second delivery.
    try:
        smtp.quit()
    except (smtplib.SMTPException, OSError) as error:
        _LOG.debug("mail_goodbye_failed error=%s", error)


def _refused(server: Server, error: Exception, *, permanent: bool) -> DeliveryFailed:
    if isinstance(error, smtplib.SMTPResponseException):
        said = error.smtp_error if isinstance(error.smtp_error, str) else error.smtp_error.decode("utf-8", "replace")
        detail = f"{error.smtp_code} {inert_line(said, 300)}"
    elif isinstance(error, smtplib.SMTPRecipientsRefused):
        detail = f"every recipient was refused ({', '.join(sorted(error.recipients))})"
    else:
        detail = f"{type(error).__name__}: {inert_line(str(error), 300)}"
    return DeliveryFailed(f"mail server {server.host}:{server.port}: {detail}", permanent=permanent)


def _check_recipients(refused: dict[str, tuple[int, bytes]]) -> None:
    """After a partial success: a temporary refusal repeats the delivery, a permanent one is logged."""
    for address, (code, _) in refused.items():
        _LOG.error("mail_recipient_refused address=%s code=%d", inert_line(address, 200), code)
    later = sorted(address for address, (code, _) in refused.items() if code < _PERMANENT)
    if later:
        raise DeliveryFailed(f"the mail server put off {', '.join(later)}")
