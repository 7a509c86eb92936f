"""Tokens of other issuers are verified with keys found by discovery, under Fulcio's rules."""

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from pytest_httpserver import HTTPServer

from ca_lite.errors import CaRefused
from ca_lite.issuer_config import load_issuers
from ca_lite.issuer_keys import Discovery
from ca_lite.issuers import Issuer, Issuers, IssuerType
from ca_lite.oidc_keys import OwnKeys, rotate_oidc_keys
from ca_lite.tokens import VerifiedToken, verify_token

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
OLD = rsa.generate_private_key(65537, 2048)
NEW = rsa.generate_private_key(65537, 2048)


class Clock:
    """A monotonic clock that moves when told."""

    def __init__(self) -> None:
        self.at = time.monotonic()

    def __call__(self) -> float:
        return self.at


class Provider:
    """An OIDC provider over real HTTP."""

    def __init__(self, server: HTTPServer) -> None:
        self.server = server
        self.url = server.url_for("/issuer")
        self.document: dict[str, Any] = {"issuer": self.url, "jwks_uri": server.url_for("/keys")}
        self.keys: dict[str, Any] = {"old": OLD.public_key()}
        self.fetched = 0
        server.expect_request("/issuer/.well-known/openid-configuration").respond_with_handler(self._document)
        server.expect_request("/keys").respond_with_handler(self._keys)

    def _document(self, _request: Any) -> Any:
        from werkzeug import Response  # noqa: PLC0415

        return Response(json.dumps(self.document))

    def _keys(self, _request: Any) -> Any:
        from werkzeug import Response  # noqa: PLC0415

        self.fetched += 1
        listed = []
        for kid, key in self.keys.items():
            algorithm = jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPublicKey) else jwt.algorithms.ECAlgorithm
            listed.append({**algorithm.to_jwk(key, as_dict=True), "kid": kid})
        return Response(json.dumps({"keys": [{"kty": "unknown"}, *listed]}))

    def issuers(self) -> Issuers:
        entry = {"issuer-url": self.url, "client-id": "sigstore", "type": "email"}
        return load_issuers(json.dumps({"oidc-issuers": {self.url: entry}}), "test")

    def token(self, key: Any = OLD, kid: str | None = "old", algorithm: str = "RS256", **changed: Any) -> str:
        claims: dict[str, Any] = {
            "iss": self.url,
            "sub": "x",
            "aud": "sigstore",
            "exp": int((NOW + timedelta(minutes=5)).timestamp()),
            **changed,
        }
        kept = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(kept, key, algorithm=algorithm, headers={"kid": kid} if kid else {})


@pytest.fixture
def provider(httpserver: HTTPServer) -> Provider:
    return Provider(httpserver)


def check(provider: Provider, token: str, source: Discovery | None = None) -> VerifiedToken:
    return verify_token(token, provider.issuers(), source or Discovery(time.monotonic), NOW)


def reason(provider: Provider, token: str, source: Discovery | None = None) -> str:
    with pytest.raises(CaRefused) as refused:
        check(provider, token, source)
    return refused.value.reason


def test_a_good_token_is_believed_and_its_keys_are_fetched_once(provider: Provider) -> None:
    source = Discovery(time.monotonic)
    for _ in range(3):
        assert check(provider, provider.token(), source).claims["sub"] == "x"
    assert provider.fetched == 1


def test_a_token_without_key_id_is_tried_with_every_key(provider: Provider) -> None:
    provider.keys["new"] = NEW.public_key()
    assert check(provider, provider.token(NEW, kid=None)).issuer.url == provider.url


def test_a_rotated_key_is_fetched_once_when_a_token_names_it(provider: Provider) -> None:
    clock = Clock()
    source = Discovery(clock)
    check(provider, provider.token(), source)
    provider.keys["new"] = NEW.public_key()
    clock.at += 60
    assert check(provider, provider.token(NEW, "new"), source).issuer.url == provider.url
    assert check(provider, provider.token(), source).issuer.url == provider.url
    assert provider.fetched == 2


def test_unknown_keys_cannot_make_us_hammer_the_issuer(provider: Provider) -> None:
    source = Discovery(Clock())
    for number in range(5):
        assert reason(provider, provider.token(NEW, f"kid{number}"), source) == "KEY_UNKNOWN"
    assert provider.fetched == 1


