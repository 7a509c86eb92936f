"""The `site` part of the configuration: where subscribers are served, how they sign in, and how mail leaves."""

import ipaddress
import re
from dataclasses import dataclass, field
from datetime import timedelta
from email.errors import HeaderParseError
from email.headerregistry import Address
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from settings.document import Misplaced, Node
from settings.reading import Fields, read_choice, read_duration, read_list, read_number, read_text

SITE_KEYS: Final = (
    "listen",
    "public_url",
    "key_file",
    "operator",
    "contact",
    "privacy_file",
    "sign_up",
    "domains",
    "oidc",
    "mail",
    "trusted_proxies",
    "allow_private",
    "limits",
)
MAIL_KEYS: Final = ("server", "port", "security", "username", "password_file", "from", "ca_file")
OIDC_KEYS: Final = ("issuer", "client_id", "client_secret_file", "name", "ca_file")
LIMIT_KEYS: Final = (
    "requests_per_minute",
    "mails_per_address_per_day",
    "mails_per_client_per_hour",
    "subscriptions_per_account",
    "destinations_per_account",
    "api_requests_per_minute",
    "messages_per_host_per_second",
    "senders",
    "bounces",
    "patience",
    "keep",
)
SIGN_UPS: Final = ("open", "domains", "oidc", "invited")
_LISTEN = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+):([0-9]{1,5})", re.ASCII)
_DOMAIN = re.compile(r"[a-z0-9](?:[a-z0-9.-]{1,188}[a-z0-9])", re.ASCII)
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_LARGEST_PORT: Final = 65535


@dataclass(frozen=True, slots=True)
class MailConfig:
    """The SMTP server that mail is handed to, and the address it comes from."""

    server: str
    sender: str
    port: int = 587
    security: str = "starttls"
    username: str | None = None
    password_file: Path | None = None
    ca_file: Path | None = None


@dataclass(frozen=True, slots=True)
class OidcConfig:
    """An OpenID Connect issuer whose logins prove an address. `name` is what its button says."""

    issuer: str
    client_id: str
    client_secret_file: Path | None = None
    name: str = "your organisation"
    ca_file: Path | None = None


@dataclass(frozen=True, slots=True)
class SiteLimits:
    """How much one client, address, account or receiving host may ask for; `keep` is how long messages are kept."""

    requests_per_minute: int = 120
    mails_per_address_per_day: int = 3
    mails_per_client_per_hour: int = 10
    subscriptions_per_account: int = 100
    destinations_per_account: int = 10
    api_requests_per_minute: int = 120
    messages_per_host_per_second: int = 20
    senders: int = 32
    bounces: int = 3
    patience: timedelta = timedelta(days=7)
    keep: timedelta = timedelta(days=90)


@dataclass(frozen=True, slots=True)
class SiteConfig:
    """The subscribers' site. `listen` empty means that another process serves it; delivery runs all the same."""

    public_url: str
    key_file: Path
    mail: MailConfig
    listen: tuple[str, int] | None = None
    operator: str = ""
    contact: str = ""
    privacy_file: Path | None = None
    sign_up: str = "open"
    domains: tuple[str, ...] = ()
    oidc: OidcConfig | None = None
    trusted_proxies: tuple[str, ...] = ()
    allow_private: bool = False
    limits: SiteLimits = field(default_factory=SiteLimits)

    @property
    def is_secure(self) -> bool:
        """Whether browsers come over https."""
        return self.public_url.startswith("https://")

    @property
    def host(self) -> str:
        """Host and port that a browser must have asked for."""
        return urlsplit(self.public_url).netloc

    def admits(self, address: str) -> bool:
        """Whether the domain of an address may subscribe, as far as domains decide it."""
        domain = address.rpartition("@")[2].lower()
        return self.sign_up != "domains" or domain in self.domains


