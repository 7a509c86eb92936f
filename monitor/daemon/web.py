"""The status page, its JSON, the metrics and the probes: read only, without scripts and external resources.

Every text on the page may hold words of an attacker: it is escaped, cut and never a link.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse

from alerts.inert import inert_json
from monitor.daemon.pages import TEMPLATES, environment
from monitor.daemon.status import Status
from monitor.daemon.web_server import HostAndHead
from monitor.model.errors import OwnFault
from monitor.telemetry.prometheus import CONTENT_TYPE, PrometheusMeter

# No script and one style sheet of this site, so that text of an entry can neither run nor send requests. Forms go to
# this site only.
_POLICY: Final = (
    "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    # `no-referrer` would also hide the origin of this site's forms.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

Look = Callable[[], tuple[Status, dict[str, Any]]]


def add_document(web: FastAPI, path: str, document: Callable[[], Any]) -> None:
    """Serve the result of `document` as JSON at a further path."""
    web.add_api_route(path, lambda: JSONResponse(document()))


def create_app(look: Look, meter: PrometheusMeter, hosts: Iterable[str] = ()) -> FastAPI:
    """The web application. `look` reads the status and its document; it raises `OwnFault` when it cannot.

    `hosts` are its names beside localhost and addresses.
    """
    app = FastAPI(title="Signwatch", docs_url=None, redoc_url=None, openapi_url=None)
    _add_fixed_answers(app)
    app.add_middleware(HostAndHead, names=hosts)

    @app.middleware("http")
    async def headers(request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        for name, value in _HEADERS.items():
            response.headers[name] = value
        return response

    @app.exception_handler(OwnFault)
    def ill(_request: Request, fault: OwnFault) -> Response:
        return JSONResponse({"ready": False, "reasons": [str(fault)]}, status_code=503)

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(meter.expose(), headers={"Content-Type": CONTENT_TYPE})

    @app.get("/readyz")
    def readyz() -> Response:
        status, _ = look()
        answer = {"ready": status.ready, "reasons": list(status.reasons)}
        return JSONResponse(inert_json(answer), status_code=200 if status.ready else 503)

    @app.get("/api/reasons.json")
    def reasons_json() -> Response:
        """Reasons why it is not green; those of the running daemon are listed separately for `signwatch status`."""
        status, _ = look()
        answer = {"ready": status.ready, "reasons": list(status.reasons), "daemon": list(status.further)}
        return JSONResponse(inert_json(answer))

    @app.get("/api/status.json")
    def status_json() -> Response:
        _, document = look()
        return JSONResponse(inert_json(document))

    @app.get("/")
    def status_page(*, live: bool = False) -> HTMLResponse:
        status, document = look()
        events = status.events
        return HTMLResponse(
            environment()
            .get_template("status.html.j2")
            .render(
                status=document,
                ready=status.ready,
                now=status.at,
                open_alerts=sum(status.alerts_open.values()),
                events=events,
                live=live,
            )
        )

    return app


def _add_fixed_answers(app: FastAPI) -> None:
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8")

    @app.get("/healthz")
    def healthz() -> Response:
        return Response("alive\n", media_type="text/plain")

    @app.get("/style.css")
    def style_sheet() -> Response:
        return Response(style, media_type="text/css")

    @app.get("/favicon.ico")
    def no_icon() -> Response:
        return Response(status_code=204)
