"""The `site` part of the configuration: address, sign-in and mail of the subscribers' site."""

import ipaddress
import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

from msgspec import Struct, field

from addresses.url import is_https_or_loopback, is_loopback_host
from settings.document import Misplaced, Node
from settings.models import COUNT, DURATION, FILE, FLAG, TEXT, Section, choice, one_or_many, written
from settings.reading import (
    Fields,
    read_choice,
    read_duration,
    read_flag,
    read_host,
    read_list,
    read_listen,
    read_positive,
    read_text,
)

SIGN_UPS: Final = ("open", "domains", "oidc", "invited")
SECURITY: Final = ("starttls", "tls", "none")
_DOMAIN = re.compile(r"[a-z0-9](?:[a-z0-9.-]{1,188}[a-z0-9])", re.ASCII)


def _read_issuer(node: Node) -> str:
    url = read_text(node).rstrip("/")
    if not is_https_or_loopback(url):
        raise Misplaced("an issuer is an https URL", node)
    return url


def _read_public_url(node: Node) -> str:
    text = read_text(node).rstrip("/")
    try:
        parts = urlsplit(text)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable or parts.path or parts.query or parts.fragment or parts.username:
        raise Misplaced("public_url is the address for browsers, such as https://watch.example, without a path", node)
    if parts.scheme == "http" and not is_loopback_host(parts.hostname):
        raise Misplaced("public_url is https: without it, any host on the path could take over an account", node)
    return text


def _read_address(node: Node) -> str:
    # Imported for a site: the e-mail parser is 400 KB of code.
    from email.errors import HeaderParseError  # noqa: PLC0415
    from email.headerregistry import Address  # noqa: PLC0415

    text = read_text(node)
    try:
        known = Address(addr_spec=text)
    except (HeaderParseError, ValueError, IndexError):
        known = None
    if known is None or not known.domain or not text.isascii():
        raise Misplaced(f"{text[:80]!r} is not an e-mail address", node)
    return text


def _read_domain(node: Node) -> str:
    text = read_text(node).lower()
    if not _DOMAIN.fullmatch(text):
        raise Misplaced(f"{text[:80]!r} is not a domain such as acme.example", node)
    return text


def read_network(node: Node) -> str:
    """Read an address or a network of a proxy. Raises `Misplaced`."""
    text = read_text(node)
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as error:
        raise Misplaced(f"{text[:80]!r} is not an address or network such as 10.0.0.0/8: {error}", node) from None


class MailConfig(Struct, frozen=True):
    """The SMTP server for mail, and the sender's address."""

    server: Annotated[str, written(read_host, TEXT)]
    sender: Annotated[str, written(_read_address, TEXT, "from")]
    port: Annotated[int, written(read_positive, COUNT)] = 587
    security: Annotated[str, written(lambda node: read_choice(node, SECURITY), choice(SECURITY))] = "starttls"
    username: Annotated[str | None, written(read_text, TEXT)] = None
    password_file: Annotated[Path | None, FILE] = None
    ca_file: Annotated[Path | None, FILE] = None


class OidcConfig(Struct, frozen=True):
    """An OpenID Connect issuer whose logins prove an address. `name` is the text of its button."""

    issuer: Annotated[str, written(_read_issuer, TEXT)]
    client_id: Annotated[str, written(read_text, TEXT)]
    client_secret_file: Annotated[Path | None, FILE] = None
    name: Annotated[str, written(read_text, TEXT)] = "your organisation"
    ca_file: Annotated[Path | None, FILE] = None


class SiteLimits(Struct, frozen=True):
    """Limits of one client, address, account, destination or receiving host. Messages are deleted after `keep`."""

    requests_per_minute: Annotated[int, written(read_positive, COUNT)] = 120
    mails_per_address_per_day: Annotated[int, written(read_positive, COUNT)] = 3
    mails_per_client_per_hour: Annotated[int, written(read_positive, COUNT)] = 10
    subscriptions_per_account: Annotated[int, written(read_positive, COUNT)] = 100
    destinations_per_account: Annotated[int, written(read_positive, COUNT)] = 10
    api_requests_per_minute: Annotated[int, written(read_positive, COUNT)] = 120
    entries_per_minute: Annotated[int, written(read_positive, COUNT)] = 40
    searches_per_minute: Annotated[int, written(read_positive, COUNT)] = 30
    messages_per_host_per_second: Annotated[int, written(read_positive, COUNT)] = 20
    messages_per_address_per_minute: Annotated[int, written(read_positive, COUNT)] = 10
    senders: Annotated[int, written(read_positive, COUNT)] = 32
    bounces: Annotated[int, written(read_positive, COUNT)] = 3
    patience: Annotated[timedelta, written(read_duration, DURATION)] = timedelta(days=7)
    keep: Annotated[timedelta, written(read_duration, DURATION)] = timedelta(days=90)


class SiteConfig(Struct, frozen=True):
    """The subscribers' site. With an empty `listen` another process serves it, and this one still delivers."""

    public_url: Annotated[str, written(_read_public_url, TEXT)]
    key_file: Annotated[Path, FILE]
    mail: Annotated[MailConfig, Section("site.mail")]
    listen: Annotated[tuple[str, int] | None, written(read_listen, TEXT)] = None
    operator: Annotated[str, written(read_text, TEXT)] = ""
    contact: Annotated[str, written(_read_address, TEXT)] = ""
    privacy_file: Annotated[Path | None, FILE] = None
    sign_up: Annotated[str, written(lambda node: read_choice(node, SIGN_UPS), choice(SIGN_UPS))] = "open"
    domains: Annotated[tuple[str, ...], written(lambda node: read_list(node, _read_domain), one_or_many(TEXT))] = ()
    oidc: Annotated[OidcConfig | None, Section("site.oidc")] = None
    trusted_proxies: Annotated[
        tuple[str, ...], written(lambda node: read_list(node, read_network), one_or_many(TEXT))
    ] = ()
    allow_private: Annotated[bool, written(read_flag, FLAG)] = False
    limits: Annotated[SiteLimits, Section("site.limits")] = field(default_factory=SiteLimits)

    @property
    def is_secure(self) -> bool:
        """True if browsers come over https."""
        return self.public_url.startswith("https://")

    @property
    def host(self) -> str:
        """Host and port that a browser must send."""
        return urlsplit(self.public_url).netloc

    def admits(self, address: str) -> bool:
        """True if the domain of an address may subscribe."""
        domain = address.rpartition("@")[2].lower()
        return self.sign_up != "domains" or domain in self.domains


def check_site(site: SiteConfig, fields: Fields) -> None:
    """Refuse a way of signing up whose settings are missing. Raises `Misplaced`."""
    if site.sign_up == "domains" and not site.domains:
        raise Misplaced("sign_up: domains needs `domains`, a list such as [acme.example]", fields.node)
    if site.sign_up == "oidc" and site.oidc is None:
        raise Misplaced("sign_up: oidc needs `oidc` with an issuer and a client_id", fields.node)
