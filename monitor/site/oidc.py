"""Signing in with an OpenID Connect issuer that the operator names: a login there proves an address.

OpenID Connect Core 1.0, authorisation code with PKCE (RFC 7636), state and nonce. A signed cookie holds the state for
ten minutes, so the database stores no row before the login succeeded.
"""

import secrets
import threading
from collections.abc import Mapping
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote_plus

import jwt
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from addresses.url import is_https_or_loopback
from monitor.site.parts import Site
from monitor.site.sessions import RequestRefused
from monitor.site_config import OidcConfig
from outbound.json_client import JsonClient, Outage
from outbound.transport import believed
from rules.subject import NotASubject, SubjectKind, read_subject

CALLBACK: Final = "/auth/callback"
_LASTS: Final = timedelta(minutes=10)
_KNOWN_FOR: Final = timedelta(hours=1)
_MAX_DOCUMENT: Final = 256 * 1024
_SECONDS: Final = 10.0
_ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA")
_AGAIN: Final = "Nothing was changed. Try again, or sign in with a link by mail."


def router(site: Site, config: OidcConfig) -> APIRouter:
    """Routes of signing in with the issuer."""
    routes = APIRouter()
    issuer = LoginIssuer(site, config)
    cookie = f"{'__Host-' if site.config.is_secure else ''}signwatch-login"

    @routes.get("/sign-in/with/oidc")
    def begin() -> Response:
        state, verifier, nonce = (secrets.token_urlsafe(32) for _ in range(3))
        until = int((site.clock() + _LASTS).timestamp())
        answer = RedirectResponse(issuer.login_url(state, verifier, nonce), status_code=303)
        answer.set_cookie(
            cookie,
            site.keys.seal("login", state, verifier, nonce, until),
            max_age=int(_LASTS.total_seconds()),
            path="/",
            secure=site.config.is_secure,
            httponly=True,
            samesite="lax",
        )
        return answer

    @routes.get(CALLBACK)
    def end(request: Request, code: str = "", state: str = "", error: str = "") -> Response:
        begun = site.keys.unseal("login", request.cookies.get(cookie, ""))
        if begun is None or begun[3] < site.clock().timestamp():
            raise RequestRefused(
                403, "This login is too old", f"It was not begun in this browser, or longer ago. {_AGAIN}"
            )
        if error or not code or not secrets.compare_digest(str(begun[0]).encode(), state.encode()):
            raise RequestRefused(403, "The login did not succeed", f"The login service did not confirm it. {_AGAIN}")
        address = _may_sign_in(site, issuer.address(code, str(begun[1]), str(begun[2])))
        account = site.subscribers.by_address(address) or site.subscribers.ensure_account(address)
        if account.suspended_at is not None:
            raise RequestRefused(403, "This account is suspended", "Ask the operator of this site.")
        answer = RedirectResponse("/subscriptions", status_code=303)
        answer.delete_cookie(cookie, path="/", secure=site.config.is_secure, httponly=True, samesite="lax")
        site.door.sign_in(answer, request.state.visitor, account)
        return answer

    return routes


