"""End points of the embedded OpenID Connect issuer: discovery, keys, authorization code with PKCE, device grant."""

import secrets
import time
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.responses import HTMLResponse, RedirectResponse

from ca_lite.errors import bad_request
from ca_lite.http import json_answer, read_body
from ca_lite.keys import now
from ca_lite.login import TooManyGuesses
from ca_lite.oidc_flows import DEVICE_INTERVAL, DEVICE_SECONDS, AuthorizationRequest, OAuthError, read_authorization
from ca_lite.oidc_keys import ALGORITHM, TOKEN_LIFETIME, completed, email_claims
from ca_lite.oidc_pages import HEADERS, page
from ca_lite.service import CaService
from ca_lite.settings import CLIENT_ID, OIDC_PATH

_FORM_LIMIT: Final = 64 * 1024
_DEVICE_GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"
_AUTHORIZATION_PARAMETERS: Final = (
    "client_id",
    "redirect_uri",
    "response_type",
    "code_challenge",
    "code_challenge_method",
    "state",
    "nonce",
)
_NO_STORE: Final = {"Cache-Control": "no-store"}


def oidc_routes(service: CaService) -> APIRouter:
    """Routes below /oidc."""
    router = APIRouter(prefix=OIDC_PATH)
    for part in (_discovery_routes(service), _browser_routes(service), _device_routes(service), _token_route(service)):
        router.include_router(part)
    return router


def _discovery_routes(service: CaService) -> APIRouter:
    router = APIRouter()

    @router.get("/.well-known/openid-configuration")
    def discovery() -> Response:
        return _discovery(service, "")

    @router.get("/{name}/.well-known/openid-configuration")
    def named_discovery(name: str) -> Response:
        return _discovery(service, name)

    @router.get("/jwks")
    def jwks() -> Response:
        return json_answer(service.own_keys.current().jwks())

    return router


def _browser_routes(service: CaService) -> APIRouter:
    router = APIRouter()

    @router.get("/auth")
    def authorization_page(request: Request) -> Response:
        parameters = dict(request.query_params)
        try:
            read_authorization(parameters, CLIENT_ID)
        except OAuthError as error:
            return _message("This request cannot be answered", f"{error.code}: {error.description}", status=400)
        return _login_page(service, parameters)

    @router.post("/auth")
    async def authorize(request: Request) -> Response:
        form = await _form(request)
        try:
            wanted = read_authorization(form, CLIENT_ID)
        except OAuthError as error:
            return _message("This request cannot be answered", f"{error.code}: {error.description}", status=400)
        try:
            email = await _signed_in(service, request, form)
        except NotSignedIn as error:
            return _refused(_login_page(service, form, str(error)), error)
        return _hand_over(wanted, service.flows.grant_code(wanted, email, time.monotonic()))

    return router


def _device_routes(service: CaService) -> APIRouter:
    router = APIRouter()

    @router.get("/device")
    def device_page(request: Request) -> Response:
        return _device_page(service, request.query_params.get("user_code", "")[:16])

    @router.post("/device")
    async def decide_device(request: Request) -> Response:
        form = await _form(request)
        user_code = form.get("user_code", "")[:16]
        try:
            email = await _signed_in(service, request, form)
        except NotSignedIn as error:
            return _refused(_device_page(service, user_code, str(error)), error)
        approved = form.get("decision") == "approve"
        if not service.flows.decide_device(user_code, email, approved=approved, now=time.monotonic()):
            return _device_page(service, user_code, "No device is waiting with this code.", 404)
        return _message("Done", "The device was " + ("approved." if approved else "turned away."))

    @router.post("/device/code")
    async def start_device(request: Request) -> Response:
        form = await _form(request)
        try:
            _check_client(form)
            challenge, method = form.get("code_challenge", ""), form.get("code_challenge_method", "")
            device, user_code = service.flows.start_device(challenge, method, time.monotonic())
        except OAuthError as error:
            return _oauth_error(error)
        page_url = f"{service.settings.url}{OIDC_PATH}/device"
        answer = {
            "device_code": device,
            "user_code": user_code,
            "verification_uri": page_url,
            "verification_uri_complete": f"{page_url}?{urlencode({'user_code': user_code})}",
            "expires_in": int(DEVICE_SECONDS),
            "interval": int(DEVICE_INTERVAL),
        }
        return json_answer(answer, headers=_NO_STORE)

    return router


def _token_route(service: CaService) -> APIRouter:
    router = APIRouter()

    @router.post("/token")
    async def token(request: Request) -> Response:
        form = await _form(request)
        try:
            _check_client(form)
            return _token_answer(service, *_redeem(service, form))
        except OAuthError as error:
            return _oauth_error(error)

    return router


def _discovery(service: CaService, name: str) -> Response:
    issuer = service.served_issuer(name)
    if issuer is None:
        return json_answer({"code": 5, "message": "Not Found", "details": []}, 404)
    base = service.settings.url + OIDC_PATH
    return json_answer(
        {
            "issuer": issuer,
            "authorization_endpoint": f"{base}/auth",
            "token_endpoint": f"{base}/token",
            "jwks_uri": f"{base}/jwks",
            "device_authorization_endpoint": f"{base}/device/code",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": [ALGORITHM],
            "code_challenge_methods_supported": ["S256"],
            "grant_types_supported": ["authorization_code", _DEVICE_GRANT],
            "scopes_supported": ["openid", "email"],
            "token_endpoint_auth_methods_supported": ["none", "client_secret_basic"],
            "claims_supported": ["aud", "email", "email_verified", "exp", "iat", "iss", "nonce", "sub"],
        }
    )


