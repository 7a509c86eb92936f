"""Routes of a Rekor v2 shard: the write API, and the static reads of C2SP tlog-tiles under two base paths."""

import base64
import re
from collections.abc import Callable, Sequence
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Receive, Scope, Send

from log_lite.ledger import TreeClosed
from log_lite.proposals.proposal import NotJson, Rejected, parse_object
from log_lite.proposals.rekor_v2 import UnknownField, propose
from log_lite.sequencer import NotStored, Pushback
from log_lite.service import AcceptedSubmission, LogLiteService
from log_lite.shard import V2_PATH, Shard
from log_lite.store import Entry
from log_lite.tree import OutsideTree
from log_lite.wire import IMMUTABLE, NO_CACHE, ErrorAnswer, plain, read_body
from tlog.tiles import TILE_WIDTH

FROZEN: Final = "This log has been frozen, please switch to the latest log."
_INVALID, _EXISTS, _UNIMPLEMENTED, _INTERNAL, _UNAVAILABLE, _NOT_FOUND = 3, 6, 12, 13, 14, 5
PATHS: Final = ("/api/v2/", "/tile/", "/checkpoint")
BY_URL: Final = "log_lite.by_url"
# SPEC tlog-tiles: three digits an element, all but the last with an x in front; `.p/W` for a partial tile.
_INDEX: Final = re.compile(r"((?:x[0-9]{3}/){0,5}[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?")


def problem(status: int, code: int, message: str, headers: dict[str, str] | None = None) -> ErrorAnswer:
    """Return grpc-gateway's error body."""
    return ErrorAnswer(status, {"code": code, "message": message, "details": []}, headers)


def router(service: LogLiteService, *, accept_dsse: bool = True) -> APIRouter:
    """Build the routes. `accept_dsse` takes dsseRequestV002, which Rekor dropped and some clients still send."""
    api = APIRouter()

    async def create(request: Request) -> Response:
        shard, body = service.v2_shard(_host(request)), await read_body(request)
        return await run_in_threadpool(_created, service, shard, body, accept_dsse=accept_dsse)

    # A route of Starlette's: FastAPI's dependencies and telemetry took a tenth of an append.
    api.add_route("/api/v2/log/entries", create, methods=["POST"])
    for prefix in ("", "/api/v2"):
        _reads(api, prefix, service)
    return api


def _reads(api: APIRouter, prefix: str, service: LogLiteService) -> None:
    @api.get(f"{prefix}/checkpoint")
    def checkpoint(request: Request) -> Response:
        shard = service.v2_shard(_host(request))
        note = service.note_by_url if request.scope.get(BY_URL) else service.note
        return plain(note(shard, service.view(shard)), "text/plain; charset=utf-8", NO_CACHE)

    @api.get(f"{prefix}/tile/entries/{{path:path}}")
    def bundle(path: str, request: Request) -> Response:
        shard = service.v2_shard(_host(request))
        return entries_answer(service, shard, path, _bundle_item)

    @api.get(f"{prefix}/tile/{{level}}/{{path:path}}")
    def tile(level: str, path: str, request: Request) -> Response:
        return tile_answer(service, service.v2_shard(_host(request)), level, path)


def _host(request: Request) -> str:
    return (request.url.hostname or "").lower()


class OwnAddress:
    """ASGI middleware: the Rekor v2 log alone, under `V2_PATH`, for clients that tell logs apart by their URLs."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Remove `V2_PATH` from a request for the Rekor v2 log; other logs cannot be reached under it."""
        path = scope.get("path", "")
        if scope["type"] == "http" and path.startswith(f"{V2_PATH}/"):
            inner = path.removeprefix(V2_PATH)
            if inner.startswith(PATHS):
                scope = {**scope, "path": inner, "raw_path": inner.encode(), BY_URL: True}
        await self.app(scope, receive, send)


def parse_tile_path(path: str) -> tuple[int, int] | None:
    """Return the index and width that a tile path names; `None` unless the path is canonical."""
    match = _INDEX.fullmatch(path)
    if not match:
        return None
    digits = match[1].replace("x", "").replace("/", "")
    width = int(match[2]) if match[2] else TILE_WIDTH
    leading_zero_group = len(digits) > 3 and digits.startswith("000")  # noqa: PLR2004  one group
    return (
        None if leading_zero_group or width > TILE_WIDTH or (match[2] and width == TILE_WIDTH) else (int(digits), width)
    )


