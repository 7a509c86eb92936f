"""Only a person who proves an address is vouched for: passwords, guesses, disabled users, and the development login."""

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType

import argon2
import httpx
import jwt
import pytest

from ca_lite.errors import ConfigError
from ca_lite.login import DevelopmentLogin, PasswordLogin, TooManyGuesses
from ca_lite.settings import Layout
from ca_lite.users import User, add_user, changing, hash_password, read_users
from tests.support.ca_server import CA_LITE, DEVELOPMENT_LOGIN, CaServer, ca_server, make_ca, run
from tests.support.signing_in import REQUEST, code_of, redeem, send_form, sign_in
from tests.support.waiting import PATIENCE

MIA, PASSWORD = "Mia@lab.local", "correct horse battery"


@pytest.fixture(scope="module")
def company(log_trust: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CaServer]:
    with ca_server(tmp_path_factory.mktemp("company") / "ca", log_trust) as server:
        yield server


def users(ca: CaServer, *words: str, password: str | None = None, expect: int = 0) -> str:
    """Run `ca-lite users`; the password is written to its standard input."""
    given = () if password is None else ("--password-file", str(_password_file(ca, password)))
    return run(CA_LITE, "users", *words, "--dir", str(ca.folder), *given, expect=expect)


def _password_file(ca: CaServer, password: str) -> Path:
    path = ca.folder / "password"
    path.write_text(password + "\n")
    return path


def test_a_user_signs_in_with_a_password_until_disabled_and_nobody_else_does(company: CaServer) -> None:
    users(company, "add", MIA, password=PASSWORD)
    _wait_for_reload()
    page = httpx.get(f"{company.oidc}/auth", params=REQUEST, trust_env=False, timeout=PATIENCE).text
    assert "Password" in page
    assert "Development login" not in page
    token = sign_in(company.oidc, "mia@LAB.local", PASSWORD)
    claims = jwt.decode(token, options={"verify_signature": False})
    assert (claims["email"], claims["email_verified"]) == (MIA, True), "the address as it was added"
    wrong, unknown = (
        send_form(company.oidc, MIA, "wrong horse battery"),
        send_form(company.oidc, "eve@lab.local", PASSWORD),
    )
    assert (wrong.status_code, unknown.status_code) == (403, 403)
    assert wrong.text == unknown.text, "an answer does not tell who is a user"
    open_code = code_of(send_form(company.oidc, MIA, PASSWORD))
    users(company, "disable", MIA)
    _wait_for_reload()
    assert send_form(company.oidc, MIA, PASSWORD).status_code == 403
    refused = redeem(company.oidc, open_code)
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_grant")


def _wait_for_reload() -> None:
    # The server looks at the file once a second.
    time.sleep(1.1)


def test_the_list_shows_who_may_sign_in_and_no_hash(company: CaServer) -> None:
    users(company, "add", "zoe@lab.local", password=PASSWORD)
    users(company, "disable", "zoe@lab.local")
    told = users(company, "list")
    assert "zoe@lab.local\tdisabled\t" in told
    assert "argon2" not in told
    listed = json.loads(users(company, "list", "--json"))
    assert {"email": "zoe@lab.local", "state": "disabled", "added": listed[-1]["added"]} in listed
    users(company, "enable", "zoe@lab.local")
    assert "zoe@lab.local\tenabled" in users(company, "list")
    users(company, "remove", "ZOE@lab.local")
    assert "zoe" not in users(company, "list")
    assert "not a user" in users(company, "remove", "zoe@lab.local", expect=2)
    assert Layout(company.folder).users.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("email", "password", "why"),
    [
        ("short@lab.local", "fourteen chars", "15 to 256 characters"),
        ("long@lab.local", "x" * 257, "15 to 256 characters"),
        ("not an address", PASSWORD, "not an e-mail address"),
        ("dév@lab.local", PASSWORD, "not an e-mail address"),
    ],
)
def test_who_cannot_be_a_user(email: str, password: str, why: str, company: CaServer) -> None:
    assert why in users(company, "add", email, password=password, expect=2)


def test_two_commands_at_once_lose_no_user(tmp_path: Path, log_trust: Path) -> None:
    ca = make_ca(tmp_path / "ca", log_trust)
    secret = _password_file(ca, PASSWORD)
    words = ["--dir", str(ca.folder), "--password-file", str(secret)]
    adding = [subprocess.Popen([*CA_LITE, "users", "add", f"p{n}@lab.local", *words]) for n in range(3)]
    assert [each.wait(120) for each in adding] == [0, 0, 0]
    assert sorted(read_users(Layout(ca.folder).users)) == ["p0@lab.local", "p1@lab.local", "p2@lab.local"]


