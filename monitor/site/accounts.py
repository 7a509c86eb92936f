"""Pages of an account: signing in, subscriptions, destinations, tokens, the weekly mail, export and deletion."""

import json
import secrets
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from monitor.site import destinations
from monitor.site.drafting import draft_of, notes_of, preview_of
from monitor.site.feeds import feed
from monitor.site.parts import CONFIRM_FOR, SIGN_IN_FOR, Site
from monitor.site.rendering import inert, plain
from monitor.site.sessions import Form, RequestRefused, Visitor, first
from monitor.site.subscribing import (
    change_subscription,
    good_link,
    read_address,
    suspended,
    used_up,
)
from monitor.site.subscription_view import SigningsExport, seen_by
from monitor.store.authorisations import NumberedAuthorisation
from monitor.store.destinations import STOPPED, SUSPENDED
from monitor.store.signings import SigningCursor
from monitor.store.subscribers import Subscriber, Subscription
from rules.asking import yaml_of
from rules.facts import Authorisation
from rules.selection import normal_digest

_MAX_COUNT, _MAX_DAYS, _MAX_ANNOUNCED, _MAX_TOKENS = 1_000, 365, 200, 20
_ANNOUNCING: Final = (
    f"Write the digest as sha256: and 64 hex digits, a count of 1 to {_MAX_COUNT}, and 1 to {_MAX_DAYS} days. "
    "Nothing was announced."
)


def router(site: Site) -> APIRouter:
    """Routes of accounts."""
    routes = APIRouter()
    _add_signing_in(routes, site)
    _add_subscriptions(routes, site)
    _add_announcements(routes, site)
    _add_exports(routes, site)
    _add_destinations(routes, site)
    _add_account(routes, site)
    return routes


def _add_signing_in(routes: APIRouter, site: Site) -> None:
    @routes.get("/sign-in")
    def sign_in_page(request: Request) -> Response:
        if request.state.visitor.subscriber is not None:
            return RedirectResponse("/subscriptions", status_code=303)
        return site.page(request, "sign_in", wrong="", email="")

    @routes.post("/sign-in")
    def ask_to_sign_in(request: Request, form: Annotated[Form, Depends(site.door.form)]) -> Response:
        visitor: Visitor = request.state.visitor
        address = read_address(site, first(form, "email"))
        if isinstance(address, RequestRefused):
            email = first(form, "email")
            return site.page(request, "sign_in", status=400, wrong=address.message, email=email)
        site.limits.mail_from(visitor.client)
        # The same rows are written for an unknown address, so neither page nor timing reveals an account.
        known = site.subscribers.by_address(address) is not None
        site.mail_link("sign-in", address, visitor, {}, SIGN_IN_FOR, wanted=known)
        return RedirectResponse("/sent?what=sign-in", status_code=303)

    @routes.get("/sign-in/{token}")
    def link_page(request: Request, token: str) -> HTMLResponse:
        good_link(site, token, ("sign-in",))
        return site.page(request, "sign_in_link", token=token)

    @routes.post("/sign-in/{token}")
    def use_link(request: Request, token: str, form: Annotated[Form, Depends(site.door.form)]) -> Response:  # noqa: ARG001
        good_link(site, token, ("sign-in",))
        visitor: Visitor = request.state.visitor
        subscriber = site.subscribers.sign_in(token, visitor.browser)
        if subscriber is None:
            raise _not_signed_in(site, token)
        answer = RedirectResponse("/subscriptions", status_code=303)
        site.door.sign_in(answer, visitor, subscriber)
        return answer

    @routes.post("/sign-out")
    def sign_out(request: Request, form: Annotated[Form, Depends(site.door.form)]) -> Response:
        answer = RedirectResponse("/", status_code=303)
        site.door.sign_out(answer, request.state.visitor, everywhere=first(form, "everywhere") == "yes")
        return answer


def _not_signed_in(site: Site, token: str) -> RequestRefused:
    """The reason why a valid sign-in link opened no session."""
    link = site.subscribers.link(token)
    if link is not None and link.used_at is None:
        return RequestRefused(
            403,
            "Open this link in the browser that asked",
            "A sign-in link works only in the browser in which it was asked for, so that a link sent to "
            "another person is worth nothing. Copy it into that browser, or ask for a new one in this one.",
        )
    account = None if link is None else site.subscribers.by_address(link.address)
    if account is not None and account.suspended_at is not None:
        return suspended()
    return used_up(link, site.clock())


