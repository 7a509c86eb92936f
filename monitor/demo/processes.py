"""The demonstration's programs as child processes: started, waited for, and stopped by process id."""

import contextlib
import errno
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct, field

_POLL_SECONDS: Final = 0.1
_STOP_SECONDS: Final = 10.0
# A bound for a command that hangs: on a busy machine one that takes two seconds may need a minute.
_COMMAND_SECONDS: Final = 180.0
# SPEC ip_sysctl, ip_local_port_range: first and last port that the kernel chooses for outgoing connections, IPv6 too.
_OUTGOING: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_ENOUGH_PORTS: Final = 1_000
_PORT_TRIES: Final = 1_000


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


def server_ports() -> range:
    """Ports for servers that are told theirs beforehand.

    They lie outside the range from which the kernel takes the ports of outgoing connections, which could otherwise
    take a server's port before it listens or while it starts again; above 20,000, where browsers refuse no port.
    """
    try:
        first, last = map(int, _OUTGOING.read_text(encoding="ascii").split())
    except (OSError, ValueError):
        first, last = 32_768, 60_999
    apart = max(range(20_000, first), range(last + 1, 65_536), key=len)
    return apart if len(apart) >= _ENOUGH_PORTS else range(20_000, 65_536)


def is_free(port: int) -> bool:
    """True if a server could listen on the port now, on both loopback addresses."""
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        try:
            with socket.socket(family, socket.SOCK_STREAM) as held:
                held.bind((address, port))
        except OSError as error:
            # A machine without IPv6 has one family alone.
            if family == socket.AF_INET or error.errno == errno.EADDRINUSE:
                return False
    return True


def free_ports(count: int) -> list[int]:
    """Ports of `server_ports` that are free now (another server may take them before they are used)."""
    choice, found = server_ports(), list[int]()
    for _ in range(_PORT_TRIES):
        port = secrets.choice(choice)
        if port not in found and is_free(port):
            found.append(port)
        if len(found) == count:
            return found
    where = "are free on the loopback addresses of this machine"
    raise DemoFailed(f"too few ports from {choice[0]} to {choice[-1]} {where}: {count} are needed")


def wait_until(what: str, reached: Callable[[], bool], *, seconds: float) -> None:
    """Poll until `reached()` is true. Raises `DemoFailed` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not reached():
        if time.monotonic() > deadline:
            raise DemoFailed(f"waited {seconds:.0f} s for {what}")
        time.sleep(_POLL_SECONDS)


class Programs(Struct):
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
