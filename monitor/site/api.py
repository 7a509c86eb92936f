"""The API for programs: the site's functions under a token of an account. Described at `/api/openapi.json`."""

import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from alerts.inert import inert_json
from monitor.site import destinations as places
from monitor.site.accounts import (
    account_document,
    announce_signing,
    announced_json,
    delete_account,
    expect_of,
    invite,
    make_token,
    own_of,
    revoke_token,
    tokens_json,
)
from monitor.site.drafting import SubscriptionDraft, draft_of, every_judged, notes_of
from monitor.site.lookup import look
from monitor.site.pages import looked_json, part_json
from monitor.site.parts import Site
from monitor.site.sessions import RequestRefused
from monitor.site.subscribing import (
    add_subscription,
    change_subscription,
    evidence_document,
    seen_row,
    widen_to,
    widening,
)
from monitor.site.subscription_view import row_json, seen_by, seen_json
from monitor.store.signings import SigningCursor
from monitor.store.subscribers import Subscriber, Subscription
from rules.asking import Ask, ask_of, read_ask
from rules.rule import Outcome
from rules.subject import MAX_TEXT, NotASubject, Subject, read_subject
from settings.document import DocumentError

_PAGE: Final = 200
Before = Annotated[str, Query(max_length=250, description="`older` of the page before: signings behind it are given.")]
Identifier = Annotated[str, Path(max_length=64)]


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


class ASigning(BaseModel):
    """One signing that the subscription saw."""

    model_config = ConfigDict(extra="forbid")
    log: Annotated[str, Field(max_length=200)]
    index: Annotated[int, Field(ge=0, lt=2**62)]


class Answer(ASigning):
    """A subscriber's answer about one signing."""

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


class Invitation(BaseModel):
    """The address of a colleague, who gets a copy or, with `hand-over`, the subscription itself."""

    model_config = ConfigDict(extra="forbid")
    email: Annotated[str, Field(min_length=1, max_length=400)]
    how: Annotated[str, Field(pattern="^(copy|hand-over)$")] = "copy"


class Drafted(BaseModel):
    """An expectation to try: a `rule`, or the keys to `use` of the parts offered; neither: the proposed expectation."""

    model_config = ConfigDict(extra="forbid")
    rule: Annotated[str, Field(max_length=16_384)] = ""
    use: Annotated[list[Annotated[str, Field(max_length=80)]], Field(max_length=50)] | None = None


class NewDraft(Drafted):
    """A name, and an expectation to try."""

    name: Annotated[str, Field(min_length=1, max_length=MAX_TEXT)]


class Weekly(BaseModel):
    """Setting of the weekly mail."""

    model_config = ConfigDict(extra="forbid")
    on: bool


class NewToken(BaseModel):
    """A name and a scope, `read` or `write`, of a further token."""

    model_config = ConfigDict(extra="forbid")
    name: Annotated[str, Field(max_length=80)] = ""
    scope: Annotated[str, Field(pattern="^(read|write)$")] = "read"


class Deletion(BaseModel):
    """The account's own address, written out to confirm that all of it is deleted."""

    model_config = ConfigDict(extra="forbid")
    address: Annotated[str, Field(min_length=1, max_length=400)]


_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem} for status in (400, 401, 403, 404, 409, 422, 429, 503)
}


_Caller = Callable[[Request], Subscriber]


def router(site: Site) -> APIRouter:
    """Routes of the API."""
    routes = APIRouter(responses=_ERRORS, default_response_class=JSONResponse)

    def reader(request: Request) -> Subscriber:
        return _caller(site, request, writes=False)

    def writer(request: Request) -> Subscriber:
        caller = _caller(site, request, writes=True)
        site.limits.change(caller.id)
        return caller

    _add_subscriptions(routes, site, reader, writer)
    _add_signings(routes, site, reader, writer)
    _add_announcements(routes, site, reader, writer)
    _add_destinations(routes, site, reader, writer)
    _add_account(routes, site, reader, writer)
    return routes