def _add_subscriptions(routes: APIRouter, site: Site) -> None:
    @routes.get("/subscriptions")
    def subscriptions(request: Request) -> HTMLResponse:
        account = request.state.visitor.account
        seen = [seen_by(site, each, limit=0) for each in site.subscribers.subscriptions(account.id)]
        troubled = [each for each in site.subscribers.destinations.of(account.id) if each.state in (SUSPENDED, STOPPED)]
        own = account.address.lower()
        is_mailed = not any(each.target.lower() == own for each in troubled)
        return site.page(
            request, "subscriptions", seen=seen, troubled=troubled, is_mailed=is_mailed, logs=site.found.logs()
        )

    @routes.get("/subscriptions/{subscription}")
    def subscription_page(request: Request, subscription: str, new: str = "", before: str = "") -> HTMLResponse:
        mine = own(site, request, subscription)
        return _subscription(site, request, mine, is_new=bool(new), before=before)

    @routes.get("/subscriptions/{subscription}/edit")
    def edit_page(request: Request, subscription: str) -> HTMLResponse:
        mine = own(site, request, subscription)
        return _edit(site, request, mine, None)

    @routes.post("/subscriptions/{subscription}/edit")
    def edit(request: Request, subscription: str, form: Annotated[Form, Depends(site.door.form)]) -> Response:
        mine = own(site, request, subscription)
        draft = draft_of(site, mine.subject, form, expect_of(mine))
        if first(form, "do") != "subscribe" or draft.ask is None:
            return _edit(site, request, mine, form)
        site.limits.change(mine.subscriber)
        title = first(form, "title", 80) or mine.title
        change_subscription(site, mine, draft.ask, title)
        return RedirectResponse(f"/subscriptions/{mine.id}?new=1", status_code=303)

    @routes.post("/subscriptions/{subscription}/end")
    def end(request: Request, subscription: str, form: Annotated[Form, Depends(site.door.form)]) -> Response:  # noqa: ARG001
        mine = own(site, request, subscription)
        site.limits.change(mine.subscriber)
        site.subscribers.unsubscribe(mine.id, mine.subscriber)
        return RedirectResponse("/subscriptions", status_code=303)

    @routes.post("/subscriptions/{subscription}/share")
    def share(request: Request, subscription: str, form: Annotated[Form, Depends(site.door.form)]) -> Response:
        mine = own(site, request, subscription)
        site.limits.change(mine.subscriber)
        visitor: Visitor = request.state.visitor
        hand_over = first(form, "how") == "hand-over"
        invite(site, mine, visitor.account, visitor, first(form, "email"), hand_over=hand_over)
        return site.page(
            request,
            "message",
            title="An invitation is on its way",
            message="It becomes theirs once they open the link in the mail and agree. Until then nothing changes.",
            sign_in=False,
        )


def invite(site: Site, mine: Subscription, giver: Subscriber, visitor: Visitor, email: str, *, hand_over: bool) -> None:
    """Mail an invitation to a copy of a subscription, or to take it over. Raises `RequestRefused`."""
    address = read_address(site, email)
    if isinstance(address, RequestRefused):
        raise address
    site.limits.mail_from(visitor.client)
    payload = {"subscription": mine.id, "subscriber": mine.subscriber, "hand_over": hand_over}
    payload |= {"subject": mine.subject, "title": mine.title, "document": mine.document}
    letter = {"subject": mine.subject, "title": mine.title, "from": giver.address, "hand_over": hand_over}
    site.mail_link("share", address, visitor, payload, CONFIRM_FOR, letter=letter)


