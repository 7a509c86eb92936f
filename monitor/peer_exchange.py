"""What two installations say to each other: one document of signed heads either way, and one of verdicts back.

`GET /api/checkpoints` shows the newest signed head of every log followed here; `POST /api/checkpoints` takes such a
document from somebody else and says of each head how it stands to what was seen here. Who may call this is up to the
web server in front: nothing in it is secret, and a head that the log did not sign costs one signature check.
"""

import base64
import binascii
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any, Final

import msgspec
from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from alerts.inert import inert_json
from monitor.errors import FetchFailed
from monitor.evidence import NotEvidence, from_document, to_document
from monitor.net import MIB, Expect, Fetcher
from monitor.peers import MAX_HEAD_SIZE, Allowance, PeerState, Relation, Verdict, judge, judge_evidence
from monitor.source import LogApi, LogIdentity, LogSource

MEDIA_TYPE: Final = "application/vnd.signwatch.checkpoints+json"
VERDICTS_TYPE: Final = "application/vnd.signwatch.verdicts+json"
VERSION: Final = 1
PATH: Final = "/api/checkpoints"
MAX_DOCUMENT: Final = MIB
MAX_ANSWER: Final = 8 * MIB
MAX_CHECKPOINTS: Final = 64
# A peer compares a few heads a minute; whoever wants more wants something else.
HEADS_PER_SECOND: Final = 1.0
BURST: Final = 2 * MAX_CHECKPOINTS
_MAX_TEXT: Final = 500


class NoPeer(FetchFailed):
    """The other side does not speak this: no document of checkpoints, or not one of this version."""


class _Checkpoint(msgspec.Struct):
    api: str
    origin: str
    key: str
    head: str
    log: str = ""
    evidence: dict[str, Any] | None = None


class _Document(msgspec.Struct):
    mediaType: str  # noqa: N815
    version: int
    checkpoints: list[_Checkpoint]


class _Answer(msgspec.Struct):
    relation: str
    detail: str = ""
    log: str = ""
    evidence: dict[str, Any] | None = None


class _Answers(msgspec.Struct):
    mediaType: str  # noqa: N815
    version: int
    verdicts: list[_Answer]


@dataclass(frozen=True, slots=True)
class Offered:
    """One head as somebody offers it: of which log (protocol, origin, hex SHA-256 of the key's SPKI), and its bytes.

    `evidence` is a document that is said to show a contradiction of this log.
    """

    api: str
    origin: str
    key: str
    raw: bytes
    name: str = ""
    evidence: dict[str, Any] | None = None

    def is_of(self, identity: LogIdentity) -> bool:
        """Whether it claims to be of this very tree. Names differ between installations; keys and origins do not."""
        same_origin = identity.api is LogApi.CT_RFC6962 or self.origin == identity.origin
        return self.api == identity.api and self.key == fingerprint(identity) and same_origin


@dataclass(frozen=True, slots=True)
class Comparison:
    """One log put side by side. `theirs` is what we make of the peer's head, `ours` what the peer makes of ours.

    `ours` is the peer's word only. It is empty when the peer said nothing about this log.
    """

    log: str
    theirs: Verdict
    ours: str = ""


def fingerprint(identity: LogIdentity) -> str:
    """Hex SHA-256 of the log's key."""
    return sha256(identity.spki).hexdigest()


def latest_heads(state: PeerState, sources: Sequence[LogSource]) -> dict[str, Any]:
    """Document of the newest trusted head of every tree that is followed, as the log signed it."""
    checkpoints = []
    for identity in (source.identity for source in sources[:MAX_CHECKPOINTS]):
        position = state.position(identity.log)
        if position is not None:
            head = position.head.head
            checkpoints.append(
                {
                    "log": identity.log,
                    "api": identity.api.value,
                    "origin": identity.origin,
                    "key": fingerprint(identity),
                    "size": head.size,
                    "root": head.root.hex(),
                    "head": base64.b64encode(head.raw).decode(),
                }
            )
    return {"mediaType": MEDIA_TYPE, "version": VERSION, "checkpoints": checkpoints}


