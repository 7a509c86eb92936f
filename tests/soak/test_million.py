"""A backlog of a million entries, followed by a daemon that is killed every few seconds.

`SIGNWATCH_SOAK_ENTRIES` makes it another number. docs/crash-safety.md keeps the last figures.
"""

import json
import os
import random
import re
import sqlite3
import subprocess
import sys
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from benchmarks.corpus import authority, identity_of, read_corpus
from benchmarks.tile_log import ORIGIN, ServedLog, served
from monitor.demo.processes import wait_until
from monitor.store.database import open_database
from tests.support.progress import Progress
from tests.support.state_checker import check_state
from tlog.note import tile_log_key

_ENTRIES = int(os.environ.get("SIGNWATCH_SOAK_ENTRIES", "1000000"))
_CORPUS = 2_560
_WATCHED = 17
_SEED = 20261120
_MOST_LIVES = 600
_MOST_SECONDS = 2 * 3600
_MOST_MIB = 400
_START_SECONDS = 120
_SIGNWATCH = [sys.executable, "-c", "from monitor.cli import main; main()"]
_CONFIG = """\
version: 1
database: signwatch.db
trust: {{trusted_root: trusted_root.json}}
logs:
  - name: tiles
    api: rekor-v2
    url: "{url}"
    origin: {origin}
    start: 0
    poll_seconds: 1
    requests_per_second: 1000
    stale_after_seconds: 8640000
rules: rules.yaml
channels: {{file: {{type: jsonl, path: alerts.jsonl}}}}
notify: [file]
"""


@dataclass
class Backlog:
    """The log, and a daemon's folder."""

    log: ServedLog
    folder: Path
    positions: list[int] = field(default_factory=list)
    peaks: list[int] = field(default_factory=list)

    def write_files(self) -> None:
        key = tile_log_key(ORIGIN, self.log.spki)
        root = {
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [
                {
                    "baseUrl": self.log.url,
                    "hashAlgorithm": "SHA2_256",
                    "publicKey": {"rawBytes": _b64(key.spki)},
                    "logId": {"keyId": _b64(key.log_id)},
                }
            ],
            "certificateAuthorities": [
                {"uri": "https://ca", "certChain": {"certificates": [{"rawBytes": _b64(c)} for c in authority().chain]}}
            ],
        }
        rule = {"id": "watched", "select": {"identity": identity_of(_WATCHED).san}}
        (self.folder / "trusted_root.json").write_text(json.dumps(root))
        (self.folder / "rules.yaml").write_text(json.dumps({"version": 1, "rules": [rule]}))
        (self.folder / "signwatch.yaml").write_text(_CONFIG.format(url=self.log.url, origin=ORIGIN))

    def run(self, *words: str) -> str:
        command = [*_SIGNWATCH, *words]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def live(self, seconds: float) -> None:
        """Let a daemon run for so long after it began, and kill it; note how far it came and its peak of memory."""
        with (self.folder / "daemon.log").open("wb") as log:
            process = subprocess.Popen([*_SIGNWATCH, "run"], cwd=self.folder, stdout=log, stderr=log)
        try:
            wait_until("the daemon's beginning", lambda: self._began(process), seconds=_START_SECONDS)
            time.sleep(seconds)
            assert process.poll() is None, (self.folder / "daemon.log").read_text()[-2000:]
            told = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
            assert told is not None
            self.peaks.append(int(told[1]) // 1024)
        finally:
            process.kill()
            process.wait()
        # The file is read as the killed process left it; opening it read-only repairs nothing a restart has to bear.
        with closing(sqlite3.connect(f"file:{self.folder}/signwatch.db?mode=ro", uri=True)) as database:
            self.positions.append(database.execute("SELECT size FROM log_position").fetchone()[0])

    def _began(self, process: subprocess.Popen[bytes]) -> bool:
        told = (self.folder / "daemon.log").read_text()
        assert process.poll() is None, f"the daemon ended: {told[-2000:]}"
        return "started logs=1" in told

    def alerted(self) -> Counter[int]:
        path = self.folder / "alerts.jsonl"
        lines = path.read_bytes().rpartition(b"\n")[0].splitlines() if path.exists() else []
        alerts = [json.loads(line) for line in lines if line]
        return Counter(alert["index"] for alert in alerts if alert["kind"] == "unexpected-signing")


def _b64(raw: bytes) -> str:
    return b64encode(raw).decode()


@pytest.mark.soak
def test_a_million_entries_are_read_once_each_whatever_is_killed(
    tmp_path: Path, covered: Callable[[str], None]
) -> None:
    make = f"from benchmarks.corpus import *; [*make_corpus(Path({str(tmp_path)!r}), {_CORPUS})]"
    subprocess.run([sys.executable, "-c", make], check=True, timeout=600)
    assert len(read_corpus(tmp_path, "v2")) == _CORPUS
    with served(tmp_path, _ENTRIES) as log:
        backlog = Backlog(log, tmp_path)
        backlog.write_files()
        backlog.run("init")
        moments, began = random.Random(_SEED), time.monotonic()
        progress = Progress("entries followed", _ENTRIES)
        while not backlog.positions or backlog.positions[-1] < _ENTRIES:
            assert len(backlog.positions) < _MOST_LIVES, f"no end in sight: {backlog.positions[-5:]}"
            assert time.monotonic() - began < _MOST_SECONDS, f"no end in sight: {backlog.positions[-5:]}"
            backlog.live(moments.uniform(0, 6))
            progress.at(backlog.positions[-1], f"{len(backlog.positions)} kills, peak {backlog.peaks[-1]} MiB")
        took = time.monotonic() - began
        assert backlog.positions == sorted(backlog.positions), "a position never goes back"
        assert max(backlog.peaks) < _MOST_MIB, f"memory does not grow with the backlog: {backlog.peaks}"

        wanted = set(range(_WATCHED, _ENTRIES, _CORPUS))
        for _ in range(20):
            if set(backlog.alerted()) == wanted:
                break
            # Alerts that a killed daemon had claimed come when their lease is over; a later clock stands for waiting.
            late = (
                "import time_machine, datetime as d; time_machine.travel(d.datetime.now(d.UTC) + d.timedelta(hours=1)"
            )
            command = f"{late}).start(); from monitor.cli import main; main()"
            subprocess.run([sys.executable, "-c", command, "run", "--once"], cwd=tmp_path, check=False, timeout=600)
        assert set(backlog.alerted()) == wanted, "every signing of the watched identity, and no other"
        assert "sound" in backlog.run("fsck")
        with closing(open_database(str(tmp_path / "signwatch.db"))) as database:
            check_state(database, {}, ["file"], complete=True)
        repeated = sum(count - 1 for count in backlog.alerted().values())
    covered(
        f"{_ENTRIES} entries, {len(backlog.positions)} kills in {took:.0f} s, {len(wanted)} findings, "
        f"{repeated} repeated deliveries, peak memory {min(backlog.peaks)} to {max(backlog.peaks)} MiB"
    )
