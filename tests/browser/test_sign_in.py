"""A person signs in at ca-lite's own issuer in a real browser, for sign-lite and for the unmodified cosign."""

import itertools
import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from monitor.demo.processes import wait_until
from tests.browser.site_pages import Eyes, chromium, eyes
from tests.support.ca_server import CA_LITE, SIGN_LITE, CaServer, ca_and_log, run
from tests.support.go_clients import COSIGN
from tests.support.waiting import PATIENCE

pytestmark = pytest.mark.skipif(chromium() is None, reason="chromium is not installed (Debian: chromium)")

PASSWORD = "correct horse battery"
FLOWS = "normal", "device"
CLIENTS = [
    "sign-lite",
    pytest.param(
        "cosign", marks=pytest.mark.skipif(COSIGN is None, reason="cosign is not built: run .ci/install-go-clients")
    ),
]


def person(client: str, flow: str) -> str:
    """Each test signs in as a user of its own: the CA slows the sixth attempt of one user within a minute."""
    return f"mia-{client}-{flow}@lab.local"


@dataclass
class Desk:
    """A deployment with a user for each test, and a person's browser."""

    ca: CaServer
    folder: Path
    browser: Eyes

    def command(self, client: str, flow: str) -> Sequence[str]:
        trust = self.ca.folder / "trust"
        if client == "sign-lite":
            login = ("--login", "browser" if flow == "normal" else "device", "--overwrite")
            return [*SIGN_LITE, "sign", "file", *login, "--trust-config", str(self.ca.trust_config)]
        assert COSIGN is not None
        files = ("--signing-config", str(trust / "signing_config.json"))
        root = ("--trusted-root", str(trust / "trusted_root.json"))
        return [
            COSIGN,
            "sign-blob",
            "file",
            "--yes",
            "--bundle",
            "file.sigstore.json",
            "--fulcio-auth-flow",
            flow,
            *files,
            *root,
        ]

    @contextmanager
    def signing(self, client: str, flow: str) -> Iterator["subprocess.Popen[str]"]:
        """Begin to sign; a browser that is opened writes its address into a file. Ended where the test fails before."""
        (self.folder / "file").write_bytes(b"signed by a person")
        opener = self.folder / "xdg-open"
        opener.write_text(f'#!/bin/sh\nprintf "%s" "$1" > "{self.folder}/opened"\n')
        opener.chmod(0o755)
        with subprocess.Popen(
            self.command(client, flow),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={
                **os.environ,
                "NO_COLOR": "1",
                "PYTHONUNBUFFERED": "1",
                "HOME": str(self.folder),
                "BROWSER": f"{opener} %s",
                "PATH": f"{self.folder}:{os.environ['PATH']}",
            },
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def opened(self) -> str:
        path = self.folder / "opened"
        wait_until("the browser's address", lambda: path.exists() and bool(path.read_text()), seconds=PATIENCE)
        address = path.read_text()
        path.unlink()
        return address

    def verified(self, email: str) -> None:
        who = ("--identity", email, "--issuer", self.ca.oidc)
        file = str(self.folder / "file")
        run(SIGN_LITE, "verify", file, "--trust-config", str(self.ca.trust_config), *who)


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CaServer]:
    with ca_and_log(tmp_path_factory.mktemp("sign-in")) as (server, _):
        (server.folder / "password").write_text(PASSWORD)
        secret = ("--password-file", str(server.folder / "password"))
        for client, flow in itertools.product(("sign-lite", "cosign"), FLOWS):
            run(CA_LITE, "users", "add", person(client, flow), "--dir", str(server.folder), *secret)
        server.stop()
        server.start()
        yield server


@pytest.fixture
def desk(ca: CaServer, tmp_path: Path) -> Iterator[Desk]:
    with eyes(ca.url, width=390, dark=False) as browser:
        yield Desk(ca, tmp_path, browser)


def ended(process: "subprocess.Popen[str]") -> None:
    out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, out


@pytest.mark.parametrize("client", CLIENTS)
def test_a_person_signs_in_in_the_browser_that_the_client_opened(client: str, desk: Desk) -> None:
    email = person(client, "normal")
    with desk.signing(client, "normal") as process:
        page = desk.browser.page
        page.goto(desk.opened())
        desk.browser.look(f"sign-in-{client}")
        page.locator("input[name=email]").fill(email)
        page.locator("input[name=secret]").fill("not the password at all")
        desk.browser.press("Sign in")
        assert "The address or the password is wrong." in desk.browser.look(f"sign-in-again-{client}")
        page.locator("input[name=email]").fill(email)
        page.locator("input[name=secret]").fill(PASSWORD)
        with page.expect_navigation(url=re.compile(r"http://(localhost|127\.0\.0\.1):\d+/auth/callback.*")):
            page.get_by_role("button", name="Sign in", exact=True).click()
        ended(process)
    desk.verified(email)


@pytest.mark.parametrize("client", CLIENTS)
def test_a_person_approves_a_device_in_a_browser(client: str, desk: Desk) -> None:
    email = person(client, "device")
    with desk.signing(client, "device") as process:
        assert process.stdout is not None
        found = None
        for line in process.stdout:
            if found := re.search(rf"({re.escape(desk.ca.oidc)}/device\S*)", line):
                break
        assert found is not None
        page = desk.browser.page
        page.goto(found.group(1))
        desk.browser.look(f"device-{client}")
        page.locator("input[name=email]").fill(email)
        page.locator("input[name=secret]").fill(PASSWORD)
        desk.browser.press("Approve")
        assert "The device was approved." in desk.browser.look(f"device-approved-{client}")
        ended(process)
    desk.verified(email)


def test_a_login_page_shows_what_a_client_sent_as_text(desk: Desk) -> None:
    parameters = "client_id=sigstore&redirect_uri=http%3A%2F%2Flocalhost%3A1%2Fauth%2Fcallback&response_type=code"
    parameters += f"&code_challenge={'A' * 43}&code_challenge_method=S256"
    desk.browser.open(f"/oidc/auth?{parameters}&state=%22%3E%3Cscript%3Ealert(1)%3C%2Fscript%3E")
    assert "Sign in" in desk.browser.look("hostile-state")
    assert desk.browser.page.locator("script").count() == 0
