"""Identity tokens from a login: in a browser here, with a code from a browser elsewhere, or on another device."""

import base64
import contextlib
import hashlib
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import requests
from sigstore.errors import Error
from sigstore.models import ClientTrustConfig
from sigstore.oidc import IdentityError, IdentityToken, Issuer, IssuerError

from addresses.url import is_https_or_loopback
from outbound.json_client import JsonClient, Outage, TooLong
from outbound.transport import NoAuthorities, believed
from sign_lite.authorities import authorities_fault, named_authorities, unusable_authorities, without_authorities
from sign_lite.errors import Misuse, ServiceRefused, ServiceUnreachable, SignLiteError

CLIENT_ID: Final = "sigstore"
_DEVICE_GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"
_ANSWER_LIMIT: Final = 256 * 1024
_SECONDS: Final = 30
# RFC 8628 3.5: the interval if the server names none, and the seconds that `slow_down` adds.
_INTERVAL: Final = 5
_LONGEST_WAIT: Final = 1800
_LONGEST_INTERVAL: Final = 60


class LoginKind(StrEnum):
    """Way in which a person signs in."""

    BROWSER = "browser"
    CODE = "code"
    DEVICE = "device"


def log_in(config: ClientTrustConfig, kind: LoginKind) -> IdentityToken:
    """Token of the issuer that the trust configuration names. Raises `SignLiteError`."""
    with _translated():
        issuer = config.signing_config.get_oidc_url()
        if not is_https_or_loopback(issuer):
            raise Misuse(f"the login of this deployment is at {issuer!r:.200}, which others can read: it must be https")
        if kind is LoginKind.DEVICE:
            return IdentityToken(device_token(issuer, _say, time.sleep, time.monotonic))
        return Issuer(issuer).identity_token(client_id=CLIENT_ID, force_oob=kind is LoginKind.CODE)


def device_token(
    issuer: str, say: Callable[[str], None], sleep: Callable[[float], None], clock: Callable[[], float]
) -> str:
    """RFC 8628: shows the user a page and a code, and asks until the user has decided. Raises `SignLiteError`.

    `clock` counts seconds.
    """
    with _client(issuer) as client:
        found = _answer(client, f"{issuer.rstrip('/')}/.well-known/openid-configuration")
        start, redeem = (
            _end_point(issuer, found, name) for name in ("device_authorization_endpoint", "token_endpoint")
        )
        verifier = secrets.token_urlsafe(48)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        asked = {
            "client_id": CLIENT_ID,
            "scope": "openid email",
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        begun = _answer(client, start, asked)
        try:
            device, user_code = str(begun["device_code"]), str(begun["user_code"])
            page = str(begun.get("verification_uri_complete") or begun["verification_uri"])
            ends = clock() + min(int(begun.get("expires_in") or _LONGEST_WAIT), _LONGEST_WAIT)
            interval = min(max(int(begun.get("interval") or _INTERVAL), 1), _LONGEST_INTERVAL)
        except (KeyError, TypeError, ValueError) as error:
            raise ServiceRefused(f"{issuer} began a device login without fields that RFC 8628 requires") from error
        say(f"Open {_inert(page)} on any device, and check that it shows the code {_inert(user_code)}.")
        poll = {
            "grant_type": _DEVICE_GRANT,
            "device_code": device,
            "client_id": CLIENT_ID,
            "code_verifier": verifier,
        }
        while clock() < ends:
            sleep(interval)
            told = _answer(client, redeem, poll, refusals=True)
            problem = told.get("error")
            if problem is None:
                return str(told.get("id_token") or "")
            if problem == "slow_down":
                interval = min(interval + _INTERVAL, _LONGEST_INTERVAL)
            elif problem != "authorization_pending":
                detail = _inert(str(told.get("error_description") or problem))
                raise ServiceRefused(f"the login was not granted: {detail}")
    raise ServiceRefused("the login was not granted in time; start again")


def _end_point(issuer: str, found: Mapping[str, Any], name: str) -> str:
    url = found.get(name)
    if not isinstance(url, str) or not is_https_or_loopback(url):
        raise ServiceRefused(f"{issuer} names no usable {name}: it offers no device login; try --login browser")
    return url


def _client(issuer: str) -> JsonClient:
    """A client with the proxy and the authorities of the environment, as the sigstore library takes them."""
    proxy, named = _proxy(issuer), named_authorities()
    try:
        # With a proxy the authorities are read here, else for the first connection.
        return JsonClient(believed(named), proxy)
    except NoAuthorities as error:
        raise without_authorities(error) from error
    except OSError as error:
        raise unusable_authorities(named, error) from error


def _proxy(issuer: str) -> str | None:
    """The proxy that the environment names for an issuer, as requests takes it. Raises `Misuse`."""
    parts, known = urlsplit(issuer), getproxies()
    proxy = None if proxy_bypass(parts.hostname or "") else known.get(parts.scheme) or known.get("all")
    if not proxy:
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    try:
        where = urlsplit(proxy)
        usable = where.scheme in {"http", "https"} and bool(where.hostname) and where.port != 0
    except ValueError:
        usable = False
    if not usable:
        # The value may hold a password.
        raise Misuse("the proxy in HTTPS_PROXY, HTTP_PROXY or ALL_PROXY must be written as http://proxy.example:3128")
    return proxy


def _answer(
    client: JsonClient, url: str, form: Mapping[str, str] | None = None, *, refusals: bool = False
) -> dict[str, Any]:
    """JSON object of an answer; with `refusals` that of an OAuth error as well."""
    try:
        status, value = client.request_json(url, form=form, limit=_ANSWER_LIMIT, seconds=_SECONDS)
    except TooLong as error:
        raise ServiceRefused(str(error)) from error
    except Outage as error:
        if isinstance(error.__cause__, NoAuthorities):
            raise without_authorities(error.__cause__) from error
        raise ServiceUnreachable(f"{error}; try again later") from error
    fine = status == HTTPStatus.OK or (refusals and status == HTTPStatus.BAD_REQUEST)
    if not fine or not isinstance(value, dict):
        raise ServiceRefused(f"{url} answered {status} and not what a login needs")
    return value


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except SignLiteError:
        raise
    except (IdentityError, IssuerError, Error) as error:
        raise ServiceRefused(f"the login failed: {_inert(str(error) or type(error).__name__)}") from error
    except EOFError as error:
        raise Misuse("no code was typed in") from error
    except OSError as error:
        if fault := authorities_fault():
            raise fault from error
        if not isinstance(error, requests.RequestException):
            raise
        url = str(error.request.url) if error.request is not None else "the login"
        raise ServiceUnreachable(f"{url} did not answer: {type(error).__name__}; try again later") from error


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _inert(text: str) -> str:
    return "".join(each if each.isprintable() else "?" for each in text)[:500]