def _add_subscriptions(routes: APIRouter, site: Site, reader: _Caller, writer: _Caller) -> None:
    @routes.get("/look", summary="What was signed in a name")
    def look_up(
        request: Request, name: Annotated[str, Query(max_length=MAX_TEXT)], before: Before = ""
    ) -> dict[str, Any]:
        site.limits.api(site.door.client(request))
        return looked_json(site, look(site.past, _subject(name), site.clock()), before)

    @routes.get("/subscriptions", summary="Subscriptions of the account")
    def subscriptions(caller: Annotated[Subscriber, Depends(reader)]) -> list[dict[str, Any]]:
        return [_document(each) for each in site.subscribers.subscriptions(caller.id)]

    @routes.post("/subscriptions", summary="Subscribe", status_code=201)
    def subscribe(asked: NewSubscription, caller: Annotated[Subscriber, Depends(writer)]) -> dict[str, Any]:
        subject = _subject(asked.name)
        ask = _ask(asked.rule) if asked.rule else _proposed(site, subject)
        title = "".join(char for char in asked.title if char.isprintable()) or subject.title
        return _document(add_subscription(site, caller.id, ask, subject.text, title))

    @routes.post("/preview", summary="What an expectation would have said of the past")
    def preview(
        request: Request,
        draft: NewDraft,
        caller: Annotated[Subscriber, Depends(reader)],  # noqa: ARG001
    ) -> dict[str, Any]:
        """Subscribes to nothing. `rule` is null where `problems` names what is wrong with the rule that was sent."""
        return _drafted(site, draft_of(site, draft.name, _as_form(draft)), request)

    @routes.get("/subscriptions/{subscription}", summary="One subscription with the signings it saw")
    def one(
        subscription: Identifier, caller: Annotated[Subscriber, Depends(reader)], before: Before = ""
    ) -> dict[str, Any]:
        seen = seen_by(site, own_of(site, caller, subscription), limit=_PAGE, after=SigningCursor.read(before))
        rows = {"signings": [row_json(row) for row in seen.rows], "older": _older(seen.older)}
        return seen_json(seen) | rows

    @routes.put("/subscriptions/{subscription}", summary="Change what a subscription selects and expects")
    def change(
        subscription: Identifier, changed: ChangedSubscription, caller: Annotated[Subscriber, Depends(writer)]
    ) -> dict[str, Any]:
        mine = own_of(site, caller, subscription)
        change_subscription(site, mine, _ask(changed.rule), changed.title or mine.title)
        return _document(own_of(site, caller, subscription))

    @routes.post(
        "/subscriptions/{subscription}/preview", summary="What a changed expectation would have said of the past"
    )
    def preview_change(
        request: Request, subscription: Identifier, draft: Drafted, caller: Annotated[Subscriber, Depends(reader)]
    ) -> dict[str, Any]:
        """Changes nothing. Without `rule` and `use` the present expectation is tried."""
        mine = own_of(site, caller, subscription)
        form = _as_form(draft) or {
            "rule": [mine.document],
            "shown": ["-"],
            "ticked": ["1"],
            "use": list(expect_of(mine)),
        }
        return _drafted(site, draft_of(site, mine.subject, form, expect_of(mine)), request)

    @routes.post(
        "/subscriptions/{subscription}/invitations", summary="Share a subscription, or hand it over", status_code=202
    )
    def share(
        request: Request, subscription: Identifier, sent: Invitation, caller: Annotated[Subscriber, Depends(writer)]
    ) -> dict[str, Any]:
        """Mails a link. Nothing changes until the receiver opens it and agrees."""
        mine = own_of(site, caller, subscription)
        invite(site, mine, caller, request.state.visitor, sent.email, hand_over=sent.how == "hand-over")
        return {"message": "An invitation is on its way. Until the receiver agrees nothing changes."}

    @routes.delete("/subscriptions/{subscription}", summary="End a subscription", status_code=204)
    def end(subscription: Identifier, caller: Annotated[Subscriber, Depends(writer)]) -> Response:
        site.subscribers.unsubscribe(own_of(site, caller, subscription).id, caller.id)
        return Response(status_code=204)


