"""The embedded issuer serves the flows of sigstore-python, sigstore-js and cosign, and no client without the secret."""

import base64
import gc
import hashlib
import itertools
import secrets
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from ca_lite.oidc_flows import (
    CODE_SECONDS,
    DEVICE_SECONDS,
    AuthorizationRequest,
    Flows,
    OAuthError,
    is_loopback_redirect,
    read_authorization,
)
from tests.ca_lite.requests import V2, bearer, issued, key_request
from tests.support.ca_server import CA_LITE, CaServer, run

VERIFIER = "v" * 43
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
CALLBACK = "http://localhost:51234/auth/callback"
OOB = "urn:ietf:wg:oauth:2.0:oob"


def parameters(**changed: str | None) -> dict[str, str]:
    base = {
        "client_id": "sigstore",
        "redirect_uri": CALLBACK,
        "response_type": "code",
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
        "state": "state&1",
        "nonce": "nonce-1",
        "scope": "openid email",
        **changed,
    }
    return {key: value for key, value in base.items() if value is not None}


def login_secret(ca: CaServer) -> str:
    return (ca.folder / "private" / "login-secret").read_text().strip()


def log_in(ca: CaServer, http: httpx.Client, **changed: str | None) -> httpx.Response:
    form = {**parameters(**changed), "email": "carol@lab.local", "secret": login_secret(ca)}
    return http.post("/oidc/auth", data=form)


def redeem(http: httpx.Client, code: str, **changed: str) -> httpx.Response:
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK, "code_verifier": VERIFIER}
    return http.post("/oidc/token", data={**form, **changed}, auth=("sigstore", ""))


def test_discovery_names_what_clients_need(ca: CaServer, http: httpx.Client) -> None:
    for issuer in (ca.oidc, ca.github, f"{ca.oidc}/uri"):
        document = http.get(issuer + "/.well-known/openid-configuration").json()
        assert document["issuer"] == issuer
        assert document["id_token_signing_alg_values_supported"] == ["RS256"]
        assert document["code_challenge_methods_supported"] == ["S256"]
        assert http.get(document["jwks_uri"]).json()["keys"][0]["kid"]
    assert http.get(f"{ca.oidc}/nobody/.well-known/openid-configuration").status_code == 404


def test_a_person_logs_in_and_gets_a_certificate(ca: CaServer, http: httpx.Client) -> None:
    page = http.get("/oidc/auth", params=parameters())
    assert page.status_code == 200
    assert "default-src 'none'" in page.headers["content-security-policy"]
    handed = log_in(ca, http)
    assert handed.status_code == 303
    target = urlsplit(handed.headers["location"])
    answer = dict(parse_qsl(target.query))
    assert f"{target.scheme}://{target.netloc}{target.path}" == CALLBACK
    assert answer["state"] == "state&1"
    token = redeem(http, answer["code"]).json()
    assert token["access_token"] == token["id_token"]  # sigstore-python presents the access token
    claims = jwt.decode(token["id_token"], options={"verify_signature": False})
    assert (claims["email"], claims["nonce"], claims["aud"], claims["iss"]) == (
        "carol@lab.local",
        "nonce-1",
        "sigstore",
        ca.oidc,
    )
    assert "at_hash" not in claims
    key = ec.generate_private_key(ec.SECP256R1())
    assert issued(http.post(V2, json=key_request(key, "carol@lab.local"), headers=bearer(token["id_token"])))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the package leaves a socket open
