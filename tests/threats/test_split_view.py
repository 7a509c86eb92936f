"""A log that shows two visitors two histories, each flawless: only putting the two side by side reveals it.

Two `log-lite` servers with the same keys, each followed by an installation of its own with the real commands.
"""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from monitor.cli import run_command
from monitor.proof.evidence import check_evidence
from monitor.store.database import open_database
from monitor.store.fsck import fsck
from monitor.store.reading import KeptEvidence, Reading
from outbound.transport import HttpLimits
from tests.support.log_server import LogServer, free_port, log_server
from tests.support.waiting import PATIENCE
from tests.threats.site import ALL, NOTICE_SECONDS, RULES, add_entries, opened, trusted_root_of, wait_for_size

CONFIG = """\
version: 1
database: signwatch.db
trust: {{trusted_root: trusted_root.json}}
logs:
  - {{name: v1, api: rekor-v1, url: "{url}", start: 0}}
  - {{name: v2, api: rekor-v2, url: "{url}", start: 0}}
  - {{name: ct, api: ct-rfc6962, url: "{url}/ct", start: 0}}
  - {{name: static, api: ct-static, url: "{url}/ct", start: 0}}
rules: rules.yaml
channels: {{file: {{type: jsonl, path: alerts.jsonl}}}}
notify: [file]
"""


@dataclass
class Installation:
    """One Signwatch in a folder, following the face of the log at `server`."""

    folder: Path
    server: LogServer

    @property
    def config(self) -> str:
        return str(self.folder / "signwatch.yaml")

    def begin(self) -> None:
        self.folder.mkdir()
        (self.folder / "signwatch.yaml").write_text(CONFIG.format(url=self.server.url))
        (self.folder / "rules.yaml").write_text(RULES)
        (self.folder / "trusted_root.json").write_bytes(trusted_root_of(self.server))
        assert run_command(["init", "--config", self.config]) == 0

    def audit(self) -> int:
        return run_command(["audit", "--config", self.config])

    def compare(self, url: str) -> int:
        return run_command(["peers", "compare", "--json", "--config", self.config, url])

    def evidence(self) -> list[KeptEvidence]:
        with closing(open_database(str(self.folder / "signwatch.db"))) as database:
            assert fsck(database) == []
            return Reading(database).evidence(100)

    def alerts(self) -> list[tuple[str, str | None]]:
        with closing(open_database(str(self.folder / "signwatch.db"))) as database:
            kept = [each.alert for each in Reading(database).alerts(100)]
            return sorted((each.kind, each.log) for each in kept if each.kind.startswith("log-"))


@pytest.fixture
def faces(tmp_path: Path) -> Iterator[tuple[LogServer, LogServer]]:
    """One log with the same past and the same keys, served twice."""
    with log_server(tmp_path / "one") as one:
        for log in ("v1", "v2", "ct"):
            add_entries(one, log, 20)
        one.stop()
        shutil.copytree(one.folder, tmp_path / "other")
        port = free_port()
        other = LogServer(tmp_path / "other", f"http://localhost:{port}", options=("--listen", f"localhost:{port}"))
        one.start()
        try:
            other.start()
            yield one, other
        finally:
            other.stop()


@pytest.fixture
def installations(faces: tuple[LogServer, LogServer], tmp_path: Path) -> tuple[Installation, Installation]:
    pair = Installation(tmp_path / "here", faces[0]), Installation(tmp_path / "there", faces[1])
    for each in pair:
        each.begin()
    return pair


@pytest.fixture
def peer(installations: tuple[Installation, Installation]) -> Iterator[str]:
    """The second installation's daemon, at its web address."""
    folder, port = installations[1].folder, free_port()
    config = folder / "signwatch.yaml"
    config.write_text(config.read_text() + f'web: {{listen: "127.0.0.1:{port}"}}\n')
    command = [sys.executable, "-c", "from monitor.cli import main; main()", "run", "--config", str(config)]
    with (folder / "run.err").open("wb") as errors, subprocess.Popen(command, stderr=errors) as daemon:
        try:
            answers(f"http://127.0.0.1:{port}", daemon, folder / "run.err")
            yield f"http://127.0.0.1:{port}"
        finally:
            daemon.terminate()
            daemon.wait(PATIENCE)


def answers(url: str, daemon: subprocess.Popen[bytes], errors: Path) -> None:
    deadline = time.monotonic() + NOTICE_SECONDS
    while True:
        assert daemon.poll() is None, errors.read_text()
        assert time.monotonic() < deadline, errors.read_text()
        with suppress(httpx.TransportError):
            if httpx.get(f"{url}/healthz", timeout=5).status_code == httpx.codes.OK:
                return
        time.sleep(0.05)


def grow(server: LogServer, count: int, *, first: int) -> None:
    """Add entries to every log behind one face, and wait until it shows them."""
    (server.folder / "bodies.count").write_text(str(first))
    with opened(server, ALL, HttpLimits()) as sources:
        wanted = {api: source.latest().size + count for api, source in sources.items()}
        for log in ("v1", "v2", "ct"):
            add_entries(server, log, count)
        for api, source in sources.items():
            wait_for_size(source, wanted[api])


def test_only_the_comparison_reveals_a_split_view(
    installations: tuple[Installation, Installation], peer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    here, there = installations
    assert [each.audit() for each in installations] == [0, 0]
    capsys.readouterr()
    assert here.compare(peer) == 0
    assert relations(capsys) == dict.fromkeys(names(here), "same")

    # The same entries on both sides, there first: it is ahead, and consistent.
    grow(there.server, 3, first=1000)
    assert there.audit() == 0
    capsys.readouterr()
    assert here.compare(peer) == 0
    assert relations(capsys) == dict.fromkeys(names(here), "newer-not-yet-seen")

    # Now another history here, longer than the one there.
    grow(here.server, 8, first=2000)
    assert [each.audit() for each in installations] == [0, 0], "each history alone is without a fault"
    assert [each.evidence() for each in installations] == [[], []]
    capsys.readouterr()
    assert here.compare(peer) == 1
    assert relations(capsys) == dict.fromkeys(names(here), "contradiction")
    kept = here.evidence()
    assert all(check_evidence(json.dumps(one.document).encode()).conclusion.transferable for one in kept)
    assert sorted(one.log for one in kept) == names(here)
    assert here.alerts() == [("log-forked", name) for name in names(here)]
    assert there.evidence() == [], "a comparison asks for heads and leaves nothing behind"

    # Asking again adds nothing.
    assert here.compare(peer) == 1
    assert len(here.evidence()) == 4


def names(installation: Installation) -> list[str]:
    with closing(open_database(str(installation.folder / "signwatch.db"))) as database:
        return sorted(Reading(database).followed())


def relations(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    document = json.loads(capsys.readouterr().out)
    assert document["not_compared"] == []
    return {each["log"]: each["relation"] for each in document["logs"]}


def test_a_peer_that_is_not_there_is_an_outage_and_nobodys_fault(
    installations: tuple[Installation, Installation],
) -> None:
    here, _ = installations
    assert here.compare(f"http://127.0.0.1:{free_port()}") == 3
    assert here.compare(here.server.url) == 3, "a log is no peer"
    assert here.compare("not a url") == 2, "a wrong argument, not an outage"
    assert here.evidence() == []