def _add_announcements(routes: APIRouter, site: Site) -> None:
    @routes.post("/subscriptions/{subscription}/announce")
    def announce(request: Request, subscription: str, form: Annotated[Form, Depends(site.door.form)]) -> HTMLResponse:
        mine = own(site, request, subscription)
        site.limits.change(mine.subscriber)
        digest = first(form, "digest", 200)
        fields = {name: first(form, name, 200) for name in ("count", "days", "note")}
        try:
            said = announce_signing(site, mine, digest, **fields)
        except RequestRefused as refused:
            return _subscription(site, request, mine, status=refused.status, said=refused.message, digest=digest)
        return _subscription(site, request, mine, said=said)

    @routes.post("/subscriptions/{subscription}/withdraw/{number}")
    def withdraw(
        request: Request,
        subscription: str,
        number: int,
        form: Annotated[Form, Depends(site.door.form)],  # noqa: ARG001
    ) -> HTMLResponse:
        mine = own(site, request, subscription)
        site.limits.change(mine.subscriber)
        if not site.subscribers.withdraw(mine.id, number):
            raise RequestRefused(
                404, "No such announcement", "It was withdrawn already, or it is another subscription's."
            )
        return _subscription(site, request, mine, said="Withdrawn. You hear of such signings from now on.")


def announce_signing(site: Site, mine: Subscription, digest: str, *, count: str, days: str, note: str) -> str:
    """Record that a digest will be signed; returns the sentence for the page. Raises `RequestRefused`."""
    try:
        signed = normal_digest(digest)
        many, lasts = int(count or "1"), int(days or "7")
    except ValueError:
        raise RequestRefused(400, "Not an announcement", _ANNOUNCING) from None
    if not (1 <= many <= _MAX_COUNT and 1 <= lasts <= _MAX_DAYS):
        raise RequestRefused(400, "Not an announcement", _ANNOUNCING)
    if len(site.subscribers.announced(mine.id)) >= _MAX_ANNOUNCED:
        raise RequestRefused(
            409, "Too many announcements", f"A subscription has at most {_MAX_ANNOUNCED}. Withdraw old ones."
        )
    expires = site.clock() + timedelta(days=lasts)
    authorisation = Authorisation(signed, many, expires, inert(note, 200))
    if site.subscribers.announce(mine.id, authorisation) is None:
        raise RequestRefused(
            409,
            "This subscription does not ask for announcements",
            "Change what you expect first: tick “its digest was announced by you beforehand”.",
        )
    return "Announced. A signing of that digest is expected; any other one is told."


def _subscription(
    site: Site,
    request: Request,
    mine: Subscription,
    *,
    status: int = 200,
    is_new: bool = False,
    **values: str,
) -> HTMLResponse:
    shown = {"said": "", "digest": "", "before": "", **values}
    return site.page(
        request,
        "subscription",
        status=status,
        seen=seen_by(site, mine, after=SigningCursor.read(shown["before"])),
        is_older=bool(shown["before"]),
        is_new=is_new,
        given=mine.subject,
        announces="authorised" in expect_of(mine),
        announced=site.subscribers.announced(mine.id),
        is_wrong=status != 200,  # noqa: PLR2004
        **shown,
    )


def _add_exports(routes: APIRouter, site: Site) -> None:
    @routes.get("/subscriptions/{subscription}/signings.json")
    def as_json(request: Request, subscription: str, before: str = "") -> Response:
        export = SigningsExport(site, own(site, request, subscription), SigningCursor.read(before))
        return _Download(site, export, export.as_json(), "application/json", "signings.json")

    @routes.get("/subscriptions/{subscription}/signings.csv")
    def as_csv(request: Request, subscription: str, before: str = "") -> Response:
        export = SigningsExport(site, own(site, request, subscription), SigningCursor.read(before))
        return _Download(site, export, export.as_csv(), "text/csv; charset=utf-8", "signings.csv")

    @routes.get("/feed/{token}")
    def atom(token: str) -> Response:
        values = site.keys.unseal("feed", token)
        known = site.subscribers.destinations.find(str(values[0]), None) if values else None
        if values is None or known is None or known.kind != "atom" or known.secret != str(values[1]):
            raise RequestRefused(404, "No such feed", "The address is incomplete, or it was renewed since.")
        owner = site.subscribers.by_id(known.subscriber)
        if owner is None or owner.suspended_at is not None:
            raise RequestRefused(404, "No such feed", "The account is suspended.")
        return Response(feed(site, owner.id, known.id), media_type="application/atom+xml")


