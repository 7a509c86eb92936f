"""How two installations compare: one asks, both judge, and each believes the other in nothing but signatures.

`GET /api/checkpoints` shows the newest signed head of every log followed here; `POST /api/checkpoints` takes such a
document from somebody else and says of each head how it stands to what was seen here. Who may call this is up to the
web server in front: nothing in it is secret, and a head that the log did not sign costs one signature check.
"""

import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from alerts.inert import inert_json
from monitor.crosscheck.peer_documents import (
    MAX_CHECKPOINTS,
    MAX_DOCUMENT,
    Answer,
    Comparison,
    NoPeer,
    Offered,
    latest_heads,
    read_answers,
    read_offers,
    verdicts_document,
)
from monitor.crosscheck.peer_evidence import judge_evidence
from monitor.crosscheck.peers import PeerState, Relation, Verdict, judge
from monitor.http_fetcher import MIB, Expect, Fetcher
from monitor.model.errors import FetchFailed
from monitor.model.log_source import LogSource
from monitor.proof.evidence import NotEvidence, from_document, to_document

PATH: Final = "/api/checkpoints"
MAX_ANSWER: Final = 8 * MIB
# A peer compares a few heads a minute; whoever wants more wants something else.
HEADS_PER_SECOND: Final = 1.0
BURST: Final = 2 * MAX_CHECKPOINTS


class Allowance:
    """At most `rate` a second on average and `burst` at once; unlike a waiting bucket, it says no."""

    def __init__(self, rate: float, burst: int, clock: Callable[[], float]) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._left, self._filled_at = float(burst), clock()

    def take(self, count: int = 1) -> bool:
        """Whether this many more are allowed now; if so, they are counted."""
        now = self._clock()
        self._left = min(float(self._burst), self._left + (now - self._filled_at) * self._rate)
        self._filled_at = now
        if count > self._left:
            return False
        self._left -= count
        return True


def allowance_of(clock: Callable[[], float]) -> Allowance:
    """The rate at which heads from outside are judged."""
    return Allowance(HEADS_PER_SECOND, BURST, clock)


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
        return JSONResponse(verdicts_document(verdicts))

    return router


def _refusal(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse(inert_json({"detail": detail}), status, headers)


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
            verdict = judge(offer.raw, source, state, now)
            compared.append((source, _weigh(verdict, offer.evidence, source, state, now)))
    answers = _ask_to_judge(fetcher, compared, state)
    comparisons = []
    for source, verdict in compared:
        answer = answers.get(source.identity.log, Answer(""))
        weighed = _weigh(verdict, answer.evidence, source, state, now)
        said = answer.relation if answer.relation in {*Relation, ""} else "something else"
        comparisons.append(Comparison(source.identity.log, weighed, said))
    return comparisons


def _ask_to_judge(
    fetcher: Fetcher, compared: Sequence[tuple[LogSource, Verdict]], state: PeerState
) -> dict[str, Answer]:
    # The peer's own view may be too short to see the contradiction by itself.
    shown = {source.identity.log: to_document(v.evidence) for source, v in compared if v.evidence is not None}
    ours = latest_heads(state, [source for source, _ in compared], shown)
    try:
        answers = read_answers(fetcher.post_json(PATH, ours, max_bytes=MAX_ANSWER))
    except FetchFailed:
        # Its own heads were judged already; what it thinks of ours is a second chance, not the comparison.
        return {}
    # In the order asked: the peer's names for logs are not ours.
    return {each["log"]: answer for each, answer in zip(ours["checkpoints"], answers, strict=False)}


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
