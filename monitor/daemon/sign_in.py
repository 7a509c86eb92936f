"""Sign-in of an operator: the token of `web.token_file` is the password, a sealed cookie the proof for eight hours."""

import hashlib
import hmac
import logging
import secrets
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import urlsplit

from fastapi import HTTPException, Request, Response
from msgspec import Struct

from monitor.site.sessions import SiteKeys

HOLDS: Final = timedelta(hours=8)
_LOG: Final = logging.getLogger(__name__)
_PURPOSE: Final = "operator"


class Operator(Struct, frozen=True):
    """A signed-in operator's browser, and the token that its forms must carry."""

    csrf: str


class SignIn:
    """Makes and checks the cookie of an operator. Its key derives from the API's token: a new token ends all sign-ins.

    `public_url` is the address under which browsers reach the page; "" if none is configured.
    """

    def __init__(self, token: bytes, public_url: str, clock: Callable[[], datetime]) -> None:
        self._token, self._public_url, self._clock = token, public_url, clock
        self._keys = SiteKeys(hashlib.sha256(b"signwatch operator's cookie\0" + token).digest())
        self._is_secure = urlsplit(public_url).scheme == "https"
        self._cookie = "__Host-signwatch-operator" if self._is_secure else "signwatch-operator"

    def operator(self, request: Request) -> Operator | None:
        """The operator whose cookie a request carries; `None` without one, and after its end."""
        cookie = request.cookies.get(self._cookie, "")
        match self._keys.unseal(_PURPOSE, cookie):
            case [int(until), str()] if self._clock().timestamp() < until:
                return Operator(self._keys.csrf(cookie))
        return None

    def require(self, request: Request, given: str) -> Operator:
        """The operator who sent a form with this CSRF token. Raises `HTTPException` (403)."""
        self.check_origin(request)
        operator = self.operator(request)
        if operator is None:
            raise HTTPException(
                403, "you are not signed in, or your sign-in ended: open /login, then send the form again"
            )
        if not hmac.compare_digest(operator.csrf.encode(), given.encode("utf-8", "replace")):
            raise HTTPException(
                403, "the form belongs to another sign-in: open the page again, then send the form once more"
            )
        return operator

    def check_origin(self, request: Request) -> None:
        """Refuse a form that a page of another site sent. Raises `HTTPException` (403)."""
        origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site")
        # The host is a name of this server (`HostAndHead`). A proxy may send its own name instead of the public one.
        ours = {self._public_url, *(f"{scheme}://{request.headers.get('host', '')}" for scheme in ("http", "https"))}
        if (origin is not None and origin not in ours) or site not in {None, "same-origin", "none"}:
            raise HTTPException(403, "this was sent from another site: nothing was changed")

    def begin(self, response: Response, given: str) -> bool:
        """Set the cookie if the token is right."""
        if not hmac.compare_digest(given.encode("utf-8", "replace"), self._token):
            _LOG.warning("sign_in_refused reason=wrong_token")
            return False
        until = int((self._clock() + HOLDS).timestamp())
        value = self._keys.seal(_PURPOSE, until, secrets.token_hex(16))
        seconds = int(HOLDS.total_seconds())
        response.set_cookie(
            self._cookie, value, seconds, path="/", secure=self._is_secure, httponly=True, samesite="strict"
        )
        return True

    def end(self, response: Response) -> None:
        """Delete the browser's cookie."""
        response.delete_cookie(self._cookie, path="/", secure=self._is_secure, httponly=True, samesite="strict")
