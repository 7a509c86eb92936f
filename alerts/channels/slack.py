"""Alerts as Slack messages, through an incoming webhook or as a bot."""

import time
from collections.abc import Callable, Sequence
from datetime import datetime
from http.client import HTTPException
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from msgspec import Struct, field
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError, SlackClientError
from slack_sdk.webhook import WebhookClient

from alerts.alert import Alert
from alerts.channels.channel import DeliveryFailed
from alerts.channels.guarded_http import ReceiverAnswer, check_url, raise_for
from alerts.channels.settings import SecretFile, SecretUnreadable
from alerts.inert import inert_line
from alerts.page import Page, PageSection
from alerts.rendering import Renderer
from outbound.names import BoundedCalls, CallNotEnded, receiver_calls
from outbound.transport import parse_http_date, parse_retry_after, resolve

T = TypeVar("T")
API_URL: Final = "https://slack.com/api/"
# Block Kit limits: header 150 characters, a text object 3000; both include the note about the cut.
# A message has at most 50 blocks, a section at most ten fields.
_HEADER: Final = 120
_BLOCKS: Final = 49
_FIELDS: Final = 10
_SIDE_BY_SIDE: Final = 120
_SECTION: Final = 2_800
_CONTEXT: Final = 1_500
_URL: Final = 3_000
_MARKS: Final = {"page": "🔴", "warn": "🟡", "info": "🔵"}
# Errors that an operator can correct without a change of the message; Slack would repeat any other refusal.
_MENDABLE: Final = frozenset(
    {
        *("ratelimited", "rate_limited", "internal_error", "fatal_error", "service_unavailable", "request_timeout"),
        *("invalid_auth", "not_authed", "account_inactive", "token_revoked", "token_expired", "no_permission"),
        *("missing_scope", "channel_not_found", "not_in_channel", "is_archived", "team_access_not_granted"),
    }
)


class SlackWebhookChannel(Struct, frozen=True):
    """Posts to an incoming webhook. Its URL is the secret, so it comes from a file."""

    name: str
    url: SecretFile
    seconds: float = 15.0
    allow_private: bool = False
    renderer: Renderer = field(default_factory=Renderer)
    digests: bool = True
    calls: BoundedCalls = field(default_factory=receiver_calls)

    def send(self, alert: Alert, key: str, now: datetime) -> None:
        """Post one message."""
        url = _secret(self.url)
        if problem := check_url(url, allow_private=self.allow_private):
            raise DeliveryFailed(f"the URL in {self.url.path} {problem}")
        # The outbox retries: the client must not sleep in this thread.
        client = WebhookClient(url, timeout=int(self.seconds), retry_handlers=[])
        try:
            page = self.renderer.page(alert, key)
            answer = _within(
                self.calls,
                self.seconds,
                client,
                url,
                lambda: client.send(text=fallback(page), blocks=blocks(page), unfurl_links=False, unfurl_media=False),
            )
        except (SlackClientError, OSError, HTTPException, ValueError) as error:
            raise DeliveryFailed(f"Slack: {type(error).__name__}") from error
        headers = {name.lower(): value for name, value in answer.headers.items()}
        raise_for(ReceiverAnswer(answer.status_code, answer.body.encode("utf-8", "replace")), headers, "Slack", now)


class SlackBotChannel(Struct, frozen=True):
    """Posts to one channel with a bot's token (scope `chat:write`)."""

    name: str
    token: SecretFile
    channel: str
    base_url: str = API_URL
    seconds: float = 15.0
    renderer: Renderer = field(default_factory=Renderer)
    digests: bool = True
    calls: BoundedCalls = field(default_factory=receiver_calls)

    def send(self, alert: Alert, key: str, now: datetime) -> None:  # noqa: ARG002 - the protocol's shape
        """Post one message with `chat.postMessage`."""
        client = WebClient(
            token=_secret(self.token), base_url=self.base_url, timeout=int(self.seconds), retry_handlers=[]
        )
        try:
            page = self.renderer.page(alert, key)
            _within(
                self.calls,
                self.seconds,
                client,
                self.base_url,
                lambda: client.chat_postMessage(
                    channel=self.channel,
                    text=fallback(page),
                    blocks=blocks(page),
                    parse="none",
                    link_names=False,
                    mrkdwn=False,
                    unfurl_links=False,
                    unfurl_media=False,
                ),
            )
        except SlackApiError as error:
            raise _refused(error) from error
        except (SlackClientError, OSError, HTTPException, ValueError) as error:
            raise DeliveryFailed(f"Slack: {type(error).__name__}") from error


