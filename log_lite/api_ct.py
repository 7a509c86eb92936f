"""Routes of the CT log under /ct: RFC 6962 (add-chain, add-pre-chain and the GETs) and static-ct-api reads."""

import base64
import binascii
import re
from collections.abc import Sequence
from hashlib import sha256
from typing import Annotated, Any, Final

from cryptography.hazmat.primitives.serialization import Encoding
from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool

from log_lite.api_v2 import entries_answer, tile_answer
from log_lite.chain import BadChain, check_chain
from log_lite.ledger import CT, TreeClosed
from log_lite.notes import digitally_signed
from log_lite.proposals.proposal import NotJson, parse_object
from log_lite.sequencer import NotStored, Pushback
from log_lite.service import LogLiteService
from log_lite.shard import Shard
from log_lite.store import Entry
from log_lite.tree import OutsideTree
from log_lite.wire import IMMUTABLE, NO_CACHE, ErrorAnswer, plain, read_body
from tlog.ct import EntryType, Reader, parse_leaf, sct_message, tree_head_message

# SPEC RFC 6962 4.6: a log may restrict how many entries it returns; the default of Google's CTFE.
MAX_GET_ENTRIES: Final = 1000
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,18}")
_TEXT = Annotated[str | None, Query()]


def router(  # noqa: C901  one closure per route
    service: LogLiteService, *, max_get_entries: int = MAX_GET_ENTRIES
) -> APIRouter:
    """Build the routes. One answer of `get-entries` holds `max_get_entries` entries at most."""
    api = APIRouter(prefix="/ct")

    def shard() -> Shard:
        return service.ledger.active(CT)

    async def add_chain(request: Request) -> Response:
        return await run_in_threadpool(_add, service, await read_body(request), precertificate=False)

    async def add_pre_chain(request: Request) -> Response:
        return await run_in_threadpool(_add, service, await read_body(request), precertificate=True)

    # Routes of Starlette's, without the dependencies of FastAPI's, which each submission would pay for.
    api.add_route("/ct/ct/v1/add-chain", add_chain, methods=["POST"])
    api.add_route("/ct/ct/v1/add-pre-chain", add_pre_chain, methods=["POST"])

    @api.get("/ct/v1/get-roots")
    def roots() -> Response:
        return JSONResponse({"certificates": [_b64(a.public_bytes(Encoding.DER)) for a in service.anchors]})

    @api.get("/ct/v1/get-sth")
    def tree_head() -> Response:
        return JSONResponse(_tree_head(service, shard()), headers=NO_CACHE)

    @api.get("/ct/v1/get-sth-consistency")
    def consistency(first: _TEXT = None, second: _TEXT = None) -> Response:
        view = service.view(shard())
        size1, size2 = _number("first", first), _number("second", second)
        try:
            hashes = service.lens(shard()).proof(view.tree.consistency_proof(size1, _within(size2, view.size)))
        except OutsideTree as error:
            raise _problem(400, str(error)) from error
        return JSONResponse({"consistency": [_b64(h) for h in hashes]}, headers=NO_CACHE)

    @api.get("/ct/v1/get-entries")
    def entries(start: _TEXT = None, end: _TEXT = None) -> Response:
        view = service.view(shard())
        first, last = _number("start", start), _number("end", end)
        if first > last or first >= view.size:
            raise _problem(400, f"start ({first}) and end ({last}) are not a range of a log of {view.size} entries")
        found = view.range(first, min(last + 1, first + max_get_entries))
        listed = [{"leaf_input": _b64(e.body), "extra_data": _b64(e.extra)} for e in found]
        return JSONResponse({"entries": listed}, headers=NO_CACHE)

    @api.get("/ct/v1/get-proof-by-hash")
    def proof_by_hash(hash: _TEXT = None, tree_size: _TEXT = None) -> Response:  # noqa: A002  the API's name
        view = service.view(shard())
        size = _within(_number("tree_size", tree_size), view.size)
        leaf = _bytes("hash", hash)
        places = [index for index in view.find(leaf) if index < size]
        if not places:
            raise _problem(404, "no such leaf in a tree of this size")
        path = service.lens(shard()).proof(view.tree.inclusion_proof(places[0], size))
        return JSONResponse({"leaf_index": places[0], "audit_path": [_b64(h) for h in path]}, headers=NO_CACHE)

    @api.get("/ct/v1/get-entry-and-proof")
    def entry_and_proof(leaf_index: _TEXT = None, tree_size: _TEXT = None) -> Response:
        view = service.view(shard())
        index, size = _number("leaf_index", leaf_index), _within(_number("tree_size", tree_size), view.size)
        entry = view.entry(index) if index < size else None
        if entry is None:
            raise _problem(400, f"leaf_index {index} is not below tree_size {size}")
        path = service.lens(shard()).proof(view.tree.inclusion_proof(index, size))
        content = {
            "leaf_input": _b64(entry.body),
            "extra_data": _b64(entry.extra),
            "audit_path": [_b64(h) for h in path],
        }
        return JSONResponse(content, headers=NO_CACHE)

    @api.get("/checkpoint")
    def checkpoint() -> Response:
        return plain(service.note(shard(), service.view(shard())), "text/plain; charset=utf-8", NO_CACHE)

    @api.get("/tile/data/{path:path}")
    def data_tile(path: str) -> Response:
        return entries_answer(service, shard(), path, tile_leaf)

    @api.get("/tile/{level}/{path:path}")
    def hash_tile(level: str, path: str) -> Response:
        return tile_answer(service, shard(), level, path)

    @api.get("/issuer/{fingerprint}")
    def issuer(fingerprint: str) -> Response:
        found = (
            service.ledger.store.issuer(bytes.fromhex(fingerprint))
            if re.fullmatch(r"[0-9a-f]{64}", fingerprint)
            else None
        )
        return plain(found, "application/pkix-cert", IMMUTABLE) if found else Response(status_code=404)

    return api


