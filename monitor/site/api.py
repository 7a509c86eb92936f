"""The API for programs: the site's functions under a token of an account. Described at `/api/openapi.json`."""

import json
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from monitor.site import destinations as places
from monitor.site.accounts import account_document, announce_signing, announced_json
from monitor.site.lookup import look
from monitor.site.pages import looked_json
from monitor.site.parts import Site
from monitor.site.sessions import Refused
from monitor.site.subscribing import add_subscription, change_subscription
from monitor.site.subscription_view import row_json, seen_by, seen_json
from monitor.store.signings import Place
from monitor.store.subscribers import Subscriber, Subscription
from rules.asking import PREFIX, Ask, ask_of, read_ask
from rules.subject import MAX_TEXT, NotASubject, Subject, read_subject
from settings.document import DocumentError

_PAGE: Final = 200
Before = Annotated[str, Query(max_length=250, description="`older` of the page before: signings behind it are given.")]
Identifier = Annotated[str, Path(max_length=64)]
LogName = Annotated[str, Field(max_length=200)]


class Problem(BaseModel):
    """Why a request was not done."""

    error: str
    detail: str


class NewSubscription(BaseModel):
    """A name and, where the proposed expectation is not wanted, a rule: `select` and `expect` as YAML or JSON."""

    model_config = ConfigDict(extra="forbid")
    name: Annotated[str, Field(min_length=1, max_length=MAX_TEXT)]
    title: Annotated[str, Field(max_length=80)] = ""
    rule: Annotated[str, Field(max_length=16_384)] = ""


class ChangedSubscription(BaseModel):
    """A new rule for a subscription."""

    model_config = ConfigDict(extra="forbid")
    rule: Annotated[str, Field(min_length=1, max_length=16_384)]
    title: Annotated[str, Field(max_length=80)] = ""


class Answer(BaseModel):
    """A subscriber's answer about one signing."""

    model_config = ConfigDict(extra="forbid")
    log: LogName
    index: Annotated[int, Field(ge=0, lt=2**62)]
    mine: bool


class Announcement(BaseModel):
    """A digest that will be signed, so many times, within so many days."""

    model_config = ConfigDict(extra="forbid")
    digest: Annotated[str, Field(max_length=200)]
    count: Annotated[int, Field(ge=1, le=1_000)] = 1
    days: Annotated[int, Field(ge=1, le=365)] = 7
    note: Annotated[str, Field(max_length=200)] = ""


class NewDestination(BaseModel):
    """A destination: `mail`, `webhook`, `slack` or `atom`, and its address or URL."""

    model_config = ConfigDict(extra="forbid")
    kind: Annotated[str, Field(pattern="^(mail|webhook|slack|atom)$")]
    target: Annotated[str, Field(max_length=500)] = ""


class Action(BaseModel):
    """Change of a destination; `code` goes with `verify`."""

    model_config = ConfigDict(extra="forbid")
    action: Annotated[str, Field(pattern="^(verify|resend|resume|rotate|renew|remove)$")]
    code: Annotated[str, Field(max_length=64)] = ""


_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem} for status in (400, 401, 403, 404, 409, 422, 429, 503)
}


