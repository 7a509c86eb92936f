"""Errors of Rekor's search API in Rekor's own form, with code and message: rekor-cli prints these.

SPEC rekor openapi.yaml: Error. Unknown paths and methods have the texts of its server's library, go-openapi.
"""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.routing import BaseRoute
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from alerts.inert import inert_json
from inbound.routes import methods_at
from monitor.model.errors import OwnFault

V1_FORM: Final = "/rekor-v1"
"""Prefix of the paths of Rekor's API that give entries in the form of Rekor v1."""
_API: Final = "/api/v1"
_LONGEST_PATH: Final = 200


class RekorRoute(APIRoute):
    """Answers errors as Rekor does."""

    @override
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError as error:
                return _rekor_error(400, _malformed(error))
            except OwnFault as fault:
                return _rekor_error(503, str(fault))
            except StarletteHTTPException as error:  # FastAPI raises this one for a body that it cannot parse
                return _rekor_error(error.status_code, str(error.detail), error.headers)

        return handled


def unknown_paths(known: Sequence[BaseRoute], reason: str = "") -> APIRouter:
    """Answer to every path of Rekor's API beside the `known` ones; to be added after these.

    `reason` explains why there are none.
    """
    router = APIRouter()
    # FastAPI's type is narrower than Starlette's, which also takes an application.
    answer: Any = _Unknown(known, reason)
    for prefix in ("", V1_FORM):
        for path in ("", "/{rest:path}"):
            router.add_route(f"{prefix}{_API}{path}", answer, include_in_schema=False)
    return router


class _Unknown:
    """ASGI application, so that a request of any method is answered."""

    def __init__(self, known: Sequence[BaseRoute], reason: str) -> None:
        self._known, self._reason = known, reason

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request (ASGI specification)."""
        await self._answer(scope)(scope, receive, send)

    def _answer(self, scope: Scope) -> Response:
        path = str(scope["path"])
        if allowed := methods_at(self._known, scope):
            told = f"method {scope['method']:.20} is not allowed, but [{','.join(allowed)}] are"
            return _rekor_error(405, told, {"Allow": ", ".join(allowed)})
        if path.endswith("/") and methods_at(self._known, {**scope, "path": path.rstrip("/")}):
            # Clients end some paths with a slash.
            return RedirectResponse(Request(scope).url.replace(path=path.rstrip("/")))
        told = f"path {path:.{_LONGEST_PATH}} was not found"
        return _rekor_error(404, f"{told}: {self._reason}" if self._reason else told)


def _rekor_error(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse(inert_json({"code": status, "message": message}), status, headers=headers)


def _malformed(error: RequestValidationError) -> str:
    found = error.errors()[:5]
    if any(each["type"] == "json_invalid" for each in found):
        return "the body is no JSON"
    where = ", ".join(".".join(map(str, each["loc"][1:])) or "body" for each in found)
    return f"these fields are missing or wrong: {where}"