def test_a_user_is_added_once_whatever_the_case(tmp_path: Path) -> None:
    with changing(tmp_path / "users.json") as listed:
        add_user(listed, MIA, PASSWORD, "2026-01-01T00:00:00Z")
    with (
        pytest.raises(ConfigError, match="is a user already"),
        changing(tmp_path / "users.json") as listed,
    ):
        add_user(listed, MIA.upper(), PASSWORD, "2026-01-01T00:00:00Z")


@pytest.mark.parametrize(
    "content",
    ["", "[]", '{"users": [{"email": "a@b.c"}]}', '{"users": [{"email": "a@b.c", "hash": "plain", "added": ""}]}'],
)
def test_a_garbled_file_is_refused_with_its_name(content: str, tmp_path: Path) -> None:
    (tmp_path / "users.json").write_text(content)
    with pytest.raises(ConfigError, match=r"users\.json: not the users"):
        read_users(tmp_path / "users.json")


def one_user(*, disabled: bool = False) -> PasswordLogin:
    user = User(MIA, hash_password(PASSWORD), "", disabled)
    return PasswordLogin(lambda: MappingProxyType({MIA.casefold(): user}))


def test_guesses_at_one_user_are_throttled_from_every_address_and_then_let_through_again() -> None:
    login = one_user()
    for number in range(5):
        assert login.sign_in(MIA, f"guess number {number}", f"192.0.2.{number}", 0) is None
    with pytest.raises(TooManyGuesses) as refused:
        login.sign_in(MIA.lower(), PASSWORD, "198.51.100.1", 0)
    assert 0 < refused.value.seconds <= 12
    assert login.sign_in(MIA, PASSWORD, "198.51.100.1", 13) == MIA


def test_guesses_from_one_address_are_throttled_over_all_users() -> None:
    login = PasswordLogin(lambda: MappingProxyType({}))
    for number in range(30):
        assert login.sign_in(f"user{number}@lab.local", "x", "192.0.2.1", 0) is None
    with pytest.raises(TooManyGuesses):
        login.sign_in("another@lab.local", "x", "192.0.2.1", 0)


def test_an_unknown_user_costs_one_verification_with_the_same_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    verified: list[argon2.Parameters] = []
    really = argon2.PasswordHasher.verify

    def counted(self: argon2.PasswordHasher, hashed: str, password: str) -> bool:
        verified.append(argon2.extract_parameters(hashed))
        return really(self, hashed, password)

    monkeypatch.setattr(argon2.PasswordHasher, "verify", counted)
    login = one_user()
    assert login.sign_in(MIA, "wrong horse battery", "192.0.2.1", 0) is None
    assert login.sign_in("eve@lab.local", "wrong horse battery", "192.0.2.1", 0) is None
    assert one_user(disabled=True).sign_in(MIA, PASSWORD, "192.0.2.1", 0) is None
    assert len(verified) == 3
    assert verified[0] == verified[1] == verified[2]


def test_the_development_login_is_off_unless_asked_for(company: CaServer) -> None:
    assert not Layout(company.folder).login_secret.exists()
    assert send_form(company.oidc, "anyone@lab.local", "").status_code == 403
    assert "development-login" not in company.errors()


def test_the_development_login_says_what_it_is(ca: CaServer) -> None:
    page = httpx.get(f"{ca.oidc}/auth", params=REQUEST, trust_env=False, timeout=PATIENCE).text
    device = httpx.get(f"{ca.oidc}/device", trust_env=False, timeout=PATIENCE).text
    for shown in (page, device):
        assert "Development login." in shown
        assert "as any person" in shown
    assert "development-login" in ca.errors()
    assert "the development login is on" in users(ca, "add", MIA, password=PASSWORD, expect=0) + ca_warning(ca)


def ca_warning(ca: CaServer) -> str:
    command = [*CA_LITE, "users", "disable", MIA, "--dir", str(ca.folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return " ".join(done.stderr.split())


def test_the_development_secret_is_no_password_of_a_user_elsewhere() -> None:
    login = DevelopmentLogin("s" * 24)
    assert login.sign_in("any@lab.local", "s" * 24, "192.0.2.1", 0) == "any@lab.local"
    assert login.sign_in("not an address", "s" * 24, "192.0.2.1", 0) is None
    assert DevelopmentLogin("").sign_in("any@lab.local", "", "192.0.2.1", 0) is None


def test_the_switch_by_hand_makes_a_secret(tmp_path: Path, log_trust: Path) -> None:
    ca = make_ca(tmp_path / "ca", log_trust, DEVELOPMENT_LOGIN)
    assert not Layout(ca.folder).login_secret.exists()
    try:
        ca.start()
        assert Layout(ca.folder).login_secret.stat().st_mode & 0o077 == 0
    finally:
        ca.stop()
