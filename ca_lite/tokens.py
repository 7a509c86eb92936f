"""Verifies OIDC identity tokens the way Fulcio does, and names the defect of a token that it refuses."""

import binascii
import json
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

import jwt
from msgspec import Struct

from ca_lite.errors import CaRefused, token_refused
from ca_lite.issuer_keys import IssuerKeys, KeySource
from ca_lite.issuers import Issuer, Issuers
from outbound.json_client import Outage

_LIMIT: Final = 64 * 1024
_NOT_BEFORE_LEEWAY: Final = timedelta(minutes=5)
_PARTS: Final = 3
_MAX_TIME: Final = 253_402_300_799  # 9999-12-31


class VerifiedToken(Struct, frozen=True):
    """Claims of a token whose signature, issuer, audience and times were checked, and the issuer's configuration."""

    issuer: Issuer
    claims: Mapping[str, Any]


def verify_token(token: str, issuers: Issuers, source: KeySource, now: datetime) -> VerifiedToken:
    """Check a token completely. Raises `CaRefused` with Fulcio's message and a precise reason."""
    header, claims = read_unverified(token)
    issuer = _issuer_of(claims, issuers)
    _check_signature(token, header, issuer, str(claims["iss"]), source)
    _check_audience(claims, issuer)
    _check_times(claims, now)
    return VerifiedToken(issuer, claims)


def read_unverified(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims without any check of the signature. Raises `CaRefused`."""
    if not token:
        raise token_refused("TOKEN_MISSING", "no token in credentials.oidcIdentityToken or the Authorization header")
    # Dots are counted before the split, so that a megabyte of dots costs no memory (GHSA-f83f-xpx7-ffpw).
    if len(token) > _LIMIT or token.count(".") != _PARTS - 1:
        raise token_refused("TOKEN_MALFORMED", "a token is three base64url parts separated by dots")
    header, payload, _ = token.split(".")
    return _json_part(header, "header"), _json_part(payload, "payload")


def _json_part(part: str, name: str) -> dict[str, Any]:
    try:
        raw = urlsafe_b64decode(part.encode("ascii") + b"=" * (-len(part) % 4))
        value = json.loads(raw)
    except (binascii.Error, ValueError, RecursionError) as error:
        raise token_refused("TOKEN_MALFORMED", f"the token's {name} is not base64url JSON") from error
    if not isinstance(value, dict):
        raise token_refused("TOKEN_MALFORMED", f"the token's {name} is not a JSON object")
    return value


def _issuer_of(claims: Mapping[str, Any], issuers: Issuers) -> Issuer:
    url = claims.get("iss")
    if not isinstance(url, str) or not url:
        raise token_refused("ISSUER_MISSING", "the token has no iss claim")
    issuer = issuers.find(url)
    if issuer is None:
        raise token_refused("ISSUER_UNKNOWN", "the token's issuer is not one this CA is configured to believe")
    return issuer


def _check_signature(token: str, header: Mapping[str, Any], issuer: Issuer, url: str, source: KeySource) -> None:
    kid = header.get("kid")
    kid = kid if isinstance(kid, str) else None
    try:
        problem = _signature_problem(token, header, kid, source.keys(issuer, url, refresh=False))
        if problem is not None and problem.reason != "ALGORITHM_NOT_ALLOWED":
            # The issuer may have published the key since the last fetch: fetch once more, then refuse.
            problem = _signature_problem(token, header, kid, source.keys(issuer, url, refresh=True))
    except Outage as error:
        raise token_refused("ISSUER_UNREACHABLE", f"the issuer's keys could not be fetched: {error}") from error
    if problem is not None:
        raise problem


def _signature_problem(token: str, header: Mapping[str, Any], kid: str | None, keys: IssuerKeys) -> CaRefused | None:
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in keys.algorithms:
        allowed = ", ".join(keys.algorithms)
        return token_refused("ALGORITHM_NOT_ALLOWED", f"the issuer signs with {allowed}, the token says otherwise")
    candidates = keys.candidates(kid)
    if not candidates:
        return token_refused("KEY_UNKNOWN", "the issuer does not publish the key the token names")
    if any(_verifies(token, key, algorithm) for key in candidates):
        return None
    return token_refused("SIGNATURE_INVALID", "the token's signature does not verify with the issuer's keys")


def _verifies(token: str, key: jwt.PyJWK, algorithm: str) -> bool:
    try:
        jwt.PyJWS().decode_complete(token, key.key, algorithms=[algorithm])
    except (jwt.PyJWTError, TypeError, ValueError):
        return False
    return True


def _check_audience(claims: Mapping[str, Any], issuer: Issuer) -> None:
    audience = claims.get("aud")
    listed = audience if isinstance(audience, list) else [audience]
    if issuer.client_id not in listed:
        raise token_refused("AUDIENCE_MISMATCH", f"the token is not for the audience {issuer.client_id!r}")


def _check_times(claims: Mapping[str, Any], now: datetime) -> None:
    expires, starts = _time(claims, "exp"), _time(claims, "nbf")
    if expires is None:
        raise token_refused("EXPIRY_MISSING", "the token has no exp claim")
    # SPEC go-oidc: no leeway for exp, five minutes for nbf, iat is not checked.
    if now.timestamp() > expires:
        raise token_refused("TOKEN_EXPIRED", f"the token expired {int(now.timestamp() - expires)} seconds ago")
    if starts is not None and now.timestamp() + _NOT_BEFORE_LEEWAY.total_seconds() < starts:
        raise token_refused("TOKEN_NOT_YET_VALID", f"valid only in {int(starts - now.timestamp())} seconds")


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MAX_TIME:
        raise token_refused("TOKEN_MALFORMED", f"the {name} claim is not a time")
    return float(value)
