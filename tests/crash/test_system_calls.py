"""Promise 3 at the last seam there is: EIO, a full disk and SIGKILL at single system calls of the real programs."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

_FEW = 16
_LIMIT = 600
_SOAK_LIMIT = 3 * 3600


def why_not() -> str | None:
    """Why system calls cannot be made to fail here, or `None` when they can."""
    strace = shutil.which("strace")
    if strace is None:
        return "strace is not installed (Debian: strace), so no system call was made to fail"
    child = os.posix_spawn("/bin/sleep", ["sleep", "20"], os.environ)
    try:
        command = [strace, "-p", str(child), "-e", "inject=close:error=EIO:when=1", "-o", os.devnull]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
            assert tracer.stderr is not None
            told = tracer.stderr.readline().strip()
            tracer.terminate()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return None if "attached" in told else f"no process may be traced here, so no system call was made to fail: {told}"


def inject(folder: Path, which: str, limit: float, program: str = "traced") -> dict[str, Any]:
    command = [sys.executable, "-m", f"tests.crash.{program}", str(folder), which]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=limit, check=False)
    assert done.returncode == 0, done.stdout
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def test_some_system_calls_fail_and_nothing_is_lost(tmp_path: Path) -> None:
    if reason := why_not():
        pytest.skip(reason)
    figures = inject(tmp_path, str(_FEW), _LIMIT)
    assert figures["tried"] >= _FEW
    assert sum(figures["met"].values()) > figures["tried"] // 2, "faults that meet no call show nothing"


@pytest.mark.soak
def test_every_system_call_on_the_state_fails_once_in_each_way_and_nothing_is_lost(
    tmp_path: Path, covered: Callable[[str], None]
) -> None:
    if reason := why_not():
        pytest.skip(reason)
    figures = inject(tmp_path, "every", _SOAK_LIMIT)
    assert figures["tried"] == figures["of"] > 500
    met = figures["met"]
    assert all(met.values()), f"a kind of fault met no call: {met}"
    kinds = ", ".join(f"{name} {count}" for name, count in met.items())
    covered(f"all {figures['tried']} faults at single system calls, of which {sum(met.values())} met one ({kinds})")


def test_some_system_calls_on_an_archive_fail_and_it_ends_whole(tmp_path: Path) -> None:
    if reason := why_not():
        pytest.skip(reason)
    figures = inject(tmp_path, str(_FEW), _LIMIT, "traced_archive")
    assert figures["tried"] >= _FEW
    assert sum(figures["met"].values()) > figures["tried"] // 2, "faults that meet no call show nothing"


@pytest.mark.soak
def test_every_system_call_on_an_archive_fails_once_in_each_way_and_it_ends_whole(
    tmp_path: Path, covered: Callable[[str], None]
) -> None:
    if reason := why_not():
        pytest.skip(reason)
    figures = inject(tmp_path, "every", _SOAK_LIMIT, "traced_archive")
    assert figures["tried"] == figures["of"] > 40
    met = figures["met"]
    assert all(met.values()), f"a kind of fault met no call: {met}"
    covered(f"all {figures['tried']} faults at single system calls on an archive, {sum(met.values())} of them met one")
