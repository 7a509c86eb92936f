"""Signing in with an issuer: a real one (ca-lite), in a real browser, and what a stolen or stale login is worth."""

import json
import socket
import threading
import time
from base64 import b64decode
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote_plus

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm
from msgspec.structs import replace
from pytest_httpserver import HTTPServer

from ca_lite.settings import Layout
from monitor.site.oidc import LoginIssuer
from monitor.site.sessions import RequestRefused
from monitor.site_config import OidcConfig
from monitor.store.database import Database
from outbound.json_client import Outage
from tests.browser.site_pages import chromium, eyes
from tests.site.scene import Scene, scene, shown
from tests.support.ca_server import DEVELOPMENT_LOGIN, CaServer, ca_and_log
from tests.support.waiting import PATIENCE

MIA = "mia@acme.example"


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CaServer]:
    with ca_and_log(tmp_path_factory.mktemp("issuer"), DEVELOPMENT_LOGIN) as (ca, _):
        yield ca


@pytest.fixture
def acme(tmp_path: Path, database: Database, issuer: CaServer) -> Iterator[Scene]:
    oidc = OidcConfig(issuer.oidc, "sigstore", name="Acme's login")
    with scene(tmp_path, database, sign_up="oidc", oidc=oidc) as made:
        yield made


@pytest.mark.skipif(chromium() is None, reason="chromium is not installed (Debian: chromium)")
def test_a_login_at_the_issuer_proves_the_address_and_signs_in(acme: Scene, issuer: CaServer) -> None:
    secret = Layout(issuer.folder).login_secret.read_text(encoding="utf-8").strip()
    with eyes(acme.url, width=390, dark=False) as mia:
        mia.open("/sign-in")
        mia.press("Sign in with Acme's login")
        mia.page.locator("input[name=email]").fill(MIA)
        mia.page.locator("input[name=secret]").fill(secret)
        with mia.page.expect_navigation(url=f"{acme.url}/**"):
            mia.page.locator("button, input[type=submit]").first.click()
        assert "My subscriptions" in mia.look("oidc-signed-in")
    account = acme.site.subscribers.by_address(MIA)
    assert account is not None
    assert acme.site.subscribers.sessions(account.id) == 1


def test_a_login_that_was_not_begun_here_or_comes_back_changed_is_refused(acme: Scene) -> None:
    thief, mine = acme.visitor(), acme.visitor()
    assert "too old" in shown(thief.get("/auth/callback?code=x&state=y", expect=403))
    begun = mine.http.get("/sign-in/with/oidc")
    assert begun.status_code == 303
    assert "code_challenge=" in begun.headers["location"]
    assert "did not succeed" in shown(mine.get("/auth/callback?code=x&state=other", expect=403))
    state = begun.headers["location"].partition("state=")[2].partition("&")[0]
    assert "could not be verified" in shown(mine.get(f"/auth/callback?code=made-up&state={state}", expect=403))
    acme.clock.advance(minutes=11)
    assert "too old" in shown(mine.get(f"/auth/callback?code=x&state={state}", expect=403))


@pytest.fixture
def dripping() -> Iterator[str]:
    """URL of a server that sends a byte of its answer at a time and never ends it in time."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(PATIENCE)

        def serve() -> None:
            connection, _ = listening.accept()
            with connection, suppress(OSError):
                connection.recv(64 * 1024)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 200\r\n\r\n")
                for _ in range(200):
                    connection.sendall(b" ")
                    time.sleep(0.05)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/token"
        thread.join(PATIENCE)


def _issuer_with(server: HTTPServer, token_endpoint: str) -> OidcConfig:
    url = server.url_for("").rstrip("/")
    document = {"issuer": url, "jwks_uri": f"{url}/keys", "token_endpoint": token_endpoint}
    server.expect_request("/.well-known/openid-configuration").respond_with_json(document)
    key = json.loads(ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()).public_key()))
    server.expect_request("/keys").respond_with_json({"keys": [key]})
    return OidcConfig(url, "sigstore")


def test_a_token_end_point_that_sends_a_byte_at_a_time_holds_a_login_for_a_bounded_time(
    acme: Scene, httpserver: HTTPServer, dripping: str
) -> None:
    login = LoginIssuer(acme.site, _issuer_with(httpserver, dripping), seconds=0.5)
    with pytest.raises(RequestRefused) as refused:
        login.address("code", "verifier", "nonce")
    assert isinstance(refused.value.__cause__, Outage)
    assert "no complete answer within 0.5 seconds" in str(refused.value.__cause__)


def test_a_code_is_sent_over_tls_alone(acme: Scene, httpserver: HTTPServer) -> None:
    login = LoginIssuer(acme.site, _issuer_with(httpserver, "http://tokens.example/token"))
    with pytest.raises(RequestRefused) as refused:
        login.address("code", "verifier", "nonce")
    assert "without TLS" in str(refused.value.__cause__)


def test_a_client_with_a_secret_authenticates_as_oauth_says(
    acme: Scene, httpserver: HTTPServer, tmp_path: Path
) -> None:
    file = tmp_path / "client-secret"
    file.write_text("50%+a:b/ü\n", encoding="utf-8")
    url = httpserver.url_for("/token")
    httpserver.expect_request("/token").respond_with_json({"error": "invalid_grant"}, status=400)
    config = replace(_issuer_with(httpserver, url), client_id="acme:site", client_secret_file=file)
    with pytest.raises(RequestRefused):
        LoginIssuer(acme.site, config).address("code", "verifier", "nonce")
    (asked,) = [request for request, _ in httpserver.log if request.path == "/token"]
    name, password = b64decode(asked.headers["Authorization"].removeprefix("Basic ")).decode("ascii").split(":")
    assert (unquote_plus(name), unquote_plus(password)) == ("acme:site", "50%+a:b/ü")
    assert "client_id" not in asked.form


def test_an_address_by_mail_alone_is_refused_where_a_login_is_wanted(acme: Scene) -> None:
    fields = {"name": "https://github.com/acme/widget", "email": MIA, "do": "subscribe"}
    page = acme.visitor().post("/subscribe", fields, page="/subscribe?name=https://github.com/acme/widget", expect=400)
    assert "begins with a login" in shown(page)
