"""Subscribing, and the pages behind a mail's buttons: confirm, it was me, it was not me.

Mail scanners follow links, so a GET changes no state: it opens a page with a button.
"""

import base64
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from msgspec.structs import replace

from alerts.inert import inert_json
from monitor.model.errors import FetchFailed, OwnFault
from monitor.site.drafting import SubscriptionDraft, draft_of, notes_of, preview_of
from monitor.site.lookup import SigningRow, known_before, rows_of, signing_json
from monitor.site.pages import Name
from monitor.site.parts import CONFIRM_FOR, Site
from monitor.site.rendering import plain
from monitor.site.sessions import Form, RequestRefused, Visitor, first
from monitor.store.signings import PastSigning
from monitor.store.sql import text_key
from monitor.store.subscribers import Link, Subscription
from rules.asking import Ask, ask_of, rule_of
from rules.learning import in_words, unlike, widen
from rules.matching.matcher import PREFIX
from rules.subject import NotASubject, SubjectKind, read_subject
from settings.document import DocumentError
from tlog.merkle import leaf_hash

_LOG: Final = logging.getLogger(__name__)
_MAX_TITLE: Final = 80
_USED: Final = {
    "confirm": "Each link works once, and this one did its work: the subscription is there. Sign in to see it. If "
    "that was not you, sign in and end all sessions.",
    "share": "Each link works once, and this one did its work: the invitation was accepted. Sign in to see it.",
    "sign-in": "Each link works once. Ask for a new one to sign in again. If that was not you, end all sessions then.",
}
_EXPIRED: Final = {
    "confirm": "It worked for 24 hours. Nothing was changed: look the name up and subscribe again.",
    "share": "It worked for 24 hours. Nothing was changed: ask for another invitation.",
    "sign-in": "It worked for 15 minutes. Nothing was changed: ask for a new one.",
}


def router(site: Site) -> APIRouter:
    """Routes of subscribing and of the buttons in mails."""
    routes = APIRouter()
    _add_subscribe(routes, site)
    _add_confirm(routes, site)
    _add_answer(routes, site)
    return routes


def _add_subscribe(routes: APIRouter, site: Site) -> None:
    @routes.get("/subscribe")
    def form_page(request: Request, name: Name = "") -> HTMLResponse:
        return _form(site, request, draft_of(site, name, None))

    @routes.post("/subscribe")
    def subscribe(request: Request, form: Annotated[Form, Depends(site.door.form)]) -> Response:
        draft = draft_of(site, first(form, "name"), form)
        if first(form, "do") != "subscribe" or draft.ask is None:
            return _form(site, request, draft, status=400 if draft.problems else 200)
        visitor: Visitor = request.state.visitor
        title = first(form, "title", _MAX_TITLE) or draft.subject.title
        if visitor.subscriber is not None:
            site.limits.change(visitor.subscriber.id)
            made = add_subscription(site, visitor.subscriber.id, draft.ask, draft.subject.text, title)
            return RedirectResponse(f"/subscriptions/{made.id}?new=1", status_code=303)
        address = read_address(site, first(form, "email"))
        if isinstance(address, RequestRefused):
            return _form(site, request, draft, status=400, email=first(form, "email"), wrong_email=address.message)
        site.limits.mail_from(visitor.client)
        payload = {
            "document": draft.ask.document,
            "keys": draft.ask.keys,
            "subject": draft.subject.text,
            "title": title,
        }
        letter = {"subject": draft.subject.text, "title": title, "words": _words(draft.ask)}
        # For an address without an invitation the same rows are written and no mail is sent.
        wanted = site.config.sign_up != "invited" or site.subscribers.is_invited(address)
        site.mail_link("confirm", address, visitor, payload, CONFIRM_FOR, wanted=wanted, letter=letter)
        site.subscribers.count("asked")
        return RedirectResponse("/sent?what=confirm", status_code=303)

    @routes.get("/sent")
    def sent(request: Request, what: str = "") -> HTMLResponse:
        return site.page(request, "sent", what="confirm" if what == "confirm" else "sign-in")