def router(site: Site) -> APIRouter:  # noqa: C901  a list of routes
    """Routes of the API."""
    routes = APIRouter(responses=_ERRORS, default_response_class=JSONResponse)

    def reader(request: Request) -> Subscriber:
        return _caller(site, request, writes=False)

    def writer(request: Request) -> Subscriber:
        return _caller(site, request, writes=True)

    @routes.get("/look", summary="What was signed in a name")
    def look_up(
        request: Request, name: Annotated[str, Query(max_length=MAX_TEXT)], before: Before = ""
    ) -> dict[str, Any]:
        site.limits.api(site.door.client(request))
        return looked_json(site, look(site.past, _subject(name), site.clock()), before)

    @routes.get("/account", summary="Everything kept about the account")
    def account(caller: Annotated[Subscriber, Depends(reader)]) -> dict[str, Any]:
        return account_document(site, caller)

    @routes.get("/subscriptions", summary="Subscriptions of the account")
    def subscriptions(caller: Annotated[Subscriber, Depends(reader)]) -> list[dict[str, Any]]:
        return [_document(each) for each in site.subscribers.subscriptions(caller.id)]

    @routes.post("/subscriptions", summary="Subscribe", status_code=201)
    def subscribe(asked: NewSubscription, caller: Annotated[Subscriber, Depends(writer)]) -> dict[str, Any]:
        subject = _subject(asked.name)
        ask = _ask(asked.rule) if asked.rule else _proposed(site, subject)
        title = "".join(char for char in asked.title if char.isprintable()) or subject.title
        return _document(add_subscription(site, caller.id, ask, subject.text, title))

    @routes.get("/subscriptions/{subscription}", summary="One subscription with the signings it saw")
    def one(
        subscription: Identifier, caller: Annotated[Subscriber, Depends(reader)], before: Before = ""
    ) -> dict[str, Any]:
        seen = seen_by(site, _own(site, subscription, caller), limit=_PAGE, after=Place.read(before))
        rows = {"signings": [row_json(row) for row in seen.rows], "older": _older(seen.older)}
        return seen_json(seen) | rows

    @routes.put("/subscriptions/{subscription}", summary="Change what a subscription selects and expects")
    def change(
        subscription: Identifier, changed: ChangedSubscription, caller: Annotated[Subscriber, Depends(writer)]
    ) -> dict[str, Any]:
        mine = _own(site, subscription, caller)
        change_subscription(site, mine, _ask(changed.rule), changed.title or mine.title)
        return _document(_own(site, subscription, caller))

    @routes.delete("/subscriptions/{subscription}", summary="End a subscription", status_code=204)
    def end(subscription: Identifier, caller: Annotated[Subscriber, Depends(writer)]) -> Response:
        site.subscribers.unsubscribe(_own(site, subscription, caller).id, caller.id)
        return Response(status_code=204)

    @routes.post(
        "/subscriptions/{subscription}/answers", summary="Say of a signing: it was me, or not", status_code=204
    )
    def answer(subscription: Identifier, said: Answer, caller: Annotated[Subscriber, Depends(writer)]) -> Response:
        mine = _own(site, subscription, caller)
        asks = site.subscribers.stood_for(mine.id)
        if not any(site.found.one(f"{PREFIX}{ask}", said.log, said.index) for ask, _ in asks):
            raise Refused(404, "No such signing", "The subscription saw no signing there.")
        site.subscribers.answer(mine.id, said.log, said.index, mine=said.mine)
        return Response(status_code=204)

    @routes.get("/subscriptions/{subscription}/announcements", summary="Signings announced to a subscription")
    def announced(subscription: Identifier, caller: Annotated[Subscriber, Depends(reader)]) -> list[dict[str, Any]]:
        mine = _own(site, subscription, caller)
        return [announced_json(each) for each in site.subscribers.announced(mine.id)]

    @routes.post(
        "/subscriptions/{subscription}/announcements",
        summary="Announce a signing to a subscription that expects announced ones only",
        status_code=201,
    )
    def announce(
        subscription: Identifier, new: Announcement, caller: Annotated[Subscriber, Depends(writer)]
    ) -> list[dict[str, Any]]:
        mine = _own(site, subscription, caller)
        site.limits.change(caller.id)
        announce_signing(site, mine, new.digest, count=str(new.count), days=str(new.days), note=new.note)
        return [announced_json(each) for each in site.subscribers.announced(mine.id)]

    @routes.delete(
        "/subscriptions/{subscription}/announcements/{number}", summary="Withdraw an announcement", status_code=204
    )
    def withdraw(
        subscription: Identifier,
        number: Annotated[int, Path(ge=1, lt=2**62)],
        caller: Annotated[Subscriber, Depends(writer)],
    ) -> Response:
        if not site.subscribers.withdraw(_own(site, subscription, caller).id, number):
            raise Refused(404, "No such announcement", "It was withdrawn already, or it is another subscription's.")
        return Response(status_code=204)

    @routes.get("/destinations", summary="Where the account is told")
    def listed(caller: Annotated[Subscriber, Depends(reader)]) -> list[dict[str, Any]]:
        return [_place(site, each) for each in site.subscribers.destinations(caller.id)]

    @routes.post("/destinations", summary="Add a destination", status_code=201)
    def add(new: NewDestination, caller: Annotated[Subscriber, Depends(writer)]) -> dict[str, Any]:
        site.limits.change(caller.id)
        return _said(places.add(site, caller, new.kind, new.target))

    @routes.post("/destinations/{destination}", summary="Prove, renew, resume or remove a destination")
    def act(destination: Identifier, wanted: Action, caller: Annotated[Subscriber, Depends(writer)]) -> dict[str, Any]:
        site.limits.change(caller.id)
        return _said(places.act(site, caller, destination, wanted.action, wanted.code))

    return routes


def _older(place: Place | None) -> str | None:
    """Value of `before` for the next page; `None` on the last."""
    return None if place is None else str(place)


def _caller(site: Site, request: Request, *, writes: bool) -> Subscriber:
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    found = site.subscribers.by_token(token.strip()) if kind.lower() == "bearer" and len(token) < 200 else None  # noqa: PLR2004
    if found is None:
        site.limits.api(site.door.client(request))
        raise Refused(401, "No token", "Send a token of your account as `Authorization: Bearer …`.")
    subscriber, scope = found
    site.limits.api(subscriber.id)
    if writes and scope != "write":
        raise Refused(403, "Only for reading", "This token may not change anything. Make one with the scope write.")
    return subscriber


def _subject(name: str) -> Subject:
    try:
        return read_subject(name)
    except NotASubject as wrong:
        hint = f" Did you mean {wrong.repair}?" if wrong.repair else ""
        raise Refused(400, "Not a name", f"{wrong}{hint}") from None


def _ask(rule: str) -> Ask:
    try:
        return read_ask(rule)
    except DocumentError as error:
        raise Refused(400, "Not a rule for subscriptions", str(error)) from None


def _proposed(site: Site, subject: Subject) -> Ask:
    looked = look(site.past, subject, site.clock())
    return ask_of(subject.select(), {part.key: part.expect for part in looked.parts})


def _own(site: Site, subscription: str, caller: Subscriber) -> Subscription:
    found = site.subscribers.subscription(subscription, caller.id)
    if found is None:
        raise Refused(404, "No such subscription", "It ended, or it is not yours.")
    return found


def _document(subscription: Subscription) -> dict[str, Any]:
    return {
        "id": subscription.id,
        "name": subscription.subject,
        "title": subscription.title,
        "rule": json.loads(subscription.document),
        "created_at": subscription.created_at.isoformat(),
    }


def _place(site: Site, destination: Any) -> dict[str, Any]:
    return {
        "id": destination.id,
        "kind": destination.kind,
        "target": places.shown_target(destination),
        "state": destination.state,
        "error": destination.error,
        **({"url": places.feed_url(site, destination)} if destination.kind == places.ATOM else {}),
    }


def _said(shown: places.Shown) -> dict[str, Any]:
    return {"message": shown.message, "ok": not shown.is_bad, **({"secret": shown.secret} if shown.secret else {})}
