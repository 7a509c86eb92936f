"""One bounded HTTP request: a deadline for the whole, a cap on the answer, no redirects, no proxies."""

import json
import ssl
import time
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from ca_lite.errors import Outage

_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
_CHUNK_SECONDS: Final = 5.0


def client(ca_cert: str = "") -> httpx.Client:
    """HTTP client for the CT log or an issuer; `ca_cert` PEM replaces the system's roots."""
    verify: ssl.SSLContext | bool = ssl.create_default_context(cadata=ca_cert) if ca_cert else True
    return httpx.Client(
        verify=verify,
        trust_env=False,
        follow_redirects=False,
        timeout=httpx.Timeout(_CHUNK_SECONDS),
        headers={"Accept-Encoding": "identity"},
    )


def request_json(http: httpx.Client, url: str, *, body: Any = None, limit: int, seconds: float) -> tuple[int, Any]:
    """GET, or POST a JSON body; returns status and parsed JSON (None when it is not JSON). Raises `Outage`."""
    deadline = time.monotonic() + seconds
    raw = bytearray()
    try:
        with http.stream("GET" if body is None else "POST", url, json=body) as reply:
            for chunk in reply.iter_raw(16 * 1024):
                raw += chunk
                if len(raw) > limit:
                    raise Outage(f"{url}: the answer is larger than {limit} bytes")
                if time.monotonic() > deadline:
                    raise Outage(f"{url}: no complete answer within {seconds:g} seconds")
            status = reply.status_code
    except httpx.HTTPError as error:
        raise Outage(f"{url}: {str(error) or type(error).__name__}") from error
    except httpx.InvalidURL as error:
        raise Outage(f"{url}: not a URL: {error}") from error
    try:
        return status, json.loads(bytes(raw))
    except (ValueError, RecursionError):
        return status, None


def is_acceptable_url(url: str) -> bool:
    """Whether to ask a URL that came from outside: https, or http on this machine."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        return False
    return bool(host) and (parts.scheme == "https" or (parts.scheme == "http" and host in _LOOPBACK))