def read_site(node: Node, base: Path) -> SiteConfig:
    """Read the `site` mapping. Raises `Misplaced`."""
    fields = Fields(node, SITE_KEYS, "site")
    sign_up = fields.read("sign_up", lambda each: read_choice(each, SIGN_UPS), "open")
    none: tuple[str, ...] = ()
    domains = fields.read("domains", lambda each: read_list(each, _read_domain), none)
    oidc = fields.read("oidc", lambda each: _read_oidc(each, base), None)
    if sign_up == "domains" and not domains:
        raise Misplaced("sign_up: domains needs `domains`, a list such as [acme.example]", node)
    if sign_up == "oidc" and oidc is None:
        raise Misplaced("sign_up: oidc needs `oidc` with an issuer and a client_id", node)
    return SiteConfig(
        public_url=_read_public_url(fields.need("public_url")),
        key_file=base / read_text(fields.need("key_file")),
        mail=_read_mail(fields.need("mail"), base),
        listen=fields.read("listen", _read_listen, None),
        operator=fields.read("operator", read_text, ""),
        contact=fields.read("contact", _read_address, ""),
        privacy_file=fields.read("privacy_file", lambda each: base / read_text(each), None),
        sign_up=sign_up,
        domains=domains,
        oidc=oidc,
        trusted_proxies=fields.read("trusted_proxies", lambda each: read_list(each, _read_network), none),
        allow_private=fields.read("allow_private", lambda each: read_choice(each, ("true", "false")) == "true", False),
        limits=fields.read("limits", _read_limits, SiteLimits()),
    )


def _read_mail(node: Node, base: Path) -> MailConfig:
    fields = Fields(node, MAIL_KEYS, "site.mail")
    return MailConfig(
        server=read_text(fields.need("server")),
        sender=_read_address(fields.need("from")),
        port=fields.read("port", _read_positive, 587),
        security=fields.read("security", lambda each: read_choice(each, ("starttls", "tls", "none")), "starttls"),
        username=fields.read("username", read_text, None),
        password_file=fields.read("password_file", lambda each: base / read_text(each), None),
        ca_file=fields.read("ca_file", lambda each: base / read_text(each), None),
    )


def _read_oidc(node: Node, base: Path) -> OidcConfig:
    fields = Fields(node, OIDC_KEYS, "site.oidc")
    issuer = fields.need("issuer")
    url = read_text(issuer).rstrip("/")
    parts = urlsplit(url)
    if parts.scheme != "https" and parts.hostname not in _LOOPBACK:
        raise Misplaced("an issuer is an https URL", issuer)
    return OidcConfig(
        issuer=url,
        client_id=read_text(fields.need("client_id")),
        client_secret_file=fields.read("client_secret_file", lambda each: base / read_text(each), None),
        name=fields.read("name", read_text, "your organisation"),
        ca_file=fields.read("ca_file", lambda each: base / read_text(each), None),
    )


def _read_limits(node: Node) -> SiteLimits:
    fields, default = Fields(node, LIMIT_KEYS, "site.limits"), SiteLimits()

    def number(key: str) -> int:
        return fields.read(key, _read_positive, int(getattr(default, key)))

    return SiteLimits(
        requests_per_minute=number("requests_per_minute"),
        mails_per_address_per_day=number("mails_per_address_per_day"),
        mails_per_client_per_hour=number("mails_per_client_per_hour"),
        subscriptions_per_account=number("subscriptions_per_account"),
        destinations_per_account=number("destinations_per_account"),
        api_requests_per_minute=number("api_requests_per_minute"),
        messages_per_host_per_second=number("messages_per_host_per_second"),
        senders=number("senders"),
        bounces=number("bounces"),
        patience=fields.read("patience", read_duration, default.patience),
        keep=fields.read("keep", read_duration, default.keep),
    )


def _read_public_url(node: Node) -> str:
    text = read_text(node).rstrip("/")
    try:
        parts = urlsplit(text)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable or parts.path or parts.query or parts.fragment or parts.username:
        raise Misplaced("public_url is what browsers ask for, such as https://watch.example, without a path", node)
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        raise Misplaced("public_url is https: without it, anyone on the way could take over an account", node)
    return text


def _read_listen(node: Node) -> tuple[str, int]:
    match = _LISTEN.fullmatch(read_text(node))
    if match is None or int(match[2]) > _LARGEST_PORT:
        raise Misplaced('not an address and a port such as "127.0.0.1:9465"', node)
    return match[1].strip("[]"), int(match[2])


def _read_address(node: Node) -> str:
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


def _read_network(node: Node) -> str:
    text = read_text(node)
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as error:
        raise Misplaced(f"{text[:80]!r} is not an address or network such as 10.0.0.0/8: {error}", node) from None


def _read_positive(node: Node) -> int:
    number = read_number(node)
    if number < 1:
        raise Misplaced("must be at least 1", node)
    return number
