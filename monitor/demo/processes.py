"""The demonstration's programs as child processes: started, waited for, and stopped by process id."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_POLL_SECONDS: Final = 0.1
_STOP_SECONDS: Final = 10.0
_COMMAND_SECONDS: Final = 60.0


class DemoFailed(Exception):
    """A step of the demonstration failed; the message names the step and the folder of the logs."""


def program(name: str) -> str:
    """Path of one of our own commands, from the environment this interpreter runs in.

    Raises `DemoFailed` when the command is not installed beside it.
    """
    scripts = sysconfig.get_path("scripts")
    found = shutil.which(name, path=os.pathsep.join([scripts, str(Path(sys.executable).parent)]))
    if found is None:
        raise DemoFailed(f"{name} is not installed beside this interpreter: install signwatch with its [sign] extra")
    return found


def free_ports(count: int) -> list[int]:
    """Ports that are free now on both loopback addresses (another process may take them before they are used)."""
    with contextlib.ExitStack() as stack:
        ports = []
        for _ in range(count):
            held = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            held.bind(("127.0.0.1", 0))
            ports.append(int(held.getsockname()[1]))
        return ports


def wait_until(what: str, reached: Callable[[], bool], *, seconds: float) -> None:
    """Poll until `reached()` is true. Raises `DemoFailed` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not reached():
        if time.monotonic() > deadline:
            raise DemoFailed(f"waited {seconds:.0f} s for {what}")
        time.sleep(_POLL_SECONDS)


@dataclass
class Programs:
    """Child processes of one demonstration. Their output goes to `<folder>/logs/<name>.log`."""

    folder: Path
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, arguments: Sequence[str]) -> None:
        """Start a long-running command, detached from this terminal's Ctrl-C."""
        logs = self.folder / "logs"
        logs.mkdir(exist_ok=True)
        with (logs / f"{name}.log").open("ab") as output:
            self.running[name] = subprocess.Popen(  # noqa: S603  our own command, no shell
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                start_new_session=True,
            )

    def run(self, arguments: Sequence[str], *, expect: int = 0) -> str:
        """Run a command to its end and return its standard output; raises `DemoFailed` on another exit code."""
        try:
            done = subprocess.run(  # noqa: S603  our own command, no shell
                arguments, cwd=self.folder, capture_output=True, text=True, timeout=_COMMAND_SECONDS, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise DemoFailed(f"{Path(arguments[0]).name} {arguments[1]} did not end") from error
        if done.returncode != expect:
            words = " ".join([Path(arguments[0]).name, *arguments[1:2]])
            raise DemoFailed(f"{words} ended with {done.returncode}, not {expect}:\n{done.stderr or done.stdout}")
        return done.stdout

    def check_alive(self) -> None:
        """Raise `DemoFailed` when a program ended by itself."""
        for name, process in self.running.items():
            if process.poll() is not None:
                tail = (self.folder / "logs" / f"{name}.log").read_text(errors="replace")[-2000:]
                raise DemoFailed(f"{name} ended by itself with {process.returncode}:\n{tail}")

    def stop(self) -> None:
        """Stop every program, last started first; each gets ten seconds to end on SIGTERM."""
        for process in reversed(self.running.values()):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in reversed(self.running.values()):
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.running.clear()


@contextlib.contextmanager
def programs(folder: Path) -> Iterator[Programs]:
    """Programs that are stopped at the end of the block, also after an error."""
    started = Programs(folder)
    try:
        yield started
    finally:
        started.stop()