class LoginIssuer:
    """An issuer's discovery document, fetched again each hour, and logins with it.

    `seconds` bounds each exchange with the issuer.
    """

    def __init__(self, site: Site, config: OidcConfig, seconds: float = _SECONDS) -> None:
        self._site, self._config, self._seconds = site, config, seconds
        self._lock = threading.Lock()
        self._known: tuple[datetime, Mapping[str, Any], jwt.PyJWKSet] | None = None

    def login_url(self, state: str, verifier: str, nonce: str) -> str:
        """URL to which a browser is sent to log in. Raises `RequestRefused`."""
        document, _ = self._discovered()
        return str(
            prepare_grant_uri(
                document["authorization_endpoint"],
                client_id=self._config.client_id,
                response_type="code",
                redirect_uri=self._site.url(CALLBACK),
                scope="openid email",
                state=state,
                nonce=nonce,
                code_challenge=create_s256_code_challenge(verifier),
                code_challenge_method="S256",
            )
        )

    def address(self, code: str, verifier: str, nonce: str) -> str:
        """The verified address of a login. Raises `RequestRefused`."""
        document, keys = self._discovered()
        try:
            raw = self._token(str(document["token_endpoint"]), code, verifier)
            kid = jwt.get_unverified_header(raw).get("kid")
            key = next(each for each in keys.keys if kid is None or each.key_id == kid)
            claims = jwt.decode(
                raw,
                key,
                algorithms=list(_ALGORITHMS),
                audience=self._config.client_id,
                issuer=document["issuer"],
                options={"require": ["exp", "iat", "aud", "iss"]},
                leeway=60,
            )
        except (Outage, OSError, jwt.PyJWTError, KeyError, StopIteration, TypeError, ValueError) as error:
            raise RequestRefused(
                403, "The login did not succeed", f"The login service's answer could not be verified. {_AGAIN}"
            ) from error
        # The nonce ties the token to this browser's login, so that a token stolen elsewhere is refused.
        if claims.get("nonce") != nonce or claims.get("email_verified") is not True or not claims.get("email"):
            raise RequestRefused(
                403, "The login proves no address", f"The login service vouches for no verified address. {_AGAIN}"
            )
        return str(claims["email"])

    def _token(self, endpoint: str, code: str, verifier: str) -> str:
        """The ID token for a code. Raises `Outage`, `OSError`, `KeyError`, `ValueError`."""
        secret = None
        if self._config.client_secret_file is not None:
            secret = self._config.client_secret_file.read_text(encoding="utf-8").strip()
        form = {
            "grant_type": "authorization_code",
            "redirect_uri": self._site.url(CALLBACK),
            "code": code,
            "code_verifier": verifier,
        }
        if secret is None:
            return str(self._ask(endpoint, {**form, "client_id": self._config.client_id})["id_token"])
        # RFC 6749 section 2.3.1: both are form-encoded first, so a colon in the id and a plus in the secret survive.
        basic = quote_plus(self._config.client_id), quote_plus(secret)
        return str(self._ask(endpoint, form, basic)["id_token"])

    def _discovered(self) -> tuple[Mapping[str, Any], jwt.PyJWKSet]:
        now = self._site.clock()
        with self._lock:
            if self._known is not None and now - self._known[0] < _KNOWN_FOR:
                return self._known[1], self._known[2]
        try:
            document = self._ask(f"{self._config.issuer}/.well-known/openid-configuration")
            _check_issuer(document, self._config.issuer)
            keys = jwt.PyJWKSet.from_dict(self._ask(str(document["jwks_uri"])))
        except (Outage, OSError, ValueError, KeyError, TypeError, jwt.PyJWTError) as error:
            raise RequestRefused(
                503, "The login service does not answer", f"{self._config.name} cannot be asked now. {_AGAIN}"
            ) from error
        with self._lock:
            self._known = now, document, keys
        return document, keys

    def _ask(
        self, url: str, form: Mapping[str, str] | None = None, basic: tuple[str, str] | None = None
    ) -> dict[str, Any]:
        """The JSON object at an end point of the issuer. Raises `Outage`, `ValueError`, `OSError`."""
        if not is_https_or_loopback(url):
            # An issuer's document must not lead a code or the client's secret over an open network.
            raise ValueError("an end point without TLS")
        ca_file = self._config.ca_file
        with JsonClient(believed(None if ca_file is None else str(ca_file))) as client:
            status, answer = client.request_json(
                url, form=form, basic=basic, limit=_MAX_DOCUMENT, seconds=self._seconds
            )
        if status != HTTPStatus.OK or not isinstance(answer, dict):
            raise ValueError(f"status {status} and no JSON object")
        return answer


def _check_issuer(document: Mapping[str, Any], issuer: str) -> None:
    """OpenID Connect Discovery 4.3: the issuer in the document must equal the configured one."""
    if document.get("issuer") != issuer:
        raise ValueError("the document is another issuer's")


def _may_sign_in(site: Site, address: str) -> str:
    """The address in its stored form, if it may have an account here. Raises `RequestRefused`."""
    try:
        subject = read_subject(address)
    except NotASubject:
        subject = None
    if subject is None or subject.kind is not SubjectKind.EMAIL:
        raise RequestRefused(
            403, "The login proves no address", f"The login service's address cannot get mail. {_AGAIN}"
        )
    known = site.subscribers.by_address(subject.text) is not None
    if not site.config.admits(subject.text):
        raise RequestRefused(
            403, "Not for this address", f"Only addresses of {', '.join(site.config.domains)} subscribe here."
        )
    if site.config.sign_up == "invited" and not known and not site.subscribers.is_invited(subject.text):
        raise RequestRefused(403, "Not for this address", "Accounts here are for invited people.")
    return subject.text
