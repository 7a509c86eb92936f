"""The README's commands are run, and its output is what they print."""

import os
import re
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from monitor.demo.processes import Programs, program, programs, wait_until
from tests.docs.blocks import ROOT, Block, blocks
from tests.support.log_server import LogServer, free_port
from tests.support.waiting import PATIENCE

README = ROOT / "README.md"
_MARKS = {"test", "server", "output", "example"}
# Where this README's own loop listens; each becomes a free port.
_PORTS = ("3000", "8080", "9464")
_LOCAL_LOGS = """\
logs:
  - {name: rekor-v1, api: rekor-v1, url: "http://localhost:3000", poll_seconds: 1}
  - {name: rekor-v2, api: rekor-v2, url: "http://localhost:3000", poll_seconds: 1}
  - {name: ct, api: ct-rfc6962, url: "http://localhost:3000/ct", poll_seconds: 1}
"""


def masked(output: str) -> list[str]:
    """Lines of `signwatch demo` without what differs from run to run: times and ports."""
    no_times = re.sub(r"^ *\d+\.\d s", "TIME", output.strip(), flags=re.MULTILINE)
    return re.sub(r"(localhost|127\.0\.0\.1):\d+", r"\1:PORT", no_times).splitlines()


_FAULT = re.compile(r"log-lite fault --dir log (\S+)(?: --log (\w+))?")


class Reader:
    """A person who types what the README says, in one folder, on free ports."""

    def __init__(self, folder: Path, children: Programs) -> None:
        self.folder, self.children = folder, children
        self.said = ""
        """Standard error of the commands typed last."""
        self._ports = {port: str(free_port()) for port in _PORTS}
        scripts = sysconfig.get_path("scripts")
        self._environment = {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}", "HOME": str(folder)}

    def listens(self, port: str, here: int) -> None:
        """A server that the pages know at `port` listens at another one here."""
        self._ports[port] = str(here)

    def here(self, text: str) -> str:
        """The text with this run's ports."""
        return re.sub(r"(?<=:)(3000|8080|9464)\b", lambda port: self._ports[port[1]], text)

    def types(self, text: str, *, expect: int = 0) -> str:
        """Run shell commands; every one must succeed, the last one with `expect`."""
        command = ["bash", "-e", "-o", "pipefail", "-c", self.here(text)]
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == expect, f"{text}\n{done.stdout}\n{done.stderr}"
        self.said = done.stderr
        if faults := _FAULT.findall(text):
            # The running server takes it over a moment later.
            mode, log = faults[-1]
            served, logs = (
                LogServer(self.folder / "log", self.here("http://localhost:3000")),
                {log or "v1", log or "v2"},
            )
            wait_until(f"the log's fault {mode}", lambda: served.is_in_force(logs, mode), seconds=PATIENCE)
        return done.stdout

    def serves(self, block: Block) -> None:
        """Start a server in a terminal of its own and wait until it answers."""
        name, *arguments = block.text.split()
        self.children.start(name, [program(name), *arguments])

        def answers() -> bool:
            self.children.check_alive()
            try:
                return httpx.get(self.here(block.says), timeout=2, trust_env=False).is_success
            except httpx.HTTPError:
                return False

        wait_until(f"{name} to answer", answers, seconds=PATIENCE)

    def edits_the_configuration(self) -> None:
        """Name the trust root and the logs of the loop instead of the public ones, and be brief about polling."""
        path = self.folder / "signwatch.yaml"
        text = path.read_text()
        changed = text.replace("tuf: public-good ", "trusted_root: ca/trust/trusted_root.json ")
        assert changed != text, "control: the file names the public logs"
        path.write_text(self.here(changed + _LOCAL_LOGS))


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    with programs(tmp_path) as children:
        yield Reader(tmp_path, children)


def marked(mark: str) -> dict[str, Block]:
    return {block.says: block for block in blocks(README) if block.mark == mark}


def test_every_block_says_how_it_is_kept_true() -> None:
    first, *others = blocks(README)
    assert re.findall(r"^make (\w+)", first.text, re.MULTILINE) == ["demo", "test"]
    assert {block.mark for block in others} == _MARKS
    assert all(block.says for block in others)


def test_the_two_commands_are_in_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(r"^demo: .*\n\t\$\(BIN\)/signwatch demo$", makefile, re.MULTILINE)
    assert re.search(r"^test: check\n\t\$\(BIN\)/python -m pytest$", makefile, re.MULTILINE)


def test_the_demo_prints_what_the_readme_shows(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path), "NO_COLOR": "1"}
    command = [program("signwatch"), "demo"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert masked(done.stdout) == masked(marked("output")["signwatch demo"].text)
    assert list(tmp_path.iterdir()) == [], "it leaves nothing behind"


def test_every_command_of_the_readme_does_what_it_says(reader: Reader) -> None:
    steps = marked("test")
    run: list[str] = []

    def do(step: str, *, expect: int = 0) -> str:
        run.append(step)
        return reader.types(steps[step].text, expect=expect)

    do("set up")
    for block in marked("server").values():
        reader.serves(block)
    do("sign")
    do("write")
    reader.edits_the_configuration()
    do("begin")
    do("audit")
    reader.types("log-lite fault --dir log fork --log v2")
    do("audit", expect=1)
    assert "verified, transferable" in do("evidence")
    assert set(run) == set(steps), "every marked block was run"
