"""Real processes: CA, log, sign-lite, and the unmodified `sigstore` command verify each other's bundles."""

import base64
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from sigstore_entries.certificate import BY_OID
from tests.support.ca_server import SIGN_LITE, SIGSTORE, CaServer, ca_and_log, run
from tests.support.log_server import LogServer
from tests.support.waiting import PATIENCE

ALICE = "alice@lab.local"
WORKFLOW = "https://github.com/acme/widget/.github/workflows/release.yml@refs/tags/v1.0"
GITHUB = ("--github", "acme/widget", "--ref", "refs/tags/v1.0", "--workflow", ".github/workflows/release.yml")


@dataclass
class Deployment:
    """A CA and a log, and one file to sign."""

    ca: CaServer
    log: LogServer
    folder: Path

    def file(self, name: str) -> Path:
        path = self.folder / name
        path.write_bytes(name.encode() * 1000)
        return path

    def sign_lite(self, command: str, *arguments: str, expect: int = 0) -> str:
        return run(SIGN_LITE, command, "--trust-config", str(self.ca.trust_config), *arguments, expect=expect)

    def sigstore(self, *arguments: str, expect: int = 0) -> str:
        return run(SIGSTORE, "--trust-config", str(self.ca.trust_config), *arguments, expect=expect)

    def verify_with_sigstore(self, file: Path, bundle: Path, identity: str, issuer: str, expect: int = 0) -> None:
        wanted = ("--cert-identity", identity, "--cert-oidc-issuer", issuer)
        self.sigstore("verify", "identity", "--bundle", str(bundle), *wanted, str(file), expect=expect)


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("deployment")
    with ca_and_log(folder) as (ca, log):
        yield Deployment(ca, log, folder)


@pytest.mark.parametrize(("version", "kind"), [("1", "hashedrekord/0.0.1"), ("2", "hashedrekord/0.0.2")])
def test_what_sign_lite_signs_everybody_verifies(version: str, kind: str, deployment: Deployment) -> None:
    file = deployment.file(f"person-{version}.bin")
    token = ("--identity-token", deployment.ca.email_token(ALICE))
    (signed,) = json.loads(deployment.sign_lite("sign", str(file), *token, "--rekor-version", version, "--json"))
    assert (signed["entry_kind"], signed["names"], signed["issuer"]) == (kind, [ALICE], deployment.ca.oidc)
    wanted = ("--identity", ALICE, "--issuer", deployment.ca.oidc)
    assert f"by {ALICE}" in deployment.sign_lite("verify", str(file), *wanted)
    bundle = Path(signed["bundle"])
    assert bundle == file.with_name(file.name + ".sigstore.json")
    assert json.loads(bundle.read_text())["mediaType"] == "application/vnd.dev.sigstore.bundle.v0.3+json"
    deployment.verify_with_sigstore(file, bundle, ALICE, deployment.ca.oidc)
    deployment.verify_with_sigstore(file, bundle, "mallory@lab.local", deployment.ca.oidc, expect=1)


@pytest.mark.parametrize("version", ["1", "2"])
def test_what_sigstore_signs_for_a_workflow_sign_lite_verifies(version: str, deployment: Deployment) -> None:
    file = deployment.file(f"workflow-{version}.bin")
    bundle = file.with_suffix(".json")
    token = deployment.ca.token(*GITHUB)
    options = ("--identity-token", token, "--rekor-version", version, "--bundle", str(bundle))
    deployment.sigstore("sign", *options, str(file))
    wanted = ("--identity", WORKFLOW, "--issuer", deployment.ca.github, "--bundle", str(bundle))
    (found,) = json.loads(deployment.sign_lite("verify", str(file), *wanted, "--json"))
    assert found["verified"]
    claims = certificate_claims(json.loads(bundle.read_text()))
    assert claims["build_signer_uri"] == WORKFLOW
    assert claims["source_repository_ref"] == "refs/tags/v1.0"


def certificate_claims(bundle: dict[str, Any]) -> dict[str, str]:
    raw = base64.b64decode(bundle["verificationMaterial"]["certificate"]["rawBytes"])
    certificate = x509.load_der_x509_certificate(raw)
    assert certificate.public_bytes(Encoding.DER) == raw
    found = {}
    for each in certificate.extensions:
        if (known := BY_OID.get(each.oid.dotted_string)) is not None:
            found[known.name] = known.decode(each.value.public_bytes())
    return found


