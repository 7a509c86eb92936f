"""cosign 2.6 beside sign-lite and cosign 3: files, attestations, images, in the new format and in its own older one."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.ca_server import SIGN_LITE, CaServer, ca_and_log, run
from tests.support.go_clients import COSIGN_2, cosign, needs_cosign, needs_cosign_2, needs_registry, registry_server
from tests.support.images import push_image

pytestmark = needs_cosign_2

ALICE = "alice@lab.local"
BUILD = "https://example.com/build/v1"
# An entry of Rekor v2 has no time of its own; cosign 2 must be told to take the timestamp authority's.
TIMES = {1: (), 2: ("--use-signed-timestamps",)}
REKORS = pytest.mark.parametrize("rekor", [1, 2])


@dataclass
class Place:
    """A deployment whose services and keys cosign 2 is told by options and by its environment."""

    ca: CaServer
    log_url: str
    folder: Path

    def file(self, name: str) -> Path:
        path = self.folder / name
        path.write_bytes(name.encode() * 50)
        return path

    def cosign_2(self, command: str, *arguments: str, expect: int | None = 0) -> str:
        trust = self.ca.folder / "trust"
        keys = {
            "SIGSTORE_ROOT_FILE": str(trust / "ca-chain.pem"),
            "SIGSTORE_CT_LOG_PUBLIC_KEY_FILE": str(trust / "ctlog.pub"),
            "SIGSTORE_REKOR_PUBLIC_KEY": str(trust / "rekor-v1.pub"),
        }
        return cosign(self.folder, command, *arguments, expect=expect, extra=keys, program=COSIGN_2)

    def root(self) -> tuple[str, str]:
        return "--trusted-root", str(self.ca.folder / "trust/trusted_root.json")

    def token(self) -> tuple[str, ...]:
        return "--yes", "--identity-token", self.ca.email_token(ALICE)

    def services(self, rekor: int) -> tuple[str, ...]:
        config = self.ca.folder / f"trust/signing_config.rekor-v{rekor}.json"
        new = ("--new-bundle-format", "--signing-config", str(config))
        return (*new, *self.root(), *self.token())

    def old_services(self) -> tuple[str, ...]:
        return "--fulcio-url", self.ca.url, "--rekor-url", self.log_url, *self.token()

    def who(self, identity: str = ALICE) -> tuple[str, ...]:
        return "--certificate-identity", identity, "--certificate-oidc-issuer", self.ca.oidc

    def sign_lite(self, *words: str, expect: int = 0) -> str:
        return run(SIGN_LITE, *words, "--trust-config", str(self.ca.trust_config), expect=expect)

    def wanted(self) -> tuple[str, ...]:
        return "--identity", ALICE, "--issuer", self.ca.oidc


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("cosign2")
    (folder / "predicate.json").write_text('{"built": "here"}')
    with ca_and_log(folder) as (ca, log):
        yield Place(ca, log.url, folder)


@REKORS
def test_files_in_the_new_format_verify_both_ways(rekor: int, place: Place) -> None:
    file, other = place.file(f"new-{rekor}"), place.file("another")
    bundle = str(file) + ".json"
    place.cosign_2("sign-blob", *place.services(rekor), "--bundle", bundle, str(file))
    place.sign_lite("verify", str(file), "--bundle", bundle, *place.wanted())
    place.sign_lite("verify", str(other), "--bundle", bundle, *place.wanted(), expect=1)
    made = place.sign_lite("sign", str(file), *place.token()[1:], "--rekor-version", str(rekor), "--json")
    mine = ("--new-bundle-format", *TIMES[rekor], *place.root(), "--bundle", json.loads(made)[0]["bundle"])
    place.cosign_2("verify-blob", *mine, *place.who(), str(file))
    place.cosign_2("verify-blob", *mine, *place.who("mallory@lab.local"), str(file), expect=None)
    place.cosign_2("verify-blob", *mine, *place.who(), str(other), expect=None)


@REKORS
def test_attestations_in_the_new_format_verify_in_sign_lite(rekor: int, place: Place) -> None:
    file, other = place.file(f"attested-{rekor}"), place.file("another")
    bundle = str(file) + ".json"
    claim = ("--predicate", str(place.folder / "predicate.json"), "--type", BUILD)
    place.cosign_2("attest-blob", *place.services(rekor), *claim, "--bundle", bundle, str(file))
    # cosign 2 logs a kind that Rekor v2 took until its version 2.2 and that newer clients do not verify.
    accepted = 0 if rekor == 1 else 1
    said = place.sign_lite("verify", str(file), "--bundle", bundle, *place.wanted(), expect=accepted)
    assert ("dsse/0.0.2" in said) == (rekor == 2)
    place.sign_lite("verify", str(other), "--bundle", bundle, *place.wanted(), expect=1)


def test_a_file_in_cosign_2s_own_format_verifies_in_both(place: Place) -> None:
    file, other = place.file("old"), place.file("another")
    bundle = str(file) + ".json"
    place.cosign_2("sign-blob", *place.old_services(), "--bundle", bundle, str(file))
    place.cosign_2("verify-blob", "--bundle", bundle, "--rekor-url", place.log_url, *place.who(), str(file))
    place.sign_lite("verify", str(file), "--bundle", bundle, *place.wanted())
    place.sign_lite("verify", str(other), "--bundle", bundle, *place.wanted(), expect=1)


@needs_registry
def test_images_under_a_tag_verify_in_both(place: Place) -> None:
    with registry_server() as registry:
        image = str(push_image(registry, "tagged", b"layer"))
        place.cosign_2("sign", *place.old_services(), image)
        claim = ("--predicate", str(place.folder / "predicate.json"), "--type", BUILD)
        place.cosign_2("attest", *place.old_services(), *claim, image)
        place.cosign_2("verify", "--rekor-url", place.log_url, *place.who(), image)
        place.sign_lite("image", "verify", image, *place.wanted())
        place.sign_lite("image", "verify", image, "--predicate-type", BUILD, *place.wanted())
        place.sign_lite("image", "verify", image, "--identity", "mallory@lab.local", *place.wanted()[2:], expect=1)


@needs_registry
@needs_cosign
@REKORS
def test_images_in_the_new_format_verify_in_newer_clients_where_the_log_entry_does(rekor: int, place: Place) -> None:
    with registry_server() as registry:
        image = str(push_image(registry, f"new-{rekor}", b"layer"))
        place.cosign_2("sign", *place.services(rekor), image)
        place.cosign_2("verify", "--new-bundle-format", *TIMES[rekor], *place.root(), *place.who(), image)
        # Found in any case; of Rekor v2 it is the kind of entry that newer clients refuse.
        said = place.sign_lite("image", "verify", image, *place.wanted(), expect=rekor - 1)
        assert ("dsse/0.0.2" in said) == (rekor == 2)
        cosign(place.folder, "verify", *place.root(), *place.who(), image, expect=0 if rekor == 1 else None)
