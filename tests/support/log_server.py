"""A real `log-lite serve` process in a directory of its own, on a free port."""

import contextlib
import fcntl
import os
import re
import secrets
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
from typer.testing import CliRunner
from typing_extensions import override

from log_lite.cli import app
from monitor.demo.processes import is_free, server_ports
from tests.support.served_process import ServedProcess
from tests.support.waiting import PATIENCE

_PORT_TRIES = 1_000
# A bare descriptor, opened once: to close any descriptor of the file would end the locks of this process.
_CLAIMS = os.open(
    Path(tempfile.gettempdir()) / f"signwatch-test-ports-{os.getuid()}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600
)
_given: set[int] = set()
LOG_LITE: Sequence[str] = (sys.executable, "-c", "from log_lite.cli import main; main()")


@dataclass
class LogServer(ServedProcess):
    """One served log. `url` is its base URL; the CT log's is `url + "/ct"`."""

    options: tuple[str, ...] = ()

    name = "log-lite"
    ready_processor_seconds = 30.0

    @override
    def serving(self) -> Sequence[str]:
        return [*LOG_LITE, "serve", "--dir", str(self.folder), *self.options]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def command(self, name: str, *arguments: str, expect: int = 0) -> str:
        """Run another `log-lite` command on the same directory and return its stdout."""
        return run(name, "--dir", str(self.folder), *arguments, expect=expect)

    def fault(self, mode: str, *arguments: str) -> None:
        """Switch a fault on a running server and wait until it is in force: `none` switches everything off."""
        wanted = {line.split("\t")[0] for line in self.command("fault", mode, *arguments).splitlines()}
        deadline = time.monotonic() + PATIENCE
        while not self.is_in_force(wanted, mode):
            assert time.monotonic() < deadline, f"the server did not take over {mode} for {wanted}"
            time.sleep(0.02)

    def is_in_force(self, logs: set[str], mode: str) -> bool:
        """True once the running server has taken over the fault of these logs."""
        text = httpx.get(f"{self.url}/metrics", timeout=PATIENCE).text
        modes = dict(re.findall(r'^log_lite_fault_active\{log="(\w+)",mode="([\w-]+)"\} 1', text, re.MULTILINE))
        return all(modes.get(log, "none") == mode for log in logs)


def run(*arguments: str, expect: int = 0) -> str:
    """Run a `log-lite` command to its end, in this process because starting another takes a second.

    Returns its stdout, or its stderr when a failure is expected; fails on another exit code.
    """
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == expect, f"{arguments} ended with {done.exit_code}:\n{done.stdout}\n{done.stderr}"
    return done.stdout if expect == 0 else done.stderr


def free_port() -> int:
    """A port for a server of this test: free on both loopback addresses, and given to no other test that runs now.

    No outgoing connection takes it, and no other process of tests is given it, before its server listens or while the
    server starts again.
    """
    for _ in range(_PORT_TRIES):
        port = secrets.choice(server_ports())
        if port not in _given and is_free(port) and _claim(port):
            _given.add(port)
            return port
    raise AssertionError("no port is free on both loopback addresses")


def _claim(port: int) -> bool:
    """Lock one byte for the port in a file that all processes of tests share; the lock ends with this process."""
    try:
        fcntl.lockf(_CLAIMS, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except (BlockingIOError, PermissionError):
        return False
    return True


@contextlib.contextmanager
def log_server(folder: Path, *, host: str = "localhost", ct_roots: Path | None = None) -> Iterator[LogServer]:
    """Make a new log in `folder`, serve it, and stop it by process id however the block ends."""
    server = LogServer(folder, f"http://{host}:{free_port()}")
    run("init", "--dir", str(folder), "--url", server.url)
    server.options = ("--ct-roots", str(ct_roots)) if ct_roots else ()
    try:
        server.start()
        yield server
    finally:
        server.stop()
