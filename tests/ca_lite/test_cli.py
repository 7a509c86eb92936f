"""The `ca-lite` command: tokens, explanations, lint, and errors with the right exit code."""

import json
from pathlib import Path

import jwt
import pytest
from typer.testing import CliRunner

from ca_lite.cli import app
from tests.ca_lite.ct_stub import CtStub
from tests.support.ca_server import CaServer


def run(*arguments: str, expect: int = 0) -> str:
    """Output of a command run in this process."""
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == expect, (arguments, result.output, result.exception)
    return result.stdout if expect == 0 else result.output


def token_of(ca: CaServer, *arguments: str) -> str:
    return run("token", "--dir", str(ca.folder), *arguments).strip()


def claims_of(token: str) -> dict[str, object]:
    return dict(jwt.decode(token, options={"verify_signature": False}))


def test_a_token_for_each_kind_of_identity_is_explained(ca: CaServer, tmp_path: Path) -> None:
    for arguments, name, form in (
        (("--email", "a@b.c"), "a@b.c", "email"),
        (("--sub", "http://localhost/robot"), "http://localhost/robot", "uri"),
        (
            (
                "--github",
                "acme/widget",
                "--ref",
                "refs/heads/main",
                "--job-workflow-ref",
                "org/shared/w.yml@refs/tags/v2",
            ),
            "https://github.com/org/shared/w.yml@refs/tags/v2",
            "uri",
        ),
    ):
        path = tmp_path / "token"
        path.write_text(token_of(ca, *arguments))
        found = json.loads(run("explain-token", "--dir", str(ca.folder), str(path), "--json"))
        assert (found["name"], found["name_form"]) == (name, form)
        assert 0 < found["expires_in_seconds"] <= 600


def test_a_refused_token_says_why_and_exits_with_one(ca: CaServer, tmp_path: Path) -> None:
    claims = tmp_path / "claims.json"
    claims.write_text(json.dumps({"sub": "x", "aud": "elsewhere"}))
    token = tmp_path / "token"
    token.write_text(token_of(ca, "--claims", str(claims)))
    said = run("explain-token", "--dir", str(ca.folder), str(token), expect=1)
    assert "AUDIENCE_MISMATCH" in said
    assert json.loads(run("explain-token", "--dir", str(ca.folder), str(token), "--json", expect=1))["code"] == 3


def test_a_github_token_holds_githubs_claims(ca: CaServer) -> None:
    token = token_of(
        ca, "--github", "acme/widget", "--ref", "refs/tags/v1", "--event", "release", "--environment", "prod"
    )
    claims = claims_of(token)
    assert claims["sub"] == "repo:acme/widget:environment:prod"
    assert claims["event_name"] == "release"
    assert claims["ref_type"] == "tag"
    assert claims["workflow_ref"] == "acme/widget/.github/workflows/release.yml@refs/tags/v1"
    assert claims["exp"] - claims["iat"] == 600  # type: ignore[operator]
    assert "email" not in claims


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("token",), "exactly one of"),
        (("token", "--email", "a@b.c", "--sub", "x"), "exactly one of"),
        (("token", "--github", "acme"), "not OWNER/REPO"),
        (("token", "--github", "acme/widget", "--ref", "main"), "not a full ref"),
        (("token", "--github", "acme/widget", "--sha", "x"), "not a commit id"),
        (("token", "--claims", "/nowhere.json"), "cannot be read"),
        (("trust", "--log-trust", "/nowhere.json"), "cannot be read"),
        (("explain-token", "/nowhere"), "cannot be read"),
    ],
)
def test_misuse_is_one_line_and_exit_code_two(arguments: tuple[str, ...], says: str, ca: CaServer) -> None:
    said = run(arguments[0], "--dir", str(ca.folder), *arguments[1:], expect=2)
    assert says in said
    assert "Traceback" not in said


def test_a_directory_that_is_none_is_named(tmp_path: Path) -> None:
    for command in ("serve", "trust", "rotate-oidc"):
        assert "ca.yaml: cannot be read" in run(command, "--dir", str(tmp_path), expect=2)


def test_lint_shows_warnings_and_errors(tmp_path: Path) -> None:
    path = tmp_path / "issuers.yaml"
    path.write_text("oidc-issuers: {'http://x.example': {client-id: a, type: email}}")
    assert run("lint", str(path)).startswith("1 issuers, 1 warnings")
    path.write_text("oidc-issuers: {'http://x.example': {client-id: a, type: spiffe}}")
    assert "spiffe issuer must have SPIFFETrustDomain set" in run("lint", str(path), expect=2)


def test_init_refuses_what_no_client_can_use(log_trust: Path, tmp_path: Path, stub: CtStub) -> None:
    base = ("--dir", str(tmp_path / "ca"), "--log-trust", str(log_trust))
    assert "scheme, host and port only" in run("init", *base, "--url", "http://x/path", expect=2)
    assert "clients reject" in run("init", *base, "--key", "ed25519", expect=2)
    assert not (tmp_path / "ca").exists()


def test_a_user_whose_address_is_refused_leaves_no_file_behind(ca: CaServer, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("long enough for a user", encoding="utf-8")
    before = set(ca.folder.rglob("*.lock"))
    words = ("users", "add", "nobody", "--dir", str(ca.folder), "--password-file", str(tmp_path / "password"))
    assert "not an e-mail address" in run(*words, expect=2)
    assert set(ca.folder.rglob("*.lock")) == before
