"""Visitors and their rights: the site's key, tokens, cookies, sign-in, and the checks before a change.

A token is 256 random bits or a value made with the site's key. The database holds only hashes of tokens: a copy of it
is not enough to make a link, cookie or button.
"""

import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs

from fastapi import Request, Response
from itsdangerous import BadSignature, URLSafeSerializer
from msgspec import Struct

from inbound.client_address import client_address, networks
from monitor.model.errors import OwnFault
from monitor.site_config import SiteConfig
from monitor.store.key_file import read_or_make
from monitor.store.subscribers import Subscriber, Subscribers

IDLE: Final = timedelta(days=14)
ABSOLUTE: Final = timedelta(days=60)
_KEY_BYTES: Final = 32
_MAX_FORM: Final = 64 * 1024
Form = Mapping[str, list[str]]
_MAX_TOKEN: Final = 600
_FOREVER: Final = 400 * 86_400


class RequestRefused(Exception):
    """A refused request: its messages give the reason and the next step. `retry_after` in seconds goes with 429."""

    def __init__(self, status: int, title: str, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.title, self.message, self.retry_after = status, title, message, retry_after


class SiteKeys:
    """Tokens, codes and sealed values made with the site's key."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    @classmethod
    def read(cls, path: Path) -> "SiteKeys":
        """Read the key file, or make it on the first start. Raises `OwnFault`."""
        try:
            written = read_or_make(path, lambda: secrets.token_hex(_KEY_BYTES).encode() + b"\n")
            key = bytes.fromhex(written.decode("ascii").strip())
        except (OSError, ValueError) as error:
            raise OwnFault(
                f"{path}: the site's key cannot be read or made: {error}. Without it no link in a mail can be checked: "
                "restore the file from a backup, or remove it to begin with a new key (links already sent then end)."
            ) from error
        if len(key) != _KEY_BYTES:
            raise OwnFault(f"{path}: a site's key is {2 * _KEY_BYTES} hex digits; this file holds something else.")
        return cls(key)

    def link_token(self, nonce: str) -> str:
        """The token of a link, made from its nonce at each attempt to send; it is never stored."""
        return hmac.new(self._key, b"link " + nonce.encode(), hashlib.sha256).hexdigest()

    def csrf(self, browser: str) -> str:
        """Token that a form must carry for a browser's cookie."""
        return hmac.new(self._key, b"form " + browser.encode(), hashlib.sha256).hexdigest()

    def seal(self, purpose: str, *values: str | int) -> str:
        """Seal values for one purpose: only a holder of the site's key can make the result."""
        return str(self._serializer(purpose).dumps(list(values)))

    def code(self, destination: str, target: str) -> str:
        """Code that proves that the reader of a destination agrees: eight hex digits."""
        return hmac.new(self._key, f"code {destination} {target}".encode(), hashlib.sha256).hexdigest()[:8].upper()

    def unseal(self, purpose: str, token: str) -> Sequence[Any] | None:
        """Values that `seal` wrote for this purpose; `None` for any other token."""
        if len(token) > _MAX_TOKEN or not token.isascii():
            return None
        try:
            values = self._serializer(purpose).loads(token)
        except BadSignature:
            return None
        return values if isinstance(values, list) else None

    def _serializer(self, purpose: str) -> URLSafeSerializer:
        options = {"key_derivation": "hmac", "digest_method": hashlib.sha256}
        return URLSafeSerializer(self._key, salt=f"signwatch {purpose}", signer_kwargs=options)


class Visitor(Struct, frozen=True):
    """Sender of one request: the browser by its cookie, the signed-in account, and the network address."""

    browser: str
    is_new: bool
    csrf: str
    subscriber: Subscriber | None
    session: str
    client: str

    @property
    def account(self) -> Subscriber:
        """The account. Raises `RequestRefused` without a sign-in."""
        if self.subscriber is None:
            raise RequestRefused(401, "Sign in first", "This page belongs to an account. Sign in, then open it again.")
        return self.subscriber


class RequestAuthenticator:
    """Identifies visitors, and checks the origin of their requests."""

    def __init__(self, config: SiteConfig, keys: SiteKeys, subscribers: Subscribers) -> None:
        self._config, self.keys, self._subscribers = config, keys, subscribers
        prefix = "__Host-" if config.is_secure else ""
        self.browser_cookie, self.session_cookie = f"{prefix}signwatch-browser", f"{prefix}signwatch"
        self._proxies = networks(config.trusted_proxies)

    def visitor(self, request: Request) -> Visitor:
        """Visitor that sent a request."""
        browser = request.cookies.get(self.browser_cookie, "")
        is_new = len(browser) != 2 * _KEY_BYTES or not browser.isalnum()
        if is_new:
            browser = secrets.token_hex(_KEY_BYTES)
        session = request.cookies.get(self.session_cookie, "")
        known = self._subscribers.session(session, IDLE, ABSOLUTE) if len(session) == 2 * _KEY_BYTES else None
        return Visitor(browser, is_new, self.keys.csrf(browser), known, session, self.client(request))

    def client(self, request: Request) -> str:
        """Address of the client; a forwarded address counts only behind a configured proxy. IPv6 by its /64."""
        peer = request.client.host if request.client else ""
        return client_address(peer, request.headers.get("x-forwarded-for", ""), self._proxies)

    def remember(self, response: Response, visitor: Visitor) -> None:
        """Set the cookie of a new browser."""
        if visitor.is_new:
            self._set(response, self.browser_cookie, visitor.browser, _FOREVER)

    def sign_in(self, response: Response, visitor: Visitor, subscriber: Subscriber) -> None:
        """Open a session under a new token; an older one of this browser ends."""
        if visitor.session:
            self._subscribers.close_session(visitor.session)
        token = secrets.token_hex(_KEY_BYTES)
        self._subscribers.open_session(token, subscriber.id)
        self._set(response, self.session_cookie, token, int(ABSOLUTE.total_seconds()))

    def sign_out(self, response: Response, visitor: Visitor, *, everywhere: bool = False) -> None:
        """End this browser's session, or every session of the account."""
        if everywhere and visitor.subscriber is not None:
            self._subscribers.close_sessions(visitor.subscriber.id)
        elif visitor.session:
            self._subscribers.close_session(visitor.session)
        response.delete_cookie(
            self.session_cookie, path="/", secure=self._config.is_secure, httponly=True, samesite="lax"
        )

    async def form(self, request: Request) -> Form:
        """The fields of a form that came from a page of this site in the same browser. Raises `RequestRefused`."""
        fields = await read_form(request)
        self.check_origin(request)
        browser = request.cookies.get(self.browser_cookie, "")
        given = (fields.get("csrf") or [""])[0]
        if not browser or not hmac.compare_digest(self.keys.csrf(browser).encode(), given.encode()):
            raise RequestRefused(
                403,
                "This form is too old",
                "The form did not come from this browser, or its cookie is gone. Nothing was changed: open the page "
                "again and send it once more. Cookies must be allowed for this site.",
            )
        return fields

    def check_origin(self, request: Request) -> None:
        """Refuse a request that another site made the browser send. Raises `RequestRefused`."""
        origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site")
        foreign = origin is not None and origin != self._config.public_url
        if foreign or site not in (None, "same-origin", "none"):
            raise RequestRefused(
                403, "Sent from another site", "This was sent from another site, so nothing was changed."
            )

    def _set(self, response: Response, name: str, value: str, seconds: int) -> None:
        response.set_cookie(
            name, value, max_age=seconds, path="/", secure=self._config.is_secure, httponly=True, samesite="lax"
        )


def first(form: Form, name: str, limit: int = 400) -> str:
    """First value of a form's field, cut to `limit` characters."""
    return (form.get(name) or [""])[0].strip()[:limit]


async def read_form(request: Request) -> Form:
    """Fields of a URL-encoded body of bounded size. Raises `RequestRefused`."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("application/x-www-form-urlencoded", ""):
        raise RequestRefused(415, "Not a form", "Only URL-encoded forms are read here.")
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > _MAX_FORM:
            raise RequestRefused(413, "Too long", f"A form of more than {_MAX_FORM // 1024} KiB is not read.")
    try:
        return parse_qs(body.decode("utf-8"), keep_blank_values=True, max_num_fields=200, strict_parsing=bool(body))
    except (UnicodeDecodeError, ValueError):
        raise RequestRefused(400, "Not a form", "The form could not be read. Open the page again.") from None
