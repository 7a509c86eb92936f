"""Destinations of a subscriber: how to add, prove, renew and end them, and the messages of each kind."""

import base64
import hmac
import json
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import urlsplit

from msgspec import Struct

from alerts.alert import Alert, counted
from alerts.channels.channel import DeliveryFailed
from alerts.channels.guarded_http import GuardedPoster, check_url
from alerts.channels.slack import blocks, escape
from alerts.channels.webhook import decode_secret, sign
from alerts.inert import header_token
from alerts.page import page_of
from alerts.rendering import json_document
from monitor.site.parts import Site
from monitor.site.sessions import RequestRefused
from monitor.store.destinations import READY, WAITING, Destination
from monitor.store.sql import new_id
from monitor.store.subscribers import Subscriber, address_key
from outbound.transport import resolve_strange
from rules.subject import NotASubject, SubjectKind, read_subject

MAIL, WEBHOOK, SLACK, ATOM = "mail", "webhook", "slack", "atom"
KINDS: Final = (MAIL, WEBHOOK, SLACK, ATOM)
OVERLAP: Final = timedelta(hours=24)
_MAX_URL: Final = 500
_LINES: Final = 5
"""Lines of one section of a message: Slack takes 3,000 characters."""
_SLACK_HOST: Final = "hooks.slack.com"


class ChangeResult(Struct, frozen=True):
    """The page's answer to a change: a sentence, and a secret that is shown only once."""

    message: str
    secret: str = ""
    is_bad: bool = False


def add(site: Site, account: Subscriber, kind: str, target: str) -> ChangeResult:
    """Add a destination. Every kind but a feed must first prove itself with a code. Raises `RequestRefused`."""
    listed = site.subscribers.destinations.of(account.id)
    if len(listed) >= site.config.limits.destinations_per_account:
        raise RequestRefused(409, "Too many destinations", "Remove one first.")
    if kind == ATOM:
        site.subscribers.destinations.add(account.id, ATOM, "", host="", secret=secrets.token_urlsafe(24), state=READY)
        return ChangeResult("The feed is there. Any person who knows its address can read it: renew it if it leaks.")
    if kind == MAIL:
        return _add_mail(site, account, target)
    if kind not in (WEBHOOK, SLACK):
        raise RequestRefused(400, "Not a kind of destination", f"Choose one of {', '.join(KINDS)}.")
    problem = _problem(site, kind, target)
    if problem:
        return ChangeResult(problem, is_bad=True)
    secret = f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}" if kind == WEBHOOK else ""
    made = site.subscribers.destinations.add(
        account.id, kind, target, host=urlsplit(target).hostname or "", secret=secret, state=WAITING
    )
    destination = site.subscribers.destinations.find(made, account.id)
    if destination is None:
        raise RequestRefused(409, "Not added", "The destination is gone again.")
    return _challenge(site, destination, secret)


def act(site: Site, account: Subscriber, destination_id: str, action: str, code: str) -> ChangeResult:
    """Change one destination of an account. Raises `RequestRefused`."""
    found = site.subscribers.destinations.find(destination_id, account.id)
    if found is None:
        raise RequestRefused(404, "No such destination", "It was removed already, or it is not yours.")
    match action:
        case "remove":
            if found.kind == MAIL and found.target.lower() == account.address.lower():
                raise RequestRefused(409, "Not removed", "Your own address stays: delete the account to remove it.")
            site.subscribers.destinations.remove(found.id, account.id)
            return ChangeResult("It is removed. What was on its way there is not sent any more.")
        case "verify":
            return _verify(site, account, found, code)
        case "resend":
            return _challenge(site, found, "") if found.kind in (WEBHOOK, SLACK) else _send_code(site, found)
        case "resume":
            return _resume(site, account, found)
        case "rotate" if found.kind == WEBHOOK:
            return _rotate(site, account, found)
        case "renew" if found.kind == ATOM:
            site.subscribers.destinations.change(found.id, account.id, secret=secrets.token_urlsafe(24))
            return ChangeResult("The feed has a new address. The old one does not work any more.")
    raise RequestRefused(404, "Not possible", "This destination has no such action.")


