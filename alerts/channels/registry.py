"""From a name and a mapping in the configuration to a channel."""

import re
import ssl
from collections.abc import Callable, Mapping
from email.errors import MessageError
from email.headerregistry import Address
from pathlib import Path
from typing import Any, Final

from alerts.channels.alertmanager import AlertmanagerChannel
from alerts.channels.channel import Channel
from alerts.channels.command import CommandChannel
from alerts.channels.github_issues import API_URL as GITHUB_API_URL
from alerts.channels.github_issues import GitHubIssuesChannel
from alerts.channels.guarded_http import GuardedPoster, check_url
from alerts.channels.jsonl import JsonlChannel
from alerts.channels.pagerduty import EVENTS_URL, PagerDutyChannel
from alerts.channels.settings import ChannelMisconfigured, SecretFile, Settings
from alerts.channels.stdout import StdoutChannel
from alerts.channels.webhook import WebhookChannel, decode_secret
from alerts.inert import inert_line
from alerts.links import NO_LINKS, Links
from alerts.rendering import Renderer

# A channel's name is part of every idempotency key and a metric label.
FOLLOWING: Final = frozenset({"alertmanager", "github-issues", "pagerduty"})
"""Types of channels whose receivers are told when an alert is acknowledged, resolved or reopened."""
_REPOSITORY: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,38}/[A-Za-z0-9._-]{1,100}")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")


def build_channel(name: str, settings: Mapping[str, Any], *, base: Path = Path(), links: Links = NO_LINKS) -> Channel:
    """The channel `name` as the operator configured it; relative paths count from `base`, messages show `links`.

    Raises `ChannelMisconfigured` with what to write instead. Nothing is sent and no host is asked.
    """
    if not _NAME.fullmatch(name):
        raise ChannelMisconfigured(
            f"channel name {inert_line(name, 80)!r}: up to 63 letters, digits, '-' and '_', a letter or digit first"
        )
    if not isinstance(settings, Mapping):
        raise ChannelMisconfigured(f"channels.{name}: must be a mapping with a type: {', '.join(sorted(_BUILDERS))}")
    kind = settings.get("type")
    builder = _BUILDERS.get(kind) if isinstance(kind, str) else None
    if builder is None:
        places = getattr(settings, "places", {})
        raise ChannelMisconfigured(
            f"channels.{name}.type: must be one of {', '.join(sorted(_BUILDERS))}", places.get("type", places.get(""))
        )
    reader = Settings(name, str(kind), settings, base, links)
    channel = builder(name, reader)
    reader.finish()
    return channel


def _stdout(name: str, settings: Settings) -> Channel:
    as_json = settings.choice("format", ("text", "json"), "text") == "json"
    return StdoutChannel(name, as_json=as_json, renderer=_renderer(settings, text=True))


def _jsonl(name: str, settings: Settings) -> Channel:
    return JsonlChannel(name, settings.path("path"), _renderer(settings))


def _webhook(name: str, settings: Settings) -> Channel:
    poster, allow_private = _poster(settings)
    url = _url(settings, settings.text("url"), allow_private=allow_private)
    return WebhookChannel(name, url, poster, _webhook_secret(settings), _renderer(settings))


def _webhook_secret(settings: Settings) -> SecretFile | None:
    if settings.has("secret_file"):
        secret = settings.secret("secret_file")
        try:
            decode_secret(secret.read())
        except ValueError as error:
            raise settings.wrong("secret_file", str(error)) from error
        return secret
    if settings.flag("unsigned", default=False):
        return None
    raise settings.wrong(
        "secret_file", "is required, so that the receiver knows who sent it (or set unsigned: true to do without)"
    )


def _slack(name: str, settings: Settings) -> Channel:
    from alerts.channels.slack import API_URL, SlackBotChannel, SlackWebhookChannel

    seconds = settings.number("timeout_seconds", 15, least=1, most=120)
    if settings.has("webhook_url_file"):
        url = settings.secret("webhook_url_file")
        allow_private = settings.flag("allow_private", default=False)
        if problem := check_url(url.read(), allow_private=allow_private):
            raise settings.wrong("webhook_url_file", f"its URL {problem}")
        return SlackWebhookChannel(name, url, seconds, allow_private, _renderer(settings))
    if settings.has("token_file"):
        allow_private = settings.flag("allow_private", default=False)
        base_url = _url(settings, settings.text("base_url", API_URL), "base_url", allow_private=allow_private)
        token, channel = settings.secret("token_file"), settings.text("channel")
        return SlackBotChannel(name, token, channel, base_url.rstrip("/") + "/", seconds, _renderer(settings))
    raise settings.wrong("webhook_url_file", "is required, or token_file and channel to post as a bot")