def read_offers(raw: bytes) -> list[Offered]:
    """Read a document of checkpoints. Raises `NoPeer`; nothing in it is verified yet."""
    if len(raw) > MAX_DOCUMENT:
        raise NoPeer(f"a document of {len(raw)} bytes is longer than {MAX_DOCUMENT}")
    try:
        document = msgspec.json.decode(raw, type=_Document)
        offers = [_offered(each) for each in document.checkpoints]
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise NoPeer(f"not a document of checkpoints: {error!s:.200}") from error
    if document.mediaType != MEDIA_TYPE or document.version != VERSION:
        raise NoPeer(f"not version {VERSION} of {MEDIA_TYPE}")
    if len(offers) > MAX_CHECKPOINTS:
        raise NoPeer(f"{len(offers)} checkpoints; at most {MAX_CHECKPOINTS} are compared at once")
    return offers


def _offered(each: _Checkpoint) -> Offered:
    if any(len(text) > _MAX_TEXT for text in (each.api, each.origin, each.key, each.log)):
        raise ValueError(f"a name in it is longer than {_MAX_TEXT} characters")
    if len(each.head) > MAX_HEAD_SIZE * 4 // 3 + 4:
        raise ValueError(f"a head in it is longer than {MAX_HEAD_SIZE} bytes")
    try:
        raw = base64.b64decode(each.head, validate=True)
    except binascii.Error as error:
        raise ValueError("a head in it is not base64") from error
    return Offered(each.api, each.origin, each.key, raw, each.log, each.evidence)


class Peers:
    """Judges what peers offer. `sources` are its own, not those that following is using at the same time.

    One judgement runs at a time: each may ask a log, and nobody outside may make us ask many.
    """

    def __init__(
        self,
        state: PeerState,
        sources: Callable[[], Sequence[LogSource]],
        *,
        clock: Callable[[], datetime],
        allowance: Allowance,
    ) -> None:
        self._state, self._sources, self._clock, self._allowance = state, sources, clock, allowance
        self._busy = threading.Lock()

    def latest(self) -> dict[str, Any]:
        """See `latest_heads`."""
        return latest_heads(self._state, self._sources())

    def judge(self, offers: Sequence[Offered]) -> list[tuple[Offered, Verdict]] | None:
        """Judge every offer in order; `None` when that is too much to ask now."""
        if not self._busy.acquire(blocking=False):
            return None
        try:
            if not self._allowance.take(max(1, len(offers))):
                return None
            sources, now = self._sources(), self._clock()
            return [(offer, self._one(offer, sources, now)) for offer in offers]
        finally:
            self._busy.release()

    def _one(self, offer: Offered, sources: Sequence[LogSource], now: datetime) -> Verdict:
        source = next((each for each in sources if offer.is_of(each.identity)), None)
        if source is None:
            return Verdict(Relation.UNKNOWN_LOG, "this log is not followed here")
        return _weigh(judge(offer.raw, source, self._state, now), offer.evidence, source, self._state, now)


def peers_router(peers: Peers) -> APIRouter:
    """Routes for `GET` and `POST /api/checkpoints`."""
    router = APIRouter()

    @router.get(PATH)
    def checkpoints() -> JSONResponse:
        return JSONResponse(peers.latest())

    @router.post(PATH)
    async def compare_checkpoints(request: Request) -> JSONResponse:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_DOCUMENT:
                return _refusal(413, f"longer than {MAX_DOCUMENT} bytes")
        try:
            offers = read_offers(bytes(body))
        except NoPeer as error:
            return _refusal(400, str(error))
        verdicts = await run_in_threadpool(peers.judge, offers)
        if verdicts is None:
            return _refusal(429, "too many comparisons; try again in a minute", {"Retry-After": "60"})
        told = [_told(offer, verdict) for offer, verdict in verdicts]
        return JSONResponse({"mediaType": VERDICTS_TYPE, "version": VERSION, "verdicts": told})

    return router