def code_of(site: Site, destination: Destination) -> str:
    """The code that proves a destination: only the readers of the destination see it."""
    return site.keys.code(destination.id, destination.target)


def feed_url(site: Site, destination: Destination) -> str:
    """Address of a feed."""
    return site.url(f"/feed/{site.keys.seal('feed', destination.id, destination.secret)}")


def shown_target(destination: Destination) -> str:
    """A target for people: a Slack URL is a secret, so only its host is shown."""
    if destination.kind == SLACK:
        return f"{destination.host}/…"
    return destination.target or "Atom feed"


def post_digest(
    poster: GuardedPoster, destination: Any, items: Sequence[Mapping[str, Any]], total: int, now: datetime
) -> None:
    """Post one message about many alerts to Slack. Raises `DeliveryFailed`."""
    title = f"{counted(total, 'signing')} you did not expect"
    lines = [f"• {escape(each['title'])}, {escape(each['when'])}: <{each['answer']}|was it you?>" for each in items]
    if total > len(items):
        lines.append(f"and {total - len(items)} more: <{items[0]['home']}/subscriptions|my subscriptions>")
    parts = ["\n".join(lines[start : start + _LINES]) for start in range(0, len(lines), _LINES)]
    body = {"text": title, "blocks": [_section(f"*{title}*"), *map(_section, parts)]}
    poster.post(destination.target, json.dumps(body).encode(), {}, now)


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text}}


def post_alert(  # noqa: PLR0917
    poster: GuardedPoster, destination: Any, alert: Alert, values: dict[str, Any], key: str, now: datetime
) -> None:
    """Post one alert to a webhook or Slack. Raises `DeliveryFailed`."""
    if destination.kind == SLACK:
        body = {"text": escape(f"{values['happened']} ({values['title']})"), "blocks": blocks(page_of(alert, key))}
        button = f"<{values['answer']}|It was me> · <{values['not_mine']}|It was not me: what now?>"
        body["blocks"] = [*body["blocks"], {"type": "section", "text": {"type": "mrkdwn", "text": button}}]
        poster.post(destination.target, json.dumps(body).encode(), {}, now)
        return
    document = {
        "type": f"signwatch.{alert.kind}",
        "timestamp": alert.created_at.isoformat().replace("+00:00", "Z"),
        "data": {
            **json_document(alert, key),
            "subscription": {"title": values["title"], "name": values["name"], "page": values["page"]},
            "it_was_me": values["answer"],
            "it_was_not_me": values["not_mine"],
        },
    }
    post_signed(poster, destination, document, key, now)


def post_signed(poster: GuardedPoster, destination: Any, document: dict[str, Any], key: str, now: datetime) -> bytes:
    """Post a document by Standard Webhooks, signed with the present secret, and the former one until it expires."""
    body = json.dumps(document, ensure_ascii=True, separators=(",", ":")).encode("ascii")
    identifier, timestamp = header_token(key), int(now.timestamp())
    held = [destination.secret]
    if destination.former_secret and destination.former_until is not None and now < destination.former_until:
        held.append(destination.former_secret)
    signatures = " ".join(sign(decode_secret(secret), identifier, timestamp, body) for secret in held)
    headers = {"webhook-id": identifier, "webhook-timestamp": str(timestamp), "webhook-signature": signatures}
    return poster.post(destination.target, body, headers, now).body


def _problem(site: Site, kind: str, target: str) -> str:
    if len(target) > _MAX_URL or not target.isprintable() or not target.isascii():
        return f"A URL of printable ASCII, at most {_MAX_URL} characters."
    if problem := check_url(target, allow_private=site.config.allow_private):
        return f"This URL {problem.partition(' (')[0]}."
    if kind == SLACK and not site.config.allow_private and urlsplit(target).hostname != _SLACK_HOST:
        return f"An incoming webhook of Slack begins with https://{_SLACK_HOST}/services/."
    return ""


