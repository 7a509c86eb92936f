"""One alert over HTTP: its page, its JSON, and the changes that a signed link or the API's token permits.

A GET changes nothing: programs that follow every link of a mail acknowledge no alert.
"""

import hmac
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, Literal
from urllib.parse import parse_qsl

from fastapi import APIRouter, Header, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from alerts.alert import Alert, rfc3339
from alerts.delivery import idempotency_key
from alerts.inert import inert_json, inert_line
from alerts.links import PROVEN_KIND, Links, is_signed
from alerts.page import page_of
from alerts.rendering import json_document
from monitor.daemon.pages import environment
from monitor.daemon.signing_proofs import SigningProofs
from monitor.model.errors import FetchFailed
from monitor.store.alert_life import AlertLife, NoSuchAlert, Who
from monitor.store.outbox import Silence
from monitor.store.patterns import Patterns, pattern_note
from monitor.store.reading import KeptAlert, Reading
from rules.acknowledged import NoPattern, SignerPattern

_TEMPLATE: Final = environment().get_template("alert.html.j2")
_EVIDENCE: Final = 50
_MAX_FORM: Final = 16_384
_MAX_DIGITS: Final = 12


@dataclass(frozen=True, slots=True)
class AlertDesk:
    """Parts that the pages of alerts work with. `token` permits changes through the API; an empty one permits none."""

    life: AlertLife
    reading: Reading
    links: Links
    token: bytes
    clock: Callable[[], datetime]
    proofs: SigningProofs

    def kept(self, alert: str) -> KeptAlert:
        """The alert with this whole id. Raises `HTTPException` (404)."""
        found = self.reading.alerts(1, ids=[alert])
        if not found:
            raise HTTPException(404, "there is no alert with this id")
        return found[0]

    def require_token(self, authorization: str) -> None:
        """Raise `HTTPException` (401, or 403 where the API changes nothing)."""
        if not self.token:
            raise HTTPException(403, "the API is read only: set web.token_file to let it change alerts")
        given = authorization.removeprefix("Bearer ").strip().encode("utf-8", "replace")
        if not hmac.compare_digest(given, self.token):
            raise HTTPException(
                401,
                "the header is `Authorization: Bearer` and the token of web.token_file",
                {"WWW-Authenticate": "Bearer"},
            )

    @property
    def patterns(self) -> Patterns:
        """Acknowledged patterns."""
        return Patterns(self.life.database)

    def expect_like(self, alert: str, ref: str | None, who: Who) -> Who:
        """Store the pattern of an alert; return who with its number in the note. Raises `HTTPException` (422).

        A `ref` that is the alert's own is no glob: it widens nothing.
        """
        try:
            _, like = self.patterns.like(alert)
            kept = self.patterns.add(alert, None if ref == like.ref else ref, who, self.clock())
        except NoPattern as error:
            raise HTTPException(422, str(error)) from error
        return Who(who.name, pattern_note(who.note, kept.number))


class _Change(BaseModel):
    by: str = Field(min_length=1, max_length=200)
    note: str = Field("", max_length=2_000)
    pattern: bool = False
    ref: str | None = Field(None, max_length=1_000)


class _Silence(_Change):
    rule: str | None = Field(None, max_length=200)
    identity: str | None = Field(None, max_length=2_000)
    kind: str | None = Field(None, max_length=100)
    hours: float = Field(gt=0, le=31 * 24)


def alert_router(desk: AlertDesk) -> APIRouter:
    """Routes under `/alerts/` (pages) and `/api/alerts`, `/api/patterns` and `/api/silences` (JSON)."""
    router = APIRouter()
    _add_pages(router, desk)
    _add_api(router, desk)
    _add_standing(router, desk)
    return router


def _add_pages(router: APIRouter, desk: AlertDesk) -> None:
    @router.get("/proofs/{alert:path}")
    def proof(alert: str) -> Response:
        return _proof(desk, desk.kept(alert).alert)

    @router.get("/alerts/{alert:path}")
    def page(alert: str, until: int = 0, signature: str = "") -> HTMLResponse:
        kept = desk.kept(alert)
        may = _is_signed(desk, alert, until, signature)
        return _page(desk, kept, until if may else 0, signature if may else "")

    @router.post("/alerts/{alert:path}")
    async def change(alert: str, request: Request) -> Response:
        form = await _form(request)
        return await run_in_threadpool(changed, alert, form)

    def changed(alert: str, form: dict[str, str]) -> Response:
        until, signature = form.get("until", ""), form.get("signature", "")
        is_number = until.isascii() and until.isdigit() and len(until) <= _MAX_DIGITS
        if not is_number or not _is_signed(desk, alert, int(until), signature):
            raise HTTPException(403, "this link is not valid, or not any more: acknowledge with the command")
        kept = desk.kept(alert)
        by = inert_line(form.get("by", "").strip() or "a reader of the mail", 200)
        who = Who(by, inert_line(form.get("note", "").strip(), 2_000))
        match form.get("change"):
            case "reopen":
                desk.life.reopen(kept.alert.id, who, desk.clock())
            case "revoke":
                number = form.get("pattern", "")
                is_number = number.isascii() and number.isdigit() and len(number) <= _MAX_DIGITS
                # A link is for one alert: what was made of another one is not its business.
                if not is_number or not desk.patterns.revoke(int(number), who, desk.clock(), kept.alert.id):
                    raise HTTPException(404, "no pattern of this number was made of this alert")
            case _:
                is_like = form.get("pattern") == "like"
                who = desk.expect_like(kept.alert.id, form.get("ref", "").strip() or None, who) if is_like else who
                desk.life.acknowledge(kept.alert.id, who, desk.clock())
        return _page(desk, desk.kept(alert), int(until), signature)


