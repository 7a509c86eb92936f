"""Debian's certspotter, an unmodified monitor of other people, follows the CT log and sees its lies as lies."""

import json
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from tests.log_lite.client import LogClient, b64
from tests.support.entries import make_ca, make_certificate, make_precertificate
from tests.support.log_server import log_server
from tests.support.waiting import PATIENCE

pytestmark = pytest.mark.skipif(
    shutil.which("certspotter") is None, reason="certspotter is not installed: .ci/install-debian-packages does it"
)
CA = make_ca()


@dataclass
class CertSpotter:
    """certspotter with a state folder of its own and a log list of one log, watching every name."""

    folder: Path
    log: LogClient

    def prepare(self) -> None:
        """Write its log list and its watch list."""
        [ct] = self.log.trust()["ctlogs"]
        described = {
            "description": "log-lite",
            "log_id": ct["logId"]["keyId"],
            "key": ct["publicKey"]["rawBytes"],
            "url": f"{self.log.url}/ct/",
            "mmd": 86400,
            "state": {"usable": {"timestamp": "2026-01-01T00:00:00Z"}},
        }
        operator = {"name": "local", "email": ["nobody@example.com"], "logs": [described]}
        (self.folder / "state").mkdir()
        (self.folder / "logs.json").write_text(json.dumps({"version": "1", "operators": [operator]}))
        (self.folder / "watched").write_text(".\n")
        (self.folder / "output").touch()

    def after_a_pass(self) -> dict[str, Any]:
        """Run it for one pass over the log, and return what it then has stored about it."""
        command = ["certspotter", "-logs", "logs.json", "-state_dir", "state", "-watchlist", "watched", "-verbose"]
        before = self.passes()
        with (self.folder / "output").open("ab") as output:
            process = subprocess.Popen(
                [*command, "-stdout"], cwd=self.folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        try:
            deadline = time.monotonic() + PATIENCE
            while self.passes() == before:
                assert process.poll() is None, self.output()
                assert time.monotonic() < deadline, self.output()
                time.sleep(0.05)
        finally:
            process.terminate()
            process.wait(PATIENCE)
        [stored] = (self.folder / "state" / "logs").glob("*/state.json")
        state: dict[str, Any] = json.loads(stored.read_text())
        return state

    def passes(self) -> int:
        """How often it ended a pass: it tells so in words only."""
        return self.output().count("saving state in defer")

    def output(self) -> str:
        return (self.folder / "output").read_text(errors="replace")

    def malformed(self) -> list[Path]:
        """Entries it could not read."""
        return list((self.folder / "state" / "logs").glob("*/malformed_entries/*"))


def add(log: LogClient, path: str, *chain: bytes) -> None:
    answer = log.post(f"/ct/ct/v1/{path}", {"chain": [b64(der) for der in chain]})
    assert answer.status_code == 200, answer.text


def test_certspotter_proves_an_honest_log_and_does_not_advance_over_a_forked_one(
    tmp_path: Path, ct_roots: Path
) -> None:
    with log_server(tmp_path / "log", ct_roots=ct_roots) as server:
        log = LogClient(server)
        add(log, "add-chain", make_certificate(CA, san=x509.DNSName("build.example.org")), *CA.chain)
        for n in range(4):
            precertificate, _ = make_precertificate(CA, san=f"{n}@example.com")
            add(log, "add-pre-chain", precertificate, *CA.chain)
        theirs = CertSpotter(tmp_path, log)
        theirs.prepare()

        size = log.head_ct().size
        honest = theirs.after_a_pass()
        assert honest["verified_sth"]["tree_size"] == size == 6
        assert honest["verified_position"] == honest["download_position"], "it hashed every entry into the signed root"
        assert honest["verified_sth"]["sha256_root_hash"] == b64(log.head_ct().root)
        assert "build.example.org" in theirs.output(), "it found the one name of its kind"

        server.fault("fork", "--log", "ct")
        for n in range(2):
            add(log, "add-chain", make_certificate(CA, san=f"later-{n}@example.com"), *CA.chain)
        lied_to = theirs.after_a_pass()
        assert lied_to["verified_position"] == honest["verified_position"], "a fork is one to other eyes as well"
        assert "does not match the entries returned by the log" in theirs.output()
        assert theirs.malformed() == [], "a fork is not told as an entry that cannot be read"
        log.http.close()