def _add_mail(site: Site, account: Subscriber, target: str) -> ChangeResult:
    try:
        subject = read_subject(target)
    except NotASubject as wrong:
        return ChangeResult(f"{wrong}{f' Did you mean {wrong.repair}?' if wrong.repair else ''}", is_bad=True)
    if subject.kind is not SubjectKind.EMAIL:
        return ChangeResult("Write an e-mail address.", is_bad=True)
    host = subject.text.rpartition("@")[2]
    made = site.subscribers.destinations.add(account.id, MAIL, subject.text, host=host, secret="", state=WAITING)
    destination = site.subscribers.destinations.find(made, account.id)
    if destination is None:
        raise RequestRefused(409, "Not added", "The destination is gone again.")
    return _send_code(site, destination)


def _send_code(site: Site, destination: Destination) -> ChangeResult:
    now, nonce = site.clock(), new_id()
    if site.limits.mail_to(address_key(destination.target)):
        document = {"letter": "code", "to": destination.target, "code": code_of(site, destination)}
        with site.database.write() as connection:
            site.notices.put_letter(connection, f"letter:{nonce}", document, now)
    return ChangeResult("A code is on its way to that address. Enter it here; nothing else is sent there before.")


def _challenge(site: Site, destination: Destination, secret: str) -> ChangeResult:
    """Post the code; a receiver that answers with it is proven at once."""
    now, code = site.clock(), code_of(site, destination)
    poster = GuardedPoster(allow_private=site.config.allow_private, resolver=resolve_strange, seconds=8)
    key = f"challenge:{destination.id}:{new_id()}"
    try:
        if destination.kind == SLACK:
            body = json.dumps({"text": f"Signwatch: the code for this channel is {code}"}).encode()
            poster.post(destination.target, body, {}, now)
            answer = b""
        else:
            document = {"type": "signwatch.challenge", "timestamp": now.isoformat(), "data": {"code": code}}
            answer = post_signed(poster, destination, document, key, now)
    except DeliveryFailed as error:
        return ChangeResult(
            f"The receiver did not take the first message: {error}. Mend it, then send again.", secret, is_bad=True
        )
    if code.encode() in answer.upper():
        site.subscribers.destinations.change(destination.id, destination.subscriber, state=READY)
        return ChangeResult("The receiver answered with the code. It is told from now on.", secret)
    return ChangeResult(
        "The receiver took a message with a code. Enter the code here; nothing else is sent before.", secret
    )


def _verify(site: Site, account: Subscriber, found: Destination, code: str) -> ChangeResult:
    site.limits.api(f"code {found.id}")
    if found.state != WAITING or not hmac.compare_digest(code.strip().upper().encode(), code_of(site, found).encode()):
        return ChangeResult("That is not the code.", is_bad=True)
    site.subscribers.destinations.change(found.id, account.id, state=READY)
    return ChangeResult("Proven. It is told from now on.")


def _resume(site: Site, account: Subscriber, found: Destination) -> ChangeResult:
    if found.state == WAITING:
        raise RequestRefused(409, "Not proven yet", "Enter the code first.")
    values = {"state": READY, "failing_since": None, "bounces": 0, "error": ""}
    site.subscribers.destinations.change(found.id, account.id, **values)
    return ChangeResult("It is told again from now on. What was found meanwhile stands under My subscriptions.")


def _rotate(site: Site, account: Subscriber, found: Destination) -> ChangeResult:
    secret = f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"
    until = site.clock() + OVERLAP
    site.subscribers.destinations.change(
        found.id, account.id, secret=secret, former_secret=found.secret, former_until=until
    )
    return ChangeResult("A new secret. For 24 hours each message is signed under the old one as well.", secret)