def _add_destinations(routes: APIRouter, site: Site) -> None:
    @routes.get("/destinations")
    def listed(request: Request) -> HTMLResponse:
        return _destinations(site, request)

    @routes.post("/destinations")
    def add(request: Request, form: Annotated[Form, Depends(site.door.form)]) -> HTMLResponse:
        account = request.state.visitor.account
        site.limits.change(account.id)
        shown = destinations.add(site, account, first(form, "kind"), first(form, "target", 500))
        return _destinations(site, request, shown=shown)

    @routes.post("/destinations/{destination}/{action}")
    def act(
        request: Request, destination: str, action: str, form: Annotated[Form, Depends(site.door.form)]
    ) -> HTMLResponse:
        account = request.state.visitor.account
        site.limits.change(account.id)
        shown = destinations.act(site, account, destination, action, first(form, "code", 200))
        return _destinations(site, request, shown=shown)


def _add_account(routes: APIRouter, site: Site) -> None:
    @routes.get("/account")
    def account_page(request: Request) -> HTMLResponse:
        return _account(site, request)

    @routes.post("/account/weekly")
    def weekly(request: Request, form: Annotated[Form, Depends(site.door.form)]) -> Response:
        account = request.state.visitor.account
        site.limits.change(account.id)
        site.subscribers.set_weekly(account.id, on=first(form, "on") == "yes")
        return RedirectResponse("/account", status_code=303)

    @routes.post("/account/tokens")
    def add_token(request: Request, form: Annotated[Form, Depends(site.door.form)]) -> HTMLResponse:
        account = request.state.visitor.account
        site.limits.change(account.id)
        scope = "write" if first(form, "scope") == "write" else "read"
        return _account(site, request, token=make_token(site, account, first(form, "name", 80), scope))

    @routes.post("/account/tokens/{token_id}/revoke")
    def revoke(request: Request, token_id: str, form: Annotated[Form, Depends(site.door.form)]) -> Response:  # noqa: ARG001
        account = request.state.visitor.account
        site.limits.change(account.id)
        revoke_token(site, account, token_id)
        return RedirectResponse("/account", status_code=303)

    @routes.get("/account/export.json")
    def export(request: Request) -> Response:
        document = account_document(site, request.state.visitor.account)
        headers = _attachment("account.json")
        return Response(json.dumps(document, indent=1) + "\n", media_type="application/json", headers=headers)

    @routes.post("/account/delete")
    def delete(request: Request, form: Annotated[Form, Depends(site.door.form)]) -> HTMLResponse:
        visitor: Visitor = request.state.visitor
        site.limits.change(visitor.account.id)
        delete_account(site, visitor.account, first(form, "address"))
        page = site.page(
            request,
            "message",
            title="Your account is deleted",
            message="The address, the subscriptions, the destinations and the answers are gone from this database. "
            "Backups keep them until they are overwritten; the privacy page says when.",
            sign_in=False,
        )
        site.door.sign_out(page, visitor)
        return page


def make_token(site: Site, account: Subscriber, name: str, scope: str) -> str:
    """Make a token for scripts, which is shown only once. Raises `RequestRefused`."""
    if len(site.subscribers.tokens(account.id)) >= _MAX_TOKENS:
        raise RequestRefused(409, "Too many tokens", f"An account has at most {_MAX_TOKENS}. Revoke one first.")
    token = f"swt_{secrets.token_urlsafe(32)}"
    site.subscribers.add_token(account.id, token, name or "script", scope)
    return token


def revoke_token(site: Site, account: Subscriber, token_id: str) -> None:
    """End a token of an account. Raises `RequestRefused`."""
    if not site.subscribers.revoke_token(token_id, account.id):
        raise RequestRefused(404, "No such token", "It was revoked already, or it is another account's.")


def delete_account(site: Site, account: Subscriber, address: str) -> None:
    """Delete an account, if `address` (typed by its owner to confirm) is its own. Raises `RequestRefused`."""
    if address.strip().lower() != account.address.lower():
        raise RequestRefused(400, "Not deleted", "Write your address into the field to delete the account.")
    site.subscribers.delete(account.id)


def own(site: Site, request: Request, subscription: str) -> Subscription:
    """A subscription of the signed-in account. Raises `RequestRefused`."""
    account: Subscriber = request.state.visitor.account
    return own_of(site, account, subscription)


