"""A real `signwatch run` beside a served log, for tests that end it as they please."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import httpx

from tests.support.log_server import free_port
from tests.support.served_log import ServedLog
from tests.support.waiting import PATIENCE

_T = TypeVar("_T")


@dataclass
class RunningDaemon:
    """One process and the address of its page."""

    process: subprocess.Popen[bytes]
    url: str
    errors: Path

    def kill(self) -> None:
        """End it without any warning (SIGKILL)."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def until(self, found: Callable[[], _T | None]) -> _T:
        """What `found` returns once it is there; the daemon must live that long."""
        ends = time.monotonic() + PATIENCE
        while time.monotonic() < ends:
            assert self.process.poll() is None, self.errors.read_text(errors="replace")[-3000:]
            if (value := found()) is not None:
                return value
            time.sleep(0.05)
        raise AssertionError(f"it never came to be:\n{self.errors.read_text(errors='replace')[-3000:]}")

    def is_up(self) -> bool | None:
        """True once the page answers."""
        try:
            return httpx.get(f"{self.url}/healthz", trust_env=False, timeout=5).status_code == 200 or None
        except httpx.TransportError:
            return None


@contextmanager
def running(served: ServedLog, *, until_up: bool = True, before: str = "") -> Iterator[RunningDaemon]:
    """Run the configuration of a served log, its page on a free port and under that address in alerts.

    `before` is Python that the process executes first.
    """
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    lines = served.config.read_text().splitlines(keepends=True)
    web = f'web: {{listen: "127.0.0.1:{port}", public_url: "{url}"}}\n'
    served.config.write_text("".join(web if line.startswith("web:") else line for line in lines))
    errors = served.folder / "daemon.err"
    program = f"{before}\nfrom monitor.cli import main; main()"
    with errors.open("ab") as stream:
        process = subprocess.Popen(
            [sys.executable, "-c", program, "run", "--config", str(served.config)],
            stdout=subprocess.DEVNULL,
            stderr=stream,
            env=dict(os.environ),
        )
    daemon = RunningDaemon(process, url, errors)
    try:
        if until_up:
            daemon.until(daemon.is_up)
        yield daemon
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait()
