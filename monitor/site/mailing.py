"""Mails to subscribers: composed from this package's templates, handed to the configured SMTP server."""

import hashlib
import smtplib
import ssl
from collections.abc import Mapping, Sequence
from datetime import datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import Any, Final

from alerts.alert import Alert, counted
from alerts.channels.channel import DeliveryFailed
from alerts.channels.mail import Security, Server, conversation
from alerts.channels.settings import SecretFile, SecretUnreadable
from alerts.inert import inert_line
from monitor.model.errors import OwnFault
from monitor.site.leaving import DESTINATION, SUBSCRIPTION, WEEKLY, leave_link
from monitor.site.parts import Site
from monitor.site.rendering import moment
from monitor.site_config import MailConfig
from outbound.named_authorities import believing
from rules.matching.matcher import PREFIX
from rules.rule import CT_KINDS

_MAX_SUBJECT: Final = 180
_PERMANENT: Final = 500
_SUBJECTS: Final[Mapping[str, str]] = {
    "confirm": "Confirm: tell me about {title}",
    "sign-in": "Your sign-in link",
    "share": "{from} shares the subscription {title} with you",
    "code": "Your code for this address: {code}",
}
SHOWN: Final = 20
_MAX_LEAVES: Final = 5
"""Most links in a digest that each end one subscription; the page My subscriptions lists every subscription."""
_FACTS: Final = (
    "Identity",
    "Key",
    "Branch or tag",
    "Workflow",
    "Started by",
    "Login from",
    "Runner",
    "Run",
    "Issued by",
)
_TIMES: Final = ("Logged at", "Certificate logged at", "Timestamped at")


class Bounced(DeliveryFailed):
    """The mail server refused the address or the message for good (SMTP 5xx)."""


def smtp_server(config: MailConfig) -> Server:
    """The configured server. Raises `OwnFault` when its certificate file cannot be read."""
    try:
        context = believing(file=config.ca_file) if config.ca_file else ssl.create_default_context()
    except (OSError, ssl.SSLError) as error:
        raise OwnFault(f"site.mail.ca_file: {config.ca_file}: cannot be read: {error}. No mail was sent.") from error
    return Server(
        config.server,
        config.port,
        Security(config.security),
        config.username,
        SecretFile(config.password_file) if config.password_file else None,
        context,
    )


def hand_over(server: Server, message: EmailMessage, sender: str, to: str) -> None:
    """Return once the server accepted the message. Raises `Bounced`, `DeliveryFailed`."""
    try:
        with conversation(server) as smtp:
            smtp.send_message(message, sender, [to])
    except SecretUnreadable as error:
        raise DeliveryFailed(str(error)) from error
    except smtplib.SMTPRecipientsRefused as error:
        code, said = next(iter(error.recipients.values()))
        raise _failure(int(code), said) from error
    except smtplib.SMTPDataError as error:
        raise _failure(error.smtp_code, error.smtp_error) from error
    except (smtplib.SMTPException, OSError, ValueError) as error:
        raise DeliveryFailed(f"the mail server: {type(error).__name__}: {inert_line(str(error), 300)}") from error


def compose_letter(site: Site, document: Mapping[str, Any], key: str, now: datetime) -> EmailMessage:
    """A letter: a link to confirm or sign in with, a code, or the weekly account of the logs watched."""
    kind = str(document["letter"])
    values = dict(document)
    if "nonce" in document:
        paths = {"confirm": "confirm", "share": "confirm", "sign-in": "sign-in"}
        values["url"] = site.url(f"/{paths[kind]}/{site.keys.link_token(document['nonce'])}")
    if kind == "weekly":
        subject = str(document["line"])
        values["leave"] = leave = leave_link(site, WEEKLY, str(document["subscriber"]))
    else:
        subject, leave = _SUBJECTS[kind].format_map({**document, "title": document.get("title", "")}), ""
    values["home"] = site.config.public_url
    return _message(site, kind, values, subject=subject, to=str(document["to"]), key=key, now=now, leave=leave)


def compose_alert(site: Site, about: tuple[Alert, Any], to: str, key: str, now: datetime) -> EmailMessage:
    """One unexpected signing, with the two buttons."""
    alert, subscription = about
    values = alert_values(site, alert, subscription)
    subject = f"{values['happened']} ({subscription.title})"
    return _message(site, "alert", values, subject=subject, to=to, key=key, now=now, leave=str(values["leave"]))


