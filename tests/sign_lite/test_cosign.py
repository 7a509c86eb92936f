"""Files: the unmodified cosign and sign-lite verify each other, in both Rekors, by trust files and over TUF."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.ca_server import SIGN_LITE, SIGSTORE, CaServer, ca_and_log, run
from tests.support.go_clients import cosign, needs_cosign

pytestmark = needs_cosign

ALICE = "alice@lab.local"
BUILD = "https://example.com/build/v1"
SLSA = "https://slsa.dev/provenance/v1"
PROVENANCE = {
    "buildDefinition": {"buildType": BUILD, "externalParameters": {}},
    "runDetails": {"builder": {"id": "https://example.com/builder"}},
}
MATRIX = pytest.mark.parametrize("rekor", [1, 2])


@dataclass
class Clients:
    """One deployment, and a home for cosign: with trust over TUF where `tuf`, else with files for each call."""

    ca: CaServer
    folder: Path
    tuf: bool

    def file(self, name: str) -> Path:
        path = self.folder / name
        path.write_bytes(name.encode() * 100)
        return path

    def cosign(self, command: str, *arguments: str, expect: int | None = 0) -> str:
        root = () if self.tuf else ("--trusted-root", str(self.ca.folder / "trust/trusted_root.json"))
        return cosign(self.folder, command, *root, *arguments, expect=expect)

    def services(self, rekor: int) -> tuple[str, ...]:
        config = self.ca.folder / f"trust/signing_config.rekor-v{rekor}.json"
        return ("--signing-config", str(config), "--yes", "--identity-token", self.ca.email_token(ALICE))

    def sign_lite(self, command: str, *arguments: str, expect: int = 0) -> str:
        return run(SIGN_LITE, command, "--trust-config", str(self.ca.trust_config), *arguments, expect=expect)

    def who(self, identity: str = ALICE) -> tuple[str, ...]:
        return ("--certificate-identity", identity, "--certificate-oidc-issuer", self.ca.oidc)


@pytest.fixture(scope="module", params=[False, True], ids=["trust-file", "tuf"])
def clients(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clients]:
    folder = tmp_path_factory.mktemp("cosign")
    with ca_and_log(folder) as (ca, _):
        if request.param:
            root = str(ca.folder / "tuf/1.root.json")
            cosign(folder, "initialize", "--mirror", f"{ca.url}/tuf", "--root", root)
        (folder / "predicate.json").write_text('{"built": "here"}')
        yield Clients(ca, folder, request.param)


@MATRIX
def test_sign_lite_verifies_a_file_that_cosign_signed(rekor: int, clients: Clients) -> None:
    file, other = clients.file(f"by-cosign-{rekor}"), clients.file(f"other-{rekor}")
    bundle = str(file) + ".json"
    clients.cosign("sign-blob", *clients.services(rekor), "--bundle", bundle, str(file))
    wanted = ("--identity", ALICE, "--issuer", clients.ca.oidc, "--bundle", bundle)
    clients.sign_lite("verify", str(file), *wanted)
    clients.sign_lite("verify", str(other), *wanted, expect=1)


@MATRIX
def test_cosign_verifies_a_file_that_sign_lite_signed(rekor: int, clients: Clients) -> None:
    file, other = clients.file(f"by-lite-{rekor}"), clients.file(f"another-{rekor}")
    token = ("--identity-token", clients.ca.email_token(ALICE))
    made = clients.sign_lite("sign", str(file), *token, "--rekor-version", str(rekor), "--json")
    bundle = ("--bundle", json.loads(made)[0]["bundle"])
    clients.cosign("verify-blob", *bundle, *clients.who(), str(file))
    clients.cosign("verify-blob", *bundle, *clients.who("mallory@lab.local"), str(file), expect=None)
    clients.cosign("verify-blob", *bundle, *clients.who(), str(other), expect=None)


@MATRIX
def test_each_verifies_the_others_attestation_of_a_file(rekor: int, clients: Clients) -> None:
    file, other = clients.file(f"attested-{rekor}"), clients.file(f"unattested-{rekor}")
    predicate = ("--predicate", str(clients.folder / "predicate.json"))
    bundle = str(file) + ".cosign.json"
    clients.cosign("attest-blob", *clients.services(rekor), *predicate, "--type", BUILD, "--bundle", bundle, str(file))
    wanted = ("--identity", ALICE, "--issuer", clients.ca.oidc, "--bundle", bundle)
    clients.sign_lite("verify", str(file), *wanted)
    clients.sign_lite("verify", str(other), *wanted, expect=1)
    token = ("--identity-token", clients.ca.email_token(ALICE))
    made = clients.sign_lite(
        "attest", str(file), *predicate, "--predicate-type", BUILD, *token, "--rekor-version", str(rekor), "--json"
    )
    mine = ("--bundle", json.loads(made)[0]["bundle"], "--type", BUILD)
    clients.cosign("verify-blob-attestation", *mine, *clients.who(), str(file))
    clients.cosign("verify-blob-attestation", *mine, *clients.who(), str(other), expect=None)


@MATRIX
def test_an_attestation_of_pypis_sigstore_verifies_in_both(rekor: int, clients: Clients) -> None:
    file, other = clients.file(f"by-pypi-{rekor}"), clients.file(f"not-by-pypi-{rekor}")
    claim = ("--predicate", str(clients.folder / "slsa.json"), "--predicate-type", SLSA)
    (clients.folder / "slsa.json").write_text(json.dumps(PROVENANCE))
    bundle = str(file) + ".pypi.json"
    trust = ("--trust-config", str(clients.ca.trust_config), "attest", "--rekor-version", str(rekor))
    token = ("--identity-token", clients.ca.email_token(ALICE))
    run(SIGSTORE, *trust, *claim, *token, "--bundle", bundle, str(file))
    wanted = ("--identity", ALICE, "--issuer", clients.ca.oidc, "--bundle", bundle)
    clients.sign_lite("verify", str(file), *wanted)
    clients.sign_lite("verify", str(other), *wanted, expect=1)
    mine = ("--bundle", bundle, "--type", SLSA)
    clients.cosign("verify-blob-attestation", *mine, *clients.who(), str(file))
    clients.cosign("verify-blob-attestation", *mine, *clients.who(), str(other), expect=None)
