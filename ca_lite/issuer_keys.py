"""Keys that verify an issuer's tokens: our own issuers' from disk, others' by OIDC discovery."""

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final, Protocol

import jwt
from msgspec import Struct

from addresses.url import is_https_or_loopback
from ca_lite.issuers import Issuer
from outbound.json_client import JsonClient, Outage
from outbound.transport import believed

_log = logging.getLogger(__name__)
_SAFE: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
_SECONDS: Final = 10.0  # Fulcio's discovery timeout
_LIMIT: Final = 512 * 1024
_MAX_KEYS: Final = 64
_CACHED_ISSUERS: Final = 100  # Fulcio's LRU for meta issuers
_REFRESH_SECONDS: Final = 5.0


class IssuerKeys(Struct, frozen=True):
    """An issuer's published document: the algorithms it signs tokens with, and its keys."""

    algorithms: tuple[str, ...]
    keys: tuple[jwt.PyJWK, ...]

    def candidates(self, kid: str | None) -> list[jwt.PyJWK]:
        """Keys to try for a token: the keys with its key id, or all keys if the token names none."""
        return [key for key in self.keys if kid is None or key.key_id == kid]


class KeySource(Protocol):
    """Gives an issuer's keys. `refresh` fetches them again although they are cached. Raises `Outage`."""

    def keys(self, issuer: Issuer, url: str, *, refresh: bool) -> IssuerKeys:
        """Keys of the issuer at `url`."""


def parse_jwks(raw: Any, algorithms: tuple[str, ...]) -> IssuerKeys:
    """Usable keys of a JWK set; an unreadable key is left out, and a set without a usable key raises `Outage`."""
    listed = raw.get("keys") if isinstance(raw, dict) else None
    keys = []
    for each in listed[:_MAX_KEYS] if isinstance(listed, list) else ():
        try:
            keys.append(jwt.PyJWK.from_dict(each))
        except (jwt.PyJWTError, TypeError, ValueError, AttributeError):
            _log.info("jwk-unreadable")
    if not keys:
        raise Outage("the issuer publishes no key this program can read")
    return IssuerKeys(algorithms, tuple(keys))


class Discovery:
    """Keys over HTTP, cached per issuer URL; one fetch at a time, and a refresh at most every few seconds."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._cached: OrderedDict[str, tuple[float, IssuerKeys]] = OrderedDict()
        self._lock = threading.Lock()

    def keys(self, issuer: Issuer, url: str, *, refresh: bool) -> IssuerKeys:
        """Keys of the issuer at `url`. Raises `Outage`."""
        # One lock for all issuers: a slow issuer delays the others by at most its timeout, and is asked by one thread
        # at a time.
        with self._lock:
            known = self._cached.get(url)
            if known and (not refresh or self._monotonic() - known[0] < _REFRESH_SECONDS):
                return known[1]
            found = _discover(url, issuer.ca_cert)
            self._cached[url] = (self._monotonic(), found)
            self._cached.move_to_end(url)
            while len(self._cached) > _CACHED_ISSUERS:
                self._cached.popitem(last=False)
            return found


def _discover(url: str, ca_cert: str) -> IssuerKeys:
    """OpenID Connect Discovery 1.0 section 4. The document's issuer must equal the token's byte for byte."""
    if not is_https_or_loopback(url):
        raise Outage(f"{url}: keys are only fetched over https, or http on this machine")
    with JsonClient(believed(None, pem=ca_cert)) as http:
        document = _get(http, url.rstrip("/") + "/.well-known/openid-configuration")
        if document.get("issuer") != url:
            raise Outage(f"{url}: its discovery document names another issuer")
        jwks_uri = document.get("jwks_uri")
        if not isinstance(jwks_uri, str) or not is_https_or_loopback(jwks_uri):
            raise Outage(f"{url}: its discovery document has no usable jwks_uri")
        offered = document.get("id_token_signing_alg_values_supported")
        algorithms = tuple(each for each in _SAFE if isinstance(offered, list) and each in offered)
        # SPEC go-oidc: without a list, RS256 only. HS* and `none` are refused.
        return parse_jwks(_get(http, jwks_uri), algorithms or ("RS256",))


def _get(http: JsonClient, url: str) -> dict[str, Any]:
    status, answer = http.request_json(url, limit=_LIMIT, seconds=_SECONDS)
    if status != 200 or not isinstance(answer, dict):  # noqa: PLR2004
        raise Outage(f"{url}: answered {status} instead of a JSON object")
    return answer
