"""Limits of one client over HTTP: searches and proofs in a time, and the length of a question."""

import math
import time
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from inbound.client_address import client_address, networks
from monitor.config import WebConfig

_PATHS: Final = ("/api/search", "/api/v1/", "/search", "/proofs/")
_LARGEST_QUESTION: Final = 128 * 1024  # a key of 64 KiB, in base64, and what is around it


def limit_searches(web: FastAPI, config: WebConfig | None) -> None:
    """Answer 429 with Retry-After to a client that asks more often than `searches_per_minute`.

    Counted are the paths that read the archive or ask a log. Behind a proxy that `trusted_proxies` does not name all
    clients are one.
    """
    if config is None:
        return
    limiter = MovingWindowRateLimiter(MemoryStorage())
    often, proxies = RateLimitItemPerMinute(config.searches_per_minute), networks(config.trusted_proxies)

    @web.middleware("http")
    async def limited(request: Request, call_next: Any) -> Response:
        if request.url.path.startswith(_PATHS):
            peer = request.client.host if request.client is not None else ""
            client = client_address(peer, request.headers.get("x-forwarded-for", ""), proxies)
            if not limiter.hit(often, "search", client):
                wait = max(1, math.ceil(limiter.get_window_stats(often, "search", client).reset_time - time.time()))
                refusal = {"code": 429, "message": f"at most {often.amount} searches a minute: wait {wait} seconds"}
                return JSONResponse(refusal, 429, {"Retry-After": str(wait)})
            if request.method == "POST" and (wrong := _unfit(request.headers.get("content-length", ""))) is not None:
                return wrong
        answer: Response = await call_next(request)
        return answer


def _unfit(length: str) -> Response | None:
    """Refuse a question that does not say its length, or is too long: it is read whole."""
    if not (length.isascii() and length.isdigit()):
        return JSONResponse({"code": 411, "message": "say how long the question is: Content-Length"}, 411)
    if int(length[:12]) > _LARGEST_QUESTION:
        return JSONResponse({"code": 413, "message": f"a question of at most {_LARGEST_QUESTION} bytes"}, 413)
    return None
