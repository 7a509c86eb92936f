"""From a commit to its log entry: git signs through sign-lite, the monitor notices, `check-commit` tells."""

import contextlib
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from sigstore.hashes import Hashed
from sigstore.oidc import IdentityToken
from sigstore.sign import SigningContext
from sigstore_models.common.v1 import HashAlgorithm

from monitor.demo.processes import DemoFailed, wait_until
from sign_lite.git import _armoured as armoured_cms
from sign_lite.git import _attributes as signed_attributes
from sign_lite.git import _cms as signed_data
from sign_lite.trust import load_trust_config
from tests.e2e.loop import TAG, Loop, running_loop
from tests.support.go_clients import GITSIGN, needs_gitsign
from tests.support.waiting import PATIENCE

WORKFLOW = f"https://github.com/acme/widget/.github/workflows/release.yml@{TAG}"


@dataclass
class Repository:
    """A git repository beside a running loop."""

    loop: Loop
    folder: Path

    def git(self, *words: str, token: str = "", extra: Mapping[str, str] | None = None) -> str:
        environment = {
            **(extra or {}),
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "SIGSTORE_IDENTITY_TOKEN": token,
            "SIGN_LITE_TRUST_CONFIG": str(self.loop.folder / "ca/trust/client_trust_config.json"),
        }
        done = subprocess.run(
            ["git", "-C", str(self.folder), *words], env=environment, capture_output=True, timeout=120, check=False
        )
        assert done.returncode == 0, (done.stdout + done.stderr).decode()
        return done.stdout.decode().strip()

    def commit(self, message: str, token: str) -> str:
        self.git("commit", "-q", "-S", "--allow-empty", "-m", message, token=token)
        return self.git("rev-parse", "HEAD")

    def check(self, revision: str, expect: int, *options: str) -> dict[str, Any]:
        command = ("check-commit", revision, "-C", str(self.folder), "--json", "--config", "signwatch.yaml", *options)
        document: dict[str, Any] = json.loads(self.loop.run("signwatch", *command, expect=expect))
        return document

    def await_entry(self, revision: str) -> None:
        """Wait until the monitor has the log entry of a commit."""

        def is_logged() -> bool:
            command = ("check-commit", revision, "-C", str(self.folder), "--json", "--config", "signwatch.yaml")
            with contextlib.suppress(DemoFailed):
                return "yes" in self.loop.run("signwatch", *command)
            return False

        wait_until(f"the entry of {revision}", is_logged, seconds=PATIENCE)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    folder = tmp_path_factory.mktemp("commits")
    program = folder / "sign-lite-git"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "from sign_lite.cli import main_git; main_git()" "$@"\n')
    program.chmod(0o755)
    (folder / "work").mkdir()
    (folder / "loop").mkdir()
    with running_loop(folder / "loop") as loop:
        loop.start_monitor()
        made = Repository(loop, folder / "work")
        made.git("init", "-q")
        settings = {"user.name": "Bot", "user.email": "bot@acme.example", "gpg.format": "x509"}
        for name, value in {**settings, "gpg.x509.program": str(program)}.items():
            made.git("config", name, value)
        yield made


def test_my_commit_was_signed_by_whom_is_it_in_the_log_and_was_it_expected(repository: Repository) -> None:
    commit = repository.commit("release", repository.loop.github_token(TAG))
    told = repository.check("HEAD", expect=0)
    assert told["of"] == f"commit {commit}"
    (mine,) = told["signatures"]
    assert (mine["what"], mine["signers"]) == ("commit signature", [WORKFLOW])
    assert (mine["in_log"], mine["expected"]) == ("yes", "expected (widget-release)")


def test_a_strangers_commit_is_told_at_once_and_is_unexpected(repository: Repository) -> None:
    before = len(repository.loop.alerts())
    repository.commit("evil", repository.loop.github_token("refs/heads/evil"))
    wait_until("the alert", lambda: len(repository.loop.alerts()) > before, seconds=PATIENCE)
    (told,) = repository.check("HEAD", expect=1)["signatures"]
    assert told["expected"].startswith("unexpected (widget-release")


def write_online(repository: Repository, token: str) -> str:
    """A commit as gitsign's online mode makes it: no log entry in it, and its id entered on its own."""
    repository.git("commit", "-q", "--no-gpg-sign", "--allow-empty", "-m", "online")
    payload = repository.git("cat-file", "commit", "HEAD").encode() + b"\n"
    config = load_trust_config(str(repository.loop.folder / "ca/trust/client_trust_config.json"), 1)
    with SigningContext.from_trust_config(config).signer(IdentityToken(token)) as opened:
        attributes = signed_attributes(payload, datetime.now(UTC))
        signature = opened._private_key.sign(attributes, ECDSA(SHA256()))
        leaf = opened._signing_cert().public_bytes(Encoding.DER)
        armoured = armoured_cms(signed_data(leaf, attributes, signature, None))
        header, blank, message = payload.partition(b"\n\n")
        lines = armoured.rstrip(b"\n").replace(b"\n", b"\n ")
        raw = header + b"\ngpgsig " + lines + blank + message
        made = subprocess.run(
            ["git", "-C", str(repository.folder), "hash-object", "-t", "commit", "-w", "--stdin"],
            input=raw,
            capture_output=True,
            check=True,
            timeout=60,
        )
        commit = made.stdout.decode().strip()
        digest = hashlib.sha256(commit.encode()).digest()
        told = repository.check(commit, expect=3)["signatures"]
        assert told[0]["in_log"].startswith("unknown: it holds no log entry"), "not logged yet"
        assert repository.check(commit, 3, "--offline")["signatures"] == told
        opened.sign_artifact(Hashed(algorithm=HashAlgorithm.SHA2_256, digest=digest))
    return commit


