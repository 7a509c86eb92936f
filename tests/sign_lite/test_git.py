"""Commits and tags signed through git itself, verified by git and by what reads gitsign's format."""

import base64
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sigstore_entries.entry import decode_rekor
from sigstore_entries.git_signature import NoGitSignature, read_git_signature, split_object, verified
from sigstore_entries.release import released_commit
from sigstore_entries.signing import EntryRef, Signing
from tests.support.ca_server import CaServer, ca_and_log

ALICE = "alice@lab.local"


@dataclass
class Repository:
    """A git repository whose commits sign-lite signs."""

    ca: CaServer
    folder: Path
    program: Path

    def git(self, *words: str, expect: int = 0, token: str | None = None) -> str:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "GIT_CONFIG_NOSYSTEM": "1",
            "SIGSTORE_ID_TOKEN": self.ca.email_token(ALICE) if token is None else token,
            "SIGN_LITE_TRUST_CONFIG": str(self.ca.trust_config),
        }
        done = subprocess.run(
            ["git", "-C", str(self.folder), *words],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == expect, done.stdout + done.stderr
        return done.stdout + done.stderr

    def raw(self, kind: str, revision: str) -> bytes:
        done = subprocess.run(
            ["git", "-C", str(self.folder), "cat-file", kind, revision], capture_output=True, check=True, timeout=60
        )
        return done.stdout


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    folder = tmp_path_factory.mktemp("git")
    program = folder / "sign-lite-git"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "from sign_lite.cli import main_git; main_git()" "$@"\n')
    program.chmod(0o755)
    with ca_and_log(folder) as (ca, _):
        made = Repository(ca, folder / "work", program)
        made.folder.mkdir()
        made.git("init", "-q")
        for name, value in (
            ("user.name", "Alice"),
            ("user.email", ALICE),
            ("gpg.format", "x509"),
            ("gpg.x509.program", str(program)),
        ):
            made.git("config", name, value)
        made.git("commit", "-q", "-S", "--allow-empty", "-m", "release")
        made.git("tag", "-s", "-m", "v1", "v1")
        yield made


@pytest.mark.parametrize(
    ("kind", "revision", "command"), [("commit", "HEAD", "verify-commit"), ("tag", "v1", "verify-tag")]
)
def test_what_git_signs_through_sign_lite_git_verifies_and_the_log_has_it(
    kind: str, revision: str, command: str, repository: Repository
) -> None:
    assert f"good signature by {ALICE}" in repository.git(command, revision)
    signature = read_git_signature(repository.raw(kind, revision))
    verified(signature)
    assert signature.entry is not None
    held = signature.as_bundle()

    signing = decode_rekor(base64.b64decode(held.entries[0]["canonicalizedBody"]), EntryRef("x", 0))
    assert isinstance(signing, Signing)
    commit = repository.git("rev-parse", revision).strip()
    release = released_commit(commit, signature.signed_attributes)
    assert f"sha256:{signing.digests[0].value}" in release.digests


def test_a_signature_of_another_commit_is_refused(repository: Repository) -> None:
    raw = repository.raw("commit", "HEAD")
    verified(read_git_signature(raw))
    changed = raw.replace(b"release", b"rele4se")
    with pytest.raises(NoGitSignature, match="another object"):
        read_git_signature(changed)
    name = subprocess.run(
        ["git", "-C", str(repository.folder), "hash-object", "-t", "commit", "-w", "--stdin"],
        input=changed,
        capture_output=True,
        check=True,
        timeout=60,
    ).stdout.decode()
    assert "does not hold" in repository.git("verify-commit", name.strip(), expect=1)


def test_an_unsigned_commit_and_a_pgp_signature_are_told(repository: Repository) -> None:
    raw = repository.raw("commit", "HEAD")
    payload, _ = split_object(raw)
    with pytest.raises(NoGitSignature, match="not signed"):
        read_git_signature(payload)
    with pytest.raises(NoGitSignature, match="PGP"):
        read_git_signature(raw.replace(b"SIGNED MESSAGE", b"PGP SIGNATURE"))


def test_without_a_token_nothing_is_signed(repository: Repository) -> None:
    repository.git("commit", "-S", "--allow-empty", "-m", "x", token="", expect=128)
    environment = {"PATH": os.environ["PATH"], "HOME": str(repository.folder)}
    command = [str(repository.program), "--status-fd=2", "-bsau", "alice"]
    trusting = {**environment, "SIGN_LITE_TRUST_CONFIG": str(repository.ca.trust_config)}
    for given, told in ((environment, "name the trust"), (trusting, "no identity token")):
        done = subprocess.run(command, input=b"x", env=given, capture_output=True, timeout=60, check=False)
        assert (done.returncode, done.stdout) == (2, b"")
        assert told in done.stderr.decode()