def _email(name: str, settings: Settings) -> Channel:
    from alerts.channels.mail import MailChannel, Security, Server

    ports = {Security.STARTTLS: 587, Security.TLS: 465, Security.NONE: 25}
    security = Security(settings.choice("security", [way.value for way in Security], Security.STARTTLS))
    username = settings.text("username") if settings.has("username") else None
    password = settings.secret("password_file") if username is not None else None
    if username is not None and security is Security.NONE:
        raise settings.wrong("security", "none would send the password in clear; use starttls or tls")
    server = Server(
        host=settings.text("host"),
        port=int(settings.number("port", ports[security], least=1, most=65_535)),
        security=security,
        username=username,
        password=password,
        context=_tls_context(settings),
        seconds=settings.number("timeout_seconds", 30, least=1, most=300),
    )
    sender = _address(settings, "from", settings.text("from"))
    to = tuple(_address(settings, "to", address) for address in settings.texts("to"))
    return MailChannel(name, server, sender, to, _renderer(settings, text=True, html=True))


def _pagerduty(name: str, settings: Settings) -> Channel:
    poster, allow_private = _poster(settings)
    url = _url(settings, settings.text("url", EVENTS_URL), allow_private=allow_private)
    return PagerDutyChannel(name, settings.secret("routing_key_file"), poster, url, _renderer(settings))


def _alertmanager(name: str, settings: Settings) -> Channel:
    poster, allow_private = _poster(settings)
    url = _url(settings, settings.text("url"), allow_private=allow_private).rstrip("/")
    token = settings.secret("token_file") if settings.has("token_file") else None
    return AlertmanagerChannel(name, url, poster, token, _renderer(settings))


def _github_issues(name: str, settings: Settings) -> Channel:
    poster, allow_private = _poster(settings)
    url = _url(settings, settings.text("url", GITHUB_API_URL), allow_private=allow_private).rstrip("/")
    repository = settings.text("repository")
    if not _REPOSITORY.fullmatch(repository):
        raise settings.wrong("repository", "is owner/name, such as acme/widget")
    return GitHubIssuesChannel(name, repository, settings.secret("token_file"), poster, url, _renderer(settings))


def _command(name: str, settings: Settings) -> Channel:
    argv = settings.texts("argv")
    seconds = settings.number("timeout_seconds", 15, least=1, most=120)
    return CommandChannel(name, argv, settings.base, seconds, _renderer(settings))


def _apprise(name: str, settings: Settings) -> Channel:
    from alerts.channels.apprise_urls import AppriseChannel, AppriseMissing, load

    try:
        load()
    except AppriseMissing as error:
        raise settings.wrong("type", f"needs the apprise extra; {error}") from error
    return AppriseChannel(name, settings.secret("urls_file"), _renderer(settings, text=True))


_BUILDERS: Final[Mapping[str, Callable[[str, Settings], Channel]]] = {
    "alertmanager": _alertmanager,
    "apprise": _apprise,
    "command": _command,
    "email": _email,
    "github-issues": _github_issues,
    "jsonl": _jsonl,
    "pagerduty": _pagerduty,
    "slack": _slack,
    "stdout": _stdout,
    "webhook": _webhook,
}


def _renderer(settings: Settings, *, text: bool = False, html: bool = False) -> Renderer:
    """What the channel renders with: our links, and the templates that this kind of channel may have."""
    return Renderer(
        settings.template("text_template") if text else None,
        settings.template("html_template", html=True) if html else None,
        settings.links,
    )


def _poster(settings: Settings) -> tuple[GuardedPoster, bool]:
    allow_private = settings.flag("allow_private", default=False)
    seconds = settings.number("timeout_seconds", 15, least=1, most=120)
    return GuardedPoster(allow_private=allow_private, seconds=seconds, context=_tls_context(settings)), allow_private


def _url(settings: Settings, url: str, key: str = "url", *, allow_private: bool) -> str:
    if problem := check_url(url, allow_private=allow_private):
        raise settings.wrong(key, problem)
    return url


def _tls_context(settings: Settings) -> ssl.SSLContext:
    path = settings.optional_path("ca_file")
    try:
        return ssl.create_default_context(cafile=None if path is None else str(path))
    except (OSError, ssl.SSLError) as error:
        raise settings.wrong("ca_file", f"{path} cannot be read as PEM certificates: {error}") from error


def _address(settings: Settings, key: str, text: str) -> str:
    try:
        address = Address(addr_spec=text)
    except (MessageError, ValueError, IndexError) as error:
        raise settings.wrong(key, f"{text!r} is not an e-mail address") from error
    if not address.username or not address.domain:
        raise settings.wrong(key, f"{text!r} is not an e-mail address")
    return text
