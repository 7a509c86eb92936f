"""The unit file is as strict as it says, and the daemon speaks with the service manager as the unit expects."""

import configparser
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from monitor.daemon.service_manager import ServiceManager
from monitor.demo.processes import program
from monitor.program import utc_now
from tests.daemon.test_daemon import Place
from tests.support.served_log import served_log
from tests.support.waiting import PATIENCE

_FOLDER = Path(__file__).parents[2] / "deploy" / "systemd"
UNITS = sorted(_FOLDER.glob("*.service"))


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    found = shutil.which("systemd-analyze")
    if found is None:
        pytest.skip("systemd-analyze is missing: install the Debian package systemd (.ci/install-debian-packages)")
    return subprocess.run([found, *arguments], capture_output=True, text=True, timeout=60, check=False)


def unit(path: Path) -> configparser.ConfigParser:
    """A unit file; of a key that occurs several times, the last value."""
    parser = configparser.ConfigParser(strict=False, interpolation=None, delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(path.read_text(encoding="utf-8"))
    return parser


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_each_service_is_exposed_by_less_than_three_points_of_ten(path: Path) -> None:
    done = analyze("security", "--offline=true", "--no-pager", "--threshold=29", str(path))
    score = re.search(r"exposure level for \S+: ([0-9.]+)", done.stdout)
    assert score is not None, done.stdout + done.stderr
    assert float(score[1]) < 3.0
    assert done.returncode == 0


def test_a_service_without_limits_is_scored_as_exposed(tmp_path: Path) -> None:
    """Control: the program does judge the file that it is given."""
    bare = tmp_path / "bare.service"
    bare.write_text("[Service]\nExecStart=/bin/true\n")
    assert analyze("security", "--offline=true", "--no-pager", "--threshold=29", str(bare)).returncode != 0


@pytest.mark.parametrize("path", sorted(_FOLDER.glob("*.*")), ids=lambda path: path.name)
def test_systemd_knows_every_key_of_every_unit(path: Path, tmp_path: Path) -> None:
    if path.suffix not in {".service", ".timer"}:
        pytest.skip("not a unit")
    for each in _FOLDER.iterdir():
        # The program need not be installed, nor its manual.
        text = each.read_text(encoding="utf-8").replace("/opt/signwatch/bin/signwatch", "/bin/true")
        (tmp_path / each.name).write_text(re.sub(r"^Documentation=.*\n", "", text, flags=re.MULTILINE))
    done = analyze("verify", "--man=no", str(tmp_path / path.name))
    assert done.stdout + done.stderr == ""


def test_what_a_restart_cannot_mend_does_not_restart() -> None:
    service = unit(_FOLDER / "signwatch.service")["Service"]
    assert service["Restart"] == "on-failure"
    assert service["RestartPreventExitStatus"] == "2"
    assert service["Type"] == "notify"
    assert service["StateDirectory"] == "signwatch"


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(address)
        receiver.settimeout(PATIENCE)
        yield receiver, address


def falls_silent(receiver: socket.socket) -> bool:
    """Whether no message comes for a second, after at most a hundred that were under way."""
    before = receiver.gettimeout()
    receiver.settimeout(1)
    try:
        for _ in range(100):
            receiver.recv(4096)
    except TimeoutError:
        return True
    finally:
        receiver.settimeout(before)
    return False


_READY = "READY=1\nSTATUS=following 1 log with 1 rule"


def test_a_real_daemon_says_that_it_is_ready_alive_and_stopping(
    listening: tuple[socket.socket, str], tmp_path: Path
) -> None:
    receiver, address = listening
    with served_log(tmp_path) as served:
        signwatch, config = program("signwatch"), str(served.config)
        subprocess.run([signwatch, "init", "--config", config], check=True, capture_output=True, timeout=60)
        environment = {**os.environ, "NOTIFY_SOCKET": address, "WATCHDOG_USEC": "300000"}
        with subprocess.Popen([signwatch, "run", "--config", config], env=environment) as daemon:
            try:
                told = [receiver.recv(4096).decode()]
                while _READY not in told or told.count("WATCHDOG=1") < 2:
                    told.append(receiver.recv(4096).decode())
                daemon.send_signal(signal.SIGTERM)
                while not told[-1].startswith("STOPPING=1"):
                    told.append(receiver.recv(4096).decode())
                assert daemon.wait(PATIENCE) == 0
            finally:
                daemon.kill()
    assert told.count(_READY) == 1
    assert told[-1].startswith("STOPPING=1")


def test_a_daemon_whose_scheduler_hangs_is_silent_and_speaks_again_when_it_goes_on(
    listening: tuple[socket.socket, str], tmp_path: Path
) -> None:
    """The whole process is stopped: its web server and its scheduler alike, as a deadlock would."""
    receiver, address = listening
    with served_log(tmp_path) as served:
        signwatch, config = program("signwatch"), str(served.config)
        subprocess.run([signwatch, "init", "--config", config], check=True, capture_output=True, timeout=60)
        environment = {**os.environ, "NOTIFY_SOCKET": address, "WATCHDOG_USEC": "300000"}
        with subprocess.Popen([signwatch, "run", "--config", config], env=environment) as daemon:
            try:
                while receiver.recv(4096) != b"WATCHDOG=1":
                    pass
                daemon.send_signal(signal.SIGSTOP)
                assert falls_silent(receiver)
                daemon.send_signal(signal.SIGCONT)
                assert receiver.recv(4096)
            finally:
                daemon.kill()


def test_the_ping_is_a_job_of_the_scheduler(listening: tuple[socket.socket, str], tmp_path: Path) -> None:
    """With the scheduler paused, the rest of the process lives and no ping is sent."""
    receiver, address = listening
    with served_log(tmp_path) as served:
        place = Place(served)
        place.clock.now = utc_now()
        manager = ServiceManager({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "300000"})
        assert manager.ping_seconds == pytest.approx(0.1)
        daemon = place.daemon
        daemon.every(manager.ping_seconds or 1, manager.alive, "service manager")
        daemon._scheduler.start()
        try:
            assert receiver.recv(100) == b"WATCHDOG=1"
            daemon._scheduler.pause()
            assert falls_silent(receiver)
        finally:
            daemon._scheduler.shutdown()
            place.monitor.close()


def test_without_a_service_manager_nothing_is_sent_and_no_socket_is_no_trouble(tmp_path: Path) -> None:
    ServiceManager({}).ready("x")
    assert ServiceManager({"WATCHDOG_USEC": "300000"}).ping_seconds is None
    gone = {"NOTIFY_SOCKET": str(tmp_path / "gone"), "WATCHDOG_USEC": "300000", "WATCHDOG_PID": "1"}
    assert ServiceManager(gone, pid=2).ping_seconds is None, "meant for another process"
    ServiceManager(gone, pid=1).stopping()


def test_an_abstract_socket_is_told_too() -> None:
    name = f"signwatch-test-{os.getpid()}-{time.monotonic_ns()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind("\0" + name)
        receiver.settimeout(PATIENCE)
        ServiceManager({"NOTIFY_SOCKET": "@" + name}).stopping()
        assert receiver.recv(100).startswith(b"STOPPING=1")
