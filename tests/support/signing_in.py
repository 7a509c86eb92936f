"""What a browser and a client do together when a person signs in at a `ca-lite` issuer, without a browser."""

import base64
import hashlib
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx

from tests.support.waiting import PATIENCE

VERIFIER = "v" * 43
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
CALLBACK = "http://localhost:51234/auth/callback"
REQUEST = {
    "client_id": "sigstore",
    "redirect_uri": CALLBACK,
    "response_type": "code",
    "code_challenge": CHALLENGE,
    "code_challenge_method": "S256",
}


def send_form(issuer: str, email: str, secret: str) -> httpx.Response:
    """The answer to the filled-in page."""
    return httpx.post(
        f"{issuer}/auth", data={**REQUEST, "email": email, "secret": secret}, trust_env=False, timeout=PATIENCE
    )


def code_of(answer: httpx.Response) -> str:
    """The code that the browser is sent back with."""
    assert answer.status_code == 303, answer.text
    return dict(parse_qsl(urlsplit(answer.headers["location"]).query))["code"]


def redeem(issuer: str, code: str) -> httpx.Response:
    """The token end point's answer to a code."""
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK, "code_verifier": VERIFIER}
    return httpx.post(f"{issuer}/token", data=form, trust_env=False, timeout=PATIENCE)


def sign_in(issuer: str, email: str, secret: str) -> str:
    """Identity token of a person."""
    answer: dict[str, Any] = redeem(issuer, code_of(send_form(issuer, email, secret))).json()
    return str(answer["id_token"])
