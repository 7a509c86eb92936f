"""The web application: headers, the accepted host, limits, and error pages."""

import logging
from typing import Any, Final

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException

from monitor.model.errors import OwnFault
from monitor.site import accounts, api, leaving, oidc, pages, searching, subscribing
from monitor.site.drafting import verdict_style
from monitor.site.parts import Site
from monitor.site.rendering import TEMPLATES
from monitor.site.sessions import RequestRefused

_LOG: Final = logging.getLogger(__name__)
_POLICY: Final = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    # Paths hold tokens, which no other site may see. `no-referrer` would also hide the origin of this site's forms.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "X-Robots-Tag": "noindex, nofollow",
    "Cache-Control": "no-store",
}
_SIGN_IN: Final = frozenset({401, 403, 410})
"""Status codes after which the error page offers sign-in to a visitor without a session."""
_FOR_PROGRAMS: Final = frozenset({"/look.json", "/search.json"})
"""Paths beside those of the API that answer errors as JSON."""
_FIXED: Final = frozenset({"/style.css", "/healthz", "/robots.txt", "/favicon.svg"})


def create_site(site: Site) -> FastAPI:
    """The web application of one site."""
    app = FastAPI(
        title="Signwatch",
        version="1",
        summary="Look names up, subscribe, and read what was signed in them.",
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/openapi.json",
    )
    _add_fixed_answers(app)
    _add_middleware(app, site)
    _add_errors(app, site)
    for router in (
        pages.router(site),
        searching.router(site),
        subscribing.router(site),
        leaving.router(site),
        accounts.router(site),
    ):
        app.include_router(router, include_in_schema=False)
    if site.config.oidc is not None:
        app.include_router(oidc.router(site, site.config.oidc), include_in_schema=False)
    app.include_router(api.router(site), prefix="/api/v1")
    return app


def _add_middleware(app: FastAPI, site: Site) -> None:
    headers = dict(_HEADERS)
    if site.config.is_secure:
        headers["Strict-Transport-Security"] = "max-age=31536000"

    @app.middleware("http")
    async def guard(request: Request, call_next: Any) -> Response:
        try:
            response = await _answer(site, request, call_next)
        except RequestRefused as refused:
            response = _refusal(site, request, refused)
        for name, value in headers.items():
            response.headers.setdefault(name, value)
        return response


async def _answer(site: Site, request: Request, call_next: Any) -> Response:
    path = request.url.path
    if request.headers.get("host", "") != site.config.host and path != "/healthz":
        return Response(
            f"This site is {site.config.public_url}, and no other name is served here.\n",
            status_code=421,
            media_type="text/plain",
        )
    if path not in _FIXED:
        site.limits.page(site.door.client(request))
        request.state.visitor = await run_in_threadpool(site.door.visitor, request)
    response: Response = await call_next(request)
    return response


def _add_errors(app: FastAPI, site: Site) -> None:
    @app.exception_handler(RequestRefused)
    def refused(request: Request, refused: RequestRefused) -> Response:
        return _refusal(site, request, refused)

    @app.exception_handler(OwnFault)
    def ill(request: Request, fault: OwnFault) -> Response:
        _LOG.error("site_fault path=%s detail=%s", _without_token(request.url.path), fault)
        message = "This site has a fault of its own at the moment. Nothing was changed: try again in a few minutes."
        return _refusal(site, request, RequestRefused(503, "Not available now", message, retry_after=60))

    @app.exception_handler(StarletteHTTPException)
    def plain(request: Request, error: HTTPException) -> Response:
        if error.status_code == 404:  # noqa: PLR2004
            return _refusal(site, request, RequestRefused(404, "There is nothing here", "The address has no page."))
        return _refusal(site, request, RequestRefused(error.status_code, "Not possible", str(error.detail)))

    @app.exception_handler(RequestValidationError)
    def malformed(request: Request, error: RequestValidationError) -> Response:
        where = ", ".join(".".join(str(part) for part in each["loc"][1:]) for each in error.errors()[:5])
        return _refusal(
            site, request, RequestRefused(422, "Not understood", f"These fields are missing or wrong: {where}.")
        )

    @app.exception_handler(Exception)
    def defect(request: Request, error: Exception) -> Response:
        _LOG.exception("site_defect path=%s", _without_token(request.url.path), exc_info=error)
        return Response("This site has a fault of its own.\n", status_code=500, media_type="text/plain")


def _refusal(site: Site, request: Request, refused: RequestRefused) -> Response:
    headers = {"Retry-After": str(refused.retry_after)} if refused.retry_after is not None else {}
    if request.url.path.startswith("/api/") or request.url.path in _FOR_PROGRAMS:
        error = {"error": refused.title, "detail": refused.message}
        return JSONResponse(error, status_code=refused.status, headers=headers)
    if not hasattr(request.state, "visitor"):
        return Response(
            f"{refused.title}. {refused.message}\n", refused.status, headers=headers, media_type="text/plain"
        )
    page: HTMLResponse = site.page(
        request,
        "message",
        status=refused.status,
        title=refused.title,
        message=refused.message,
        sign_in=refused.status in _SIGN_IN and request.state.visitor.subscriber is None,
    )
    page.headers.update(headers)
    return page


def _without_token(path: str) -> str:
    """A path for the log, without any part that may be a token."""
    return "/".join(part if len(part) <= 24 else "…" for part in path.split("/"))  # noqa: PLR2004


def _add_fixed_answers(app: FastAPI) -> None:
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8") + verdict_style()
    icon = (TEMPLATES / "icon.svg").read_text(encoding="utf-8")
    day = {"Cache-Control": "public, max-age=3600"}

    @app.get("/style.css", include_in_schema=False)
    def style_sheet() -> Response:
        return Response(style, media_type="text/css", headers=day)

    @app.get("/favicon.svg", include_in_schema=False)
    def favicon() -> Response:
        return Response(icon, media_type="image/svg+xml", headers=day)

    @app.get("/healthz", include_in_schema=False)
    def healthz() -> Response:
        return Response("alive\n", media_type="text/plain")

    @app.get("/robots.txt", include_in_schema=False)
    def robots() -> Response:
        return Response("User-agent: *\nDisallow: /\n", media_type="text/plain")
