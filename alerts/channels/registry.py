"""From a channel's settings to the channel. A channel's libraries are imported for a configured one."""

import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from alerts.channels.channel import Channel
from alerts.channels.command import CommandChannel
from alerts.channels.jsonl import JsonlChannel
from alerts.channels.settings import (
    AlertmanagerSettings,
    AppriseSettings,
    ChannelSettings,
    CommandSettings,
    EmailSettings,
    GitHubIssuesSettings,
    HttpSettings,
    JsonlSettings,
    PagerDutySettings,
    SecretFile,
    SecretUnreadable,
    SlackSettings,
    StdoutSettings,
    WebhookSettings,
)
from alerts.channels.stdout import StdoutChannel
from alerts.links import NO_LINKS, Links
from alerts.rendering import Renderer
from alerts.user_template import UserTemplate
from outbound.named_authorities import believing

if TYPE_CHECKING:
    from alerts.channels.guarded_http import GuardedPoster


def build_channel(settings: ChannelSettings, *, base: Path = Path(), links: Links = NO_LINKS) -> Channel:
    """The configured channel; a command runs in `base`, messages show `links`.

    Raises `Misplaced`, which names the right setting. Sends no message and contacts no host.
    """
    return _BUILDERS[type(settings)](settings, base, links)


def _stdout(settings: StdoutSettings, _: Path, links: Links) -> Channel:
    renderer = Renderer(_template(settings, "text_template"), None, links)
    return StdoutChannel(settings.name, as_json=settings.format == "json", renderer=renderer)


def _jsonl(settings: JsonlSettings, _: Path, links: Links) -> Channel:
    return JsonlChannel(settings.name, settings.path, Renderer(links=links))


def _webhook(settings: WebhookSettings, _: Path, links: Links) -> Channel:
    from alerts.channels.webhook import WebhookChannel, decode_secret  # noqa: PLC0415

    url, secret = _url(settings, "url", settings.url), _secret(settings, "secret_file", settings.secret_file)
    if secret is not None:
        try:
            decode_secret(secret.read())
        except ValueError as error:
            raise settings.wrong("secret_file", str(error)) from error
    return WebhookChannel(settings.name, url, _poster(settings), secret, Renderer(links=links))


def _slack(settings: SlackSettings, _: Path, links: Links) -> Channel:
    from alerts.channels.guarded_http import check_url  # noqa: PLC0415
    from alerts.channels.slack import API_URL, SlackBotChannel, SlackWebhookChannel

    name, seconds, renderer = settings.name, settings.timeout_seconds, Renderer(links=links)
    hook = _secret(settings, "webhook_url_file", settings.webhook_url_file)
    if hook is not None:
        if problem := check_url(hook.read(), allow_private=settings.allow_private):
            raise settings.wrong("webhook_url_file", f"its URL {problem}")
        return SlackWebhookChannel(name, hook, seconds, settings.allow_private, renderer)
    token = _needed(settings, "token_file", settings.token_file)
    base_url = _url(settings, "base_url", settings.base_url or API_URL).rstrip("/") + "/"
    return SlackBotChannel(name, token, settings.channel, base_url, seconds, renderer)


def _email(settings: EmailSettings, _: Path, links: Links) -> Channel:
    from alerts.channels.mail import MailChannel, Security, Server

    ports = {Security.STARTTLS: 587, Security.TLS: 465, Security.NONE: 25}
    security = Security(settings.security)
    server = Server(
        host=settings.host,
        port=settings.port or ports[security],
        security=security,
        username=settings.username,
        password=_secret(settings, "password_file", settings.password_file),
        context=_tls_context(settings, settings.ca_file),
        seconds=settings.timeout_seconds,
    )
    sender = _address(settings, "from", settings.sender)
    to = tuple(_address(settings, "to", address) for address in settings.to)
    text, html = _template(settings, "text_template"), _template(settings, "html_template", html=True)
    return MailChannel(settings.name, server, sender, to, Renderer(text, html, links))


def _pagerduty(settings: PagerDutySettings, _: Path, links: Links) -> Channel:
    from alerts.channels.pagerduty import EVENTS_URL, PagerDutyChannel  # noqa: PLC0415

    url = _url(settings, "url", settings.url or EVENTS_URL)
    key = _needed(settings, "routing_key_file", settings.routing_key_file)
    return PagerDutyChannel(settings.name, key, _poster(settings), url, Renderer(links=links))


