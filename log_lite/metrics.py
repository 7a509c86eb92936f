"""Prometheus metrics: sizes of the trees, and requests by API and status. No label holds a client's text."""

import time

from fastapi import APIRouter
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from log_lite.api_v2 import PATHS
from log_lite.service import LogLiteService


class LogLiteMetrics:
    """The metrics of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.size = Gauge(
            "log_lite_tree_size", "Published leaves of a tree.", ["log", "origin"], registry=self.registry
        )
        self.fault = Gauge(
            "log_lite_fault_active", "1 while this fault is switched on.", ["log", "mode"], registry=self.registry
        )
        self.writer = Gauge("log_lite_writer_up", "1 while submissions can be stored.", registry=self.registry)
        self.requests = Counter(
            "log_lite_http_requests", "Answered requests.", ["api", "method", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "log_lite_http_request_seconds", "Time from request to first byte.", ["api"], registry=self.registry
        )

    def router(self, service: LogLiteService) -> APIRouter:
        """Build the /metrics route."""
        api = APIRouter()

        @api.get("/metrics")
        def metrics() -> Response:
            for shard in service.ledger.shards.values():
                self.size.labels(shard.row.log, shard.row.origin).set(shard.published)
            self.fault.clear()
            for log, mode in service.fault_modes.items():
                self.fault.labels(log, mode).set(1)
            self.writer.set(int(service.sequencer.alive()))
            return Response(generate_latest(self.registry), media_type=CONTENT_TYPE_LATEST)

        return api


def api_of(path: str) -> str:
    """Name of the API that a path belongs to; few values, so that the number of time series is bounded."""
    if path.startswith("/ct/"):
        return "ct"
    if path.startswith("/api/v1/"):
        return "rekor-v1"
    if path.startswith(PATHS):
        return "rekor-v2"
    return "other"


class CountRequests:
    """ASGI middleware that feeds the request metrics."""

    def __init__(self, app: ASGIApp, metrics: LogLiteMetrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, api = time.perf_counter(), api_of(scope["path"])
        method = scope["method"] if scope["method"] in {"GET", "POST", "HEAD", "OPTIONS"} else "other"

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.metrics.requests.labels(api, method, str(message["status"])).inc()
                self.metrics.seconds.labels(api).observe(time.perf_counter() - began)
            await send(message)

        await self.app(scope, receive, counted)
