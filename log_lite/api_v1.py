"""Routes of the Rekor v1 API under /api/v1, with Rekor's own error bodies."""

import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query
from fastapi.responses import JSONResponse, Response

from log_lite.ledger import V1, TreeClosed
from log_lite.proposals.proposal import NotJson, Proposal, Rejected, binary, parse_object, text
from log_lite.proposals.rekor_v1 import NotInsertable, UnknownKind, propose
from log_lite.proposals.rekord import canonical_key
from log_lite.rekor_v1 import NotObservable, RekorV1
from log_lite.sequencer import NotStored, Pushback
from log_lite.service import LogLiteService
from log_lite.shard import Shard, ShardEntry
from log_lite.wire import NO_CACHE, ErrorAnswer, plain, read_body
from tlog.merkle import leaf_hash

_UUID: Final = re.compile(r"[0-9a-fA-F]{64}|[0-9a-fA-F]{80}")
_INTEGER: Final = re.compile(r"-?(0|[1-9][0-9]{0,18})")
_TREE_ID: Final = re.compile(r"[0-9]{1,20}")
_MAX_RETRIEVE: Final = 10
# go-openapi's codes for failed validations, all answered with HTTP 422.
_WRONG_TYPE, _REQUIRED, _PATTERN, _NOT_LISTED, _TOO_SMALL, _TOO_MANY = 601, 602, 605, 606, 609, 611
# SPEC rekor pkg/util, PrefixSHA: the length of a digest without an algorithm names the algorithm.
_SHA_OF_LENGTH: Final = {40: "sha1", 64: "sha256", 128: "sha512"}
_BODY = Annotated[bytes, Depends(read_body)]
_TEXT = Annotated[str | None, Query()]


def problem(status: int, message: str, code: int | None = None, headers: dict[str, str] | None = None) -> ErrorAnswer:
    """Rekor's error body: `{"code", "message"}`; the code differs from the status for failed validations."""
    return ErrorAnswer(status, {"code": code or status, "message": message}, headers)


def router(service: LogLiteService) -> APIRouter:  # noqa: C901  one closure per route
    """Build the routes."""
    api = APIRouter(prefix="/api/v1")
    log = RekorV1(service)

    @api.get("/log")
    def log_info() -> Response:
        return JSONResponse(log.log_info(), headers=NO_CACHE)

    @api.get("/log/publicKey")
    def public_key(treeID: _TEXT = None) -> Response:  # noqa: N803  the API's name
        return plain(_shard(log, treeID).signer.key.public_pem(), "application/x-pem-file", NO_CACHE)

    @api.get("/log/proof")
    def proof(firstSize: _TEXT = None, lastSize: _TEXT = None, treeID: _TEXT = None) -> Response:  # noqa: N803  the API's names
        first = 1 if firstSize is None else _integer("firstSize", firstSize, 1)
        if lastSize is None:
            raise problem(422, "lastSize in query is required", _REQUIRED)
        last = _integer("lastSize", lastSize, 1)
        if first > last:
            raise problem(400, f"firstSize({first}) must be less than lastSize({last})")
        shard = _shard(log, treeID)
        try:
            return JSONResponse(log.consistency(shard, first, last), headers=NO_CACHE)
        except NotObservable as error:
            seen = error.observable
            message = f"the tree size requested({last}) was greater than what is currently observable({seen})"
            raise problem(400, message) from error

    @api.post("/log/entries")
    def create(body: _BODY) -> Response:
        proposal = _proposal(_object(body, "proposedEntry"))
        return _created(log, service, proposal)

    @api.get("/log/entries")
    def by_index(logIndex: _TEXT = None) -> Response:  # noqa: N803  the API's name
        if logIndex is None:
            raise problem(422, "logIndex in query is required", _REQUIRED)
        return _found(log, log.by_virtual_index(_integer("logIndex", logIndex, 0)))

    @api.get("/log/entries/{uuid}")
    def by_uuid(uuid: str) -> Response:
        if not _UUID.fullmatch(uuid):
            message = "entryUUID in path should match '^([0-9a-fA-F]{64}|[0-9a-fA-F]{80})$'"
            raise problem(422, message, _PATTERN)
        return _found(log, log.by_uuid(uuid))

    @api.post("/log/entries/retrieve")
    @api.post("/log/entries/retrieve/", include_in_schema=False)
    def retrieve(body: _BODY) -> Response:
        places = service.lens(log.shards()[-1]).retrieved(_retrieve(log, _object(body, "entry")))
        return JSONResponse([log.log_entry(place) for place in places], headers=NO_CACHE)

    @api.post("/index/retrieve")
    def search(body: _BODY) -> Response:
        return JSONResponse(_search(log, _object(body, "query")), headers=NO_CACHE)

    return api


def _shard(log: RekorV1, tree_id: str | None) -> Shard:
    if tree_id is not None and not _TREE_ID.fullmatch(tree_id):
        raise problem(422, "treeID in query should match '^[0-9]+$'", _PATTERN)
    shard = log.by_tree_id(tree_id)
    if shard is None:
        raise problem(400, f"no log range found for tree ID {tree_id}")
    return shard


def _integer(name: str, value: str, least: int) -> int:
    if not _INTEGER.fullmatch(value):
        raise problem(422, f'{name} in query must be of type int64: "{value:.40}"', _WRONG_TYPE)
    number = int(value)
    if number < least:
        raise problem(422, f"{name} in query should be greater than or equal to {least}", _TOO_SMALL)
    return number


def _object(body: bytes, name: str) -> dict[str, Any]:
    if not body.strip():
        raise problem(422, f"{name} in body is required", _REQUIRED)
    try:
        return parse_object(body)
    except NotJson as error:
        raise problem(400, f'parsing {name} body from "" failed, because {error}') from error