def _add_confirm(routes: APIRouter, site: Site) -> None:
    @routes.get("/confirm/{token}")
    def confirm_page(request: Request, token: str) -> HTMLResponse:
        link = _confirmable(site, token)
        return site.page(request, "confirm", link=link, token=token, words=_link_words(link))

    @routes.post("/confirm/{token}")
    def confirm(request: Request, token: str, form: Annotated[Form, Depends(site.door.form)]) -> HTMLResponse:  # noqa: ARG001
        link = _confirmable(site, token)
        payload = link.payload
        ask = Ask(payload["document"], "")
        known = known_before(site.past, ask, read_subject(payload["subject"]), site.clock())
        use = site.subscribers.confirm if link.purpose == "confirm" else site.subscribers.accept
        done = use(token, known)
        if done is None:
            raise used_up(site.subscribers.link(token))
        subscriber, subscription = done
        visitor: Visitor = request.state.visitor
        # The link proves the address; only the browser that asked is signed in with it.
        is_here = link.browser_key == text_key(visitor.browser) and subscriber.suspended_at is None
        if is_here:
            request.state.visitor = replace(visitor, subscriber=subscriber)
        page = site.page(request, "confirmed", subscription=subscription, subscriber=subscriber)
        if is_here:
            site.door.sign_in(page, visitor, subscriber)
        return page


def _add_answer(routes: APIRouter, site: Site) -> None:
    @routes.get("/answer/{token}")
    def answer_page(request: Request, token: str, mine: str = "") -> HTMLResponse:
        subscription, row = _asked(site, token)
        return site.page(
            request,
            "answer",
            subscription=subscription,
            row=row,
            token=token,
            mine=mine,
            given=subscription.subject,
            learns=_learns(subscription),
        )

    @routes.post("/answer/{token}")
    def answer(request: Request, token: str, form: Annotated[Form, Depends(site.door.form)]) -> Response:
        subscription, row = _asked(site, token)
        site.limits.change(subscription.subscriber)
        is_mine = first(form, "mine") == "yes"
        site.subscribers.answer(subscription.id, row.log, row.index, mine=is_mine)
        if not is_mine:
            return RedirectResponse(f"/not-mine/{token}", status_code=303)
        return site.page(
            request,
            "mine",
            subscription=subscription,
            row=row,
            token=token,
            more=widening(site, subscription, row),
            given=subscription.subject,
            learns=_learns(subscription),
        )

    @routes.post("/widen/{token}")
    def widen_it(request: Request, token: str, form: Annotated[Form, Depends(site.door.form)]) -> HTMLResponse:  # noqa: ARG001
        subscription, row = _asked(site, token)
        site.limits.change(subscription.subscriber)
        widen_to(site, subscription, row)
        return site.page(
            request,
            "message",
            title="The expectation is wider now",
            message="The next signing like this one will be expected. What was signed before is judged as it was.",
            sign_in=False,
        )

    @routes.get("/not-mine/{token}")
    def not_mine(request: Request, token: str) -> HTMLResponse:
        subscription, row = _asked(site, token)
        return site.page(
            request,
            "not_mine",
            subscription=subscription,
            row=row,
            token=token,
            source=source_of(row),
            given=subscription.subject,
        )

    @routes.get("/evidence/{token}")
    def evidence(token: str) -> Response:
        subscription, row = _asked(site, token)
        document = evidence_document(site, subscription, row)
        headers = {"Content-Disposition": f'attachment; filename="signing-{row.index}.json"'}
        return Response(json.dumps(document, indent=1) + "\n", media_type="application/json", headers=headers)


def good_link(site: Site, token: str, purposes: Sequence[str]) -> Link:
    """A valid, unused link of one of these purposes. Raises `RequestRefused` with the reason and the next step."""
    link = site.subscribers.link(token)
    if link is None or link.purpose not in purposes or link.used_at is not None or link.expires_at <= site.clock():
        raise used_up(link, site.clock())
    return link


def _confirmable(site: Site, token: str) -> Link:
    link = good_link(site, token, ("confirm", "share"))
    account = site.subscribers.by_address(link.address)
    if account is not None and account.suspended_at is not None:
        raise suspended()
    return link


def suspended() -> RequestRefused:
    """Refusal of a link to a suspended account. The link came from its mailbox, so the reader may learn the state."""
    return RequestRefused(
        403,
        "This account is suspended",
        "The operator of this site suspended it: its subscriptions are kept, and nothing is sent. Only the "
        "operator can change that.",
    )


