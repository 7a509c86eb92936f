"""Authorization codes with PKCE (RFC 7636) and device grants (RFC 8628) of the embedded issuer, in bounded memory."""

import base64
import hashlib
import hmac
import re
import threading
from collections import OrderedDict
from collections.abc import Callable
from enum import StrEnum
from typing import Final
from urllib.parse import urlsplit

from msgspec import Struct
from msgspec.structs import replace

from addresses.url import is_loopback_host

CODE_SECONDS: Final = 120.0
DEVICE_SECONDS: Final = 600.0
DEVICE_INTERVAL: Final = 2.0
_MAX_OPEN: Final = 1000
_OOB: Final = "urn:ietf:wg:oauth:2.0:oob"
_CHALLENGE: Final = re.compile(r"[A-Za-z0-9_-]{43}")
_VERIFIER: Final = re.compile(r"[A-Za-z0-9._~-]{43,128}")
_REDIRECT_PATHS: Final = ("", "/", "/auth/callback")
_USER_CODE_ALPHABET: Final = "BCDFGHJKLMNPQRSTVWXZ"  # RFC 8628 6.1: no vowels, so no words
_TEXT_LIMIT: Final = 512


class OAuthError(Exception):
    """An OAuth error answer: `code` as RFC 6749 5.2 or RFC 8628 3.5 names it."""

    def __init__(self, code: str, description: str) -> None:
        super().__init__(description)
        self.code = code
        self.description = description


class AuthorizationRequest(Struct, frozen=True):
    """Checked parameters of an authorization request."""

    client_id: str
    redirect_uri: str
    state: str
    nonce: str
    challenge: str

    @property
    def out_of_band(self) -> bool:
        """True if the user copies the code instead of being redirected."""
        return self.redirect_uri == _OOB


class DeviceState(StrEnum):
    """State of a device grant."""

    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"


class DeviceGrant(Struct, frozen=True):
    """One device waiting for its user."""

    user_code: str
    challenge: str
    expires: float
    next_poll: float
    state: DeviceState = DeviceState.PENDING
    email: str = ""


def read_authorization(parameters: dict[str, str], client_id: str) -> AuthorizationRequest:
    """Check an authorization request. Raises `OAuthError`; the caller must not redirect to an unchecked URI."""
    if parameters.get("client_id") != client_id:
        raise OAuthError("unauthorized_client", f"client_id must be {client_id!r}")
    redirect = parameters.get("redirect_uri", "")
    if not is_loopback_redirect(redirect) and redirect != _OOB:
        raise OAuthError("invalid_request", "redirect_uri must be this machine's /auth/callback, or out of band")
    if parameters.get("response_type") != "code":
        raise OAuthError("unsupported_response_type", "response_type must be code")
    challenge = parameters.get("code_challenge", "")
    if parameters.get("code_challenge_method") != "S256" or not _CHALLENGE.fullmatch(challenge):
        raise OAuthError("invalid_request", "PKCE with code_challenge_method S256 is required")
    state, nonce = parameters.get("state", ""), parameters.get("nonce", "")
    if max(len(state), len(nonce)) > _TEXT_LIMIT:
        raise OAuthError("invalid_request", "state or nonce is too long")
    return AuthorizationRequest(client_id, redirect, state, nonce, challenge)


def is_loopback_redirect(uri: str) -> bool:
    """RFC 8252 7.3: any port on the loopback interface; the path is the one that Sigstore clients use, or empty."""
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError:
        return False
    plain = uri.isascii() and uri.isprintable() and " " not in uri and not parts.query and not parts.fragment
    return (
        plain
        and parts.scheme == "http"
        and is_loopback_host(parts.hostname)
        and parts.username is None
        and port != 0
        and parts.path in _REDIRECT_PATHS
    )


