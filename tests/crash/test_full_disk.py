"""A disk that is full is our own trouble, told as such while it lasts; when there is space again nothing is missing."""

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from monitor.demo.processes import wait_until
from monitor.store.database import open_database
from tests.crash.outcome import messages
from tests.support.log_server import free_port
from tests.support.served_log import ServedLog, served_log, signing_body
from tests.support.state_checker import check_state
from tests.support.waiting import PATIENCE

_SIGNWATCH = [sys.executable, "-c", "from monitor.cli import main; main()"]
_STRANGERS = 40
_MIB = 1 << 20


@dataclass
class Daemon:
    """A running `signwatch run`, and how to look at it."""

    served: ServedLog
    process: subprocess.Popen[bytes]
    url: str

    def readiness(self) -> tuple[int, list[str]]:
        """Status code of the readiness probe and the reasons it gives; (0, []) without an answer."""
        try:
            answer = httpx.get(f"{self.url}/readyz", timeout=5, trust_env=False)
        except httpx.HTTPError:
            return 0, []
        document: dict[str, Any] = answer.json()
        return answer.status_code, document.get("reasons", [])

    def wait(self, what: str, reached: Callable[[], bool]) -> None:
        def alive_and_reached() -> bool:
            assert self.process.poll() is None, "the daemon ended"
            return reached()

        wait_until(what, alive_and_reached, seconds=PATIENCE)

    def alerted(self) -> set[int]:
        """Indexes of the entries that an alert told of."""
        found = (json.loads(content) for content in messages(self.served.folder, "alerts").values())
        return {alert["index"] for alert in found if alert["kind"] == "unexpected-signing"}

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(PATIENCE) == 0


def run(served: ServedLog, *words: str) -> str:
    command = [*_SIGNWATCH, *words, "--config", str(served.config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextmanager
def daemon(folder: Path, database: Path) -> Iterator[Daemon]:
    """A daemon that follows a log of three entries and is green."""
    with served_log(folder) as served:
        port = free_port()
        served.write_files(port)
        config = served.config.read_text(encoding="utf-8")
        served.config.write_text(config.replace("signwatch.db", str(database)), encoding="utf-8")
        run(served, "init")
        with (folder / "daemon.log").open("wb") as log:
            command = [*_SIGNWATCH, "run", "--config", str(served.config)]
            process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            started = Daemon(served, process, f"http://127.0.0.1:{port}")
            started.wait("green", lambda: started.readiness()[0] == 200)
            yield started
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()


def stand_a_full_disk(running: Daemon, fill: Callable[[], None], make_room: Callable[[], None], told: str) -> None:
    """Let strangers sign on a full disk, then make room: ill meanwhile, complete afterwards."""
    fill()
    running.served.log.append(*[signing_body("refs/heads/main")] * _STRANGERS)
    reasons = ""

    def is_red() -> bool:
        nonlocal reasons
        status, said = running.readiness()
        reasons = " ".join(said)
        return status == 503 and told in reasons

    running.wait(f"red, for {told}", is_red)
    assert not {"log-misbehaved", "could-not-ask"} & set(reasons.replace(":", " ").split()), "the trouble is ours alone"
    assert running.alerted() == set(), "nothing is told that was not stored"
    looked = [*_SIGNWATCH, "status", "--config", str(running.served.config)]
    done = subprocess.run(looked, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 3, done.stdout + done.stderr
    make_room()
    strangers = set(range(3, 3 + _STRANGERS))
    running.wait("every alert", lambda: running.alerted() == strangers)
    running.wait("green", lambda: running.readiness()[0] == 200)
    running.stop()


def check_nothing_missing(served: ServedLog, database: Path) -> None:
    assert "sound" in run(served, "fsck")
    with closing(open_database(str(database))) as opened:
        check_state(opened, {"rekor-v2": served.log.oracle()}, ["file"], complete=True)


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """A file system of its own in `folder`; skips where none may be mounted."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "signwatch-test", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode != 0:
        pytest.skip(f"no small file system may be mounted here, so none was filled: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True, timeout=30)


def test_a_full_disk_makes_it_ill_and_loses_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", 8 * _MIB) as small:
        database, ballast = small / "signwatch.db", small / "ballast"

        def fill() -> None:
            with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(bytes(4096))
            assert os.statvfs(small).f_bavail == 0

        with daemon(tmp_path, database) as running:
            stand_a_full_disk(running, fill, ballast.unlink, "full")
            check_nothing_missing(running.served, database)


@pytest.mark.soak
def test_a_file_that_may_not_grow_makes_it_ill_and_loses_nothing(
    tmp_path: Path, covered: Callable[[str], None]
) -> None:
    """The same by a limit on the process, which needs no privileges; SQLite calls it an I/O error."""
    database = tmp_path / "signwatch.db"
    with daemon(tmp_path, database) as running:
        _, hard = resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE)

        def limit(size: int) -> None:
            resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE, (size, hard))

        def fill() -> None:
            sizes = [path.stat().st_size for path in tmp_path.glob("signwatch.db*")]
            limit(max(sizes) + 4096)

        with contextlib.suppress(ProcessLookupError):
            stand_a_full_disk(running, fill, lambda: limit(resource.RLIM_INFINITY), "I/O error")
        check_nothing_missing(running.served, database)
    covered(f"a daemon whose files may not grow while {_STRANGERS} strangers sign: red meanwhile, complete afterwards")
