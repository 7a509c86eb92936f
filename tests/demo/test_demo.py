"""`signwatch demo --keep`: everything stays up and says where, and Ctrl-C ends all of it."""

import re
import signal
import subprocess
from pathlib import Path

import httpx
import pytest

from monitor.demo.processes import program, wait_until
from tests.support.waiting import PATIENCE

NAME = "https://github.com/acme/widget"
ACTS_SECONDS = 240
END_SECONDS = 60


def working_in(folder: Path) -> list[int]:
    """Ids of the processes that run in a folder."""
    found = []
    for each in Path("/proc").glob("[0-9]*"):
        try:
            if (each / "cwd").readlink().is_relative_to(folder):
                found.append(int(each.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_a_kept_demonstration_shows_its_site_and_ends_with_all_its_programs(tmp_path: Path, ending: int) -> None:
    folder, output = tmp_path / "loop", tmp_path / "output"
    command = [program("signwatch"), "demo", "--keep", "--dir", str(folder)]
    with output.open("wb") as written:
        running = subprocess.Popen(command, stdout=written, stderr=subprocess.STDOUT, cwd=tmp_path)
    try:

        def is_up() -> bool:
            assert running.poll() is None, output.read_text()
            return "Ctrl-C stops it all." in output.read_text()

        wait_until("the demonstration", is_up, seconds=ACTS_SECONDS)
        told = output.read_text()
        place = re.search(r"The site for subscribers: (http://127\.0\.0\.1:\d+) \(its mails are in ([^)]+)\)", told)
        assert place, told
        site, mails = place[1], Path(place[2])
        assert len(working_in(folder)) >= 3, "control: its programs run"
        with httpx.Client(base_url=site, trust_env=False, timeout=PATIENCE) as browser:
            assert "Was anything signed in your name?" in browser.get("/").text
            assert "refs/heads/totally-legit" in browser.get("/look", params={"name": NAME}).text
        assert len(list(mails.glob("*.eml"))) == 2
        assert f"--config {folder / 'signwatch.yaml'}" in told, "the commands name this folder"
        running.send_signal(ending)
        assert running.wait(END_SECONDS) == 0
    finally:
        if running.poll() is None:
            running.kill()
            running.wait(END_SECONDS)
    wait_until("its programs to end", lambda: not working_in(folder), seconds=END_SECONDS)
    assert "Traceback" not in output.read_text()
    with pytest.raises(httpx.TransportError):
        httpx.get(site, trust_env=False, timeout=5)
