"""The unmodified rekor-monitor follows both Rekors of log-lite with the trust files as they are, over TUF."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from monitor.trust.signing_configs import disagreements, read_signing_config
from monitor.trust.trust_root import read_trust_root
from tests.log_lite.client import LogClient, hashedrekord_v2
from tests.support.ca_server import CA_LITE, SIGN_LITE, CaServer, ca_and_log, run
from tests.support.go_clients import COSIGN, cosign, needs_rekor_monitor, rekor_monitor
from tests.support.log_server import LogServer
from tests.support.waiting import PATIENCE
from tlog.note import BadSignature, open_note, parse_checkpoint, parse_note, tile_log_key

ALICE = "alice@lab.local"
REKORS = pytest.mark.parametrize("rekor", [1, 2])


@dataclass
class Deployment:
    ca: CaServer
    log: LogServer
    folder: Path

    def url(self, rekor: int) -> str:
        """Where the shipped signing configuration has this Rekor."""
        config: dict[str, Any] = json.loads((self.ca.folder / f"trust/signing_config.rekor-v{rekor}.json").read_text())
        return str(config["rekorTlogUrls"][0]["url"])

    def sign(self, name: str, rekor: int, who: str = ALICE) -> Path:
        file = self.folder / name
        file.write_bytes(name.encode())
        token = ("--identity-token", self.ca.email_token(who), "--rekor-version", str(rekor), "--json")
        made = run(SIGN_LITE, "sign", str(file), "--trust-config", str(self.ca.trust_config), *token)
        return Path(json.loads(made)[0]["bundle"])

    def rotate(self) -> None:
        """Close the Rekor v2 shard, open another, and write the trust files again."""
        self.log.command("rotate", "--log", "v2")
        trust = self.folder / "rotated.json"
        trust.write_text(self.log.command("export-trust"))
        run(CA_LITE, "trust", "--dir", str(self.ca.folder), "--log-trust", str(trust))

    def monitor(self, rekor: int, run_name: str) -> tuple[str, list[tuple[str, int]]]:
        """One run from the checkpoint of the run before; what it said, and whom it found with the index."""
        wanted = {"certSubject": ALICE, "issuers": [self.ca.oidc]}
        said = rekor_monitor(
            self.folder,
            *("--tuf-repository", f"{self.ca.url}/tuf", "--tuf-root-path", str(self.ca.folder / "tuf/1.root.json")),
            *("--url", self.url(rekor), "--file", str(self.folder / f"{run_name}.checkpoint")),
            *("--config", json.dumps({"monitoredValues": {"certIdentities": [wanted]}})),
        )
        found = [line.split() for line in said.splitlines() if line.startswith("Found ")]
        return said, [(each[1], int(each[3])) for each in found]


@pytest.fixture
def deployed(tmp_path: Path) -> Iterator[Deployment]:
    with ca_and_log(tmp_path) as (ca, log):
        yield Deployment(ca, log, tmp_path)


@needs_rekor_monitor
@REKORS
def test_rekor_monitor_finds_who_signed_in_either_rekor(rekor: int, deployed: Deployment) -> None:
    deployed.sign("before", rekor)
    said, found = deployed.monitor(rekor, "here")
    assert ("just saving checkpoint" in said, found) == (True, [])
    deployed.sign("by-a-stranger", rekor, "mallory@lab.local")
    deployed.sign("after", rekor)
    said, found = deployed.monitor(rekor, "here")
    assert "consistency verified" in said
    assert found == [(ALICE, 3)], said


@needs_rekor_monitor
@REKORS
def test_rekor_monitor_says_that_either_log_was_rewritten(rekor: int, deployed: Deployment) -> None:
    deployed.sign("before", rekor)
    deployed.monitor(rekor, "here")
    deployed.sign("after", rekor)
    deployed.log.fault("fork", "--log", f"v{rekor}", "--index", "0")
    said, found = deployed.monitor(rekor, "here")
    assert "error running consistency check" in said
    assert found == []


@needs_rekor_monitor
def test_rekor_monitor_follows_the_shard_that_a_rotation_opens(deployed: Deployment) -> None:
    deployed.sign("before", 2)
    deployed.monitor(2, "here")
    deployed.rotate()
    # With the checkpoint of the old shard it says that its start index is past the end, until the new one is as long.
    said, found = deployed.monitor(2, "here")
    assert ("start index 1 must be less" in said, found) == (True, []), said
    deployed.monitor(2, "fresh")
    deployed.sign("after", 2)
    said, found = deployed.monitor(2, "fresh")
    assert found == [(ALICE, 1)], said


@pytest.mark.skipif(COSIGN is None, reason="cosign is not built: run .ci/install-go-clients")
def test_cosign_verifies_what_was_logged_at_the_address_that_rekor_monitor_follows(deployed: Deployment) -> None:
    bundle = deployed.sign("file", 2)
    who = ("--certificate-identity", ALICE, "--certificate-oidc-issuer", deployed.ca.oidc)
    root = ("--trusted-root", str(deployed.ca.folder / "trust/trusted_root.json"))
    cosign(deployed.folder, "verify-blob", *root, *who, "--bundle", str(bundle), str(deployed.folder / "file"))
    cosign(deployed.folder, "verify-blob", *root, *who, "--bundle", str(bundle), str(bundle), expect=None)


def test_rekor_v2_has_an_address_of_its_own_whose_checkpoint_bears_it(deployed: Deployment) -> None:
    log = LogClient(deployed.log)
    log.submit_v2(b"an entry")
    own = deployed.url(2)
    assert own == f"{log.url}/rekor-v2"
    origin = own.removeprefix("http://")
    note = httpx.get(f"{own}/checkpoint", timeout=PATIENCE).content
    named, known = tile_log_key(origin, log.spki(1)), log.v2_key()
    head = parse_checkpoint(open_note(note, named))
    assert (head.origin, head.size, head.root) == (origin, log.head_v2().size, log.head_v2().root)
    assert parse_note(note).signatures[0].key_id == known.log_id[:4], "rekor-monitor looks the key up by it"
    open_note(note, known)
    assert httpx.get(f"{own}/tile/0/000.p/2", timeout=PATIENCE).content == log.get("/tile/0/000.p/2").content
    # The answer to a submission is what bundles hold, and there the origin is the host.
    answer = httpx.post(f"{own}/api/v2/log/entries", json=hashedrekord_v2(b"another"), timeout=PATIENCE)
    assert log.check_v2(answer.json()).origin == "localhost"
    for path in ("/api/v1/log", "/ct/ct/v1/get-sth", "", "/rekor-v2/checkpoint"):
        assert httpx.get(own + path, timeout=PATIENCE).status_code == 404, path
    log.http.close()


def test_signwatch_finds_every_log_of_the_shipped_signing_configuration_in_the_trust_root(deployed: Deployment) -> None:
    trust = deployed.ca.folder / "trust"

    def told() -> list[tuple[str, str]]:
        root = read_trust_root((trust / "trusted_root.json").read_bytes())
        services = read_signing_config((trust / "signing_config.json").read_bytes())
        return list(disagreements(services, root, datetime.now(UTC)))

    assert told() == []
    deployed.rotate()
    assert told() == []
    foreign = (
        (trust / "signing_config.json").read_text().replace("/rekor-v2", "/elsewhere").replace("127.0.0.2", "x.invalid")
    )
    (trust / "signing_config.json").write_text(foreign)
    assert [url.partition("//")[2].partition(":")[0] for url, _ in told()] == ["x.invalid"], "control"


@pytest.mark.parametrize("mode", ["wrong-origin", "bad-signature", "wrong-key"])
def test_a_fault_in_the_checkpoint_shows_at_either_address(mode: str, deployed: Deployment) -> None:
    log = LogClient(deployed.log)
    deployed.log.fault(mode, "--log", "v2")
    for url, name in ((log.url, "localhost"), (deployed.url(2), deployed.url(2).removeprefix("http://"))):
        note = httpx.get(f"{url}/checkpoint", timeout=PATIENCE).content
        if mode == "wrong-origin":
            assert parse_checkpoint(open_note(note, tile_log_key(name, log.spki(1)))).origin == "another.invalid"
        else:
            with pytest.raises(BadSignature):
                open_note(note, tile_log_key(name, log.spki(1)))
    log.http.close()
