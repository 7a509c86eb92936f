"""Rekor's search API over the archive, so that clients of Rekor v1 can search other logs, and Signwatch's own API.

Answers are signed by this installation's own key, which `/api/v1/log/publicKey` gives: it states that the entry is
in the tree whose root this installation verified. `signwatch search --prove` exports the log's own signatures. SPEC
rekor openapi.yaml: /api/v1/index/retrieve, /api/v1/log/entries.

Under `V1_FORM` the same API gives entries of Rekor v2 in the form of Rekor v1, which rekor-cli can print. Such a form
is in no log: it stands alone in a tree of one leaf, whose checkpoint this installation signs under a name of its own.
"""

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Final

import rfc8785
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from fastapi import APIRouter, Body, HTTPException, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from alerts.inert import inert_json
from monitor.archive.answer import ArchiveRow, SearchAnswer
from monitor.archive.histogram import as_svg
from monitor.archive.proofs import RunProver
from monitor.archive.query import MOST_OF_A_PAGE, BadQuery, MatchMode, Query, guessed_match, read_moment, whole_name
from monitor.archive.ranges import ArchiveManifest
from monitor.archive.search import Archive
from monitor.archive.search_index import SEARCHED, KeyKind
from monitor.daemon.rekor_form import V1_FORM, RekorRoute, unknown_paths
from monitor.model.errors import FetchFailed, OwnFault
from monitor.model.log_source import CT_APIS, LogApi, LogSource
from monitor.program import utc_now
from monitor.store.key_file import read_or_make
from sigstore_entries.certificate import MalformedVerifier
from sigstore_entries.keys import (
    signer_from_key,
    signer_from_minisign,
    signer_from_pem,
    signer_from_pgp,
    signer_from_ssh,
)
from sigstore_entries.rekor_v1_form import rekor_v1_form
from tlog.merkle import RootHash, leaf_hash

_SECONDS: Final = 10.0  # of one search; the coverage names the entries that were not searched in it
_MOST: Final = 1_000  # entries in the answer to one query of Rekor's API
_AT_ONCE: Final = 10  # SPEC rekor openapi.yaml: entryUUIDs, maxItems 10
_LARGEST_KEY: Final = 64 * 1024
_LEAF_HEX: Final = 64
_TREE_HEX: Final = 16
_LONGEST_WORD: Final = 200
Sources = Callable[[], Sequence[LogSource]]