def test_only_rs256_is_believed_unless_discovery_says_more(provider: Provider) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    provider.keys["ec"] = key.public_key()
    token = provider.token(key, "ec", "ES256")
    assert reason(provider, token) == "ALGORITHM_NOT_ALLOWED"
    provider.document["id_token_signing_alg_values_supported"] = ["ES256", "HS256", "none"]
    assert check(provider, token).issuer.url == provider.url
    assert reason(provider, jwt.encode({"iss": provider.url}, "s" * 64, algorithm="HS256")) == "ALGORITHM_NOT_ALLOWED"


def test_a_discovery_document_of_another_issuer_is_not_believed(provider: Provider) -> None:
    provider.document["issuer"] = provider.url + "/"
    assert reason(provider, provider.token()) == "ISSUER_UNREACHABLE"


@pytest.mark.parametrize("uri", [None, 7, "http://10.0.0.1/keys", "ftp://localhost/keys", "file:///etc/passwd"])
def test_keys_are_not_fetched_from_just_anywhere(provider: Provider, uri: object) -> None:
    provider.document["jwks_uri"] = uri
    assert reason(provider, provider.token()) == "ISSUER_UNREACHABLE"


def test_a_redirect_to_keys_is_not_followed(provider: Provider, httpserver: HTTPServer) -> None:
    provider.document["jwks_uri"] = httpserver.url_for("/moved")
    httpserver.expect_request("/moved").respond_with_data("", 302, {"Location": httpserver.url_for("/keys")})
    assert reason(provider, provider.token()) == "ISSUER_UNREACHABLE"


def test_an_endless_key_set_is_cut_off(provider: Provider, httpserver: HTTPServer) -> None:
    provider.document["jwks_uri"] = httpserver.url_for("/huge")
    httpserver.expect_request("/huge").respond_with_data(b"[" + b" " * 1_000_000 + b"]")
    assert reason(provider, provider.token()) == "ISSUER_UNREACHABLE"


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"exp": int(NOW.timestamp())}, None),
        ({"exp": int(NOW.timestamp()) - 1}, "TOKEN_EXPIRED"),
        ({"exp": None}, "EXPIRY_MISSING"),
        ({"exp": True}, "TOKEN_MALFORMED"),
        ({"nbf": int(NOW.timestamp()) + 300}, None),
        ({"nbf": int(NOW.timestamp()) + 301}, "TOKEN_NOT_YET_VALID"),
        ({"iat": int(NOW.timestamp()) + 9999}, None),
        ({"aud": ["other", "sigstore"]}, None),
        ({"aud": ["other"]}, "AUDIENCE_MISMATCH"),
        ({"aud": None}, "AUDIENCE_MISMATCH"),
    ],
)
def test_audience_and_times_follow_go_oidc(provider: Provider, changed: dict[str, Any], expected: str | None) -> None:
    token = provider.token(**changed)
    if expected is None:
        assert check(provider, token).issuer.url == provider.url
    else:
        assert reason(provider, token) == expected


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("https://oidc.eks.us-west-2.amazonaws.com/id/B02C", True),
        ("https://oidc.eks.us.west.amazonaws.com/id/B02C", False),
        ("https://oidc.eks.x.amazonaws.com/id/B02C/more", False),
        ("https://evil.example/https://oidc.eks.x.amazonaws.com/id/B02C", False),
        ("https://oidc.eks.x.amazonaws.com/id/B02C\n", False),
        ("https://oidc.eks.x.amazonaws.com/id/", False),
        ("https://oidcXeks.x.amazonaws.com/id/B02C", False),
    ],
)
def test_a_wildcard_issuer_matches_whole_parts_of_the_whole_url(url: str, found: bool) -> None:
    pattern = "https://oidc.eks.*.amazonaws.com/id/*"
    issuers = load_issuers(
        json.dumps({"meta-issuers": {pattern: {"client-id": "sigstore", "type": "kubernetes"}}}), "test"
    )
    assert (issuers.find(url) is not None) is found


def test_own_keys_are_made_once_and_again_after_a_rotation(tmp_path: Path) -> None:
    first = rotate_oidc_keys(tmp_path)
    own, issuer = OwnKeys(tmp_path), Issuer(IssuerType.EMAIL)
    keys = own.keys(issuer, "https://ca.example/oidc", refresh=False)
    assert [each.key_id for each in keys.keys] == [first]
    assert own.keys(issuer, "https://ca.example/oidc", refresh=True) is keys
    second = rotate_oidc_keys(tmp_path)
    rotated = own.keys(issuer, "https://ca.example/oidc", refresh=False)
    assert {each.key_id for each in rotated.keys} == {first, second}
