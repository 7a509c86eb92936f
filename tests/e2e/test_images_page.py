"""docs/images.md, typed as it stands: its commands run, and print what the page shows of them."""

import os
import re
import subprocess
import sysconfig
from collections.abc import Iterator

import pytest

from addresses.image_name import ImageName
from monitor.demo.processes import wait_until
from tests.docs.blocks import ROOT, Block, blocks
from tests.e2e.loop import TAG, Loop, running_loop
from tests.support.go_clients import cosign, needs_cosign, needs_registry, registry_server
from tests.support.images import push_image
from tests.support.waiting import PATIENCE

pytestmark = [needs_cosign, needs_registry]

PAGE = ROOT / "docs" / "images.md"
EVIL = "refs/heads/evil"
SIGNER = "you@example.com"


class Person:
    """A person who types the commands of the page in the folder of a loop, with a registry and a repository."""

    def __init__(self, loop: Loop, image: ImageName) -> None:
        self.loop, self.image = loop, image
        scripts = sysconfig.get_path("scripts")
        self.environment = {
            "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(loop.folder),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_AUTHOR_NAME": "You",
            "GIT_AUTHOR_EMAIL": SIGNER,
            "GIT_COMMITTER_NAME": "You",
            "GIT_COMMITTER_EMAIL": SIGNER,
        }

    def here(self, text: str) -> str:
        """Text of the page with this run's registry, image and CA."""
        text = text.replace("localhost:5000", self.image.registry)
        text = re.sub(r"@sha256:[0-9a-f]{64}", f"@{self.image.digest}", text)
        return text.replace("http://localhost:8080", self.loop.ca_url)

    def types(self, text: str, *, expect: int = 0, token: str = "") -> str:
        """Run shell commands; returns the standard output, then the notes on standard error."""
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", self.here(text)],
            cwd=self.loop.folder,
            env={**self.environment, "SIGSTORE_IDENTITY_TOKEN": token},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == expect, f"{text}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def github(self, ref: str) -> str:
        return self.loop.github_token(ref)

    def own(self) -> str:
        return self.loop.token("--email", SIGNER)

    def cosign(self, command: str, token: str, *options: str) -> None:
        trust = self.loop.folder / "ca/trust"
        services = ("--trusted-root", f"{trust}/trusted_root.json", "--signing-config", f"{trust}/{SIGNING}", "--yes")
        cosign(self.loop.folder, command, *services, "--identity-token", token, *options, str(self.image))


SIGNING = "signing_config.rekor-v2.json"


@pytest.fixture(scope="module")
def person(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Person]:
    with registry_server() as registry, running_loop(tmp_path_factory.mktemp("page")) as loop:
        loop.start_monitor()
        person = Person(loop, push_image(registry, "widget", b"widget"))
        make_release(person)
        yield person


def make_release(person: Person) -> None:
    """Everything that the page speaks of as if it were there: an archive, an attestation, a signed tag."""
    folder = person.loop.folder
    (folder / "dist").mkdir()
    (folder / "dist/widget-1.0.0.tar.gz").write_bytes(b"archive")
    (folder / "sbom.json").write_text('{"spdxVersion": "SPDX-2.3"}')
    person.types(
        "git init -q; git add sbom.json; git commit -q -m begin; "
        "git -c gpg.format=x509 -c gpg.x509.program=sign-lite-git "
        "-c signlite.trustConfig=ca/trust/client_trust_config.json tag -s -m 1.0.0 v1.0.0",
        token=person.github(TAG),
    )
    (folder / "changed").write_text("to be committed\n")
    person.types("git add changed")
    other = push_image(person.image.registry, "attested", b"attested")
    bundle = ("--bundle", "widget.attestation.sigstore.json", "--type", "spdxjson", "--predicate", "sbom.json")
    trust = folder / "ca/trust"
    services = ("--trusted-root", f"{trust}/trusted_root.json", "--signing-config", f"{trust}/{SIGNING}", "--yes")
    cosign(folder, "attest", *services, "--identity-token", person.github(TAG), *bundle, str(other))


def shown() -> dict[str, tuple[Block, list[str]]]:
    """First word pair of each command block, with the block and the output blocks that follow it."""
    found: dict[str, tuple[Block, list[str]]] = {}
    for block in blocks(PAGE):
        if block.language == "bash":
            found[" ".join(block.text.split()[:2])] = (block, outputs := [])
        else:
            outputs.append(block.text)
    return found


def masked(text: str) -> str:
    """Output without digests, ids, ports, times and sizes of logs."""
    text = re.sub(r"\b[0-9a-f]{12,}\b", "ID", text)
    text = re.sub(r"\blocalhost:\d{4,}", "localhost:PORT", text)
    text = re.sub(r"up to \d+", "up to SIZE", text)
    text = re.sub(r"((?:rekor-v[12]|localhost)(?:/ID)?):\d{1,3}\b", r"\1:INDEX", text)
    return re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+(Z|\+00:00)", "TIME", text).strip()


def test_every_command_block_of_the_page_is_typed_here() -> None:
    assert list(shown()) == [
        "signwatch authorise",
        "signwatch check-image",
        "signwatch check-commit",
        "sign-lite image",
    ]


def test_a_release_is_announced_as_the_page_shows(person: Person) -> None:
    block, (output,) = shown()["signwatch authorise"]
    commands = block.text.splitlines()
    assert masked(person.types(commands[0])) == masked(output)
    for command in commands[1:]:
        assert re.match(r"authorisation \d+: 1 time (file|bundle|commit|tag) ", person.types(command)), command


def test_an_image_is_checked_as_the_page_shows(person: Person) -> None:
    block, (output,) = shown()["signwatch check-image"]
    person.cosign("sign", person.github(TAG))
    person.cosign("sign", person.github(EVIL), "--upload=false", "--bundle", "hidden.json")
    wait_until("its alert", lambda: any(EVIL in str(alert) for alert in person.loop.alerts()), seconds=PATIENCE)
    printed = person.types(block.text, expect=1)
    assert masked(printed) == masked(output)
    as_json = person.types(block.text.strip() + " --json", expect=1)
    assert [word in as_json for word in ("only in the log", "unexpected (widget-release)")] == [True, True]


def test_a_tag_is_checked_as_the_page_shows(person: Person) -> None:
    block, (output,) = shown()["signwatch check-commit"]
    wait_until("the entry of the tag", lambda: "\tyes\t" in person.types(block.text), seconds=PATIENCE)
    printed = person.types(block.text)
    assert masked(printed) == masked(output)


def test_images_and_a_commit_are_signed_and_verified_as_the_page_shows(person: Person) -> None:
    block, _ = shown()["sign-lite image"]
    printed = person.types(block.text, token=person.own())
    assert SIGNER in printed
    assert "gpgsig" in person.types("git cat-file commit HEAD")
