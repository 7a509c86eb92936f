"""A real `log-lite serve` process in a directory of its own, on a free port."""

import contextlib
import errno
import re
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
from typer.testing import CliRunner
from typing_extensions import override

from log_lite.cli import app
from tests.support.served_process import ServedProcess
from tests.support.waiting import PATIENCE

LOG_LITE: Sequence[str] = (sys.executable, "-c", "from log_lite.cli import main; main()")


@dataclass
class LogServer(ServedProcess):
    """One served log. `url` is its base URL; the CT log's is `url + "/ct"`."""

    options: tuple[str, ...] = ()

    name = "log-lite"
    ready_processor_seconds = 30.0

    @override
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
        while not self._in_force(wanted, mode):
            assert time.monotonic() < deadline, f"the server did not take over {mode} for {wanted}"
            time.sleep(0.02)

    def _in_force(self, logs: set[str], mode: str) -> bool:
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
    """A port that is free now on both loopback families."""
    for _ in range(20):
        with socket.socket() as held:
            held.bind(("127.0.0.1", 0))
            port = int(held.getsockname()[1])
            if _free_on_ipv6(port):
                return port
    raise AssertionError("no port is free on both loopback families")


def _free_on_ipv6(port: int) -> bool:
    try:
        with socket.socket(socket.AF_INET6) as other:
            other.bind(("::1", port))
    except OSError as error:
        return error.errno != errno.EADDRINUSE  # a machine without IPv6 has no other family to mind
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