def used_up(link: Link | None, now: Any = None) -> RequestRefused:
    """The refusal of a link that is unknown, used, expired, or for another purpose."""
    if link is None:
        return RequestRefused(
            404,
            "This link does not work",
            "It is not one that this site sent, it is incomplete, or it ended long ago. Nothing was changed: copy the "
            "whole link from the mail, or ask for a new one.",
        )
    if link.used_at is not None:
        return RequestRefused(
            410,
            "This link was used already",
            _USED[link.purpose],
        )
    if now is not None and link.expires_at <= now:
        return RequestRefused(410, "This link is too old", _EXPIRED[link.purpose])
    return RequestRefused(
        404, "This link is for something else", "Nothing was changed: open the link from the newest mail."
    )


def add_subscription(site: Site, subscriber: str, ask: Ask, subject: str, title: str) -> Subscription:
    """Subscribe an account, within the limits of one account. Raises `RequestRefused`."""
    most = site.config.limits.subscriptions_per_account
    if len(site.subscribers.subscriptions(subscriber)) >= most:
        raise RequestRefused(409, "Too many subscriptions", f"An account has at most {most}. End one first.")
    site.subscribers.count("asked")
    known = known_before(site.past, ask, read_subject(subject), site.clock())
    return site.subscribers.subscribe(subscriber, ask, subject, title, known)


def change_subscription(site: Site, subscription: Subscription, ask: Ask, title: str) -> None:
    """Replace the selection and the expectation of a subscription."""
    known = known_before(site.past, ask, read_subject(subscription.subject), site.clock())
    site.subscribers.change(subscription.id, subscription.subscriber, ask, title, known)


def read_address(site: Site, text: str) -> str | RequestRefused:
    """An address that may subscribe here, or the refusal with its reason."""
    try:
        subject = read_subject(text)
    except NotASubject as wrong:
        hint = f" Did you mean {wrong.repair}?" if wrong.repair else ""
        return RequestRefused(400, "No address", f"{wrong}{hint}")
    if subject.kind is not SubjectKind.EMAIL:
        return RequestRefused(400, "No address", "Write an e-mail address here, such as you@acme.example.")
    if not site.config.admits(subject.text):
        return RequestRefused(
            403, "Not for this address", f"Only addresses of {', '.join(site.config.domains)} subscribe here."
        )
    if site.config.sign_up == "oidc":
        return RequestRefused(403, "Sign in first", "Here an account begins with a login, not with a mail.")
    return subject.text


def source_of(row: SigningRow) -> str:
    """Kind of credential that made a signing; the advice to the reader depends on it."""
    for signer in row.signing.signers:
        issuer = signer.issuer or ""
        if "token.actions.githubusercontent.com" in issuer or "github_workflow_repository" in signer.claims:
            return "github"
        if "gitlab" in issuer and "build_config_uri" in signer.claims:
            return "gitlab"
        if "build_config_uri" in signer.claims or "build_signer_uri" in signer.claims:
            return "ci"
        if signer.issuer:
            return "person"
    return "key"


def evidence_document(site: Site, subscription: Subscription, row: SigningRow) -> dict[str, Any]:
    """One file to attach: the entry as the log holds it, with its inclusion proof and the head that the log signed.

    `signwatch evidence verify` checks it. Without a proof, the file gives the reason and the way to get one.
    Raises `RequestRefused` when the entry is not kept.
    """
    found = _saw(site, subscription, row.log, row.index)
    if found is None:
        raise RequestRefused(404, "Not kept", "The entry of this signing is not kept any more.")
    leaf = found.leaf
    about = {"signing": inert_json(plain(signing_json(row)))}
    command = f"The operator has it with `signwatch search --entry {row.log}:{row.index} --prove FILE`."
    missing = f"This site has no archive, and asks no log. {command}"
    if site.prove is not None:
        try:
            return site.prove(row.log, row.index, leaf, about)
        except (FetchFailed, OwnFault) as error:
            _LOG.warning("evidence_without_proof log=%s index=%d detail=%s", row.log, row.index, error)
            missing = f"The proof could not be had at this moment: download the file again later. {command}"
    log = next((each for each in site.found.logs() if each.log == row.log), None)
    return {
        "format": "signwatch-signing/1",
        "log": row.log,
        "index": row.index,
        "leaf": base64.b64encode(leaf).decode("ascii"),
        "leaf_hash": leaf_hash(leaf).hex(),
        "read_and_proven_up_to": None if log is None else log.last,
        **about,
        "proof_missing": missing,
        "how_to_verify": (
            "leaf_hash is SHA-256 over a zero byte and the leaf (RFC 6962 2.1). Ask the log for an inclusion proof of "
            "this hash at this index; any Sigstore client checks it against the log's signed tree head."
        ),
    }


