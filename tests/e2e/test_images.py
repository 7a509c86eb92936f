"""A maintainer's walk from an image to its log entries and back, with the unmodified cosign and a real registry."""

import base64
import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from addresses.image_name import ImageName
from monitor.crosscheck.signature_check import signatures_of
from monitor.demo.processes import DemoFailed, wait_until
from outbound.registry import Registry
from rules.selection import digest_text
from sigstore_entries.entry import decode_rekor
from sigstore_entries.release import released_image
from sigstore_entries.signing import EntryRef, Signing
from tests.e2e.loop import TAG, Loop, running_loop
from tests.support.go_clients import cosign, needs_cosign, needs_registry, registry_server
from tests.support.images import move_referrer, push_image
from tests.support.waiting import PATIENCE

pytestmark = [needs_cosign, needs_registry]


@dataclass
class Walk:
    """The loop with its monitor running, and a registry."""

    loop: Loop
    registry: str

    def push(self, name: str) -> ImageName:
        return push_image(self.registry, name, name.encode())

    def sign(self, image: ImageName, token: str, rekor_version: int = 2, *options: str) -> None:
        cosign(self.loop.folder, "sign", *self.trust(rekor_version), "--identity-token", token, *options, str(image))

    def attest(self, image: ImageName, token: str, *options: str) -> None:
        cosign(self.loop.folder, "attest", *self.trust(2), "--identity-token", token, *options, str(image))

    def sign_with_key(self, image: ImageName) -> None:
        cosign(self.loop.folder, "sign", *self.trust(1), "--key", "cosign.key", str(image))

    def sign_older(self, image: ImageName, token: str) -> None:
        """As cosign signed before its version 3: services by address, and a tag in place of a referrer."""
        format_ = ("--new-bundle-format=false", "--use-signing-config=false")
        services = ("--fulcio-url", self.loop.ca_url, "--rekor-url", self.loop.log_url)
        trust = ("--trusted-root", "ca/trust/trusted_root.json", "--yes", "--identity-token", token)
        cosign(self.loop.folder, "sign", *format_, *services, *trust, str(image))

    def trust(self, rekor_version: int) -> tuple[str, ...]:
        """Trust files by which a client signs in one version of the log."""
        config = json.loads((self.loop.folder / "ca/trust/signing_config.json").read_text())
        urls = config["rekorTlogUrls"]
        config["rekorTlogUrls"] = [each for each in urls if each["majorApiVersion"] == rekor_version]
        name = f"signing-v{rekor_version}.json"
        (self.loop.folder / name).write_text(json.dumps(config))
        return ("--trusted-root", "ca/trust/trusted_root.json", "--signing-config", name, "--yes")

    def logged(self, image: ImageName) -> set[str]:
        """First digest of each log entry of the image's signatures."""
        with Registry(image) as registry:
            found = signatures_of(registry, registry.manifest(str(image.digest))).found
        bodies = [base64.b64decode(each["canonicalizedBody"]) for one in found for each in one.held.entries]
        signings = [decode_rekor(body, EntryRef("x", 0)) for body in bodies]
        return {digest_text(each.digests[0]) for each in signings if isinstance(each, Signing)}

    def verify(self, image: ImageName, identity: str, issuer: str) -> None:
        who = ("--certificate-identity", identity, "--certificate-oidc-issuer", issuer)
        cosign(self.loop.folder, "verify", "--trusted-root", "ca/trust/trusted_root.json", *who, str(image))

    def check_image(self, image: object, expect: int, *options: str) -> dict[str, Any]:
        command = ("check-image", str(image), "--json", "--config", "signwatch.yaml", *options)
        document: dict[str, Any] = json.loads(self.loop.run("signwatch", *command, expect=expect))
        return document


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walk]:
    with registry_server() as registry, running_loop(tmp_path_factory.mktemp("walk")) as loop:
        loop.start_monitor()
        yield Walk(loop, registry)


WORKFLOW = f"https://github.com/acme/widget/.github/workflows/release.yml@{TAG}"
EVIL = "refs/heads/evil"


@pytest.mark.parametrize("rekor_version", [1, 2])
def test_my_image_was_signed_by_whom_is_it_in_the_log_and_was_it_expected(walk: Walk, rekor_version: int) -> None:
    image = walk.push(f"widget-{rekor_version}")
    assert walk.check_image(image, expect=3)["signatures"] == []
    walk.sign(image, walk.loop.github_token(TAG), rekor_version)
    walk.verify(image, WORKFLOW, f"{walk.loop.ca_url}/oidc/github")
    told = walk.check_image(image, expect=0)
    (mine,) = told["signatures"]
    assert (mine["what"], mine["signers"]) == ("signature", [WORKFLOW])
    assert mine["issuer"] == f"{walk.loop.ca_url}/oidc/github"
    assert (mine["in_log"], mine["expected"]) == ("yes", "expected (widget-release)")
    assert mine["signed_at"]
    assert walk.logged(image) <= set(released_image(image).digests), "the log shows what follows from the digest"
    by_tag = walk.check_image(f"{image.in_full}:v1", expect=0)
    assert by_tag["of"] == f"image {image.in_full}@{image.digest}"