def _refusal(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse(inert_json({"detail": detail}), status, headers)


def _told(offer: Offered, verdict: Verdict) -> dict[str, Any]:
    told: dict[str, Any] = {"log": offer.name, "relation": verdict.relation.value, "detail": verdict.detail}
    told = dict(inert_json(told))
    if verdict.compared is not None:
        head = verdict.compared
        told["compared"] = {"size": head.size, "root": head.root.hex(), "head": base64.b64encode(head.raw).decode()}
    told["proof"] = [base64.b64encode(node).decode() for node in verdict.proof]
    if verdict.evidence is not None:
        told["evidence"] = to_document(verdict.evidence)
    return told


def ask_peer(fetcher: Fetcher, sources: Sequence[LogSource], state: PeerState, now: datetime) -> list[Comparison]:
    """Compare with one peer, both ways: judge what it shows, then have it judge what we show.

    Contradictions are kept and alerted before this returns. A peer's claim of one counts only when the evidence it
    sends proves it. Raises `FetchFailed` when the peer shows nothing; when it only will not judge, `ours` is empty.
    """
    raw = fetcher.get(PATH, max_bytes=MAX_DOCUMENT, expect=Expect.JSON)
    compared = []
    for offer in read_offers(raw):
        source = next((each for each in sources if offer.is_of(each.identity)), None)
        if source is not None:
            compared.append((source, judge(offer.raw, source, state, now)))
    answers = _ask_to_judge(fetcher, compared, state)
    comparisons = []
    for source, verdict in compared:
        answer = answers.get(source.identity.log, _Answer(""))
        weighed = _weigh(verdict, answer.evidence, source, state, now)
        said = answer.relation if answer.relation in {*Relation, ""} else "something else"
        comparisons.append(Comparison(source.identity.log, weighed, said))
    return comparisons


def _ask_to_judge(
    fetcher: Fetcher, compared: Sequence[tuple[LogSource, Verdict]], state: PeerState
) -> dict[str, _Answer]:
    ours = latest_heads(state, [source for source, _ in compared])
    shown = {source.identity.log: to_document(v.evidence) for source, v in compared if v.evidence is not None}
    for each in ours["checkpoints"]:
        if each["log"] in shown:
            # The peer's own view may be too short to see the contradiction by itself.
            each["evidence"] = shown[each["log"]]
    try:
        raw = fetcher.post_json(PATH, ours, max_bytes=MAX_ANSWER)
        answers = msgspec.json.decode(raw, type=_Answers)
    except (FetchFailed, msgspec.DecodeError, RecursionError, ValueError):
        # Its own heads were judged already; what it thinks of ours is a second chance, not the comparison.
        return {}
    if (answers.mediaType, answers.version) != (VERDICTS_TYPE, VERSION):
        return {}
    # In the order asked: the peer's names for logs are not ours.
    return {each["log"]: answer for each, answer in zip(ours["checkpoints"], answers.verdicts, strict=False)}


def _weigh(
    verdict: Verdict, offered: dict[str, Any] | None, source: LogSource, state: PeerState, now: datetime
) -> Verdict:
    """Return our verdict, or a contradiction where evidence offered beside a head proves one that we did not see."""
    if verdict.relation is Relation.CONTRADICTION or offered is None:
        return verdict
    try:
        kept = judge_evidence(from_document(offered), source, state, now)
    except NotEvidence:
        return verdict
    if kept is None:
        return verdict
    return Verdict(Relation.CONTRADICTION, kept.detail, verdict.offered, None, kept.proof, kept)


def allowance_of(clock: Callable[[], float]) -> Allowance:
    """The rate at which heads from outside are judged."""
    return Allowance(HEADS_PER_SECOND, BURST, clock)


def comparison_document(peer: str, comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """Plain JSON types for scripts."""
    return {
        "peer": peer,
        "logs": [
            {
                "log": each.log,
                "relation": each.theirs.relation.value,
                "detail": each.theirs.detail,
                "peer_says": each.ours or None,
                "size": each.theirs.offered.size if each.theirs.offered else None,
                "compared_size": each.theirs.compared.size if each.theirs.compared else None,
                "proof": [base64.b64encode(node).decode() for node in each.theirs.proof],
            }
            for each in comparisons
        ],
    }