def own_of(site: Site, account: Subscriber, subscription: str) -> Subscription:
    """A subscription of an account; another account's is refused as unknown. Raises `RequestRefused`."""
    found = site.subscribers.subscription(subscription, account.id)
    if found is None:
        raise RequestRefused(404, "No such subscription", "It ended, or it is not yours.")
    return found


def announced_json(given: NumberedAuthorisation) -> dict[str, Any]:
    """One announcement, for programs."""
    authorisation = given.authorisation
    return {
        "number": given.number,
        "digest": authorisation.digest,
        "count": authorisation.count,
        "expires": plain(authorisation.expires),
        "note": authorisation.note,
    }


def account_document(site: Site, account: Subscriber) -> dict[str, Any]:
    """All data kept about an account, without secrets."""
    return {
        "address": account.address,
        "confirmed_at": plain(account.confirmed_at),
        "weekly_mail": account.weekly_due is not None,
        "subscriptions": [
            {
                "id": each.id,
                "name": each.subject,
                "title": each.title,
                "rule": json.loads(each.document),
                "created_at": plain(each.created_at),
                "announced": [announced_json(given) for given in site.subscribers.announced(each.id)],
                "answers": [
                    {"log": log, "index": index, "mine": mine}
                    for (log, index), mine in site.subscribers.answers(each.id).items()
                ],
            }
            for each in site.subscribers.subscriptions(account.id)
        ],
        "destinations": [
            {"id": each.id, "kind": each.kind, "target": destinations.shown_target(each), "state": each.state}
            for each in site.subscribers.destinations.of(account.id)
        ],
        "tokens": tokens_json(site, account),
    }


def tokens_json(site: Site, account: Subscriber) -> list[dict[str, Any]]:
    """Tokens of an account for programs, oldest first, without the tokens themselves."""
    return [
        {
            "id": each.id,
            "name": each.name,
            "scope": each.scope,
            "created_at": plain(each.created_at),
            "used_at": plain(each.used_at),
        }
        for each in site.subscribers.tokens(account.id)
    ]


def _edit(site: Site, request: Request, mine: Subscription, form: Mapping[str, list[str]] | None) -> HTMLResponse:
    if form is None:
        form = {"rule": [yaml_of(mine.document)], "shown": ["-"], "ticked": ["1"], "use": list(expect_of(mine))}
    draft = draft_of(site, mine.subject, form, expect_of(mine))
    return site.page(
        request,
        "subscribe",
        status=400 if draft.problems else 200,
        draft=draft,
        subject=draft.subject,
        preview=(preview := preview_of(site, draft, request.state.visitor.client)),
        notes=notes_of(draft, preview),
        given=mine.subject,
        email="",
        wrong_email="",
        editing=mine,
    )


def expect_of(mine: Subscription) -> dict[str, Any]:
    """Present expectation of a subscription, by key."""
    return dict(json.loads(mine.document).get("expect", {}))


def _account(site: Site, request: Request, token: str = "") -> HTMLResponse:
    account = request.state.visitor.account
    return site.page(
        request,
        "account",
        account=account,
        tokens=site.subscribers.tokens(account.id),
        sessions=site.subscribers.sessions(account.id),
        new_token=token,
    )


def _destinations(site: Site, request: Request, shown: Any = None) -> HTMLResponse:
    account = request.state.visitor.account
    listed = site.subscribers.destinations.of(account.id)
    feeds = {each.id: destinations.feed_url(site, each) for each in listed if each.kind == "atom"}
    return site.page(request, "destinations", destinations=listed, feeds=feeds, shown=shown)


class _Download(StreamingResponse):
    """A download of any length, streamed so that it is never held in memory as a whole. One that is cut is counted.

    A connection that ends before the last piece lacks the end of the chunked body, which clients report.
    """

    def __init__(self, site: Site, export: SigningsExport, pieces: Iterable[str], kind: str, name: str) -> None:
        self._site, self._export = site, export
        super().__init__((piece.encode("utf-8", "replace") for piece in pieces), 200, _attachment(name), kind)

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            if not self._export.is_whole:
                await run_in_threadpool(self._site.subscribers.count, "cut")


def _attachment(name: str) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="{name}"'}
