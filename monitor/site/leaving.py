"""Unsubscribing by a mail's link, without signing in, and its reversal.

An alert's link ends its subscription. A digest may be about many subscriptions, so its link stops every message to the
address it went to; the weekly mail's link stops the weekly mail. Mail scanners follow links, so a GET changes no state.
"""

from typing import Annotated, Final

from fastapi import APIRouter, Depends, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse
from msgspec import Struct

from monitor.site.parts import Site
from monitor.site.sessions import Form, RequestRefused, first, read_form
from monitor.store.destinations import READY, STOPPED, Destination
from monitor.store.subscribers import Subscriber, Subscription

SUBSCRIPTION, DESTINATION, WEEKLY = "subscription", "destination", "weekly"
"""Kinds of message that a link stops: the first value of its token, before the id."""
_DONE: Final = {
    SUBSCRIPTION: "You get no more mail about this.\n",
    DESTINATION: "No more signings are mailed to this address. The link in the mail opens a page that goes on.\n",
    WEEKLY: "The weekly mail is off. The link in the mail opens a page that turns it on.\n",
}
_AGAIN: Final = {
    DESTINATION: "The next signing that you did not expect is mailed. Signings found meanwhile were not mailed; "
    "they stand under My subscriptions.",
    WEEKLY: "The next weekly mail comes in seven days.",
}


class StoppableState(Struct, frozen=True):
    """Present state of the object that a link stops: one of the three is set, or none if it is deleted."""

    kind: str
    subscription: Subscription | None = None
    destination: Destination | None = None
    weekly: Subscriber | None = None
    is_own: bool = False
    """The destination is the address of the account, to which the weekly mail goes as well."""

    @property
    def is_on(self) -> bool:
        """True if messages are still sent that the link can stop."""
        if self.destination is not None:
            return self.destination.state == READY
        return self.subscription is not None or (self.weekly is not None and self.weekly.weekly_due is not None)

    @property
    def can_go_on(self) -> bool:
        """True if messages were stopped, and a button can start them again."""
        if self.destination is not None:
            return self.destination.state == STOPPED
        return self.weekly is not None and self.weekly.weekly_due is None


def leave_link(site: Site, kind: str, identifier: str) -> str:
    """The link in a mail that stops a subscription, the messages to a destination, or an account's weekly mail."""
    return site.url(f"/leave/{site.keys.seal('leave', kind, identifier)}")


def router(site: Site) -> APIRouter:
    """Routes of the links that stop messages."""
    routes = APIRouter()

    @routes.get("/leave/{token}")
    def leave_page(request: Request, token: str) -> HTMLResponse:
        return site.page(request, "leave", token=token, leaving=_leaving(site, token))

    @routes.post("/leave/{token}")
    async def leave(request: Request, token: str) -> Response:
        # SPEC RFC 8058 3.2: a POST without cookies or anything else, from a mail program. The token alone decides.
        form = await read_form(request)
        leaving = await run_in_threadpool(_leaving, site, token)
        await run_in_threadpool(_stop, site, leaving)
        if first(form, "List-Unsubscribe") == "One-Click":
            return Response(_DONE[leaving.kind], media_type="text/plain")
        return site.page(request, "left", token=token, leaving=leaving)

    @routes.post("/leave/{token}/back")
    def back(request: Request, token: str, form: Annotated[Form, Depends(site.door.form)]) -> HTMLResponse:  # noqa: ARG001
        leaving = _leaving(site, token)
        if not leaving.can_go_on:
            raise RequestRefused(410, "There is nothing to start again", "It goes on already, or it was deleted since.")
        if leaving.destination is not None:
            site.subscribers.destinations.restart(leaving.destination.id)
        elif leaving.weekly is not None:
            site.subscribers.set_weekly(leaving.weekly.id, on=True)
        return site.page(
            request,
            "message",
            title="You are told again",
            message=_AGAIN[leaving.kind],
            sign_in=request.state.visitor.subscriber is None,
        )

    return routes


def _stop(site: Site, leaving: StoppableState) -> None:
    if leaving.subscription is not None:
        site.subscribers.unsubscribe(leaving.subscription.id, None)
    elif leaving.destination is not None:
        site.subscribers.destinations.stop(leaving.destination.id)
    elif leaving.weekly is not None:
        site.subscribers.set_weekly(leaving.weekly.id, on=False)


def _leaving(site: Site, token: str) -> StoppableState:
    match site.keys.unseal("leave", token):
        case [str(kind), str(identifier)]:
            if kind == SUBSCRIPTION:
                return StoppableState(kind, subscription=site.subscribers.subscription(identifier, None))
            if kind == DESTINATION:
                found = site.subscribers.destinations.find(identifier, None)
                owner = None if found is None else site.subscribers.by_id(found.subscriber)
                is_own = found is not None and owner is not None and found.target.lower() == owner.address.lower()
                return StoppableState(kind, destination=found, is_own=is_own)
            return StoppableState(WEEKLY, weekly=site.subscribers.by_id(identifier))
    raise RequestRefused(
        404,
        "This link does not work",
        "It is not one that this site sent, or a part of it is missing. Nothing was changed: copy the whole link "
        "from the mail, or sign in and leave under My subscriptions.",
    )