async def _form(request: Request) -> dict[str, str]:
    """The fields of a form, the last one of a name. Raises `HTTPException` for one that is too long or none."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > _MAX_FORM:
            raise HTTPException(413, "the form is too long")
    try:
        return dict(parse_qsl(body.decode("utf-8"), keep_blank_values=True, max_num_fields=10))
    except ValueError as error:
        raise HTTPException(400, "this is no form") from error


def _add_api(router: APIRouter, desk: AlertDesk) -> None:
    @router.get("/api/alerts/{alert}")
    def document(alert: str) -> Response:
        return JSONResponse(inert_json(alert_document(desk.kept(alert), desk.life, desk.links)))

    @router.post("/api/alerts/{alert}/{change}")
    def change(
        alert: str,
        change: Literal["acknowledge", "resolve", "reopen"],
        body: _Change,
        authorization: Annotated[str, Header()] = "",
    ) -> Response:
        desk.require_token(authorization)
        who, now = Who(body.by, body.note), desk.clock()
        try:
            whole = desk.life.find(alert)
        except NoSuchAlert as error:
            raise HTTPException(404, str(error)) from error
        if body.pattern and change != "acknowledge":
            raise HTTPException(422, "a pattern is made by acknowledging an alert")
        if body.pattern:
            who = desk.expect_like(whole, body.ref, who)
        if change == "resolve":
            desk.life.resolve([whole], who, now)
        else:
            (desk.life.acknowledge if change == "acknowledge" else desk.life.reopen)(whole, who, now)
        return JSONResponse(inert_json(alert_document(desk.kept(whole), desk.life, desk.links)))


def _add_standing(router: APIRouter, desk: AlertDesk) -> None:
    """Rules for later alerts: acknowledged patterns, and silences."""

    @router.get("/api/patterns")
    def patterns() -> Response:
        return JSONResponse(inert_json({"patterns": [each.document() for each in desk.patterns.all()]}))

    @router.delete("/api/patterns/{number}")
    def revoke(number: int, authorization: Annotated[str, Header()] = "") -> Response:
        desk.require_token(authorization)
        if not desk.patterns.revoke(number, Who("a holder of the token"), desk.clock()):
            raise HTTPException(404, "no pattern of this number is in force")
        return Response(status_code=204)

    @router.post("/api/silences")
    def silence(body: _Silence, authorization: Annotated[str, Header()] = "") -> Response:
        desk.require_token(authorization)
        now = desk.clock()
        wanted = Silence(now + timedelta(hours=body.hours), body.by, body.note, body.rule, body.identity, body.kind)
        try:
            number = desk.life.silences.add(wanted, now)
        except ValueError as error:
            raise HTTPException(422, str(error)) from error
        return JSONResponse({"number": number, "expires": rfc3339(wanted.expires)}, 201)

    @router.delete("/api/silences/{number}")
    def end(number: int, authorization: Annotated[str, Header()] = "") -> Response:
        desk.require_token(authorization)
        if not desk.life.silences.end(number, desk.clock()):
            raise HTTPException(404, "no silence of this number is in force")
        return Response(status_code=204)


def alert_document(kept: KeptAlert, life: AlertLife, links: Links) -> dict[str, Any]:
    """An alert, its state, its deliveries and its changes, as plain JSON types."""
    return {
        "alert": json_document(kept.alert, kept.alert.id, links),
        "state": kept.state,
        "silence": kept.silence,
        "deliveries": dict(kept.deliveries),
        "errors": dict(kept.errors),
        "changes": [
            {"change": each.kind, "at": rfc3339(each.at), "by": each.by, "note": each.note}
            for each in life.changes(kept.alert.id)
        ],
    }


def _proof(desk: AlertDesk, alert: Alert) -> Response:
    """The alert's signing with its proof, as a file. Raises `HTTPException`."""
    log, index = alert.log, alert.index
    leaf = None if log is None or index is None else desk.reading.leaf(log, index)
    if log is None or index is None or leaf is None or alert.kind != PROVEN_KIND:
        raise HTTPException(404, "this alert is of no signing that is kept here")
    about = {"alert": alert.id, "title": alert.title, "rule": alert.rule, "reasons": list(alert.reasons)}
    try:
        document = desk.proofs.document(log, index, leaf, inert_json(about))
    except FetchFailed as error:
        raise HTTPException(503, f"the proof cannot be built now: {error}", {"Retry-After": "60"}) from error
    name = f'attachment; filename="signing-{index}.json"'
    text = json.dumps(document, indent=1) + "\n"
    return Response(text, media_type="application/json", headers={"Content-Disposition": name})


def _is_signed(desk: AlertDesk, alert: str, until: int, signature: str) -> bool:
    return bool(desk.links.key and signature) and is_signed(desk.links.key, alert, until, signature, desk.clock())


def _page(desk: AlertDesk, kept: KeptAlert, until: int, signature: str) -> HTMLResponse:
    alert = kept.alert
    like: SignerPattern | None = None
    if signature and alert.kind == "unexpected-signing":
        with suppress(NoPattern):
            _, like = desk.patterns.like(alert.id)
    against = [each for each in desk.reading.open_evidence(_EVIDENCE) if each.log == alert.log]
    text = _TEMPLATE.render(
        kept=kept,
        has_proof=alert.kind == PROVEN_KIND and alert.index is not None,
        alert=alert,
        page=page_of(alert, idempotency_key(alert.id, "page")),
        evidence=[each for each in against if each.kind == alert.kind],
        changes=desk.life.changes(alert.id),
        like=like,
        patterns=desk.patterns.all(alert=alert.id),
        until=until,
        signature=signature,
        now=desk.clock(),
        open_alerts=sum(desk.reading.open_alerts().values()),
    )
    return HTMLResponse(text)
