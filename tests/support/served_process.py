"""A server of ours as a real process in a directory of its own: started, waited for, stopped by process id."""

import os
import select
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NoReturn

from tests.support.waiting import PATIENCE

_LOOK_SECONDS = 0.5


@dataclass
class ServedProcess(ABC):
    """One server. A subclass says its `name`, its command line and how much work it may take until it is ready.

    The bounds count the server's own progress, so that other processes of the machine change nothing: processor
    seconds that it uses, and the seconds in a row in which it uses none.
    """

    folder: Path
    url: str
    process: subprocess.Popen[bytes] | None = None

    name: ClassVar[str]
    ready_processor_seconds: ClassVar[float]
    idle_seconds: ClassVar[float] = 30.0

    @abstractmethod
    def serving(self) -> Sequence[str]:
        """Command line that serves `folder`."""

    def start(self) -> None:
        """Start serving and wait for the line that says it is ready."""
        with (self.folder / "serve.err").open("ab") as errors:
            self.process = subprocess.Popen(
                self.serving(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors
            )
        assert self.process.stdout is not None
        used, idle_since = 0.0, time.monotonic()
        line = b""
        while not line.endswith(b"\n"):
            readable, _, _ = select.select([self.process.stdout], [], [], _LOOK_SECONDS)
            if readable:
                chunk = os.read(self.process.stdout.fileno(), 4096)
                if not chunk:
                    self._give_up("it ended")
                line += chunk
                continue
            before, used = used, processor_seconds(self.process.pid)
            if used > before:
                idle_since = time.monotonic()
            if used > self.ready_processor_seconds:
                self._give_up(f"it used {used:.0f} s of processor time")
            if time.monotonic() - idle_since > self.idle_seconds:
                self._give_up(f"it did nothing for {self.idle_seconds:.0f} s")
        assert line.startswith(f"{self.name} ready".encode()), line

    def _give_up(self, why: str) -> NoReturn:
        self.kill()
        raise AssertionError(f"{self.name} did not get ready, {why}:\n{self.errors()}")

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
                code = self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                code = self.process.wait(PATIENCE)
        self.process = None
        return code


def processor_seconds(pid: int) -> float:
    """Processor time that a process of this machine used, its threads included. Zero for one that ended."""
    try:
        # SPEC proc_pid_stat(5): fields 14 and 15 in clock ticks; the command in parentheses may hold spaces.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
