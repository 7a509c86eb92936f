"""The web application: three APIs, health, metrics, and one place where errors become answers."""

import logging
from http import HTTPStatus
from typing import Final

from fastapi import FastAPI, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from inbound.routes import methods_at
from log_lite import api_ct, api_v1, api_v2
from log_lite.metrics import CountRequests, LogLiteMetrics
from log_lite.service import LogLiteService
from log_lite.shard import V2_PATH
from log_lite.store import StoreUnusable
from log_lite.wire import ApiErrors, BodyTooLarge, ErrorAnswer

_logger = logging.getLogger(__name__)
_LONGEST_PATH: Final = 200
_LONGEST_METHOD: Final = 20


def application(
    service: LogLiteService, *, accept_dsse: bool = True, max_get_entries: int = api_ct.MAX_GET_ENTRIES
) -> FastAPI:
    """Build the application around a running service. The options are those of its APIs' routers."""
    app = FastAPI(title="log-lite", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    metrics = LogLiteMetrics()
    app.include_router(api_v1.router(service))
    app.include_router(api_v2.router(service, accept_dsse=accept_dsse))
    app.include_router(api_ct.router(service, max_get_entries=max_get_entries))
    app.include_router(metrics.router(service))
    app.add_middleware(CORSMiddleware, allow_origins=["*"], allow_methods=["*"], expose_headers=["ETag", "Location"])
    app.add_middleware(CountRequests, metrics=metrics)
    _health(app, service)
    _errors(app)
    return app


def _health(app: FastAPI, service: LogLiteService) -> None:
    @app.get("/ping")
    def ping() -> Response:
        return Response("ok", media_type="text/plain")

    @app.get("/healthz")
    def healthz() -> Response:
        serving = service.sequencer.alive()
        return JSONResponse({"status": "SERVING" if serving else "NOT_SERVING"}, 200 if serving else 503)

    @app.get("/")
    def home() -> Response:
        origins = "\n".join(f"{s.row.log}  {s.row.state:8}  {s.row.origin}" for s in service.ledger.shards.values())
        return Response(f"log-lite, a transparency log for one machine\n\n{origins}\n", media_type="text/plain")


def _errors(app: FastAPI) -> None:
    @app.exception_handler(ErrorAnswer)
    def problem(_request: Request, error: ErrorAnswer) -> Response:
        return JSONResponse(error.content, error.status, error.headers)

    @app.exception_handler(BodyTooLarge)
    def too_large(request: Request, _error: BodyTooLarge) -> Response:
        answer = _api(request).too_large()
        # The server does not read the rest of the body, so the connection cannot be used again.
        return JSONResponse(answer.content, answer.status, {"Connection": "close"})

    @app.exception_handler(HTTPException)
    def unknown(request: Request, error: HTTPException) -> Response:
        api = _api(request)
        if error.status_code != HTTPStatus.METHOD_NOT_ALLOWED:
            answer = api.not_found(request.url.path[:_LONGEST_PATH])
            return JSONResponse(answer.content, answer.status)
        # The error names the methods of one route alone.
        allowed = methods_at(request.app.routes, request.scope)
        answer = api.wrong_method(request.method[:_LONGEST_METHOD], allowed)
        return JSONResponse(answer.content, answer.status, {"Allow": ", ".join(allowed)})

    @app.exception_handler(StoreUnusable)
    def unusable(request: Request, error: StoreUnusable) -> Response:
        _logger.error("cannot read the log: %s", error)
        answer = _api(request).unusable("the log cannot be read at the moment")
        return JSONResponse(answer.content, answer.status)


def _api(request: Request) -> ApiErrors:
    """The API whose form an error has; other paths have that of Rekor v1."""
    path = f"{request.url.path}/"
    if path.startswith(("/api/v2/", f"{V2_PATH}/")):
        return api_v2
    return api_ct if path.startswith("/ct/") else api_v1
