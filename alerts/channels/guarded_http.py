"""One POST to a receiver that a user named: a checked address, a deadline, and a cap on the answer."""

import ssl
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final
from urllib.parse import urlsplit

import httpcore
import httpx
from msgspec import Struct

from alerts.alert import counted
from alerts.channels.channel import DeliveryFailed
from alerts.inert import inert_line
from outbound.address_guard import GuardedBackend, GuardedTransport, Resolve, is_private_literal
from outbound.transport import Deadline, DeadlineBackend, parse_retry_after, resolve

_MAX_BODY: Final = 64 * 1024
_SHOWN_BODY: Final = 200
_SUCCESS: Final = range(200, 300)
# The receiver would refuse the same bytes again: malformed, gone, too long, or not understood. An operator can
# correct the cause of 401, 403 and 404, so these are tried again.
_HOPELESS: Final = frozenset({400, 410, 413, 414, 415, 422})


class ReceiverAnswer(Struct, frozen=True):
    """A receiver's answer: status and the start of its body."""

    status: int
    body: bytes


def check_url(url: str, *, allow_private: bool) -> str:
    """Reason why `url` is not allowed, or "" if it is."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        return f"is not a URL: {error}"
    checks = (
        (
            parts.scheme not in {"http", "https"} or not parts.hostname or port == 0,
            "must be an http(s) URL with a host",
        ),
        (parts.username is not None or parts.password is not None, "must not hold a user name or password"),
        (
            parts.scheme == "http" and not allow_private,
            "must be https (or set allow_private: true for a receiver in your own network)",
        ),
        (
            not allow_private and is_private_literal(parts.hostname or ""),
            "names an address that is not public (set allow_private: true if that is your own network)",
        ),
    )
    return next((problem for failed, problem in checks if failed), "")


class GuardedPoster:
    """Posts JSON to one URL.

    `seconds` bounds a whole exchange from looking up the name to the last byte.
    """

    def __init__(
        self,
        *,
        allow_private: bool = False,
        seconds: float = 15.0,
        resolver: Resolve = resolve,
        context: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._allow_private, self._seconds, self._resolver = allow_private, seconds, resolver
        self._deadline = Deadline(clock)
        self._context = context or ssl.create_default_context()

    def post(self, url: str, body: bytes, headers: Mapping[str, str], now: datetime) -> ReceiverAnswer:
        """Post and read at most 64 KiB of the answer. Raises `DeliveryFailed` unless the answer is a 2xx."""
        return self.ask("POST", url, body, headers, now)

    def ask(
        self,
        method: str,
        url: str,
        body: bytes,
        headers: Mapping[str, str],
        now: datetime,
        *,
        max_answer: int = _MAX_BODY,
    ) -> ReceiverAnswer:
        """Make one request and read at most `max_answer` bytes. Raises `DeliveryFailed` unless the answer is a 2xx."""
        host = inert_line(urlsplit(url).netloc, 200)
        backend = GuardedBackend(DeadlineBackend(self._deadline), self._resolver, allow_private=self._allow_private)
        try:
            # A fresh connection each time: alerts are rare, and a broken pool would stop all alerts.
            with (
                self._deadline.running(self._seconds),
                httpx.Client(
                    transport=GuardedTransport(backend, self._context),
                    follow_redirects=False,
                    trust_env=False,
                    timeout=self._seconds,
                ) as client,
                client.stream(method, url, content=body, headers=_headers(headers)) as response,
            ):
                answer = ReceiverAnswer(response.status_code, _capped(response, max_answer))
                raise_for(answer, response.headers, host, now)
                return answer
        except httpcore.TimeoutException as error:
            raise DeliveryFailed(f"{host}: no complete answer within {counted(self._seconds, 'second')}") from error
        except (httpx.LocalProtocolError, httpcore.LocalProtocolError) as error:
            # The exception's text repeats the header, which may hold a secret.
            raise DeliveryFailed(f"{host}: a header cannot be sent; is the secret one line of ASCII?") from error
        except (httpx.HTTPError, httpx.InvalidURL, httpcore.ConnectionNotAvailable) as error:
            raise DeliveryFailed(f"{host}: {type(error).__name__}: {error}") from error
        except (
            httpcore.NetworkError,
            httpcore.ProtocolError,
            OSError,
            UnicodeError,
        ) as error:
            raise DeliveryFailed(f"{host}: {type(error).__name__}: {error}") from error


def _headers(headers: Mapping[str, str]) -> dict[str, str]:
    # With compression the receiver would decide how much memory an answer takes.
    return {
        "content-type": "application/json",
        "user-agent": "signwatch",
        "accept-encoding": "identity",
        "connection": "close",
        **headers,
    }


def _capped(response: httpx.Response, limit: int) -> bytes:
    body = b""
    for piece in response.iter_raw():
        body += piece
        if len(body) > limit:
            return body[:limit]
    return body


def raise_for(answer: ReceiverAnswer, headers: Mapping[str, str], host: str, now: datetime) -> None:
    """Raise `DeliveryFailed` unless the status is a success; a redirect is none."""
    if answer.status in _SUCCESS:
        return
    said = inert_line(answer.body[: 4 * _SHOWN_BODY].decode("utf-8", "replace"), _SHOWN_BODY)
    message = f"{host} answered HTTP {answer.status}" + (f": {said}" if said else "")
    raise DeliveryFailed(
        message,
        permanent=answer.status in _HOPELESS,
        retry_after=parse_retry_after(headers.get("retry-after"), now),
    )