def test_a_commit_whose_log_entry_is_elsewhere_is_found_by_its_id(repository: Repository) -> None:
    commit = write_online(repository, repository.loop.github_token(TAG))

    repository.await_entry(commit)
    (told,) = repository.check(commit, expect=0)["signatures"]
    assert told["signers"] == [WORKFLOW]
    assert told["entry"].startswith("rekor-v1")
    assert (told["in_log"], told["expected"]) == ("yes", "expected (widget-release)")


def test_offline_no_log_is_asked_and_what_the_commit_and_the_monitor_hold_is_told(repository: Repository) -> None:
    before = repository.commit("before", repository.loop.github_token(TAG))
    online = write_online(repository, repository.loop.github_token(TAG))
    repository.await_entry(online)
    newest = repository.commit("newest", repository.loop.github_token(TAG))
    # Offline, a proof is compared with the newest head that was verified: it has to be the one after `before`.
    repository.loop.await_verified()
    with repository.loop.log_that_only_counts() as asked:
        repository.check(newest, 0, "--offline")
        (proven,) = repository.check(before, 3, "--offline")["signatures"]
        (elsewhere,) = repository.check(online, 0, "--offline")["signatures"]
        assert asked == []
        repository.check(before, 3)
        assert asked, "control: without --offline the log is asked"
    assert proven["in_log"].startswith("unknown: proven by the bundle; nothing contradicts it")
    assert (elsewhere["in_log"], elsewhere["expected"]) == ("yes", "expected (widget-release)")


def test_a_signature_of_another_commit_an_unsigned_one_and_no_commit_are_told(repository: Repository) -> None:
    repository.commit("original", repository.loop.github_token(TAG))
    raw = subprocess.run(
        ["git", "-C", str(repository.folder), "cat-file", "commit", "HEAD"], capture_output=True, check=True, timeout=60
    ).stdout
    copied = subprocess.run(
        ["git", "-C", str(repository.folder), "hash-object", "-t", "commit", "-w", "--stdin"],
        input=raw.replace(b"original", b"changed!"),
        capture_output=True,
        check=True,
        timeout=60,
    ).stdout.decode()
    (told,) = repository.check(copied.strip(), expect=3)["signatures"]
    assert "another object" in told["problem"]
    repository.git("commit", "-q", "--no-gpg-sign", "--allow-empty", "-m", "unsigned")
    (told,) = repository.check("HEAD", expect=3)["signatures"]
    assert "not signed" in told["problem"]
    assert repository.check("nothing", expect=2)["error"]["trouble"] == "misused"
    assert "tree" in repository.check("HEAD^{tree}", expect=2)["error"]["message"]


def gitsign_settings(repository: Repository, token: str, mode: str) -> dict[str, str]:
    """Gitsign's environment, as the documentation gives it."""
    loop, trust = repository.loop, repository.loop.folder / "ca/trust"
    return {
        "GITSIGN_FULCIO_URL": loop.ca_url,
        "GITSIGN_REKOR_URL": loop.log_url,
        "GITSIGN_REKOR_MODE": mode,
        "GITSIGN_OIDC_ISSUER": f"{loop.ca_url}/oidc",
        "GITSIGN_FULCIO_ROOT": str(trust / "ca-chain.pem"),
        "SIGSTORE_CT_LOG_PUBLIC_KEY_FILE": str(trust / "ctlog.pub"),
        "SIGSTORE_REKOR_PUBLIC_KEY": str(trust / "rekor-v1.pub"),
        "SIGSTORE_ID_TOKEN": token,
    }


def gitsign(repository: Repository, settings: Mapping[str, str], identity: str, *, expect: int) -> str:
    """What `gitsign verify` says of the newest commit."""
    issuer = f"{repository.loop.ca_url}/oidc/github"
    who = (f"--certificate-identity={identity}", f"--certificate-oidc-issuer={issuer}")
    done = subprocess.run(
        [str(GITSIGN), "verify", *who, "HEAD"],
        cwd=repository.folder,
        env={"PATH": os.environ["PATH"], "HOME": str(repository.folder), **settings},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == expect, said
    return said


@needs_gitsign
@pytest.mark.parametrize("mode", ["online", "offline"])
def test_a_commit_that_gitsign_signed_is_found_in_the_log_with_its_signer(mode: str, repository: Repository) -> None:
    settings = gitsign_settings(repository, repository.loop.github_token(TAG), mode)
    by = ("-c", f"gpg.x509.program={GITSIGN}")
    repository.git(*by, "commit", "-q", "-S", "--allow-empty", "-m", f"by gitsign, {mode}", extra=settings)
    if mode == "offline":
        repository.git("verify-commit", "HEAD")
    repository.await_entry("HEAD")
    (mine,) = repository.check("HEAD", expect=0)["signatures"]
    assert (mine["signers"], mine["expected"]) == ([WORKFLOW], "expected (widget-release)")


@needs_gitsign
def test_gitsign_verifies_a_commit_of_sign_lite_git_for_its_signer_only(repository: Repository) -> None:
    repository.commit("for gitsign", repository.loop.github_token(TAG))
    settings = gitsign_settings(repository, "", "offline")
    assert "Good signature" in gitsign(repository, settings, WORKFLOW, expect=0)
    gitsign(repository, settings, WORKFLOW.replace("v1.0.0", "v6.6.6"), expect=1)