def _add_signings(routes: APIRouter, site: Site, reader: _Caller, writer: _Caller) -> None:
    @routes.post(
        "/subscriptions/{subscription}/answers", summary="Say of a signing: it was me, or not", status_code=204
    )
    def answer(subscription: Identifier, said: Answer, caller: Annotated[Subscriber, Depends(writer)]) -> Response:
        mine = own_of(site, caller, subscription)
        row = seen_row(site, mine, said.log, said.index)
        site.subscribers.answer(mine.id, row.log, row.index, mine=said.mine)
        return Response(status_code=204)

    @routes.get("/subscriptions/{subscription}/widening", summary="What expecting signings like one would add")
    def what_widens(
        subscription: Identifier,
        like: Annotated[ASigning, Query()],
        caller: Annotated[Subscriber, Depends(reader)],
    ) -> dict[str, Any]:
        """`adds` are the values, in words; empty when there is nothing to add. Changes nothing."""
        mine = own_of(site, caller, subscription)
        return {"adds": inert_json(widening(site, mine, seen_row(site, mine, like.log, like.index)))}

    @routes.post("/subscriptions/{subscription}/widening", summary="Expect signings like one from now on")
    def widen(
        subscription: Identifier, like: ASigning, caller: Annotated[Subscriber, Depends(writer)]
    ) -> dict[str, Any]:
        """Adds the values in which the signing differed. Signings made before are judged as they were."""
        mine = own_of(site, caller, subscription)
        widen_to(site, mine, seen_row(site, mine, like.log, like.index))
        return _document(own_of(site, caller, subscription))

    @routes.get("/subscriptions/{subscription}/evidence", summary="Evidence of a signing: the entry and its proof")
    def evidence(
        subscription: Identifier,
        signing: Annotated[ASigning, Query()],
        caller: Annotated[Subscriber, Depends(reader)],
    ) -> dict[str, Any]:
        """`signwatch evidence verify` checks it. `proof_missing` says why there is no proof at the moment."""
        mine = own_of(site, caller, subscription)
        return evidence_document(site, mine, seen_row(site, mine, signing.log, signing.index))


def _add_announcements(routes: APIRouter, site: Site, reader: _Caller, writer: _Caller) -> None:
    @routes.get("/subscriptions/{subscription}/announcements", summary="Signings announced to a subscription")
    def announced(subscription: Identifier, caller: Annotated[Subscriber, Depends(reader)]) -> list[dict[str, Any]]:
        mine = own_of(site, caller, subscription)
        return [announced_json(each) for each in site.subscribers.announced(mine.id)]

    @routes.post(
        "/subscriptions/{subscription}/announcements",
        summary="Announce a signing to a subscription that expects announced ones only",
        status_code=201,
    )
    def announce(
        subscription: Identifier, new: Announcement, caller: Annotated[Subscriber, Depends(writer)]
    ) -> list[dict[str, Any]]:
        mine = own_of(site, caller, subscription)
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
        if not site.subscribers.withdraw(own_of(site, caller, subscription).id, number):
            raise RequestRefused(
                404, "No such announcement", "It was withdrawn already, or it is another subscription's."
            )
        return Response(status_code=204)


def _add_destinations(routes: APIRouter, site: Site, reader: _Caller, writer: _Caller) -> None:
    @routes.get("/destinations", summary="Where the account is told")
    def listed(caller: Annotated[Subscriber, Depends(reader)]) -> list[dict[str, Any]]:
        return [_place(site, each) for each in site.subscribers.destinations.of(caller.id)]

    @routes.post("/destinations", summary="Add a destination", status_code=201)
    def add(new: NewDestination, caller: Annotated[Subscriber, Depends(writer)]) -> dict[str, Any]:
        return _said(places.add(site, caller, new.kind, new.target))

    @routes.post("/destinations/{destination}", summary="Prove, renew, resume or remove a destination")
    def act(destination: Identifier, wanted: Action, caller: Annotated[Subscriber, Depends(writer)]) -> dict[str, Any]:
        return _said(places.act(site, caller, destination, wanted.action, wanted.code))