def test_a_file_is_verified_by_a_bundle_in_a_folder_a_pattern_or_standard_input(deployment: Deployment) -> None:
    mine, other = deployment.file("held-mine"), deployment.file("held-other")
    token = ("--identity-token", deployment.ca.email_token(ALICE))
    folder = deployment.folder / "attestations of both" / "below"
    folder.mkdir(parents=True)
    made = {}
    for file in (mine, other):
        made[file] = folder / f"{file.name}.json"
        deployment.sign_lite("sign", str(file), *token, "--bundle", str(made[file]))
    unsigned = deployment.file("held-unsigned")
    who = ("--identity", ALICE, "--issuer", deployment.ca.oidc)
    for held in (folder.parent, folder / "*.json"):
        (found,) = json.loads(deployment.sign_lite("verify", str(other), *who, "--bundle", str(held), "--json"))
        assert found["bundle"] == str(made[other])
        told = deployment.sign_lite("verify", str(unsigned), *who, "--bundle", str(held), expect=1)
        assert str(made[mine]) in told
        assert str(made[other]) in told
        assert "Traceback" not in told
    trust = ("--trust-config", str(deployment.ca.trust_config))
    for file, code in ((mine, 0), (unsigned, 1)):
        done = subprocess.run(
            [*SIGN_LITE, "verify", str(file), *trust, *who, "--bundle", "-"],
            input=made[mine].read_bytes(),
            capture_output=True,
            check=False,
            timeout=PATIENCE,
        )
        assert done.returncode == code, done.stderr
    deployment.sign_lite("verify", str(mine), *who, "--bundle", str(folder / "*.nothing"), expect=2)


@pytest.mark.parametrize(("version", "kind"), [("1", "dsse/0.0.1"), ("2", "hashedrekord/0.0.2")])
def test_an_attestation_is_about_its_files_only(version: str, kind: str, deployment: Deployment) -> None:
    first, second, other = (deployment.file(f"{name}-{version}") for name in ("first", "second", "other"))
    predicate = deployment.folder / "predicate.json"
    predicate.write_text('{"built": "here"}')
    what = ("--predicate", str(predicate), "--predicate-type", "https://example.com/build/v1")
    token = ("--identity-token", deployment.ca.email_token(ALICE))
    made = deployment.sign_lite("attest", str(first), str(second), *what, *token, "--rekor-version", version, "--json")
    bundle = json.loads(made)[0]["bundle"]
    assert json.loads(made)[0]["entry_kind"] == kind
    wanted = ("--identity", ALICE, "--issuer", deployment.ca.oidc, "--bundle", bundle)
    for file in (first, second):
        (found,) = json.loads(deployment.sign_lite("verify", str(file), *wanted, "--json"))
        assert found["predicate_type"] == "https://example.com/build/v1"
        deployment.verify_with_sigstore(file, Path(bundle), ALICE, deployment.ca.oidc)
    assert "about other files" in deployment.sign_lite("verify", str(other), *wanted, expect=1)


def test_several_files_share_one_certificate_and_a_changed_one_fails_alone(deployment: Deployment) -> None:
    files = [deployment.file(f"many-{number}") for number in range(3)]
    names = [str(file) for file in files]
    token = ("--identity-token", deployment.ca.email_token(ALICE))
    signed = json.loads(deployment.sign_lite("sign", *names, *token, "--json"))
    assert len({each["certificate_serial"] for each in signed}) == 1
    files[1].write_bytes(b"changed")
    wanted = ("--identity", ALICE, "--issuer", deployment.ca.oidc)
    found = json.loads(deployment.sign_lite("verify", *names, *wanted, "--json", expect=1).partition("\nFAILED")[0])
    assert [each["verified"] for each in found] == [True, False, True]


def test_the_servers_reason_reaches_the_user(deployment: Deployment) -> None:
    file = deployment.file("refused.bin")
    token = deployment.ca.mint({"iss": deployment.ca.oidc, "sub": "x"})
    said = deployment.sign_lite("sign", str(file), "--identity-token", token, expect=3)
    assert "answered 400: There was an error processing the identity token (EMAIL_MISSING" in said
    assert "Traceback" not in said
    assert not file.with_name("refused.bin.sigstore.json").exists()


def test_an_existing_bundle_is_not_overwritten_and_nothing_is_logged(deployment: Deployment) -> None:
    file = deployment.file("twice.bin")
    bundle = file.with_name("twice.bin.sigstore.json")
    bundle.write_text("mine")
    token = ("--identity-token", deployment.ca.email_token(ALICE))
    assert "exists already" in deployment.sign_lite("sign", str(file), *token, expect=2)
    assert bundle.read_text() == "mine"
    deployment.sign_lite("sign", str(file), *token, "--overwrite")
    assert bundle.read_text() != "mine"


def test_a_stopped_log_means_no_signature_and_exit_code_three(deployment: Deployment) -> None:
    file = deployment.file("outage.bin")
    token = ("--identity-token", deployment.ca.email_token(ALICE))
    deployment.log.stop()
    try:
        said = deployment.sign_lite("sign", str(file), *token, expect=3)
    finally:
        deployment.log.start()
    assert "Error entering certificate in CTL" in said
    deployment.sign_lite("sign", str(file), *token)