def _new_key() -> bytes:
    made = ec.generate_private_key(ec.SECP256R1())
    return made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """This installation's key for answers, made at the first use. Raises `OwnFault`."""
    try:
        key = load_pem_private_key(read_or_make(path, _new_key), None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise OwnFault(f"{path}: the key of search answers cannot be read or made: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise OwnFault(f"{path}: the key of search answers is no P-256 key")
    return key


def search_router(archive: Archive, sources: Sources, key: ec.EllipticCurvePrivateKey) -> APIRouter:
    """Paths of both APIs. `sources` give the bytes of entries."""
    router = APIRouter()
    rekor = RekorApi(archive, sources, key)

    router.include_router(_rekor_routes(rekor, in_v1_form=False))
    router.include_router(_rekor_routes(rekor, in_v1_form=True), prefix=V1_FORM)
    router.include_router(unknown_paths(tuple(router.routes)))

    @router.get("/api/search")
    def search(  # noqa: PLR0917  the names are the parameters of the URL
        q: str,
        kind: str | None = None,
        match: MatchMode | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        log: str | None = None,
        limit: int = 50,
    ) -> Response:
        query = _query(q, kind, match, log, times=(since, until), limit=limit)
        answer = _answered(lambda: archive.search(query, per_day=True))
        document: dict[str, Any] = {
            "total": answer.total,
            "left_out": answer.cut,
            "coverage": answer.coverage.document(),
        }
        # Lists inside a row are cut as in alerts; the list of rows is not.
        rows = [inert_json(row.document()) for row in answer.rows]
        days = {f"{day}": count for day, count in answer.per_day.items()}
        return JSONResponse({**inert_json(document), "rows": rows, "per_day": days})

    @router.get("/api/search.svg")
    def picture(  # noqa: PLR0917  the names are the parameters of the URL
        q: str,
        kind: str | None = None,
        match: MatchMode | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        log: str | None = None,
    ) -> Response:
        query = _query(q, kind, match, log, times=(since, until))
        answer = _answered(lambda: archive.search(query, per_day=True))
        title = "Entries a day" + ("" if answer.coverage.complete else ": only the searched entries are counted")
        return Response(as_svg(answer.per_day, title), media_type="image/svg+xml")

    return router


def _rekor_routes(rekor: "RekorApi", *, in_v1_form: bool) -> APIRouter:
    """Paths of Rekor's API."""
    router = APIRouter(route_class=RekorRoute)

    @router.post("/api/v1/index/retrieve")
    def retrieve_index(query: Annotated[dict[str, Any], Body()]) -> Response:
        uuids, answer = rekor.uuids(query)
        covered = "cut" if answer.cut else "complete"
        headers = {
            "X-Signwatch-Matches": str(answer.total),
            "X-Signwatch-Left-Out": str(answer.cut),
            "X-Signwatch-Coverage": covered if answer.coverage.complete else "partial",
        }
        return JSONResponse(uuids, headers=headers)

    @router.get("/api/v1/log/entries/{uuid}")
    def entry_by_uuid(uuid: str) -> Response:
        return JSONResponse(rekor.entry(rekor.row_of(uuid), in_v1_form=in_v1_form))

    @router.get("/api/v1/log/entries")
    def entry_by_index(logIndex: int) -> Response:  # noqa: N803  the parameter's name in Rekor's API
        return JSONResponse(rekor.entry(rekor.row_at(logIndex), in_v1_form=in_v1_form))

    @router.post("/api/v1/log/entries/retrieve")
    def retrieve_entries(query: Annotated[dict[str, Any], Body()]) -> Response:
        return JSONResponse(rekor.entries(query, in_v1_form=in_v1_form))

    @router.get("/api/v1/log/publicKey")
    def public_key() -> Response:
        return PlainTextResponse(rekor.public_key, media_type="application/x-pem-file")

    return router


def page_search(archive: Archive) -> Callable[[str, str, str, int], SearchAnswer]:
    """The search of the operator's page: a text, since, until and a limit, read as `signwatch search` reads them."""

    def search(text: str, since: str, until: str, limit: int) -> SearchAnswer:
        now = utc_now()
        begin, end = (read_moment(each, now) if each else None for each in (since, until))
        query = Query(
            whole_name(text),
            match=guessed_match(text),
            since=begin,
            until=end,
            limit=limit,
            most=MOST_OF_A_PAGE,
            seconds=_SECONDS,
        )
        return archive.search(query, per_day=True)

    return search


def _query(
    text: str,
    kind: str | None,
    match: MatchMode | None,
    log: str | None,
    *,
    times: tuple[datetime | None, datetime | None] = (None, None),
    limit: int = 0,
) -> Query:
    known = {each.word: each for each in SEARCHED}
    if kind is not None and kind not in known:
        raise HTTPException(400, f"kind is one of {', '.join(known)}")
    if any(at is not None and at.tzinfo is None for at in times):
        raise HTTPException(400, "since and until are times with a zone, such as 2026-01-31T00:00:00Z")
    return Query(
        text if match is not None else whole_name(text),
        frozenset() if kind is None else frozenset({known[kind]}),
        match or guessed_match(text),
        times[0],
        times[1],
        frozenset() if log is None else frozenset({log}),
        max(0, min(limit, _MOST)),
        most=MOST_OF_A_PAGE,
        seconds=_SECONDS,
    )


def _answered(ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except BadQuery as error:
        raise HTTPException(400, str(error)) from error


class RekorApi:
    """Answers of Rekor's API. Raises `HTTPException` for invalid queries."""

    def __init__(self, archive: Archive, sources: Sources, key: ec.EllipticCurvePrivateKey) -> None:
        self._archive, self._sources, self._key = archive, sources, key
        spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self._key_hash = sha256(spki).digest()
        self.public_key = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        self._bodies = lru_cache(maxsize=256)(self._fetched)

    def uuids(self, query: Mapping[str, Any]) -> tuple[list[str], SearchAnswer]:
        """UUIDs of the newest entries of Rekor logs for a SearchIndex document, and the answer that they are of."""
        first, *more = _asked(query) or (None,)
        if first is None:
            raise HTTPException(400, "name an email, a hash, a publicKey or a subject")
        operator = query.get("operator") or "or"
        if operator not in {"and", "or"}:
            raise HTTPException(400, "operator is `and` or `or`")
        also, within = ((), more) if operator == "and" else (more, ())
        answer: SearchAnswer = _answered(lambda: self._archive.search(first, also=also, within=within))
        manifests = self._archive.manifests()
        return [_uuid(manifests[row.log], row) for row in answer.rows], answer

    def row_of(self, uuid: str) -> ArchiveRow:
        """The entry with this UUID, with or without the tree's ID before it."""
        text = uuid.lower()
        if len(text) not in {_LEAF_HEX, _LEAF_HEX + _TREE_HEX} or set(text) - set("0123456789abcdef"):
            raise HTTPException(400, "an entry's UUID is 64 or 80 hexadecimal digits")
        manifests = self._archive.manifests()
        for row in self._archive.by_leaf(bytes.fromhex(text[-_LEAF_HEX:])):
            manifest = manifests[row.log]
            if manifest.identity.api not in CT_APIS and _uuid(manifest, row).endswith(text):
                return row
        raise HTTPException(404, "no archived entry has this UUID")

    def row_at(self, index: int) -> ArchiveRow:
        """The entry at an index, if exactly one Rekor tree is archived; with several an index is ambiguous."""
        manifests = self._archive.manifests()
        # An unread log may be a second tree, to which the index may belong.
        manifests.check_all_read()
        logs = [log for log, each in manifests.items() if each.identity.api not in CT_APIS]
        if len(logs) != 1:
            raise HTTPException(400, f"{len(logs)} Rekor trees are archived, each counted from 0: ask by UUID")
        row = self._archive.entry(logs[0], index)
        if row is None:
            raise HTTPException(404, "no archived entry has this index")
        return row

    def entries(self, query: Mapping[str, Any], *, in_v1_form: bool) -> list[dict[str, Any]]:
        """Answer a SearchLogQuery document."""
        uuids, indexes = query.get("entryUUIDs") or [], query.get("logIndexes") or []
        if query.get("entries"):
            raise HTTPException(501, "entries are found by UUID or index; search for their digest or key")
        if (
            not isinstance(uuids, list)
            or not isinstance(indexes, list)
            or not 0 < len(uuids) + len(indexes) <= _AT_ONCE
        ):
            raise HTTPException(400, f"ask for 1 to {_AT_ONCE} entries at once")
        if any(not isinstance(each, int) or isinstance(each, bool) for each in indexes):
            raise HTTPException(400, "an index is a whole number")
        rows = [self.row_of(str(each)) for each in uuids] + [self.row_at(each) for each in indexes]
        return [self.entry(row, in_v1_form=in_v1_form) for row in rows]

    def entry(self, row: ArchiveRow, *, in_v1_form: bool) -> dict[str, Any]:
        """A LogEntry document: entry, inclusion proof, checkpoint and timestamp signed with this installation's key."""
        manifest = self._archive.manifests()[row.log]
        run = manifest.run_at(row.index)
        if run is None:
            raise HTTPException(404, "the entry is no longer archived")
        body = self._bodies(manifest.identity.spki, manifest.identity.origin, row.index, row.leaf_hash)
        (proven,) = RunProver(self._archive.files, manifest, run).prove([row.index], {}).entries
        name, index, size, path, root = "signwatch-search", row.index, run.last, proven.path, run.end().root()
        form = rekor_v1_form(body) if in_v1_form and manifest.identity.api is LogApi.REKOR_V2 else body
        if form is None:
            raise HTTPException(501, _no_form(row, _uuid(manifest, row)))
        if form != body:
            # Its bytes are in no log: the proof is of this form alone.
            name, index, size, path, root = "signwatch-search-v1-form", 0, 1, (), RootHash(leaf_hash(form))
        signed: dict[str, str | int] = {
            "body": base64.b64encode(form).decode(),
            "integratedTime": 0 if row.time is None else int(row.time.timestamp()),
            "logID": sha256(manifest.identity.spki).hexdigest(),
            "logIndex": row.index,
        }
        verification = {
            "inclusionProof": {
                "checkpoint": self._checkpoint(manifest, name, size, root),
                "hashes": [node.hex() for node in path],
                "logIndex": index,
                "rootHash": root.hex(),
                "treeSize": size,
            },
            "signedEntryTimestamp": base64.b64encode(
                self._key.sign(rfc8785.dumps(signed), ec.ECDSA(SHA256()))
            ).decode(),
        }
        return {_uuid(manifest, row): {**signed, "verification": verification}}

    def _checkpoint(self, manifest: ArchiveManifest, name: str, size: int, root: bytes) -> str:
        """A signed note (C2SP) under a name of this installation's own."""
        origin = f"{name}/{manifest.identity.origin} - {int(_tree_id(manifest), 16)}"
        text = f"{origin}\n{size}\n{base64.b64encode(root).decode()}\n"
        # SPEC rekor signed_note.go: the key's hash is that of its SubjectPublicKeyInfo.
        raw = self._key_hash[:4] + self._key.sign(text.encode(), ec.ECDSA(SHA256()))
        return f"{text}\n\u2014 {name} {base64.b64encode(raw).decode()}\n"

    def _fetched(self, spki: bytes, origin: str, index: int, wanted: str) -> bytes:
        opened = ((each, each.identity) for each in self._sources())
        source = next((each for each, identity in opened if (identity.spki, identity.origin) == (spki, origin)), None)
        if source is None:
            raise HTTPException(503, f"{origin} cannot be asked for the entry now")
        try:
            (entry, *_) = source.entries(index, index + 1, source.latest())
        except FetchFailed as error:
            raise HTTPException(503, f"{origin} cannot be asked for the entry now: {error}") from error
        if entry.unread:
            raise HTTPException(413, f"the entry at {index} of {origin} is too large to be fetched")
        if leaf_hash(entry.leaf).hex() != wanted:
            raise HTTPException(502, f"{origin} now serves another entry at {index} than it signed")
        return entry.leaf


def _asked(query: Mapping[str, Any]) -> Sequence[Query]:
    """The queries of a SearchIndex document."""
    found = [(str(query[name]), KeyKind.IDENTITY) for name in ("email", "subject") if query.get(name)]
    if text := query.get("hash"):
        found.append((str(text)[:200], KeyKind.DIGEST))
    if (key := query.get("publicKey")) is not None:
        found.append((_fingerprint(key), KeyKind.FINGERPRINT))
    return [
        Query(text, frozenset({kind}), limit=_MOST, most=MOST_OF_A_PAGE, seconds=_SECONDS, rekor_only=True)
        for text, kind in found
    ]


def _fingerprint(key: Any) -> str:
    """The fingerprint that entries made with a key or certificate have."""
    if not isinstance(key, dict):
        raise HTTPException(400, "publicKey is an object with format and content")
    try:
        raw = base64.b64decode(str(key.get("content") or ""), validate=True)
        if len(raw) > _LARGEST_KEY:
            raise HTTPException(400, f"a key of more than {_LARGEST_KEY} bytes")
        match key.get("format"):
            case "x509" if raw.lstrip().startswith(b"-----"):
                signer = signer_from_pem(raw, "publicKey")
            case "x509":
                signer = signer_from_key(raw)
            case "pgp":
                signer = signer_from_pgp(raw)
            case "ssh":
                signer = signer_from_ssh(raw)
            case "minisign":
                signer = signer_from_minisign(raw)
            case _:
                raise HTTPException(400, "publicKey.format is x509, pgp, ssh or minisign")
    except (MalformedVerifier, binascii.Error, ValueError) as error:
        raise HTTPException(400, f"the key cannot be read: {error}") from error
    if not signer.fingerprints:
        raise HTTPException(400, "the key cannot be searched for: it has no fingerprint")
    return signer.fingerprints[0]


def _no_form(row: ArchiveRow, uuid: str) -> str:
    """Reason why an entry of Rekor v2 has no form of Rekor v1, and other ways to it."""
    kind, log = row.kind[:_LONGEST_WORD], row.log[:_LONGEST_WORD]
    reason = (
        "dsse 0.0.1 states the SHA-256 of the whole envelope, intoto 0.0.2 the type of its payload, and the entry of "
        "Rekor v2 holds neither"
        if row.kind == "dsse"
        else "Rekor v1 has no kind with the content of this entry"
    )
    return (
        f"entry {row.index} of {log}, of kind {kind}, has no form of Rekor v1: {reason}. GET "
        f"/api/v1/log/entries/{uuid} answers with the logged entry and its proof; `signwatch search --entry "
        f"{log}:{row.index} --prove FILE` writes both with the log's own signature"
    )


def _uuid(manifest: ArchiveManifest, row: ArchiveRow) -> str:
    return _tree_id(manifest) + row.leaf_hash


def _tree_id(manifest: ArchiveManifest) -> str:
    """16 hexadecimal digits: the tree's own ID for Rekor v1, else one derived from the log's key and origin."""
    identity = manifest.identity
    number = identity.origin.rpartition(" - ")[2]
    if identity.api is LogApi.REKOR_V1 and number.isdecimal():
        return f"{int(number) & (1 << 63) - 1:016x}"
    made = sha256(identity.spki + identity.origin.encode()).digest()
    # SPEC rekor sharding.go: a tree's ID is a positive int64.
    return f"{int.from_bytes(made[:8], 'big') >> 1:016x}"