def _alertmanager(settings: AlertmanagerSettings, _: Path, links: Links) -> Channel:
    from alerts.channels.alertmanager import AlertmanagerChannel  # noqa: PLC0415

    url, token = _url(settings, "url", settings.url), _secret(settings, "token_file", settings.token_file)
    return AlertmanagerChannel(settings.name, url.rstrip("/"), _poster(settings), token, Renderer(links=links))


def _github_issues(settings: GitHubIssuesSettings, _: Path, links: Links) -> Channel:
    from alerts.channels.github_issues import API_URL, GitHubIssuesChannel  # noqa: PLC0415

    url = _url(settings, "url", settings.url or API_URL).rstrip("/")
    token = _needed(settings, "token_file", settings.token_file)
    return GitHubIssuesChannel(settings.name, settings.repository, token, _poster(settings), url, Renderer(links=links))


def _command(settings: CommandSettings, base: Path, links: Links) -> Channel:
    return CommandChannel(settings.name, settings.argv, base, settings.timeout_seconds, Renderer(links=links))


def _apprise(settings: AppriseSettings, _: Path, links: Links) -> Channel:
    from alerts.channels.apprise_urls import AppriseChannel, AppriseMissing, load

    try:
        load()
    except AppriseMissing as error:
        raise settings.wrong("type", f"needs the apprise extra; {error}") from error
    urls = _needed(settings, "urls_file", settings.urls_file)
    return AppriseChannel(settings.name, urls, Renderer(_template(settings, "text_template"), None, links))


_BUILDERS: Final[Mapping[type[ChannelSettings], Callable[[Any, Path, Links], Channel]]] = {
    AlertmanagerSettings: _alertmanager,
    AppriseSettings: _apprise,
    CommandSettings: _command,
    EmailSettings: _email,
    GitHubIssuesSettings: _github_issues,
    JsonlSettings: _jsonl,
    PagerDutySettings: _pagerduty,
    SlackSettings: _slack,
    StdoutSettings: _stdout,
    WebhookSettings: _webhook,
}


def _secret(settings: ChannelSettings, key: str, file: SecretFile | None) -> SecretFile | None:
    """The file of a secret, readable now; `None` if none is set."""
    return None if file is None else _needed(settings, key, file)


def _needed(settings: ChannelSettings, key: str, file: SecretFile | None) -> SecretFile:
    if file is None:
        raise settings.wrong(key, "is required")
    try:
        file.read()
    except SecretUnreadable as error:
        raise settings.wrong(key, str(error)) from error
    return file


def _template(
    settings: StdoutSettings | EmailSettings | AppriseSettings, key: str, *, html: bool = False
) -> UserTemplate | None:
    """The user's own template; `None` if none is set."""
    path: Path | None = getattr(settings, key)
    if path is None:
        return None
    try:
        return UserTemplate.read(path, html=html)
    except (OSError, ValueError) as error:
        raise settings.wrong(key, f"the template cannot be read: {error}") from error


def _poster(settings: HttpSettings) -> "GuardedPoster":
    from alerts.channels.guarded_http import GuardedPoster  # noqa: PLC0415

    context = _tls_context(settings, settings.ca_file)
    return GuardedPoster(allow_private=settings.allow_private, seconds=settings.timeout_seconds, context=context)


def _url(settings: HttpSettings | SlackSettings, key: str, url: str) -> str:
    from alerts.channels.guarded_http import check_url  # noqa: PLC0415

    if problem := check_url(url, allow_private=settings.allow_private):
        raise settings.wrong(key, problem)
    return url


def _tls_context(settings: ChannelSettings, path: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context() if path is None else believing(file=path)
    except (OSError, ssl.SSLError) as error:
        raise settings.wrong("ca_file", f"{path} cannot be read as PEM certificates: {error}") from error


def _address(settings: ChannelSettings, key: str, text: str) -> str:
    # Imported for a channel of mail: the e-mail parser is 400 KB of code.
    from email.errors import MessageError  # noqa: PLC0415
    from email.headerregistry import Address  # noqa: PLC0415

    try:
        address = Address(addr_spec=text)
    except (MessageError, ValueError, IndexError) as error:
        raise settings.wrong(key, f"{text!r} is not an e-mail address") from error
    if not address.username or not address.domain:
        raise settings.wrong(key, f"{text!r} is not an e-mail address")
    return text
