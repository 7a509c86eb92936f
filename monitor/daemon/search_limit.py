"""Limits of one client over HTTP: rates of searches, proofs and sign-ins, and the length of a query."""

import math
import time
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from alerts.alert import counted
from inbound.client_address import client_address, networks
from monitor.config import WebConfig

_PATHS: Final = ("/api/search", "/api/v1/", "/rekor-v1/", "/search", "/proofs/")
_SIGN_IN: Final = "/login"
_SIGN_INS: Final = 10
_LARGEST_QUESTION: Final = 128 * 1024  # a key of 64 KiB, in base64, with the surrounding JSON


def limit_searches(web: FastAPI, config: WebConfig | None) -> None:
    """Answer 429 with Retry-After to a client with more than `searches_per_minute` requests.

    This counts the paths that read the archive or ask a log, and separately attempts to sign in, ten a minute. Behind
    a proxy that is not in `trusted_proxies` all clients count as one.
    """
    if config is None:
        return
    most, proxies = config.searches_per_minute, networks(config.trusted_proxies)
    window: list[tuple[Any, dict[str, Any]]] = []

    def limiter() -> tuple[Any, dict[str, Any]]:
        if not window:
            # The module takes two MiB with its imports, which a daemon without searches does not need.
            from limits import RateLimitItemPerMinute  # noqa: PLC0415
            from limits.storage import MemoryStorage  # noqa: PLC0415
            from limits.strategies import MovingWindowRateLimiter  # noqa: PLC0415

            often = {"search": RateLimitItemPerMinute(most), "sign-in": RateLimitItemPerMinute(_SIGN_INS)}
            window.append((MovingWindowRateLimiter(MemoryStorage()), often))
        return window[0]

    @web.middleware("http")
    async def limited(request: Request, call_next: Any) -> Response:
        is_sign_in = request.method == "POST" and request.url.path == _SIGN_IN
        if is_sign_in or request.url.path.startswith(_PATHS):
            peer = request.client.host if request.client is not None else ""
            client = client_address(peer, request.headers.get("x-forwarded-for", ""), proxies)
            asked, items = limiter()
            what = "sign-in" if is_sign_in else "search"
            often, count = items[what], _SIGN_INS if is_sign_in else most
            if not asked.hit(often, what, client):
                wait = max(1, math.ceil(asked.get_window_stats(often, what, client).reset_time - time.time()))
                refusal = {
                    "code": 429,
                    "message": f"at most {counted(count, what)} a minute: wait {counted(wait, 'second')}",
                }
                return JSONResponse(refusal, 429, {"Retry-After": str(wait)})
            if request.method == "POST" and (wrong := _unfit(request.headers.get("content-length", ""))) is not None:
                return wrong
        answer: Response = await call_next(request)
        return answer


def _unfit(length: str) -> Response | None:
    """Refuse a query without a length, or with too great a length, because it is read whole."""
    if not (length.isascii() and length.isdigit()):
        return JSONResponse({"code": 411, "message": "say how long the question is: Content-Length"}, 411)
    if int(length[:12]) > _LARGEST_QUESTION:
        return JSONResponse({"code": 413, "message": f"a question of at most {_LARGEST_QUESTION} bytes"}, 413)
    return None
