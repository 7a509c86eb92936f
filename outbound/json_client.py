"""Bounded HTTP requests for JSON: a deadline for the whole exchange, a cap on the answer, no redirects."""

import json
import ssl
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self

import httpcore
import httpx

from outbound.transport import Deadline, DeadlineTransport, HttpLimits

_LIMITS: Final = HttpLimits(connect=5.0, operation=5.0)
_PIECE: Final = 16 * 1024


class Outage(Exception):
    """A service gave no usable answer; a later try may succeed."""


class TooLong(Outage):
    """The answer is longer than the caller allows."""


class JsonClient:
    """Asks for JSON, with TLS as `context` says. Connections are kept open. Safe to use from several threads."""

    def __init__(self, context: ssl.SSLContext, proxy: str | None = None) -> None:
        self._deadline = Deadline(time.monotonic)
        self._http = httpx.Client(
            transport=DeadlineTransport(self._deadline, _LIMITS, context, proxy),
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(_LIMITS.operation, connect=_LIMITS.connect),
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection."""
        self._http.close()

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
            with (
                self._deadline.running(seconds),
                self._http.stream(method, url, json=body, data=form, auth=basic) as reply,
            ):
                for chunk in reply.iter_raw(_PIECE):
                    raw += chunk
                    if len(raw) > limit:
                        raise TooLong(f"{url}: the answer is larger than {limit} bytes")
                status = reply.status_code
        except (httpx.TimeoutException, httpcore.TimeoutException) as error:
            raise Outage(f"{url}: no complete answer within {seconds:g} seconds") from error
        except httpx.InvalidURL as error:
            raise Outage(f"{url}: not a URL: {error}") from error
        except (httpx.HTTPError, httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
            raise Outage(f"{url}: {str(error) or type(error).__name__}") from error
        try:
            return status, json.loads(bytes(raw))
        except (ValueError, RecursionError):
            return status, None