def _add(service: LogLiteService, body: bytes, *, precertificate: bool) -> Response:
    try:
        chain = _chain(parse_object(body))
        submission = check_chain(chain, service.anchors, precertificate=precertificate)
    except (NotJson, BadChain) as error:
        raise _problem(400, f"Bad Request: {error}") from error
    shard = service.ledger.active(CT)
    try:
        accepted = service.submit(shard, submission.draft())
    except Pushback as error:
        raise _problem(429, "too many submissions are waiting; retry", {"Retry-After": "1"}) from error
    except NotStored as error:
        raise _problem(500, "the entry could not be stored") from error
    if isinstance(accepted, TreeClosed):
        raise _problem(403, "this log is frozen and takes no entries")
    return _sct(accepted.shard, accepted.entry)


def _chain(request: dict[str, Any]) -> list[bytes]:
    chain = request.get("chain")
    if not isinstance(chain, list) or not all(isinstance(item, str) for item in chain):
        raise BadChain("chain is not a list of base64 certificates")
    return [_bytes("chain", item) for item in chain]


def _sct(shard: Shard, entry: Entry) -> Response:
    leaf = parse_leaf(entry.body)
    signature = digitally_signed(shard.signer.key, sct_message(leaf))
    content = {
        "sct_version": 0,
        "id": _b64(shard.signer.verifier.log_id),
        "timestamp": leaf.timestamp,
        "extensions": _b64(leaf.extensions),
        "signature": _b64(signature),
    }
    return JSONResponse(content, headers=NO_CACHE)


def _tree_head(service: LogLiteService, shard: Shard) -> dict[str, Any]:
    lens, view, timestamp = service.lens(shard), service.view(shard), service.now_ms(shard)
    head = lens.head(view.head())
    message = tree_head_message(head.size, timestamp, head.root)
    signature = lens.tree_head_signature(digitally_signed(lens.tree_head_signer(shard.signer).key, message))
    return {
        "tree_size": head.size,
        "timestamp": timestamp,
        "sha256_root_hash": _b64(head.root),
        "tree_head_signature": _b64(signature),
    }


def tile_leaf(entry: Entry) -> bytes:
    """SPEC static-ct-api, TileLeaf: TimestampedEntry, the precertificate for precert entries, chain fingerprints."""
    # An imported body has no chain: readers parse six zero bytes as an empty precertificate and an empty chain.
    extra, precertificate = Reader(entry.extra or bytes(6)), b""
    if parse_leaf(entry.body).entry_type is EntryType.PRECERT:
        raw = extra.vector(3)
        precertificate = len(raw).to_bytes(3, "big") + raw
    issuers, fingerprints = Reader(extra.vector(3)), b""
    while issuers.left():
        fingerprints += sha256(issuers.vector(3)).digest()
    return entry.body[2:] + precertificate + len(fingerprints).to_bytes(2, "big") + fingerprints


def _within(size: int, observable: int) -> int:
    if size > observable:
        raise _problem(400, f"tree size {size} is larger than this log's {observable}")
    return size


def _number(name: str, value: str | None) -> int:
    if value is None or not _NUMBER.fullmatch(value):
        raise _problem(400, f"parameter {name} is not a whole number")
    return int(value)


def _bytes(name: str, value: str | None) -> bytes:
    try:
        return base64.b64decode(value or "", validate=True)
    except (binascii.Error, ValueError) as error:
        raise _problem(400, f"{name} is not base64") from error


def _problem(status: int, message: str, headers: dict[str, str] | None = None) -> ErrorAnswer:
    return ErrorAnswer(status, {"error_code": status, "error_message": message}, headers)


def not_found(path: str) -> ErrorAnswer:
    """Answer to a path that the API does not have."""
    return _problem(404, f"path {path} was not found")


def wrong_method(method: str, allowed: Sequence[str]) -> ErrorAnswer:
    """Answer to a method that the path does not have."""
    return _problem(405, f"method {method} is not allowed, but {', '.join(allowed)}")


def too_large() -> ErrorAnswer:
    """Answer to a body over the limit."""
    return _problem(413, "the request body is too large")


def unusable(why: str) -> ErrorAnswer:
    """Answer while the log cannot be read."""
    return _problem(500, why)


def _b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
