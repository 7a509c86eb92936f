"""A person signs in to sign: on another device, with a code, and what an issuer that lies or stalls is worth."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest
from pytest_httpserver import HTTPServer

from sign_lite.errors import Misuse, ServiceRefused, ServiceUnreachable, SignLiteError
from sign_lite.login import device_token
from tests.support.ca_server import CA_LITE, SIGN_LITE, CaServer, ca_and_log, run
from tests.support.private_network import http_proxy
from tests.support.waiting import PATIENCE

MIA, PASSWORD = "mia@lab.local", "correct horse battery"


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CaServer]:
    with ca_and_log(tmp_path_factory.mktemp("login")) as (server, _):
        (server.folder / "password").write_text(PASSWORD)
        secret = ("--password-file", str(server.folder / "password"))
        run(CA_LITE, "users", "add", MIA, "--dir", str(server.folder), *secret)
        server.stop()
        server.start()
        yield server


def signing(ca: CaServer, folder: Path, login: str) -> "subprocess.Popen[str]":
    (folder / "file").write_bytes(b"signed by a person")
    command = ["sign", "file", "--trust-config", str(ca.trust_config), "--login", login, "--json"]
    return subprocess.Popen(
        [*SIGN_LITE, *command],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "NO_COLOR": "1"},
    )


def said(process: "subprocess.Popen[str]", pattern: str) -> re.Match[str]:
    """Wait for a line on standard error."""
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(pattern, line):
            return found
    raise AssertionError(f"ended without {pattern!r}")


def signers(process: "subprocess.Popen[str]", typed: str | None = None) -> list[str]:
    out, errors = process.communicate(typed, timeout=120)
    assert process.returncode == 0, errors
    # The prompt for a code is on standard output.
    names: list[str] = json.loads(out[out.index("[") :])[0]["names"]
    return names


def decide(page: str, decision: str, email: str = MIA) -> httpx.Response:
    code = dict(parse_qsl(urlsplit(page).query))["user_code"]
    form = {"user_code": code, "email": email, "secret": PASSWORD, "decision": decision}
    return httpx.post(page.partition("?")[0], data=form, trust_env=False, timeout=PATIENCE)


def test_a_device_login_signs_as_the_person_who_approved(ca: CaServer, tmp_path: Path) -> None:
    with signing(ca, tmp_path, "device") as process:
        page = said(process, r"Open (http\S+) on any device").group(1)
        assert decide(page, "approve").status_code == 200
        assert signers(process) == [MIA]


def test_a_device_login_that_is_turned_away_signs_nothing(ca: CaServer, tmp_path: Path) -> None:
    with signing(ca, tmp_path, "device") as process:
        page = said(process, r"Open (http\S+) on any device").group(1)
        assert decide(page, "deny").status_code == 200
        _, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 3
        assert "the user said no" in errors
    assert not (tmp_path / "file.sigstore.json").exists()


def test_a_terminal_without_a_browser_takes_a_code(ca: CaServer, tmp_path: Path) -> None:
    with signing(ca, tmp_path, "code") as process:
        page = said(process, r"^\s+(http\S+)$").group(1)
        form = {**dict(parse_qsl(urlsplit(page).query)), "email": MIA, "secret": PASSWORD}
        shown = httpx.post(page.partition("?")[0], data=form, trust_env=False, timeout=PATIENCE).text
        code = shown.split("<code>")[1].split("</code>")[0]
        assert signers(process, f"{code}\n") == [MIA]


def test_a_wrong_code_is_refused_in_a_sentence(ca: CaServer, tmp_path: Path) -> None:
    with signing(ca, tmp_path, "code") as process:
        said(process, r"^\s+(http\S+)$")
        _, errors = process.communicate("wrong\n", timeout=120)
        assert process.returncode == 3
        assert "the login failed: Token request failed with 400" in " ".join(errors.split())


START = {"device_code": "d", "user_code": "BCDF-GHJK", "verification_uri": "http://localhost/device", "interval": 1}


class Clock:
    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def lying(server: HTTPServer, **changed: object) -> str:
    """An issuer whose documents are honest but for what is `changed`."""
    url = server.url_for("").rstrip("/")
    document = {"device_authorization_endpoint": f"{url}/device", "token_endpoint": f"{url}/token"}
    answers = {"discovery": document, "device": START, "token": {"error": "authorization_pending"}, **changed}
    paths = {"discovery": "/.well-known/openid-configuration", "device": "/device", "token": "/token"}
    for name, path in paths.items():
        answer = answers[name]
        if isinstance(answer, bytes):
            server.expect_request(path).respond_with_data(answer)
        else:
            status = 400 if isinstance(answer, dict) and "error" in answer else 200
            server.expect_request(path).respond_with_json(answer, status=status)
    return url


LIES = {
    "not JSON": {"discovery": b"<html>"},
    "gigabytes": {"discovery": b"[" * (1 << 20)},
    "deep": {"device": b"[" * 200_000},
    "no device login": {"discovery": {"token_endpoint": "http://localhost/t"}},
    "end point in the open": {
        "discovery": {"device_authorization_endpoint": "http://evil.example/d", "token_endpoint": "http://localhost/t"}
    },
    "looks like loopback": {
        "discovery": {
            "device_authorization_endpoint": "http://127.0.0.1.attacker.example/d",
            "token_endpoint": "http://localhost/t",
        }
    },
    "no code": {"device": {"user_code": "x"}},
    "interval is text": {"device": {**START, "interval": "soon"}},
    "never decided": {},
    "denied": {"token": {"error": "access_denied"}},
    "a list": {"token": []},
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_an_issuer_that_lies_or_stalls_ends_in_a_refusal(lie: dict[str, object], httpserver: HTTPServer) -> None:
    clock = Clock()
    with pytest.raises(SignLiteError) as refused:
        device_token(lying(httpserver, **lie), lambda _: None, clock.sleep, lambda: clock.now)
    assert isinstance(refused.value, ServiceRefused)
    assert sum(clock.slept) <= 1860


def without_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(
    ("name", "spelled", "passwords"),
    [
        ("http_proxy", "http://mia:p%40ss@{}", {"mia:p@ss"}),
        ("http_proxy", "{}", set()),
        ("ALL_PROXY", "http://{}", set()),
    ],
)
def test_a_login_goes_through_the_proxy_of_the_environment(
    name: str, spelled: str, passwords: set[str], httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    without_proxy(monkeypatch)
    with http_proxy() as proxy:
        monkeypatch.setenv(name, spelled.format(proxy.url.removeprefix("http://")))
        denied = lying(httpserver, token={"error": "access_denied"})
        with pytest.raises(ServiceRefused, match="not granted"):
            device_token(denied, lambda _: None, clock.sleep, lambda: clock.now)
    assert len(proxy.asked) == 3
    assert set(proxy.passwords) == passwords


def test_a_proxy_that_refuses_is_named_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    without_proxy(monkeypatch)
    with http_proxy() as proxy:
        proxy.refuses = "407 Proxy Authentication Required"
        monkeypatch.setenv("https_proxy", proxy.url)
        with pytest.raises(ServiceUnreachable, match="the proxy would not connect: 407"):
            device_token("https://issuer.example", lambda _: None, clock.sleep, lambda: clock.now)


@pytest.mark.parametrize(
    "proxy", ["socks5://mia:secret@127.0.0.1:1", "http://127.0.0.1:secret", "http://:80", "http://[::1"]
)
def test_a_proxy_that_cannot_be_used_is_wrong_usage(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    without_proxy(monkeypatch)
    monkeypatch.setenv("https_proxy", proxy)
    with pytest.raises(Misuse, match="HTTPS_PROXY") as refused:
        device_token("https://issuer.example", lambda _: None, clock.sleep, lambda: clock.now)
    assert "secret" not in str(refused.value)


def test_a_server_that_says_slow_down_is_asked_less_often(httpserver: HTTPServer) -> None:
    clock = Clock()
    with pytest.raises(ServiceRefused, match="in time"):
        device_token(
            lying(httpserver, token={"error": "slow_down"}, device={**START, "expires_in": 100}),
            lambda _: None,
            clock.sleep,
            lambda: clock.now,
        )
    assert clock.slept[:3] == [1, 6, 11]


def test_what_a_server_says_cannot_act_on_the_terminal(httpserver: HTTPServer) -> None:
    clock, told = Clock(), list[str]()
    device = {**START, "user_code": "\x1b]0;evil\x07", "expires_in": 1}
    with pytest.raises(ServiceRefused):
        device_token(lying(httpserver, device=device), told.append, clock.sleep, lambda: clock.now)
    assert told[0].isprintable()


def test_a_github_job_signs_without_being_asked(
    ca: CaServer, tmp_path: Path, httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a workflow with `id-token: write`: the token is fetched from the runner."""
    token = ca.token("--github", "acme/widget", "--ref", "refs/tags/v1.0.0")
    httpserver.expect_request("/token", query_string={"audience": "sigstore"}).respond_with_json({"value": token})
    for name in [each for each in os.environ if each.startswith(("SIGSTORE_", "GITLAB_", "GITHUB_", "CI"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "bearer")
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_URL", httpserver.url_for("/token"))
    file = tmp_path / "file"
    file.write_bytes(b"built")
    told = json.loads(run(SIGN_LITE, "sign", str(file), "--trust-config", str(ca.trust_config), "--json"))
    assert told[0]["names"] == ["https://github.com/acme/widget/.github/workflows/release.yml@refs/tags/v1.0.0"]


def test_a_gitlab_job_signs_with_the_token_of_its_id_tokens(
    ca: CaServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITLAB_CI", "true")
    monkeypatch.setenv("SIGSTORE_ID_TOKEN", ca.token("--sub", f"{ca.url}/project/job"))
    file = tmp_path / "file"
    file.write_bytes(b"built")
    told = json.loads(run(SIGN_LITE, "sign", str(file), "--trust-config", str(ca.trust_config), "--json"))
    assert told[0]["names"] == [f"{ca.url}/project/job"]