def _add_account(routes: APIRouter, site: Site, reader: _Caller, writer: _Caller) -> None:
    @routes.get("/account", summary="Everything kept about the account")
    def account(caller: Annotated[Subscriber, Depends(reader)]) -> dict[str, Any]:
        return account_document(site, caller)

    @routes.put("/account/weekly", summary="Turn the weekly mail on or off")
    def weekly(wanted: Weekly, caller: Annotated[Subscriber, Depends(writer)]) -> Weekly:
        site.subscribers.set_weekly(caller.id, on=wanted.on)
        return wanted

    @routes.get("/account/tokens", summary="Tokens of the account")
    def tokens(caller: Annotated[Subscriber, Depends(reader)]) -> list[dict[str, Any]]:
        """Name, scope and last use of each, oldest first. The tokens themselves are not kept."""
        return tokens_json(site, caller)

    @routes.post("/account/tokens", summary="Make a further token", status_code=201)
    def add_token(new: NewToken, caller: Annotated[Subscriber, Depends(writer)]) -> dict[str, Any]:
        """`token` is told this once. The first token of an account is made in a browser."""
        return {"token": make_token(site, caller, new.name, new.scope)}

    @routes.delete("/account/tokens/{token}", summary="Revoke a token", status_code=204)
    def revoke(token: Identifier, caller: Annotated[Subscriber, Depends(writer)]) -> Response:
        """By the `id` in the list. A token may revoke itself."""
        revoke_token(site, caller, token)
        return Response(status_code=204)

    @routes.post("/account/sign-out", summary="Sign out every browser", status_code=204)
    def sign_out(caller: Annotated[Subscriber, Depends(writer)]) -> Response:
        """Ends every session of the account. Tokens stay: revoke them one by one."""
        site.subscribers.close_sessions(caller.id)
        return Response(status_code=204)

    @routes.post("/account/delete", summary="Delete the account", status_code=204)
    def delete(confirmed: Deletion, caller: Annotated[Subscriber, Depends(writer)]) -> Response:
        """Deletes the address, the subscriptions, the destinations, the answers and the tokens, at once and for good.

        `address` must be the address of the account.
        """
        delete_account(site, caller, confirmed.address)
        return Response(status_code=204)


def _older(place: SigningCursor | None) -> str | None:
    """Value of `before` for the next page; `None` on the last."""
    return None if place is None else str(place)


def _caller(site: Site, request: Request, *, writes: bool) -> Subscriber:
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    found = site.subscribers.by_token(token.strip()) if kind.lower() == "bearer" and len(token) < 200 else None  # noqa: PLR2004
    if found is None:
        site.limits.api(site.door.client(request))
        raise RequestRefused(401, "No token", "Send a token of your account as `Authorization: Bearer …`.")
    subscriber, scope = found
    site.limits.api(subscriber.id)
    if writes and scope != "write":
        raise RequestRefused(
            403, "Only for reading", "This token may not change anything. Make one with the scope write."
        )
    return subscriber


def _subject(name: str) -> Subject:
    try:
        return read_subject(name)
    except NotASubject as wrong:
        hint = f" Did you mean {wrong.repair}?" if wrong.repair else ""
        raise RequestRefused(400, "Not a name", f"{wrong}{hint}") from None


def _ask(rule: str) -> Ask:
    try:
        return read_ask(rule)
    except DocumentError as error:
        raise RequestRefused(400, "Not a rule for subscriptions", str(error)) from None


def _proposed(site: Site, subject: Subject) -> Ask:
    looked = look(site.past, subject, site.clock())
    return ask_of(subject.select(), {part.key: part.expect for part in looked.parts})


def _as_form(draft: Drafted) -> Mapping[str, list[str]] | None:
    """The fields that the page's form would send; `None` for a form that was not filled in."""
    ticked = {} if draft.use is None else {"ticked": ["1"], "use": draft.use}
    written = {"rule": [draft.rule], "shown": ["-"]} if draft.rule.strip() else {}
    return ticked | written or None


def _drafted(site: Site, draft: SubscriptionDraft, request: Request) -> dict[str, Any]:
    """A draft for programs: the rule, what is wrong with it, parts to use, and each past signing as it judges it."""
    judged = every_judged(site, draft, request.state.visitor.client)
    said: dict[str, Any] = {
        "name": draft.subject.text,
        "problems": list(draft.problems),
        "hints": list(draft.hints),
        "used": [] if draft.by_hand else list(draft.used),
        "parts": [part_json(part) for part in draft.parts],
        "offers": [part_json(part) for part in draft.offers],
        "unexpected": sum(each.outcome == Outcome.UNEXPECTED for each in judged),
        "notes": notes_of(draft, judged),
    }
    rule = None if draft.ask is None else json.loads(draft.ask.document)
    signings = [{**row_json(each.row), "outcome": each.outcome, "not_compared": list(each.lacks)} for each in judged]
    return {"rule": rule, **inert_json(said), "signings": signings}


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


def _said(shown: places.ChangeResult) -> dict[str, Any]:
    return {"message": shown.message, "ok": not shown.is_bad, **({"secret": shown.secret} if shown.secret else {})}