def test_a_strangers_signature_is_told_at_once_and_stands_beside_mine(walk: Walk) -> None:
    image = walk.push("stolen")
    walk.sign(image, walk.loop.github_token(TAG))
    before = len(walk.loop.alerts())
    walk.sign(image, walk.loop.github_token(EVIL))
    wait_until("the alert", lambda: len(walk.loop.alerts()) > before, seconds=PATIENCE)
    told = walk.check_image(image, expect=1)
    expected = sorted(each["expected"].partition(" ")[0] for each in told["signatures"])
    assert expected == ["expected", "unexpected"]
    assert all(each["in_log"] == "yes" for each in told["signatures"])
    alert = walk.loop.alerts()[-1]
    assert any("refs/heads/evil" in reason for reason in alert["reasons"])


def test_a_signature_that_the_registry_does_not_show_is_found_in_the_log(walk: Walk) -> None:
    image = walk.push("hidden")
    walk.sign(image, walk.loop.github_token(TAG))
    before = len(walk.loop.alerts())
    walk.sign(image, walk.loop.github_token(EVIL), 2, "--upload=false", "--bundle", "hidden.json")
    wait_until("the alert", lambda: len(walk.loop.alerts()) > before, seconds=PATIENCE)
    told = walk.check_image(image, expect=1)
    places = [each["place"] for each in told["signatures"]]
    assert len(places) == 2
    assert places[1] == "only in the log"
    assert told["signatures"][1]["signers"] == [WORKFLOW.replace(TAG, EVIL)]


def test_an_attestation_is_told_with_its_kind(walk: Walk) -> None:
    image = walk.push("attested")
    (walk.loop.folder / "sbom.json").write_text('{"spdxVersion": "SPDX-2.3"}')
    kind = ("--type", "spdxjson", "--predicate", "sbom.json")
    walk.attest(image, walk.loop.github_token(TAG), *kind)
    (told,) = walk.check_image(image, expect=0)["signatures"]
    assert told["what"].startswith("attestation https://spdx.dev/")
    assert told["in_log"] == "yes"


def test_a_key_pair_signs_and_its_fingerprint_is_told(walk: Walk) -> None:
    image = walk.push("keyed")
    cosign(walk.loop.folder, "generate-key-pair")
    walk.sign_with_key(image)
    (told,) = walk.check_image(image, expect=0)["signatures"]
    assert told["signers"][0].startswith("key sha256:")
    assert (told["in_log"], told["expected"]) == ("yes", "no rule selects it")


def test_the_older_format_under_a_tag_is_read_too(walk: Walk) -> None:
    image = walk.push("older")
    walk.sign_older(image, walk.loop.github_token(TAG))

    def is_followed() -> bool:
        with contextlib.suppress(DemoFailed):
            return bool(walk.check_image(image, expect=0))
        return False

    # The older format holds a promise and no proof: the entry is looked for in the tree that the monitor has followed.
    wait_until("the promised entry in the followed tree", is_followed, seconds=PATIENCE)
    (told,) = walk.check_image(image, expect=0)["signatures"]
    assert told["place"] == f"tag {str(image.digest).replace(':', '-')}.sig"
    assert told["signers"] == [WORKFLOW]
    assert (told["in_log"], told["expected"]) == ("yes", "expected (widget-release)")


def test_a_signature_of_another_image_proves_nothing_about_this_one(walk: Walk) -> None:
    mine, other = walk.push("mine"), walk.push("other")
    walk.sign(mine, walk.loop.github_token(TAG))
    move_referrer(mine, other)
    (told,) = walk.check_image(other, expect=3)["signatures"]
    assert "about another image" in told["problem"]


def test_a_registry_that_is_down_is_no_verdict(walk: Walk) -> None:
    told = walk.check_image("localhost:1/x:v1", expect=3)["error"]
    assert (told["trouble"], "cannot be reached" in told["message"]) == ("could-not-ask", True)


def test_offline_no_log_is_asked_and_the_bundles_own_proof_is_told(walk: Walk) -> None:
    before, newest, older = walk.push("before"), walk.push("newest"), walk.push("without-proof")
    walk.sign(before, walk.loop.github_token(TAG))
    walk.sign_older(older, walk.loop.github_token(TAG))
    walk.sign(newest, walk.loop.github_token(TAG))
    # Offline, a proof is compared with the newest head that was verified: it has to be the one after `before`.
    walk.loop.await_verified()
    with walk.loop.log_that_only_counts() as asked:
        (followed,) = walk.check_image(newest, 0, "--offline")["signatures"]
        (proven,) = walk.check_image(before, 3, "--offline")["signatures"]
        (promised,) = walk.check_image(older, 3, "--offline")["signatures"]
        assert asked == []
        (online,) = walk.check_image(before, 3)["signatures"]
        assert asked, "control: without --offline the log is asked"
    assert followed["expected"] == proven["expected"] == promised["expected"] == "expected (widget-release)"
    assert proven["in_log"].startswith("unknown: proven by the bundle; nothing contradicts it")
    assert proven["in_log"].endswith("only the log can prove the rest")
    assert promised["in_log"].startswith("unknown: the log was not asked; ")
    assert "proven" not in promised["in_log"]
    assert online["in_log"].startswith("unknown: proven by the bundle; the log was not asked: ")
    assert {each["problem"] for each in (followed, proven, promised)} == {None}
