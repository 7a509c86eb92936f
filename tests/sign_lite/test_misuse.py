"""Wrong files, options and bundles end with a sentence and the right exit code, never with a traceback."""

import hashlib
import json
import time
from pathlib import Path

import jwt
import pytest
from typer.testing import CliRunner, Result

from sign_lite.cli import app
from sign_lite.errors import Misuse, VerificationFailed
from sign_lite.files import Artifact, check_writable, default_bundle, hash_file, write_bundle
from sign_lite.signing import build_statement
from sign_lite.trust import Trust, load_identity_token
from sign_lite.verifying import WantedSigner, _matching_statement, verify_file
from tests.support.ca_server import ca_server
from tests.support.log_server import log_server

NO_TRUST = Trust(None, {})  # type: ignore[arg-type]
DIGEST = Artifact(bytes([1] * 32))


def token(**changed: object) -> str:
    now = int(time.time())
    claims = {"iss": "https://issuer", "sub": "x", "aud": "sigstore", "iat": now, "exp": now + 60, **changed}
    return jwt.encode(claims, "s" * 64, algorithm="HS256")


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    return path


def test_a_file_is_hashed_in_pieces(file: Path) -> None:
    assert (
        hash_file(file, more=False).sha256.hex() == "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73"
    )
    assert hash_file(file, more=True).digest("sha512") == hashlib.sha512(b"content").digest()
    with pytest.raises(Misuse, match="cannot be read"):
        hash_file(file.with_name("missing"), more=True)


def test_a_token_comes_from_one_place(file: Path) -> None:
    file.write_text(token() + "\n")
    assert load_identity_token(token=None, token_file=file, environment={}).issuer == "https://issuer"
    variable = {"SIGSTORE_IDENTITY_TOKEN": token()}
    assert load_identity_token(token=None, token_file=None, environment=variable).identity == "x"
    for given, why in (
        ({"token": token(), "token_file": file}, "give one of"),
        ({"token": None, "token_file": None}, "no identity token"),
        ({"token": "garbage", "token_file": None}, "cannot be used"),
        ({"token": token(exp=1), "token_file": None}, "cannot be used"),
    ):
        with pytest.raises(Misuse, match=why):
            load_identity_token(**given, environment={})


def test_a_bundle_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    target = default_bundle(tmp_path / "a.whl")
    write_bundle(target, "{}")
    assert [path.name for path in tmp_path.iterdir()] == ["a.whl.sigstore.json"]
    check_writable(target, overwrite=True)
    with pytest.raises(Misuse, match="exists already"):
        check_writable(target, overwrite=False)
    with pytest.raises(Misuse, match="cannot be written"):
        write_bundle(tmp_path / "missing" / "x", "{}")


@pytest.mark.parametrize("raw", [b"", b"{}", b"[]", b"null", b"[" * 100_000, b'{"mediaType": "x"}', b"\xff"])
def test_garbage_is_not_a_bundle(raw: bytes) -> None:
    with pytest.raises(VerificationFailed, match=r"not a (Sigstore bundle|bundle|JSON document)"):
        verify_file(raw, DIGEST, NO_TRUST, WantedSigner("x", "y"))


@pytest.mark.parametrize(
    ("payload_type", "payload", "why"),
    [
        ("text/plain", {}, "not an in-toto statement"),
        ("application/vnd.in-toto+json", {}, "no readable subjects"),
        ("application/vnd.in-toto+json", {"subject": [1]}, "no readable subjects"),
        ("application/vnd.in-toto+json", {"_type": "https://in-toto.io/Statement/v1", "subject": []}, "other files"),
        ("application/vnd.in-toto+json", {"subject": [{"digest": {"sha256": "01" * 32}}]}, "none of in-toto's"),
    ],
)
def test_a_statement_must_be_about_the_file(payload_type: str, payload: object, why: str) -> None:
    kind = "https://in-toto.io/Statement/v1"
    good = {"_type": kind, "subject": [{"digest": {"sha256": "01" * 32}}], "predicateType": "x"}
    assert _matching_statement("application/vnd.in-toto+json", json.dumps(good).encode(), DIGEST) == good
    with pytest.raises(VerificationFailed, match=why):
        _matching_statement(payload_type, json.dumps(payload).encode(), DIGEST)


def test_a_statement_needs_an_object_and_different_names() -> None:
    subjects = [(Path("a/x"), DIGEST)]
    assert build_statement(subjects, "https://example.com/v1", {}) is not None
    with pytest.raises(Misuse, match="must be a JSON object"):
        build_statement(subjects, "https://example.com/v1", [])
    with pytest.raises(Misuse, match="the same name"):
        build_statement([*subjects, (Path("b/x"), DIGEST)], "https://example.com/v1", {})


def test_commands_report_misuse_with_exit_code_two(file: Path, tmp_path: Path) -> None:
    trust = tmp_path / "trust.json"
    trust.write_text("{}")
    base = ("--trust-config", str(trust))
    who = ("--identity", "x", "--issuer", "y")
    for arguments in (
        ("verify", str(file), *base, *who),
        ("verify", str(file), "--trust-config", str(tmp_path / "missing"), *who),
        ("sign", str(file), *base),
        ("sign", str(file), str(file), *base),
        ("sign", str(file), str(trust), "--bundle", "x", *base),
        ("sign", str(file), *base, "--rekor-version", "3"),
        ("attest", str(file), *base, "--predicate", str(file), "--predicate-type", "x"),
        ("verify", str(file)),
        ("surprise",),
    ):
        result = invoke(*arguments)
        assert result.exit_code == 2, (arguments, result.output)
        assert "Traceback" not in result.output


@pytest.mark.parametrize("command", ["sign", "verify", "attest"])
def test_every_command_shows_an_example(command: str) -> None:
    assert f"Example: sign-lite {command}" in invoke(command, "--help").output


def test_a_tuf_repository_is_trusted_once_it_was_initialised_with_its_root(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    log_trust = tmp_path / "trust.json"
    with log_server(tmp_path / "log") as log:
        log_trust.write_text(log.command("export-trust"))
    with ca_server(tmp_path / "ca", log_trust) as ca, ca_server(tmp_path / "other", log_trust) as other:
        url, words = f"{ca.url}/tuf", ("--identity", "a@b", "--issuer", "http://x", "--bundle", str(file))
        verifying = ("verify", str(file), "--trust-config", url, *words)
        refused = invoke(*verifying)
        assert (refused.exit_code, "sign-lite initialize --mirror" in refused.stderr) == (3, True)
        wrong = invoke("initialize", "--mirror", url, "--root", str(other.folder / "tuf/1.root.json"))
        assert (wrong.exit_code, "cannot be used" in wrong.stderr) == (3, True)
        assert invoke(*verifying).exit_code == 3, "a root of another deployment starts no trust"
        begun = invoke("initialize", "--mirror", url, "--root", str(ca.folder / "tuf/1.root.json"))
        assert begun.exit_code == 0, begun.stderr
        assert invoke(*verifying).exit_code == 1, "trusted now: what is no bundle is refused as such"
    for bad in ("ca/tuf", "ftp://host/tuf"):
        assert invoke("initialize", "--mirror", bad, "--root", str(file)).exit_code == 2