def _proposal(entry: Mapping[str, Any]) -> Proposal:
    if not entry.get("kind"):
        raise problem(422, "kind in body is required", _REQUIRED)
    try:
        return propose(entry)
    except UnknownKind as error:
        raise problem(422, str(error)) from error
    except Rejected as error:
        raise problem(400, f"error processing entry: {error}") from error


def _created(log: RekorV1, service: LogLiteService, proposal: Proposal) -> Response:
    try:
        accepted = service.submit(log.shards()[-1], proposal.draft(V1))
    except Pushback as error:
        raise problem(503, "too many entries are waiting; retry", headers={"Retry-After": "1"}) from error
    except NotStored as error:
        raise problem(500, "error adding entry to the log") from error
    if isinstance(accepted, TreeClosed):
        raise problem(501, "this log is frozen: adding entries is disabled")
    place = ShardEntry(accepted.shard, accepted.view, accepted.entry)
    uuid = log.uuid(place)
    location = f"/api/v1/log/entries/{uuid}"
    if accepted.duplicate:
        message = f"an equivalent entry already exists in the transparency log with UUID {uuid}"
        raise problem(409, message, headers={"Location": location})
    return JSONResponse(log.log_entry(place), 201, {"ETag": uuid, "Location": location, **NO_CACHE})


def _found(log: RekorV1, place: ShardEntry | None) -> Response:
    if place is None:
        return Response(status_code=404)
    return JSONResponse(log.log_entry(place), headers=NO_CACHE)


def _retrieve(log: RekorV1, query: Mapping[str, Any]) -> list[ShardEntry]:
    lists = {name: query.get(name) or [] for name in ("entryUUIDs", "entries", "logIndexes")}
    for name, value in lists.items():
        if not isinstance(value, list):
            raise problem(422, f"{name} in body must be of type array", _WRONG_TYPE)
        if len(value) > _MAX_RETRIEVE:
            raise problem(422, f"{name} in body should have at most {_MAX_RETRIEVE} items", _TOO_MANY)
    if sum(map(len, lists.values())) > _MAX_RETRIEVE:
        raise problem(422, f"more than max allowed {_MAX_RETRIEVE} entries in request")
    # SPEC rekor entries.go: full UUIDs first, then entries found by leaf hash, then indexes; missing entries are left
    # out.
    found: list[ShardEntry | None] = []
    by_leaf: list[ShardEntry | None] = []
    for uuid in lists["entryUUIDs"]:
        if not isinstance(uuid, str) or not _UUID.fullmatch(uuid):
            raise problem(422, "entryUUIDs in body should match '^([0-9a-fA-F]{64}|[0-9a-fA-F]{80})$'", _PATTERN)
        (found if len(uuid) > 64 else by_leaf).append(log.by_uuid(uuid))  # noqa: PLR2004  hex digits of a leaf hash
    by_leaf.extend(log.by_uuid(_leaf_of(entry).hex()) for entry in lists["entries"])
    for index in lists["logIndexes"]:
        if not isinstance(index, int) or isinstance(index, bool):
            raise problem(422, "logIndexes in body must be of type integer", _WRONG_TYPE)
        if index < 0:
            raise problem(422, "logIndexes in body should be greater than or equal to 0", _TOO_SMALL)
    indexed = [log.by_virtual_index(index) for index in lists["logIndexes"]]
    return [place for place in found + by_leaf + indexed if place is not None]


def _leaf_of(entry: object) -> bytes:
    if not isinstance(entry, Mapping):
        raise problem(422, "entries in body must be of type object", _WRONG_TYPE)
    try:
        return propose(entry).leaf
    except NotInsertable as error:
        return leaf_hash(error.body)
    except UnknownKind as error:
        raise problem(422, str(error)) from error
    except Rejected as error:
        raise problem(400, f"error processing entry: {error}") from error


def _search(log: RekorV1, query: Mapping[str, Any]) -> list[str]:
    results: list[list[str]] = []
    for name in ("hash", "email", "subject"):
        value = query.get(name)
        if isinstance(value, str) and value:
            bare = _SHA_OF_LENGTH.get(len(value)) if name == "hash" else None
            results.append(log.search(f"{bare}:{value}" if bare else value))
    key = query.get("publicKey")
    if isinstance(key, Mapping):
        results.append(log.search(_key_fingerprint(key)))
    if not results:
        raise problem(400, "error searching index: one of email, subject, hash or publicKey is needed")
    operator = query.get("operator") or "or"
    if operator not in ("and", "or"):
        raise problem(422, "operator in body should be one of [and or]", _NOT_LISTED)
    if operator == "or":
        merged = dict.fromkeys(uuid for result in results for uuid in result)
    else:
        merged = dict.fromkeys(uuid for uuid in results[0] if all(uuid in result for result in results[1:]))
    return list(merged)


def _key_fingerprint(key: Mapping[str, Any]) -> str:
    try:
        return sha256(canonical_key(text(key, "format"), binary(key, "content"))).hexdigest()
    except Rejected as error:
        raise problem(400, f"invalid public key: {error}") from error


def not_found(path: str) -> ErrorAnswer:
    """Answer to a path that the API does not have, as go-openapi's."""
    return problem(404, f"path {path} was not found")


def wrong_method(method: str, allowed: Sequence[str]) -> ErrorAnswer:
    """Answer to a method that the path does not have, as go-openapi's."""
    return problem(405, f"method {method} is not allowed, but [{','.join(allowed)}] are")


def unusable(why: str) -> ErrorAnswer:
    """Answer while the log cannot be read."""
    return problem(500, why)


def too_large() -> ErrorAnswer:
    """Answer to a body over the limit."""
    return problem(413, "http: request body too large")
