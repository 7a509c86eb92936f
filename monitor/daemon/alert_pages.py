"""One alert over HTTP: its page, its JSON, and the changes that a signed link, a sign-in or the API's token permits.

A GET changes nothing, so a program that follows every link of a mail acknowledges no alert.
"""

import hmac
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal
from urllib.parse import parse_qsl, quote

from fastapi import APIRouter, Header, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from msgspec import Struct
from msgspec.structs import replace
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from alerts.alert import Alert, lasting, rfc3339
from alerts.delivery import idempotency_key
from alerts.inert import inert_json, inert_line
from alerts.links import PROVEN_KIND, Links, is_signed
from alerts.page import page_of
from alerts.rendering import json_document
from monitor.daemon.pages import environment
from monitor.daemon.signing_proofs import SigningProofs
from monitor.model.errors import FetchFailed
from monitor.store.alert_life import AlertLife, ChangeAuthor, NoSuchAlert
from monitor.store.outbox import Silence
from monitor.store.patterns import Patterns, pattern_note
from monitor.store.reading import KeptAlert, Reading
from rules.acknowledged import NoPattern, SignerPattern

if TYPE_CHECKING:
    from monitor.daemon.sign_in import Operator, SignIn

_EVIDENCE: Final = 50
_MAX_FORM: Final = 16_384
_MAX_DIGITS: Final = 12
_HOURS: Final = (1, 8, 24, 7 * 24, 30 * 24)


class AlertDesk(Struct, frozen=True):
    """Parts of the pages about alerts. `token` permits changes through the API; an empty one permits none."""

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

    def expect_like(self, alert: str, ref: str | None, who: ChangeAuthor) -> ChangeAuthor:
        """Store the pattern of an alert; returns `who` with the pattern's number in the note.

        Raises `HTTPException` (422). A `ref` equal to the alert's own is no glob and widens no pattern.
        """
        try:
            _, like = self.patterns.like(alert)
            kept = self.patterns.add(alert, None if ref == like.ref else ref, who, self.clock())
        except NoPattern as error:
            raise HTTPException(422, str(error)) from error
        return ChangeAuthor(who.name, pattern_note(who.note, kept.number))


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


class _Permit(Struct, frozen=True):
    """Permission for a form: the hidden fields it carries, and the operator if one signed in."""

    fields: Mapping[str, str]
    operator: "Operator | None" = None
    can_sign_in: bool = False


def alert_router(desk: AlertDesk) -> APIRouter:
    """Routes under `/alerts/` (pages) and `/api/alerts`, `/api/patterns` and `/api/silences` (JSON); `/login`."""
    router = APIRouter()
    sign_in = None
    if desk.token:
        from monitor.daemon.sign_in import SignIn  # noqa: PLC0415  imports the site's sessions and itsdangerous

        sign_in = SignIn(desk.token, desk.links.base, desk.clock)
        _add_sign_in(router, desk, sign_in)
    _add_pages(router, desk, sign_in)
    _add_api(router, desk)
    _add_standing(router, desk)
    return router


def _add_sign_in(router: APIRouter, desk: AlertDesk, sign_in: "SignIn") -> None:
    def form_page(target: str, *, is_wrong: bool) -> HTMLResponse:
        open_alerts = sum(desk.reading.open_alerts().values())
        page = environment().get_template("login.html.j2")
        text = page.render(target=target, is_wrong=is_wrong, now=desk.clock(), open_alerts=open_alerts)
        return HTMLResponse(text, 403 if is_wrong else 200)

    @router.get("/login")
    def ask(request: Request, next: str = "") -> Response:  # noqa: A002  the name in the address
        # A browser does not send a strict cookie to a page that a mail opens, but sends it after a click on this link.
        if sign_in.operator(request) is not None:
            return RedirectResponse(_page_of_ours(next), 303)
        return form_page(_page_of_ours(next), is_wrong=False)

    @router.post("/login")
    async def begin(request: Request) -> Response:
        form = await _form(request)
        sign_in.check_origin(request)
        target = _page_of_ours(form.get("next", ""))
        response = RedirectResponse(target, 303)
        if sign_in.begin(response, form.get("token", "").strip()):
            return response
        return await run_in_threadpool(form_page, target, is_wrong=True)

    @router.post("/logout")
    async def end(request: Request) -> Response:
        form = await _form(request)
        sign_in.require(request, form.get("csrf", ""))
        response = RedirectResponse("/alerts", 303)
        sign_in.end(response)
        return response


def _page_of_ours(target: str) -> str:
    """Target after the sign-in: a page of alerts, never another site."""
    return target if target.startswith("/alerts/") and len(target) <= _MAX_FORM else "/alerts"


def _add_pages(router: APIRouter, desk: AlertDesk, sign_in: "SignIn | None") -> None:
    @router.get("/proofs/{alert:path}")
    def proof(alert: str) -> Response:
        return _proof(desk, desk.kept(alert).alert)

    @router.get("/alerts/{alert:path}")
    def page(alert: str, request: Request, until: int = 0, signature: str = "") -> HTMLResponse:
        kept = desk.kept(alert)
        operator = sign_in.operator(request) if sign_in is not None else None
        if operator is not None:
            return _page(desk, kept, _Permit({"csrf": operator.csrf}, operator))
        may = _is_signed(desk, alert, until, signature)
        fields = {"until": str(until), "signature": signature} if may else {}
        return _page(desk, kept, _Permit(fields, can_sign_in=sign_in is not None))

    @router.post("/alerts/{alert:path}")
    async def change(alert: str, request: Request) -> Response:
        form = await _form(request)
        if sign_in is not None and "csrf" in form:
            permit = _Permit({"csrf": form["csrf"]}, sign_in.require(request, form["csrf"]))
        else:
            fields = _link_fields(desk, alert, form)
            permit = _Permit(fields, can_sign_in=sign_in is not None)
        return await run_in_threadpool(changed, alert, form, permit)

    def changed(alert: str, form: dict[str, str], permit: _Permit) -> Response:
        _change(desk, desk.kept(alert).alert, form, permit)
        return _page(desk, desk.kept(alert), permit)


