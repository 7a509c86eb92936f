"""Faults of the HTTP answer itself: too long, too slow, compressed, redirected, or from another server."""

import asyncio
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Final

from msgspec import Struct
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from log_lite.api_v2 import PATHS
from log_lite.ledger import CT, V1, V2

_MIB: Final = 1024 * 1024
_OVERSIZED_MIB: Final = 80
_BOMB_MIB: Final = 256
_TRICKLE_SECONDS: Final = 0.5
_TRICKLE_BYTES: Final = 240


class HttpFault(Struct, frozen=True):
    """A transport fault, for one part of a log's API."""

    mode: str
    part: str


def log_and_part(method: str, path: str) -> tuple[str, str] | None:
    """Log and part of its API (head, proof, entries, writes) that a request addresses; `None` for other paths."""
    if path.startswith("/ct/"):
        return CT, _part(method, path.removeprefix("/ct"))
    if path.startswith("/api/v1/"):
        return V1, _part(method, path)
    if path.startswith(PATHS):
        return V2, _part(method, path.removeprefix("/api/v2"))
    return None


def _part(method: str, path: str) -> str:
    if method == "POST" and not path.rstrip("/").endswith("/retrieve"):
        return "writes"
    if path.endswith(("/checkpoint", "/get-sth", "/api/v1/log")):
        return "head"
    if path.startswith(("/tile/entries/", "/tile/data/")) or "entr" in path:
        return "entries"
    return "proof" if "proof" in path or "consistency" in path or path.startswith("/tile/") else "other"


class Misbehave:
    """ASGI middleware that answers in the log's place while a transport fault is switched on."""

    def __init__(self, app: ASGIApp, faults: Callable[[], Mapping[str, HttpFault]]) -> None:
        self.app = app
        self._faults = faults

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, honestly or not."""
        target = log_and_part(scope["method"], scope["path"]) if scope["type"] == "http" else None
        fault = self._faults().get(target[0]) if target else None
        if target is None or fault is None or not _meant(fault.part, target[1]):
            await self.app(scope, receive, send)
        elif fault.mode == "slow":
            await _trickle(receive, send)
        else:
            await _ANSWERS[fault.mode](scope["path"])(scope, receive, send)


def _meant(wanted: str, part: str) -> bool:
    return wanted in ("all", part) or (wanted == "reads" and part != "writes")


def _oversized(_path: str) -> Response:
    def chunks() -> Iterator[bytes]:
        for _ in range(_OVERSIZED_MIB):
            yield b" " * _MIB

    return StreamingResponse(chunks(), media_type="application/json")


def _redirect(path: str) -> Response:
    return Response(status_code=302, headers={"Location": f"http://redirected.invalid{path}"})


def _gzip(_path: str) -> Response:
    return Response(_bomb(), headers={"Content-Encoding": "gzip", "Content-Type": "application/json"})


@cache
def _bomb() -> bytes:
    # After a full flush the compressor has no memory, so one mebibyte of zeros packs to the same bytes every time.
    packer = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    chunk, checksum = bytes(_MIB), 0
    first = packer.compress(chunk) + packer.flush(zlib.Z_FULL_FLUSH)
    header, block = first[:10], first[10:]
    for _ in range(_BOMB_MIB):
        checksum = zlib.crc32(chunk, checksum)
    trailer = checksum.to_bytes(4, "little") + (_BOMB_MIB * _MIB).to_bytes(4, "little")
    return header + block * _BOMB_MIB + b"\x03\x00" + trailer


def _html(_path: str) -> Response:
    return HTMLResponse("<!doctype html><title>Sign in</title><p>Please sign in to use this network.</p>")


def _error(_path: str) -> Response:
    return JSONResponse({"code": 500, "message": "internal error"}, 500)


def _gone(_path: str) -> Response:
    return JSONResponse({"code": 410, "message": "this log was retired"}, 410)


def _rate_limit(_path: str) -> Response:
    return JSONResponse({"code": 429, "message": "too many requests"}, 429, {"Retry-After": "2"})


async def _trickle(receive: Receive, send: Send) -> None:
    start: Message = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]}
    await send(start)
    for _ in range(_TRICKLE_BYTES):
        await send({"type": "http.response.body", "body": b" ", "more_body": True})
        if await _left(receive):
            return
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _left(receive: Receive) -> bool:
    """Wait for one step; returns True if the reader disconnected during it."""
    try:
        async with asyncio.timeout(_TRICKLE_SECONDS):
            while (await receive())["type"] != "http.disconnect":
                pass
    except TimeoutError:
        return False
    return True


_ANSWERS: Final[dict[str, Callable[[str], Response]]] = {
    "oversized": _oversized,
    "redirect": _redirect,
    "gzip": _gzip,
    "html": _html,
    "error-500": _error,
    "gone": _gone,
    "rate-limit": _rate_limit,
}
TRANSPORT_MODES: Final = frozenset({*_ANSWERS, "slow"})
