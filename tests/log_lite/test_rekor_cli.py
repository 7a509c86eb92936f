"""The unmodified rekor-cli uploads, verifies and finds entries of every signature format that it knows."""

import base64
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b, sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from log_lite.proposals.pgp import canonical_pgp_key
from tests.log_lite.client import KEY, pem_of
from tests.support.go_clients import needs_rekor_cli, rekor_cli
from tests.support.log_server import LogServer, log_server
from tests.support.security_key import sign_with_security_key

pytestmark = needs_rekor_cli

MAIL = "release@acme.example"
Made = Callable[[Path, str], tuple[bytes, bytes]]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LogServer]:
    with log_server(tmp_path_factory.mktemp("log") / "log") as server:
        yield server


def run(folder: Path, *command: str) -> bytes:
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=120).stdout


def by_x509(folder: Path, name: str) -> tuple[bytes, bytes]:
    return KEY.sign((folder / name).read_bytes(), ec.ECDSA(SHA256())), pem_of(KEY)


def by_ssh(kind: str) -> Made:
    def make(folder: Path, name: str) -> tuple[bytes, bytes]:
        run(folder, "ssh-keygen", "-q", "-t", kind, "-N", "", "-C", MAIL, "-f", "key")
        run(folder, "ssh-keygen", "-q", "-Y", "sign", "-n", "file", "-f", "key", name)
        return (folder / f"{name}.sig").read_bytes(), (folder / "key.pub").read_bytes()

    return make


def by_security_key(kind: str) -> Made:
    return lambda folder, name: sign_with_security_key((folder / name).read_bytes(), kind)


def by_minisign(algorithm: bytes, *, is_signify: bool = False) -> Made:
    def make(folder: Path, name: str) -> tuple[bytes, bytes]:
        key, data, key_id = ed25519.Ed25519PrivateKey.generate(), (folder / name).read_bytes(), b"12345678"
        raw = key.sign(data if algorithm == b"Ed" else blake2b(data).digest())
        lines = [b"untrusted comment: made here", base64.b64encode(algorithm + key_id + raw)]
        if not is_signify:
            lines += [b"trusted comment: file:" + name.encode()]
            lines += [base64.b64encode(key.sign(raw + b"file:" + name.encode()))]
        public = b"Ed" + key_id + key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return b"\n".join([*lines, b""]), b"untrusted comment: key\n" + base64.b64encode(public) + b"\n"

    return make


def by_gpg(kind: str, *, is_armored: bool) -> Made:
    def make(folder: Path, name: str) -> tuple[bytes, bytes]:
        # A socket of the agent is in the folder, whose path must be short.
        home = Path(run(folder, "mktemp", "-d").decode().strip())
        gpg = ("gpg", "--homedir", str(home), "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", "")
        armor = ("--armor",) if is_armored else ()
        try:
            run(folder, *gpg, "--quick-generate-key", f"Acme Releases (CI) <{MAIL}>", kind, "sign", "1y")
            run(folder, *gpg, *armor, "--output", "signature", "--detach-sign", name)
            return (folder / "signature").read_bytes(), run(folder, *gpg, *armor, "--export")
        finally:
            run(folder, "gpgconf", "--homedir", str(home), "--kill", "all")
            shutil.rmtree(home, ignore_errors=True)

    return make


@dataclass(frozen=True)
class Case:
    """One format: its name in rekor-cli, how it is made, and whether the key has the e-mail address."""

    form: str
    made: Made
    has_mail: bool = False


CASES = {
    "x509": Case("x509", by_x509),
    "ssh-ed25519": Case("ssh", by_ssh("ed25519")),
    "ssh-rsa": Case("ssh", by_ssh("rsa")),
    "ssh-ecdsa": Case("ssh", by_ssh("ecdsa")),
    "ssh-security-key-ed25519": Case("ssh", by_security_key("ed25519")),
    "ssh-security-key-ecdsa": Case("ssh", by_security_key("ecdsa")),
    "minisign": Case("minisign", by_minisign(b"ED")),
    "minisign-legacy": Case("minisign", by_minisign(b"Ed")),
    "signify": Case("minisign", by_minisign(b"Ed", is_signify=True)),
    "pgp-rsa-armored": Case("pgp", by_gpg("rsa2048", is_armored=True), has_mail=True),
    "pgp-rsa-binary": Case("pgp", by_gpg("rsa2048", is_armored=False), has_mail=True),
    "pgp-ed25519": Case("pgp", by_gpg("ed25519", is_armored=True), has_mail=True),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_upload_verify_and_search(case: Case, log: LogServer, tmp_path: Path) -> None:
    for program in {"ssh": ("ssh-keygen",), "pgp": ("gpg", "gpgconf")}.get(case.form, ()):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is missing: run .ci/install-debian-packages")
    if case.form == "pgp":
        pytest.importorskip("pysequoia", reason="the pgp extra is not installed")
    artifact = tmp_path / "artifact"
    artifact.write_bytes(f"signed as {case.form} in {tmp_path.name}".encode())
    signature, key = case.made(tmp_path, "artifact")
    (tmp_path / "sig").write_bytes(signature)
    (tmp_path / "pub").write_bytes(key)
    (tmp_path / "other").write_bytes(b"not what was signed")
    signed = ("--signature", "sig", "--public-key", "pub", "--pki-format", case.form, "--type", "rekord")
    stateless = ("--store_tree_state=false",)
    made = json.loads(
        rekor_cli(log.url, tmp_path, "upload", "--artifact", "artifact", *signed, *stateless, "--format", "json")
    )
    uuid = str(made["Location"]).rpartition("/")[2]
    told = rekor_cli(log.url, tmp_path, "verify", "--artifact", "artifact", *signed, *stateless)
    assert uuid[16:] in told
    refused = rekor_cli(log.url, tmp_path, "verify", "--artifact", "other", *signed, *stateless, expect=None)
    assert "None" not in refused
    digest = sha256(artifact.read_bytes()).hexdigest()
    by_key = ("--public-key", "pub", "--pki-format", case.form)
    for query in (by_key, ("--artifact", "artifact"), ("--sha", digest), (*by_key, "--sha", digest)):
        assert uuid in rekor_cli(log.url, tmp_path, "search", *query), query
    unknown = ("--sha", "00" * 32)
    assert uuid not in rekor_cli(log.url, tmp_path, "search", *by_key, *unknown, "--operator", "and", expect=None)
    assert uuid in rekor_cli(log.url, tmp_path, "search", *by_key, *unknown, "--operator", "or")
    found = rekor_cli(log.url, tmp_path, "search", "--email", MAIL.upper(), expect=None if not case.has_mail else 0)
    assert (uuid in found) == case.has_mail


@pytest.mark.skipif(shutil.which("gpg") is None, reason="gpg is missing: run .ci/install-debian-packages")
def test_a_pgp_key_has_one_canonical_form_however_it_is_exported(tmp_path: Path) -> None:
    _, armored = by_gpg("rsa2048", is_armored=True)(_with_artifact(tmp_path), "artifact")
    canonical = canonical_pgp_key(armored)
    assert canonical_pgp_key(canonical) == canonical
    assert canonical.startswith(b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n")
    assert canonical.endswith(b"-----END PGP PUBLIC KEY BLOCK-----")


def _with_artifact(folder: Path) -> Path:
    (folder / "artifact").write_bytes(b"artifact")
    return folder