def _asked(site: Site, token: str) -> tuple[Subscription, SigningRow]:
    """The subscription and the signing that a mail's button is about."""
    values = site.keys.unseal("answer", token)
    if values is None or len(values) != 3:  # noqa: PLR2004
        raise RequestRefused(
            404,
            "This link does not work",
            "It is not one that this site sent, or a part of it is missing. Copy the whole link from the mail.",
        )
    subscription = site.subscribers.subscription(str(values[0]), None)
    if subscription is None:
        raise RequestRefused(410, "This subscription ended", "You left it, so there is nothing to answer any more.")
    log, index = str(values[1]), int(values[2])
    found = _saw(site, subscription, log, index) or site.found.entry(read_subject(subscription.subject), log, index)
    if found is None:
        raise RequestRefused(404, "No such signing", "The signing that this link is about is not kept any more.")
    return subscription, _row(site, subscription, found)


def seen_row(site: Site, subscription: Subscription, log: str, index: int) -> SigningRow:
    """A signing that a subscription saw, under its present expectation or a former one. Raises `RequestRefused`."""
    found = _saw(site, subscription, log, index)
    if found is None:
        raise RequestRefused(404, "No such signing", "The subscription saw no signing there.")
    return _row(site, subscription, found)


def _saw(site: Site, subscription: Subscription, log: str, index: int) -> PastSigning | None:
    """The finding of this entry under the newest of the subscription's expectations that has one."""
    asks = reversed(site.subscribers.stood_for(subscription.id))
    found = (site.found.one(f"{PREFIX}{ask}", log, index) for ask, _ in asks)
    return next((each for each in found if each is not None), None)


def _row(site: Site, subscription: Subscription, found: PastSigning) -> SigningRow:
    return rows_of([found], None, site.clock(), site.subscribers.answers(subscription.id))[0]


def widening(site: Site, subscription: Subscription, row: SigningRow) -> list[str]:
    """The values that expecting signings like this one would add, in words."""
    return unlike(*_widened(site, subscription, row))


def widen_to(site: Site, subscription: Subscription, row: SigningRow) -> None:
    """Expect signings like this one from now on. Raises `RequestRefused` when the rule has no room for more values."""
    _, after = _widened(site, subscription, row)
    try:
        ask = ask_of(json.loads(subscription.document)["select"], after)
    except DocumentError as error:
        message = f"{error}. Nothing was changed: write a rule with a pattern instead."
        raise RequestRefused(409, "Too many values for one rule", message) from None
    change_subscription(site, subscription, ask, subscription.title)


def _widened(site: Site, subscription: Subscription, row: SigningRow) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    before = json.loads(subscription.document).get("expect", {})
    rule = rule_of(subscription.ask, subscription.document)
    return before, widen(before, row.signing, rule, site.clock())


def _learns(subscription: Subscription) -> bool:
    """True if an answer changes the past that later signings of this subscription are compared with."""
    return "same_issuer" in json.loads(subscription.document).get("expect", {})


def _words(ask: Ask) -> list[str]:
    return in_words(json.loads(ask.document).get("expect", {}))


def _link_words(link: Link) -> list[str]:
    document = link.payload.get("document")
    return _words(Ask(str(document), "")) if document else []


def _form(site: Site, request: Request, draft: SubscriptionDraft, *, status: int = 200, **values: Any) -> HTMLResponse:
    shown = {"email": "", "wrong_email": "", **values}
    return site.page(
        request,
        "subscribe",
        status=status,
        draft=draft,
        subject=draft.subject,
        preview=(preview := preview_of(site, draft, request.state.visitor.client)),
        notes=notes_of(draft, preview),
        given=draft.subject.text,
        **shown,
    )