def check_verifier(challenge: str, verifier: str) -> None:
    """RFC 7636 4.6. Raises `OAuthError`."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    if not _VERIFIER.fullmatch(verifier) or not hmac.compare_digest(digest, challenge):
        raise OAuthError("invalid_grant", "code_verifier does not match the code_challenge")


class Flows:
    """Open codes and device grants. `random_text` gives unguessable URL-safe text; times are monotonic seconds."""

    def __init__(self, random_text: Callable[[], str], choose: Callable[[str], str]) -> None:
        self._random_text = random_text
        self._choose = choose
        self._lock = threading.Lock()
        self._codes: OrderedDict[str, tuple[AuthorizationRequest, str, float]] = OrderedDict()
        self._devices: OrderedDict[str, DeviceGrant] = OrderedDict()

    def grant_code(self, request: AuthorizationRequest, email: str, now: float) -> str:
        """One-time code for a user whose address was proven."""
        code = self._random_text()
        with self._lock:
            self._codes[code] = (request, email, now + CODE_SECONDS)
            while len(self._codes) > _MAX_OPEN:
                self._codes.popitem(last=False)
        return code

    def redeem_code(self, code: str, redirect_uri: str, verifier: str, now: float) -> tuple[str, str]:
        """E-mail and nonce behind a code; the code is spent even when this fails. Raises `OAuthError`."""
        with self._lock:
            found = self._codes.pop(code, None)
        if found is None or now > found[2]:
            raise OAuthError("invalid_grant", "the code is unknown, used or expired")
        request, email, _ = found
        if redirect_uri != request.redirect_uri:
            raise OAuthError("invalid_grant", "redirect_uri is not the one the code was made for")
        check_verifier(request.challenge, verifier)
        return email, request.nonce

    def start_device(self, challenge: str, method: str, now: float) -> tuple[str, str]:
        """Device code and user code. PKCE is optional here, as in RFC 8628. Raises `OAuthError`."""
        if challenge and (method != "S256" or not _CHALLENGE.fullmatch(challenge)):
            raise OAuthError("invalid_request", "code_challenge_method must be S256")
        device = self._random_text()
        letters = "".join(self._choose(_USER_CODE_ALPHABET) for _ in range(8))
        user_code = f"{letters[:4]}-{letters[4:]}"
        with self._lock:
            self._devices[device] = DeviceGrant(user_code, challenge, now + DEVICE_SECONDS, now)
            while len(self._devices) > _MAX_OPEN:
                self._devices.popitem(last=False)
        return device, user_code

    def decide_device(self, user_code: str, email: str, *, approved: bool, now: float) -> bool:
        """Record the user's decision; False when no waiting device has the code."""
        wanted = user_code.strip().upper()
        with self._lock:
            for device, grant in self._devices.items():
                if grant.user_code == wanted and grant.state is DeviceState.PENDING and now <= grant.expires:
                    state = DeviceState.APPROVED if approved else DeviceState.DENIED
                    self._devices[device] = replace(grant, state=state, email=email)
                    return True
        return False

    def poll_device(self, device: str, verifier: str, now: float) -> str:
        """E-mail of the user who approved. Raises `OAuthError` with the code RFC 8628 3.5 asks for."""
        with self._lock:
            grant = self._devices.get(device)
            if grant is None:
                raise OAuthError("invalid_grant", "the device code is unknown or used")
            if now > grant.expires:
                del self._devices[device]
                raise OAuthError("expired_token", "the device code has expired; start again")
            if grant.state is DeviceState.PENDING:
                self._devices[device] = replace(grant, next_poll=now + DEVICE_INTERVAL)
                if now < grant.next_poll:
                    raise OAuthError("slow_down", f"poll every {DEVICE_INTERVAL:g} seconds")
                raise OAuthError("authorization_pending", "the user has not decided yet")
            del self._devices[device]
        if grant.state is DeviceState.DENIED:
            raise OAuthError("access_denied", "the user said no")
        if grant.challenge:
            check_verifier(grant.challenge, verifier)
        return grant.email