def compose_digest(
    site: Site, alerts: Sequence[tuple[Alert, Any]], destination: Any, key: str, now: datetime
) -> EmailMessage:
    """Many signings in one mail. Its one-click link stops every message to this destination."""
    items = [alert_values(site, alert, subscription) for alert, subscription in alerts[:SHOWN]]
    titles = list(dict.fromkeys(str(subscription.title) for _, subscription in alerts))
    subscriptions = {str(subscription.id): str(subscription.title) for _, subscription in alerts}
    values = {
        "items": items,
        "to": destination.target,
        "leaves": [
            (title, leave_link(site, SUBSCRIPTION, each)) for each, title in list(subscriptions.items())[:_MAX_LEAVES]
        ],
        "more": max(0, len(alerts) - SHOWN),
        "total": len(alerts),
        "titles": titles[:5],
        "home": site.config.public_url,
        "leave": leave_link(site, DESTINATION, destination.id),
    }
    subject = f"{counted(len(alerts), 'signing')} you did not expect ({', '.join(titles[:3])})"
    return _message(
        site,
        "digest",
        values,
        subject=subject,
        to=destination.target,
        key=key,
        now=now,
        leave=str(values["leave"]),
    )


def alert_values(site: Site, alert: Alert, subscription: Any) -> dict[str, Any]:
    """Contents of a message about one alert: event, severity, identity, place, time, reasons and links."""
    facts = dict(reversed(list(alert.every_fact())))
    issued = alert.kind != "unverified-signing" and facts.get("Kind") in CT_KINDS
    if alert.kind == "unverified-signing":
        happened = "Entries in your name that no trusted authority vouches for"
        matters = "It does not matter to your users: no Sigstore client accepts them."
    elif issued:
        happened = "A signing certificate you did not expect"
        matters = "It matters: its holder can sign in your name. No log entry has used it yet."
    else:
        happened = "A signing you did not expect"
        matters = "It matters unless it was you: what was signed verifies as yours."
    rows = [(name, facts[name]) for name in _FACTS if facts.get(name)]
    rows += [(label, value) for label, value in alert.every_fact() if label.startswith("Digest of")][:3]
    # A Rekor v2 entry has no time of logging: the validity of its certificate stands for that time.
    times = [facts[name].partition(" to ")[0] for name in (*_TIMES, "Valid") if name in facts]
    token = site.keys.seal("answer", subscription.id, alert.log or "", alert.index or 0)
    return {
        "title": subscription.title,
        "name": subscription.subject,
        "happened": happened,
        "matters": matters,
        "rows": rows,
        "when": moment(datetime.fromisoformat(times[0])) if times else moment(alert.created_at),
        "where": f"{alert.log}, entry {alert.index}" if alert.index is not None else str(alert.log),
        # Patterns in the form people write: the star alone marks a glob.
        "reasons": tuple(reason.replace("glob:", "") for reason in alert.reasons),
        "can_answer": alert.index is not None,
        "answer": site.url(f"/answer/{token}?mine=yes"),
        "not_mine": site.url(f"/answer/{token}?mine=no"),
        "page": site.url(f"/subscriptions/{subscription.id}"),
        "leave": leave_link(site, SUBSCRIPTION, subscription.id),
        "home": site.config.public_url,
        "rule": (alert.rule or "").removeprefix(PREFIX),
    }


def _message(
    site: Site,
    template: str,
    values: Mapping[str, Any],
    *,
    subject: str,
    to: str,
    key: str,
    now: datetime,
    leave: str,
) -> EmailMessage:
    config = site.config
    domain = config.mail.sender.rpartition("@")[2]
    identifier = hashlib.sha256(key.encode()).hexdigest()[:40]
    message = EmailMessage(policy=SMTP)
    message["From"] = Address(display_name="Signwatch", addr_spec=config.mail.sender)
    message["To"] = Address(addr_spec=to)
    message["Subject"] = inert_line(subject, _MAX_SUBJECT)
    message["Date"] = format_datetime(now)
    # The same at each attempt, so that a mail program shows a repeated message once.
    message["Message-ID"] = f"<{identifier}@{domain}>"
    message["Auto-Submitted"] = "auto-generated"
    if leave:
        # SPEC RFC 8058 3.1: both headers, and a DKIM signature over them, which is the mail server's part.
        message["List-Unsubscribe"] = f"<{leave}>"
        message["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    shown = {"config": config, "contact": config.contact, **values}
    text = site.templates.get_template(f"mail/{template}.txt.j2").render(shown)
    html = site.templates.get_template(f"mail/{template}.html.j2").render(shown)
    message.set_content(text, cte="quoted-printable")
    message.add_alternative(html, subtype="html", cte="quoted-printable")
    return message


def _failure(code: int, said: bytes | str) -> DeliveryFailed:
    text = said if isinstance(said, str) else said.decode("utf-8", "replace")
    kind = Bounced if code >= _PERMANENT else DeliveryFailed
    return kind(f"the mail server answered {code} {inert_line(text, 300)}")
