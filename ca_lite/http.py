"""Shared by every end point: bounded bodies, error answers, request ids, metrics."""

import asyncio
import json
import logging
import secrets
import time
from collections.abc import Callable
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ca_lite.errors import CA_FAILED, INTERNAL, NOT_FOUND, UNIMPLEMENTED, CaRefused, bad_request
from ca_lite.metrics import CaMetrics
from ca_lite.timestamp_request import TimestampRefused

_log = logging.getLogger(__name__)
BODY_LIMIT: Final = 4 * 1024 * 1024
BODY_SECONDS: Final = 60.0  # Fulcio's timeout
_KNOWN_METHODS: Final = ("GET", "HEAD", "POST", "OPTIONS")


async def read_body(request: Request, limit: int = BODY_LIMIT) -> bytes:
    """Body of a request, at most `limit` bytes and one minute of it. Raises `CaRefused`."""
    too_large = bad_request("http: request body too large", "BODY_TOO_LARGE", f"at most {limit} bytes")
    return await bounded_body(request, limit, too_large)


async def bounded_body(request: Request, limit: int, too_large: Exception) -> bytes:
    """Body of a request; raises `too_large` after `limit` bytes, and `CaRefused` if the body takes too long."""
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    raise too_large
    except TimeoutError as error:
        raise bad_request("the request body did not arrive in time", "BODY_TOO_SLOW") from error
    return bytes(body)


def json_answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """JSON answer."""
    return Response(json.dumps(value), status, headers, "application/json")


def request_id(request: Request) -> str:
    """Id of this request, as in the log, the journal and the X-Request-ID header."""
    return str(request.state.request_id)


def install(app: FastAPI, metrics: CaMetrics, cors_origins: tuple[str, ...]) -> None:
    """Add the error answers and middleware."""
    app.add_exception_handler(CaRefused, _refusal_handler(metrics))
    app.add_exception_handler(TimestampRefused, _timestamp_refused)
    app.add_exception_handler(HTTPException, _not_found)
    app.add_exception_handler(ClientDisconnect, _left)
    app.add_exception_handler(Exception, _unexpected)
    app.add_middleware(CORSMiddleware, allow_origins=list(cors_origins), allow_methods=["*"], allow_headers=["*"])

    app.add_middleware(_Observed, metrics=metrics)


class _Observed:
    """ASGI middleware: gives each request an id, and counts its answer.

    Plain ASGI: Starlette's middleware of functions starts a task with two queues for each request, which took a tenth
    of issuing a certificate.
    """

    def __init__(self, app: ASGIApp, metrics: CaMetrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI specification)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        identity, started = secrets.token_hex(8), time.monotonic()
        scope.setdefault("state", {})["request_id"] = identity

        async def observed(message: Message) -> None:
            if message["type"] == "http.response.start":
                method = scope["method"] if scope["method"] in _KNOWN_METHODS else "other"
                labels = (str(message["status"]), method)
                self._metrics.requests.labels(*labels).inc()
                if scope["path"].startswith("/api/"):
                    self._metrics.latency.labels(*labels).observe(time.monotonic() - started)
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = identity
                headers["X-Content-Type-Options"] = "nosniff"
            await send(message)

        await self._app(scope, receive, observed)


def _refusal_handler(metrics: CaMetrics) -> Callable[[Request, Exception], Response]:
    def answer(request: Request, error: Exception) -> Response:
        if not isinstance(error, CaRefused):
            raise error
        metrics.rejected.labels(error.reason).inc()
        _log.info(
            "refused",
            extra={"request": request_id(request), "reason": error.reason, "detail": error.detail or error.message},
        )
        headers = {"Retry-After": str(error.retry_after)} if error.retry_after else None
        return json_answer(error.body(), error.http_status, headers)

    return answer


def _timestamp_refused(_request: Request, error: Exception) -> Response:
    if not isinstance(error, TimestampRefused):
        raise error
    return json_answer(error.body(), error.status)


def _not_found(_request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException) and error.status_code == 405:  # noqa: PLR2004
        return json_answer({"code": UNIMPLEMENTED, "message": "Method Not Allowed", "details": []}, 501)
    return json_answer({"code": NOT_FOUND, "message": "Not Found", "details": []}, 404)


def _left(_request: Request, _error: Exception) -> Response:
    # The client has gone, so the answer is not sent. It is not logged, because clients could fill the log this way.
    return Response(status_code=400)


def _unexpected(request: Request, error: Exception) -> Response:
    _log.error("unexpected-error", exc_info=error, extra={"request": request_id(request)})
    return json_answer({"code": INTERNAL, "message": CA_FAILED, "details": []}, 500)
