"""Signing in with an OpenID Connect issuer that the operator names: a login there proves an address.

OpenID Connect Core 1.0, authorisation code with PKCE (RFC 7636), state and nonce. A signed cookie holds the state for
ten minutes, so the database stores no row before the login succeeded.
"""

import json
import secrets
import threading
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import jwt
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri, prepare_token_request
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from monitor.http_fetcher import Expect, HttpFetcher
from monitor.model.errors import FetchFailed, OwnFault
from monitor.site.parts import Site
from monitor.site.sessions import RequestRefused
from monitor.site_config import OidcConfig
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
    """An issuer's discovery document, fetched again each hour, and logins with it."""

    def __init__(self, site: Site, config: OidcConfig) -> None:
        self._site, self._config = site, config
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
        except (httpx.HTTPError, OSError, jwt.PyJWTError, KeyError, StopIteration, ValueError) as error:
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
        """The ID token for a code. Raises `httpx.HTTPError`, `KeyError`, `ValueError`."""
        secret = None
        if self._config.client_secret_file is not None:
            secret = self._config.client_secret_file.read_text(encoding="utf-8").strip()
        body = prepare_token_request(
            "authorization_code",
            redirect_uri=self._site.url(CALLBACK),
            code=code,
            code_verifier=verifier,
            **({"client_id": self._config.client_id} if secret is None else {}),
        )
        verify = str(self._config.ca_file) if self._config.ca_file is not None else True
        auth = None if secret is None else (self._config.client_id, secret)
        headers = {"content-type": "application/x-www-form-urlencoded", "accept": "application/json"}
        with (
            httpx.Client(timeout=_SECONDS, trust_env=False, verify=verify) as client,
            client.stream("POST", endpoint, content=body, headers=headers, auth=auth) as answer,
        ):
            answer.raise_for_status()
            raw = b""
            for piece in answer.iter_bytes():
                raw += piece
                if len(raw) > _MAX_DOCUMENT:
                    raise ValueError("the answer is too long")
        return str(json.loads(raw)["id_token"])

    def _discovered(self) -> tuple[Mapping[str, Any], jwt.PyJWKSet]:
        now = self._site.clock()
        with self._lock:
            if self._known is not None and now - self._known[0] < _KNOWN_FOR:
                return self._known[1], self._known[2]
        try:
            document = self._fetch(f"{self._config.issuer}/.well-known/openid-configuration")
            _check_issuer(document, self._config.issuer)
            keys = jwt.PyJWKSet.from_dict(dict(self._fetch(str(document["jwks_uri"]))))
        except (FetchFailed, OwnFault, ValueError, KeyError, TypeError, jwt.PyJWTError) as error:
            raise RequestRefused(
                503, "The login service does not answer", f"{self._config.name} cannot be asked now. {_AGAIN}"
            ) from error
        with self._lock:
            self._known = now, document, keys
        return document, keys

    def _fetch(self, url: str) -> Mapping[str, Any]:
        parts = urlsplit(url)
        ca_file = str(self._config.ca_file) if self._config.ca_file is not None else None
        fetcher = HttpFetcher(f"{parts.scheme}://{parts.netloc}", ca_file=ca_file)
        try:
            raw = fetcher.get(parts.path.lstrip("/"), max_bytes=_MAX_DOCUMENT, expect=Expect.JSON)
        finally:
            fetcher.close()
        document = json.loads(raw)
        if not isinstance(document, dict):
            raise TypeError("not a JSON object")
        return document


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