def _redeem(service: CaService, form: dict[str, str]) -> tuple[str, str]:
    """E-mail and nonce that the grant stands for. Raises `OAuthError`."""
    verifier, nonce = form.get("code_verifier", ""), ""
    if form.get("grant_type") == "authorization_code":
        given = form.get("code", ""), form.get("redirect_uri", "")
        email, nonce = service.flows.redeem_code(*given, verifier, time.monotonic())
    elif form.get("grant_type") == _DEVICE_GRANT:
        email = service.flows.poll_device(form.get("device_code", ""), verifier, time.monotonic())
    else:
        raise OAuthError("unsupported_grant_type", "grant_type must be authorization_code or device_code")
    if not service.login.may_sign_in(email):
        raise OAuthError("invalid_grant", "the user was disabled or removed after signing in")
    return email, nonce


def _token_answer(service: CaService, email: str, nonce: str) -> Response:
    claims: dict[str, Any] = email_claims(service.settings.url + OIDC_PATH, email)
    if nonce:
        claims["nonce"] = nonce
    claims = completed(claims, audience=CLIENT_ID, token_id=secrets.token_urlsafe(12), now=now())
    signed = service.own_keys.current().sign(claims)
    # sigstore-python presents the access token as the identity token, so both are the same (and no at_hash).
    answer = {
        "access_token": signed,
        "id_token": signed,
        "token_type": "Bearer",
        "expires_in": int(TOKEN_LIFETIME.total_seconds()),
        "scope": "openid email",
    }
    return json_answer(answer, headers=_NO_STORE)


def _check_client(form: dict[str, str]) -> None:
    """Accept a public client: its id in the form, Basic authentication with an empty password, or no client at all.

    Raises `OAuthError`.
    """
    if form.get("client_id", CLIENT_ID) != CLIENT_ID:
        raise OAuthError("invalid_client", f"client_id must be {CLIENT_ID!r}")


class NotSignedIn(Exception):
    """The form does not prove the person's identity.

    `status` and `retry_after` (seconds, 0: none) go into the answer.
    """

    def __init__(self, message: str, status: int = 403, retry_after: int = 0) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


async def _signed_in(service: CaService, request: Request, form: dict[str, str]) -> str:
    """The e-mail address that the form proves. Raises `NotSignedIn`."""
    address = request.client.host if request.client else ""
    given = form.get("email", ""), form.get("secret", "")
    try:
        email = await run_in_threadpool(service.login.sign_in, *given, address, time.monotonic())
    except TooManyGuesses as error:
        raise NotSignedIn(f"Too many attempts. Try again in {error.seconds} seconds.", 429, error.seconds) from error
    if email is None:
        wrong = "The login secret or the address" if service.login.is_development else "The address or the password"
        raise NotSignedIn(f"{wrong} is wrong.")
    return email


def _refused(page_again: Response, error: NotSignedIn) -> Response:
    page_again.status_code = error.status
    if error.retry_after:
        page_again.headers["Retry-After"] = str(error.retry_after)
    return page_again


def _device_page(service: CaService, user_code: str, problem: str = "", status: int = 200) -> Response:
    development = service.login.is_development
    html = page("device", "Approve a device", problem, development=development, user_code=user_code)
    return _html(html, status)


def _login_page(service: CaService, parameters: dict[str, str], problem: str = "") -> Response:
    hidden = {name: parameters[name] for name in _AUTHORIZATION_PARAMETERS if name in parameters}
    development, issuer = service.login.is_development, service.settings.url + OIDC_PATH
    return _html(page("login", "Sign in", problem, development=development, issuer=issuer, hidden=hidden))


def _hand_over(wanted: AuthorizationRequest, code: str) -> Response:
    if wanted.out_of_band:
        return _message("Signed in", "Copy this code into the program that asked for it:", code=code)
    parameters = {"code": code, **({"state": wanted.state} if wanted.state else {})}
    return RedirectResponse(f"{wanted.redirect_uri}?{urlencode(parameters)}", 303, HEADERS)


async def _form(request: Request) -> dict[str, str]:
    raw = await read_body(request, _FORM_LIMIT)
    try:
        pairs = parse_qsl(raw.decode("ascii"), keep_blank_values=True, strict_parsing=bool(raw), max_num_fields=50)
    except ValueError as error:
        raise bad_request("the body is not a form", "BODY_MALFORMED") from error
    return dict(pairs)


def _oauth_error(error: OAuthError) -> Response:
    return json_answer({"error": error.code, "error_description": error.description}, 400, _NO_STORE)


def _message(title: str, text: str, *, code: str = "", status: int = 200) -> Response:
    return _html(page("message", title, text=text, code=code), status)


def _html(text: str, status: int = 200) -> Response:
    return HTMLResponse(text, status, HEADERS)
