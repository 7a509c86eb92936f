"""Alerts for a program of the operator's: an argument list without a shell, with a time and an output limit."""

import os
import signal
import subprocess
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from threading import Thread
from typing import IO, Final

from msgspec import Struct, field

from alerts.alert import Alert, counted
from alerts.channels.channel import DeliveryFailed
from alerts.inert import header_token, inert_line
from alerts.rendering import Renderer

_KEPT: Final = 64 * 1024
_SHOWN: Final = 300
_READ: Final = 8192
# sysexits.h: EX_USAGE and EX_DATAERR, the program will refuse the same alert again.
_PERMANENT: Final = frozenset({64, 65})
_PASSED: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TZ")


class CommandChannel(Struct, frozen=True):
    """Runs `argv` for each alert, with the JSON document on standard input and no part of the alert in the arguments.

    Exit code 0 is a delivery, 64 and 65 give the alert up, and after any other code delivery tries again.
    """

    name: str
    argv: tuple[str, ...]
    folder: Path
    seconds: float = 15.0
    renderer: Renderer = field(default_factory=Renderer)
    digests: bool = True

    def send(self, alert: Alert, key: str, now: datetime) -> None:  # noqa: ARG002 - the protocol's shape
        """Run the program once. When its time is over, it is stopped together with every process that it started."""
        environment = {name: os.environ[name] for name in _PASSED if name in os.environ}
        environment |= {"SIGNWATCH_KEY": header_token(key), "SIGNWATCH_SEVERITY": alert.severity.value}
        try:
            started = subprocess.Popen(  # noqa: S603 - the operator's own argument list, no shell
                self.argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=environment,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise DeliveryFailed(f"{self.argv[0]}: cannot be run: {error}") from error
        kept = bytearray()
        threads = [
            Thread(
                target=_feed, args=(started.stdin, self.renderer.line(alert, key).encode("ascii") + b"\n"), daemon=True
            ),
            Thread(target=_drain, args=(started.stdout, kept), daemon=True),
        ]
        for thread in threads:
            thread.start()
        try:
            code = started.wait(self.seconds)
        except subprocess.TimeoutExpired as error:
            raise DeliveryFailed(
                f"{self.argv[0]}: not finished after {counted(self.seconds, 'second')}; it was stopped"
            ) from error
        finally:
            _stop(started)
            for thread in threads:
                thread.join(1)
        if code != 0:
            said = inert_line(bytes(kept).decode("utf-8", "replace").strip(), _SHOWN)
            raise DeliveryFailed(f"{self.argv[0]}: exit code {code}: {said}", permanent=code in _PERMANENT)


def _feed(stream: IO[bytes] | None, document: bytes) -> None:
    try:
        if stream is not None:
            with stream:
                stream.write(document)
    except OSError:
        # The program need not read its input: its exit code says whether it took the alert.
        return


def _drain(stream: IO[bytes] | None, kept: bytearray) -> None:
    """Read all output, so that the program is never blocked, and keep the beginning."""
    if stream is not None:
        with stream:
            while piece := stream.read(_READ):
                kept += piece[: max(0, _KEPT - len(kept))]


def _stop(started: subprocess.Popen[bytes]) -> None:
    """End the program's process group: a process that the program left running would hold the pipe."""
    with suppress(ProcessLookupError):
        os.killpg(started.pid, signal.SIGKILL)
    started.wait()
