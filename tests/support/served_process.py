"""A server of ours as a real process in a directory of its own: started, waited for, stopped by process id."""

import os
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

_STOP_SECONDS = 15.0


@dataclass
class ServedProcess:
    """One server. A subclass says its `name`, its command line and how long it may take until it is ready."""

    folder: Path
    url: str
    process: subprocess.Popen[bytes] | None = None

    name: ClassVar[str]
    ready_seconds: ClassVar[float]

    def serving(self) -> Sequence[str]:
        """Command line that serves `folder`."""
        raise NotImplementedError

    def start(self) -> None:
        """Start serving and wait for the line that says it is ready."""
        with (self.folder / "serve.err").open("ab") as errors:
            self.process = subprocess.Popen(
                self.serving(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors
            )
        assert self.process.stdout is not None
        deadline = time.monotonic() + self.ready_seconds
        line = b""
        while not line.endswith(b"\n"):
            readable, _, _ = select.select([self.process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            chunk = os.read(self.process.stdout.fileno(), 4096) if readable else b""
            if not chunk:
                self.kill()
                raise AssertionError(f"{self.name} did not get ready:\n{self.errors()}")
            line += chunk
        assert line.startswith(f"{self.name} ready".encode()), line

    def errors(self) -> str:
        """What the server wrote to stderr."""
        return (self.folder / "serve.err").read_text(errors="replace")

    def stop(self) -> int:
        """Stop in order, and return the exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> int:
        """Kill without any warning (SIGKILL)."""
        return self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> int:
        if self.process is None:
            return 0
        with self.process:
            if self.process.poll() is None:
                self.process.send_signal(how)
            try:
                code = self.process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                code = self.process.wait(_STOP_SECONDS)
        self.process = None
        return code