def tile_answer(service: LogLiteService, shard: Shard, level: str, path: str) -> Response:
    """Serve a hash tile."""
    place = parse_tile_path(path)
    if place is None or not re.fullmatch(r"[0-7]", level):
        return Response(status_code=404)
    index, width = place
    view = service.view(shard)
    try:
        raw = view.tree.tile(int(level), index, width, view.size)
    except OutsideTree:
        return Response(status_code=404)
    return plain(service.lens(shard).tile(raw, width), "application/octet-stream", IMMUTABLE)


def entries_answer(service: LogLiteService, shard: Shard, path: str, item: Callable[[Entry], bytes]) -> Response:
    """Serve an entry bundle or data tile: the bytes that `item` makes of each entry, one after the other."""
    place = parse_tile_path(path)
    view = service.view(shard)
    if place is None or place[0] * TILE_WIDTH + place[1] > view.size:
        return Response(status_code=404)
    index, width = place
    start = index * TILE_WIDTH

    def made() -> bytes:
        return b"".join(item(entry) for entry in view.range(start, start + width))

    raw = service.full_bundle(shard, index, made) if width == TILE_WIDTH else made()
    return plain(service.lens(shard).bundle(raw, width), "application/octet-stream", IMMUTABLE)


def _bundle_item(entry: Entry) -> bytes:
    # SPEC tlog-tiles: "sequence of big-endian uint16 length-prefixed log entries".
    return len(entry.body).to_bytes(2, "big") + entry.body


def _created(service: LogLiteService, shard: Shard, body: bytes, *, accept_dsse: bool) -> Response:
    if shard.row.state != "active":
        raise problem(405, _UNIMPLEMENTED, FROZEN)
    try:
        request = parse_object(body)
        proposal = propose(request, accept_dsse=accept_dsse)
    except (NotJson, UnknownField) as error:
        raise problem(400, _INVALID, f"proto: syntax error: {error}") from error
    except Rejected as error:
        message = str(error)
        known = message.startswith(("invalid type", "invalid entry"))
        raise problem(400, _INVALID, message if known else f"invalid hashedrekord request: {message}") from error
    try:
        accepted = service.submit(shard, proposal.draft(shard.row.name))
    except Pushback as error:
        raise problem(503, _UNAVAILABLE, "reached max pushback; retry", {"Retry-After": "1"}) from error
    except NotStored as error:
        raise problem(500, _INTERNAL, "failed to integrate entry") from error
    if isinstance(accepted, TreeClosed):
        raise problem(405, _UNIMPLEMENTED, FROZEN)
    if accepted.duplicate:
        index = accepted.entry.index
        message = f"an equivalent entry already exists in the transparency log with index {index}"
        raise problem(409, _EXISTS, message, {"x-log-index": str(index)})
    return JSONResponse(_entry(service, accepted), 201)


def _entry(service: LogLiteService, accepted: AcceptedSubmission) -> dict[str, Any]:
    """Return a TransparencyLogEntry in protobuf's JSON: int64 as strings, bytes as base64, defaults spelled out."""
    shard, view, entry = accepted.shard, accepted.view, accepted.entry
    kind = parse_object(entry.body)
    proof = service.lens(shard).proof(view.tree.inclusion_proof(entry.index, view.size))
    return {
        "logIndex": str(entry.index),
        "logId": {"keyId": _b64(shard.signer.verifier.log_id)},
        "kindVersion": {"kind": kind["kind"], "version": kind["apiVersion"]},
        "integratedTime": "0",
        "inclusionPromise": None,
        "inclusionProof": {
            "logIndex": str(entry.index),
            "rootHash": _b64(view.tree.root(view.size)),
            "treeSize": str(view.size),
            "hashes": [_b64(h) for h in proof],
            "checkpoint": {"envelope": service.note(shard, view).decode()},
        },
        "canonicalizedBody": _b64(entry.body),
    }


def _b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def too_large() -> ErrorAnswer:
    """Answer to a body over the limit."""
    return problem(400, _INVALID, "http: request body too large")


def not_found(_path: str) -> ErrorAnswer:
    """Answer to a path the write API does not have."""
    return problem(404, _NOT_FOUND, "Not Found")


def wrong_method(_method: str, _allowed: Sequence[str]) -> ErrorAnswer:
    """Answer to a method the write API does not have (grpc-gateway says 501)."""
    return problem(501, _UNIMPLEMENTED, "Method Not Allowed")


def unusable(why: str) -> ErrorAnswer:
    """Answer while the log cannot be read."""
    return problem(500, _INTERNAL, why)
