"""Bounded HTTP requests for JSON: a deadline for the whole exchange, a cap on the answer, no redirects."""

import json
import time
from collections.abc import Mapping
from contextlib import closing
from types import TracebackType
from typing import Any, Final, Self

import httpcore
import httpx

from outbound.transport import Deadline, DeadlineTransport, HttpLimits, Tls

_LIMITS: Final = HttpLimits(connect=5.0, operation=5.0)
_EXTENSIONS: Final = {"timeout": httpx.Timeout(_LIMITS.operation, connect=_LIMITS.connect).as_dict()}
# With compression a server would decide how much memory an answer takes.
_HEADERS: Final = {"User-Agent": "signwatch", "Accept": "application/json", "Accept-Encoding": "identity"}


_NOT_REACHED: Final = (
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.UnsupportedProtocol,
)


class Outage(Exception):
    """A service gave no usable answer; a later try may succeed."""


class TooLong(Outage):
    """The answer is longer than the caller allows."""


class JsonClient:
    """Asks for JSON, over https with the context of `tls`. Keeps connections open. Safe to use from several threads."""

    def __init__(self, tls: Tls, proxy: str | None = None) -> None:
        self._deadline = Deadline(time.monotonic)
        # httpx's client is left out: its cookies and redirects are unwanted, and took half as long as a request.
        self._transport = DeadlineTransport(self._deadline, _LIMITS, tls, proxy)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection."""
        self._transport.close()

    def request_json(
        self,
        url: str,
        *,
        body: Any = None,
        form: Mapping[str, str] | None = None,
        basic: tuple[str, str] | None = None,
        limit: int,
        seconds: float,
    ) -> tuple[int, Any]:
        """GET, or POST a JSON body or a form; returns status and parsed JSON (`None` when it is not JSON).

        `basic` are a name and password (RFC 7617), `seconds` bounds the whole exchange, `limit` the bytes of the
        answer. Raises `Outage`.
        """
        method = "GET" if body is None and form is None else "POST"
        raw = bytearray()
        try:
            request = httpx.Request(method, url, headers=_HEADERS, json=body, data=form, extensions=dict(_EXTENSIONS))
            if basic is not None:
                request = next(httpx.BasicAuth(*basic).auth_flow(request))
            with (
                self._deadline.running(seconds),
                closing(self._transport.handle_request(request)) as reply,
            ):
                for chunk in reply.iter_raw():
                    raw += chunk
                    if len(raw) > limit:
                        raise TooLong(f"{url}: the answer is larger than {limit} bytes")
                status = reply.status_code
        except (httpx.TimeoutException, httpcore.TimeoutException) as error:
            raise Outage(f"{url}: no complete answer within {seconds:g} seconds") from error
        except (httpx.InvalidURL, UnicodeEncodeError) as error:
            # The answer of another server may have named it, with any characters.
            raise Outage(f"{url!r:.200}: not a URL: {error}") from error
        except httpcore.ProxyError as error:
            raise Outage(f"{url}: the proxy would not connect: {error}") from error
        except (httpx.HTTPError, *_NOT_REACHED, OSError) as error:
            raise Outage(f"{url}: {str(error) or type(error).__name__}") from error
        try:
            return status, json.loads(bytes(raw))
        except (ValueError, RecursionError):
            return status, None
