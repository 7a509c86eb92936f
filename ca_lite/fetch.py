"""Bounded HTTP requests: a deadline for the whole exchange, a cap on the answer, no redirects, no proxies."""

import json
import time
from types import TracebackType
from typing import Any, Final, Self

import httpcore
import httpx

from ca_lite.errors import Outage
from outbound.named_authorities import believing
from outbound.transport import Deadline, DeadlineTransport, HttpLimits, believed

_LIMITS: Final = HttpLimits(connect=5.0, operation=5.0)


class Client:
    """Asks the CT log or an issuer; `ca_cert` PEM replaces the system's roots. Connections are kept open."""

    def __init__(self, ca_cert: str = "") -> None:
        context = believing(pem=ca_cert) if ca_cert else believed(None)
        self._deadline = Deadline(time.monotonic)
        self._http = httpx.Client(
            transport=DeadlineTransport(self._deadline, _LIMITS, context, None),
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(_LIMITS.operation, connect=_LIMITS.connect),
            headers={"Accept-Encoding": "identity"},
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

    def request_json(self, url: str, *, body: Any = None, limit: int, seconds: float) -> tuple[int, Any]:
        """GET, or POST a JSON body; returns status and parsed JSON (`None` when it is not JSON). Raises `Outage`."""
        raw = bytearray()
        try:
            with (
                self._deadline.running(seconds),
                self._http.stream("GET" if body is None else "POST", url, json=body) as reply,
            ):
                for chunk in reply.iter_raw(16 * 1024):
                    raw += chunk
                    if len(raw) > limit:
                        raise Outage(f"{url}: the answer is larger than {limit} bytes")
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