def _change(desk: AlertDesk, alert: Alert, form: dict[str, str], permit: _Permit) -> None:
    """Make the change that a form asks for. Raises `HTTPException`."""
    now, unnamed = desk.clock(), "a reader of the mail" if permit.operator is None else "a holder of the token"
    who = ChangeAuthor(
        inert_line(form.get("by", "").strip() or unnamed, 200), inert_line(form.get("note", "").strip(), 2_000)
    )
    match form.get("change"):
        case "reopen":
            desk.life.reopen(alert.id, who, now)
        case "revoke":
            number = form.get("pattern", "")
            # A link is for one alert: it may not revoke another alert's pattern.
            if not _is_number(number) or not desk.patterns.revoke(int(number), who, now, alert.id):
                raise HTTPException(404, "no pattern of this number was made of this alert")
        case "silence" | "unsilence" as wanted:
            if permit.operator is None:
                raise HTTPException(403, "a link acknowledges one alert: sign in to silence others")
            _change_silences(desk, alert, form, who if wanted == "silence" else None)
        case _:
            is_like = form.get("pattern") == "like"
            who = desk.expect_like(alert.id, form.get("ref", "").strip() or None, who) if is_like else who
            desk.life.acknowledge(alert.id, who, now)


def _link_fields(desk: AlertDesk, alert: str, form: dict[str, str]) -> dict[str, str]:
    """The fields of a signed link in a form. Raises `HTTPException` (403)."""
    until, signature = form.get("until", ""), form.get("signature", "")
    if not _is_number(until) or not _is_signed(desk, alert, int(until), signature):
        raise HTTPException(403, "this link is invalid or expired: sign in, or acknowledge with the command")
    return {"until": until, "signature": signature}


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS


def _change_silences(desk: AlertDesk, alert: Alert, form: dict[str, str], who: ChangeAuthor | None) -> None:
    """Silence later alerts that share a trait with this one; without `who`, end a silence. Raises `HTTPException`."""
    now, number, hours = desk.clock(), form.get("silence", ""), form.get("hours", "")
    if who is None:
        if not _is_number(number) or not desk.life.silences.end(int(number), now):
            raise HTTPException(404, "no silence of this number is in force")
        return
    if hours not in {str(each) for each in _HOURS}:
        raise HTTPException(422, f"a silence ends after one of these hours: {', '.join(map(str, _HOURS))}")
    wanted = _silences_of(alert, now + timedelta(hours=int(hours)), who).get(form.get("like", ""))
    if wanted is None:
        raise HTTPException(422, "this alert has no such trait, or is of a kind that is never silenced")
    desk.life.silences.add(wanted, now)


def _silences_of(alert: Alert, expires: datetime, who: ChangeAuthor) -> dict[str, Silence]:
    """The silences that can be made of an alert, by trait; none of a log's misbehaviour."""
    plain = Silence(expires, who.name, who.note)
    made = {
        "rule": replace(plain, rule=alert.rule or None),
        "identity": replace(plain, identity=alert.identity or None),
        "kind": replace(plain, kind=alert.kind),
    }
    return {name: each for name, each in made.items() if each.covers(alert)}


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
        who, now = ChangeAuthor(body.by, body.note), desk.clock()
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
        if not desk.patterns.revoke(number, ChangeAuthor("a holder of the token"), desk.clock()):
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
        raise HTTPException(404, "this alert is about no stored signing")
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


def _page(desk: AlertDesk, kept: KeptAlert, permit: _Permit) -> HTMLResponse:
    alert, now = kept.alert, desk.clock()
    like: SignerPattern | None = None
    if permit.fields and alert.kind == "unexpected-signing":
        with suppress(NoPattern):
            _, like = desk.patterns.like(alert.id)
    against = [each for each in desk.reading.open_evidence(_EVIDENCE) if each.log == alert.log]
    silences = desk.life.silences.all() if permit.operator is not None else []
    text = (
        environment()
        .get_template("alert.html.j2")
        .render(
            kept=kept,
            has_proof=alert.kind == PROVEN_KIND and alert.index is not None,
            alert=alert,
            page=page_of(alert, idempotency_key(alert.id, "page")),
            evidence=[each for each in against if each.kind == alert.kind],
            changes=desk.life.changes(alert.id),
            like=like,
            patterns=desk.patterns.all(alert=alert.id),
            permit=permit,
            traits=list(_silences_of(alert, now, ChangeAuthor(""))) if permit.operator is not None else [],
            hours=[(each, lasting(timedelta(hours=each))) for each in _HOURS],
            silences=[each for each in silences if each.ended_at is None and each.expires > now and each.covers(alert)],
            sign_in=f"/login?next={quote('/alerts/' + quote(alert.id.encode('utf-8', 'replace'), safe=''), safe='')}",
            now=now,
            open_alerts=sum(desk.reading.open_alerts().values()),
        )
    )
    return HTMLResponse(text)