def test_sigstore_pythons_own_oidc_client_gets_a_token(
    ca: CaServer, http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The unmodified out-of-band flow of the `sigstore` package, with us typing what a person would."""
    from sigstore.oidc import Issuer  # noqa: PLC0415

    seen: list[str] = []

    def person(_prompt: str = "") -> str:
        query = dict(parse_qsl(urlsplit(seen[0]).query))
        form = {**query, "email": "dave@lab.local", "secret": login_secret(ca)}
        html = http.post("/oidc/auth", data=form).text
        return html.split("<code>")[1].split("</code>")[0]

    monkeypatch.setattr("builtins.input", person)
    monkeypatch.setattr(
        "builtins.print", lambda *text, **_: seen.extend(str(each).strip() for each in text if "http" in str(each))
    )
    monkeypatch.setattr("getpass.getpass", person)
    seen_url = f"{ca.oidc}/auth?"
    token = Issuer(ca.oidc).identity_token(force_oob=True)
    assert any(seen_url in each for each in seen)
    assert token.identity == "dave@lab.local"
    gc.collect()


@pytest.mark.parametrize(
    "changed",
    [{"secret": "wrong"}, {"secret": ""}, {"email": "not-an-address"}, {"email": '"><script>alert(1)</script>'}],
)
def test_a_wrong_secret_or_address_gets_the_form_again(
    changed: dict[str, str], ca: CaServer, http: httpx.Client
) -> None:
    form = {**parameters(), "email": "carol@lab.local", "secret": login_secret(ca), **changed}
    answer = http.post("/oidc/auth", data=form)
    assert answer.status_code == 403
    assert "location" not in answer.headers
    assert "<script>" not in answer.text


def test_request_parameters_are_shown_inert(http: httpx.Client) -> None:
    answer = http.get("/oidc/auth", params=parameters(state='"><script>alert(1)</script>'))
    assert "<script>" not in answer.text
    assert "&lt;script&gt;" in answer.text


@pytest.mark.parametrize(
    "uri",
    [
        "http://localhost:1/auth/callback",
        "http://127.0.0.1:65535",
        "http://[::1]:8080/",
        "http://localhost/auth/callback",
    ],
)
def test_loopback_redirects_are_taken(uri: str) -> None:
    assert is_loopback_redirect(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "https://evil.example/auth/callback",
        "http://localhost.evil.example/auth/callback",
        "http://localhost:1@evil.example/auth/callback",
        "http://user@localhost:1/auth/callback",
        "http://localhost:1/other",
        "http://localhost:1/auth/callback?x=1",
        "http://localhost:1/auth/callback#x",
        "http://localhost:99999/auth/callback",
        "http://localhost:1/auth/callback\r\nX: y",
        "http://[::1",
        "javascript:alert(1)",
    ],
)
def test_no_other_redirect_is_taken(uri: str, http: httpx.Client) -> None:
    assert not is_loopback_redirect(uri)
    answer = http.get("/oidc/auth", params=parameters(redirect_uri=uri))
    assert answer.status_code == 400
    assert "location" not in answer.headers


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"client_id": "other"}, "unauthorized_client"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"state": "x" * 600}, "invalid_request"),
    ],
)
def test_an_authorization_request_must_be_complete(changed: dict[str, str | None], code: str) -> None:
    assert read_authorization(parameters(redirect_uri=OOB), "sigstore").out_of_band
    with pytest.raises(OAuthError) as refused:
        read_authorization(parameters(**changed), "sigstore")
    assert refused.value.code == code


def flows() -> Flows:
    counter = itertools.count()
    return Flows(lambda: f"random-{next(counter)}", secrets.choice)


WANTED = AuthorizationRequest("sigstore", CALLBACK, "s", "n", CHALLENGE)


def oauth_code(call: Any, *arguments: Any) -> str:
    with pytest.raises(OAuthError) as refused:
        call(*arguments)
    return refused.value.code


def test_a_code_is_good_once_for_its_redirect_and_verifier_and_not_for_long() -> None:
    state = flows()
    assert state.redeem_code(state.grant_code(WANTED, "a@b.c", 0), CALLBACK, VERIFIER, 1) == ("a@b.c", "n")
    code = state.grant_code(WANTED, "a@b.c", 0)
    assert oauth_code(state.redeem_code, code, CALLBACK, "w" * 43, 1) == "invalid_grant"
    assert oauth_code(state.redeem_code, code, CALLBACK, VERIFIER, 1) == "invalid_grant"
    code = state.grant_code(WANTED, "a@b.c", 0)
    assert oauth_code(state.redeem_code, code, OOB, VERIFIER, 1) == "invalid_grant"
    code = state.grant_code(WANTED, "a@b.c", 0)
    assert oauth_code(state.redeem_code, code, CALLBACK, VERIFIER, CODE_SECONDS + 1) == "invalid_grant"


def test_open_codes_are_bounded_in_number() -> None:
    state = flows()
    first = state.grant_code(WANTED, "a@b.c", 0)
    for _ in range(1000):
        state.grant_code(WANTED, "a@b.c", 0)
    assert oauth_code(state.redeem_code, first, CALLBACK, VERIFIER, 1) == "invalid_grant"


def test_a_device_grant_waits_is_approved_once_and_expires() -> None:
    state = flows()
    device, user_code = state.start_device(CHALLENGE, "S256", 0)
    assert oauth_code(state.poll_device, device, VERIFIER, 0) == "authorization_pending"
    assert oauth_code(state.poll_device, device, VERIFIER, 0.5) == "slow_down"
    assert not state.decide_device("BBBB-BBBB", "a@b.c", approved=True, now=1)
    assert state.decide_device(user_code.lower(), "a@b.c", approved=True, now=1)
    assert not state.decide_device(user_code, "x@b.c", approved=False, now=1)
    assert state.poll_device(device, VERIFIER, 5) == "a@b.c"
    assert oauth_code(state.poll_device, device, VERIFIER, 8) == "invalid_grant"
    denied, its_code = state.start_device("", "", 0)
    state.decide_device(its_code, "a@b.c", approved=False, now=1)
    assert oauth_code(state.poll_device, denied, "", 3) == "access_denied"
    late, _ = state.start_device("", "", 0)
    assert oauth_code(state.poll_device, late, "", DEVICE_SECONDS + 1) == "expired_token"


def test_a_device_flow_over_http(ca: CaServer, http: httpx.Client) -> None:
    form = {
        "client_id": "sigstore",
        "scope": "openid email",
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
    }
    started = http.post("/oidc/device/code", data=form).json()
    poll = {
        "grant_type": "urn:ietf:params:oauth:grant-type:device_code",
        "device_code": started["device_code"],
        "code_verifier": VERIFIER,
    }
    pending = http.post("/oidc/token", data=poll)
    assert (pending.status_code, pending.json()["error"]) == (400, "authorization_pending")
    person = {"user_code": started["user_code"], "email": "erin@lab.local", "decision": "approve"}
    assert http.get(started["verification_uri_complete"]).status_code == 200
    assert http.post("/oidc/device", data={**person, "secret": "wrong"}).status_code == 403
    assert http.post("/oidc/device", data={**person, "secret": login_secret(ca)}).status_code == 200
    token = http.post("/oidc/token", data=poll).json()["id_token"]
    assert jwt.decode(token, options={"verify_signature": False})["email"] == "erin@lab.local"


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({}, "unsupported_grant_type"),
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({"grant_type": "authorization_code", "code": "x"}, "invalid_grant"),
        ({"grant_type": "authorization_code", "client_id": "other"}, "invalid_client"),
        ({"grant_type": "urn:ietf:params:oauth:grant-type:device_code"}, "invalid_grant"),
    ],
)
def test_the_token_end_point_answers_oauth_errors(form: dict[str, str], error: str, http: httpx.Client) -> None:
    answer = http.post("/oidc/token", content=urlencode(form))
    assert (answer.status_code, answer.json()["error"]) == (400, error)


def test_a_rotated_key_signs_at_once_and_old_tokens_stay_good(ca: CaServer, http: httpx.Client) -> None:
    old = ca.email_token("rotate@lab.local")
    kid = run(CA_LITE, "rotate-oidc", "--dir", str(ca.folder)).strip()
    new = ca.email_token("rotate@lab.local")
    assert jwt.get_unverified_header(new)["kid"] == kid != jwt.get_unverified_header(old)["kid"]
    key = ec.generate_private_key(ec.SECP256R1())
    for token in (old, new):
        assert issued(http.post(V2, json=key_request(key, "rotate@lab.local"), headers=bearer(token)))
    assert kid in {each["kid"] for each in http.get("/oidc/jwks").json()["keys"]}