def _within(
    calls: BoundedCalls, seconds: float, client: WebClient | WebhookClient, url: str, send: Callable[[], T]
) -> T:
    """Result of a message, within `seconds`. Raises `DeliveryFailed`, and the errors of `send`.

    Slack's client looks the name up without a limit, and its timeout is for one read or write.
    """
    ends = time.monotonic() + seconds
    parts = urlsplit(url)
    if client.proxy is None:
        try:
            resolve(parts.hostname or "", parts.port or 443, seconds)
        except CallNotEnded as error:
            raise DeliveryFailed(f"Slack: {error}") from error
        except OSError as error:
            raise DeliveryFailed(f"Slack: the name {inert_line(parts.hostname or '', 253)}: {error}") from error
    try:
        return calls.result(object(), send, max(0.0, ends - time.monotonic()))
    except CallNotEnded as error:
        raise DeliveryFailed(f"Slack: no complete answer: {error}") from error


def _secret(file: SecretFile) -> str:
    try:
        return file.read()
    except SecretUnreadable as error:
        raise DeliveryFailed(str(error)) from error


def _refused(error: SlackApiError) -> DeliveryFailed:
    response: Any = error.response
    reason = str(response.get("error") or f"HTTP {response.status_code}")
    headers = {name.lower(): value for name, value in response.headers.items()}
    retry_after = parse_retry_after(headers.get("retry-after"), parse_http_date(headers.get("date")))
    mendable = reason in _MENDABLE or response.status_code != 200  # noqa: PLR2004 - Slack refuses with HTTP 200
    return DeliveryFailed(f"Slack: {inert_line(reason, 200)}", permanent=not mendable, retry_after=retry_after)


def fallback(page: Page) -> str:
    """The notification's text. Slack reads markup in it, so its three control characters are escaped."""
    return escape(page.heading)


def escape(text: str) -> str:
    """Slack's own escaping: without `<` there is no link, mention or `<!channel>`."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def blocks(page: Page) -> list[dict[str, Any]]:
    """The message as Block Kit blocks. Text of an entry is `plain_text`: Slack looks for no markup or mention in it.

    The only links are buttons to pages of this installation.
    """
    header = _cut(f"{_MARKS[page.severity]} {page.title}", _HEADER)
    made: list[dict[str, Any]] = [{"type": "header", "text": _plain(header)}, *_texts([page.summary])]
    made += _texts([f"What to do\n{page.next_step}" + (f"\n{page.command}" if page.command else "")])
    links = _links(page)
    if buttons := [_button(text, url) for text, url in links if len(url) <= _URL]:
        made.append({"type": "actions", "elements": buttons})
    if too_long := [text for text, url in links if len(url) > _URL]:
        made += _texts(
            [f"Links left out, because Slack takes none of more than {_URL} characters: {', '.join(too_long)}"]
        )
    made += _texts(["Why\n" + "\n".join(f"• {reason}" for reason in page.reasons)] if page.reasons else [])
    made += _texts([f"What this means\n{page.consequence}"])
    for section in page.sections:
        made += [{"type": "divider"}, *_section(section)]
    claims = "\n".join(f"{label}: {value}" for section in page.claims for label, value in section.facts)
    told = [f"Claims\n{claims}", _footer(page)] if claims else [_footer(page)]
    return [*made[:_BLOCKS], {"type": "context", "elements": [_plain(_cut(text, _CONTEXT)) for text in told]}]


def _texts(texts: Sequence[str]) -> list[dict[str, Any]]:
    return [{"type": "section", "text": _plain(_cut(text, _SECTION))} for text in texts if text.strip()]


def _section(section: PageSection) -> list[dict[str, Any]]:
    """Rows as fields side by side, at most ten in a block; with one longer than a field allows, as lines of text."""
    rows = [f"{label}\n{value}" for label, value in section.facts]
    name = section.name or "Facts"
    if any(len(row) > _SIDE_BY_SIDE for row in rows):
        return _texts(["\n".join([name, *(f"{label}: {value}" for label, value in section.facts)])])
    parts = [rows[start : start + _FIELDS] for start in range(0, len(rows), _FIELDS)]
    made: list[dict[str, Any]] = [{"type": "section", "fields": [_plain(row) for row in part]} for part in parts]
    made[0]["text"] = _plain(name)
    return made


def _links(page: Page) -> list[tuple[str, str]]:
    """The text and the address of each button."""
    wanted = (
        ("Acknowledge", page.acknowledge_link),
        ("Open this alert", page.link),
        ("Its proof", page.proof_link),
        ("The evidence", page.evidence_link),
        ("What it means", page.explanation_link),
    )
    return [(text, url) for text, url in wanted if url]


def _button(text: str, url: str) -> dict[str, Any]:
    return {"type": "button", "text": _plain(text), "url": url}


def _footer(page: Page) -> str:
    where = f" ({page.where})" if page.where else ""
    return f"{page.owner}{where}, {page.kind}, {page.created}, id {page.id}, key {page.key}"


def _plain(text: str) -> dict[str, Any]:
    return {"type": "plain_text", "text": text, "emoji": False}


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]}… (+{len(text) - limit} characters)"
