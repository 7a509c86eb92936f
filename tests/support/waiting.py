"""How long a test waits for what must happen: long, for a busy machine's sake; only a failing test waits so long."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import httpx

PATIENCE: Final = 180.0
_POLL_SECONDS: Final = 0.05


def wait_until(what: str, reached: Callable[[], bool], process: "subprocess.Popen[bytes] | None" = None) -> None:
    """Ask again and again until `reached()`; fails after `PATIENCE` seconds, or at once when the process ends."""
    deadline = time.monotonic() + PATIENCE
    while not reached():
        assert process is None or process.poll() is None, f"the process ended before {what}"
        assert time.monotonic() < deadline, f"waited {PATIENCE:.0f} s for {what}"
        time.sleep(_POLL_SECONDS)


def answers(url: str) -> bool:
    """Whether a server of this machine answers with success."""
    try:
        return httpx.get(url, trust_env=False, timeout=PATIENCE).is_success
    except httpx.HTTPError:
        return False


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
