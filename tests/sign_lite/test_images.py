"""sign-lite and the unmodified cosign verify each other's signatures of images, through a real registry."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from addresses.image_name import ImageName
from tests.support.ca_server import SIGN_LITE, CaServer, ca_and_log, run
from tests.support.go_clients import COSIGN, cosign, needs_cosign, needs_registry, registry_server
from tests.support.images import move_referrer, push_image

pytestmark = needs_registry

ALICE = "alice@lab.local"
SIGNERS = ["sign-lite", pytest.param("cosign", marks=needs_cosign)]
BUILD = "https://example.com/build/v1"


@dataclass
class Deployment:
    """A CA and a log, a registry, and a home for cosign."""

    ca: CaServer
    registry: str
    folder: Path

    def push(self, name: str) -> ImageName:
        return push_image(self.registry, name, name.encode())

    def trust(self, rekor: int) -> tuple[str, ...]:
        file = self.ca.folder / f"trust/signing_config.rekor-v{rekor}.json"
        return ("--trusted-root", str(self.ca.folder / "trust/trusted_root.json"), "--signing-config", str(file))

    def initialize(self) -> None:
        """Give cosign its trust over TUF, for every later call."""
        cosign(
            self.folder,
            "initialize",
            "--mirror",
            f"{self.ca.url}/tuf",
            "--root",
            str(self.ca.folder / "tuf/1.root.json"),
        )

    def sign(self, by: str, image: ImageName, rekor: int) -> None:
        token = ("--identity-token", self.ca.email_token(ALICE))
        if by == "cosign":
            cosign(self.folder, "sign", *self.trust(rekor), "--yes", *token, str(image))
        else:
            self.sign_lite("sign", str(image), *token, "--rekor-version", str(rekor))

    def attest(self, by: str, image: ImageName, rekor: int) -> None:
        (self.folder / "predicate.json").write_text('{"built": "here"}')
        token = ("--identity-token", self.ca.email_token(ALICE))
        predicate = ("--predicate", str(self.folder / "predicate.json"))
        if by == "cosign":
            kind = ("--type", BUILD, *predicate)
            cosign(self.folder, "attest", *self.trust(rekor), "--yes", *token, *kind, str(image))
        else:
            kind = ("--predicate-type", BUILD, *predicate)
            self.sign_lite("attest", str(image), *token, *kind, "--rekor-version", str(rekor))

    def verify(self, by: str, image: ImageName, *options: str, identity: str = ALICE, expect: int | None = 0) -> Any:
        if by == "cosign":
            who = ("--certificate-identity", identity, "--certificate-oidc-issuer", self.ca.oidc)
            root = ("--trusted-root", str(self.ca.folder / "trust/trusted_root.json"))
            word = "verify-attestation" if options else "verify"
            kind = ("--type", options[1]) if options else ()
            return cosign(self.folder, word, *root, *who, *kind, str(image), expect=expect or (None if expect else 0))
        who = ("--identity", identity, "--issuer", self.ca.oidc)
        return self.sign_lite("verify", str(image), *who, *options, expect=expect or 0)

    def sign_lite(self, command: str, *arguments: str, expect: int = 0) -> str:
        trust = ("--trust-config", str(self.ca.trust_config))
        return run(SIGN_LITE, "image", command, *trust, *arguments, expect=expect)


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("images")
    with ca_and_log(folder) as (ca, _), registry_server() as registry:
        yield Deployment(ca, registry, folder)


@pytest.mark.parametrize("rekor", [1, 2])
@pytest.mark.parametrize("by", SIGNERS)
def test_each_verifies_what_the_other_signed_and_refuses_another_signer(
    by: str, rekor: int, deployment: Deployment
) -> None:
    image = deployment.push(f"signed-{by}-{rekor}")
    deployment.verify("sign-lite", image, expect=1)
    deployment.sign(by, image, rekor)
    assert ALICE in deployment.verify("sign-lite", image)
    deployment.verify("sign-lite", image, identity="mallory@lab.local", expect=1)
    deployment.verify("sign-lite", image, "--predicate-type", BUILD, expect=1)


@needs_cosign
@pytest.mark.parametrize("rekor", [1, 2])
def test_cosign_verifies_what_sign_lite_signed(rekor: int, deployment: Deployment) -> None:
    image = deployment.push(f"for-cosign-{rekor}")
    deployment.sign("sign-lite", image, rekor)
    deployment.verify("cosign", image)
    deployment.verify("cosign", image, identity="mallory@lab.local", expect=1)
    deployment.attest("sign-lite", image, rekor)
    assert "payload" in deployment.verify("cosign", image, "--predicate-type", BUILD)
    deployment.verify("cosign", image, "--predicate-type", "https://example.com/other/v1", expect=1)


@pytest.mark.parametrize("rekor", [1, 2])
@pytest.mark.parametrize("by", SIGNERS)
def test_an_attestation_of_either_is_no_signature(by: str, rekor: int, deployment: Deployment) -> None:
    image = deployment.push(f"attested-{by}-{rekor}")
    deployment.attest(by, image, rekor)
    deployment.verify("sign-lite", image, "--predicate-type", BUILD)
    assert "is wanted" in deployment.verify("sign-lite", image, expect=1)


def test_a_signature_moved_to_another_image_is_refused(deployment: Deployment) -> None:
    mine, other = deployment.push("moved-from"), deployment.push("moved-to")
    deployment.sign("sign-lite", mine, 1)
    move_referrer(mine, other)
    assert "about another image" in deployment.verify("sign-lite", other, expect=1)
    if COSIGN is not None:
        deployment.verify("cosign", other, expect=1)


@needs_cosign
def test_cosign_takes_its_trust_over_tuf(deployment: Deployment) -> None:
    image = deployment.push("over-tuf")
    deployment.sign("sign-lite", image, 2)
    deployment.initialize()
    who = ("--certificate-identity", ALICE, "--certificate-oidc-issuer", deployment.ca.oidc)
    cosign(deployment.folder, "verify", *who, str(image))
    cosign(deployment.folder, "sign", "--yes", "--identity-token", deployment.ca.email_token(ALICE), str(image))
    deployment.verify("sign-lite", image)
