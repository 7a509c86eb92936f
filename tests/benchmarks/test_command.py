"""What a command costs is the cost of its whole tree of processes."""

import sys
from pathlib import Path

import pytest

from benchmarks.command import run

BURN = "import time\nwhile time.process_time() < 0.5: pass\n"
# A child that burns, and holds memory of its own.
TREE = (
    f"import subprocess, sys; held = b'x' * 60_000_000; subprocess.run([sys.executable, '-c', {BURN!r}]); print('ok')"
)


def test_time_of_grandchildren_and_memory_of_all_together_are_counted(tmp_path: Path) -> None:
    spent = run([sys.executable, "-c", TREE], tmp_path, memory=True)
    assert (spent.exit_code, spent.output) == (0, "ok\n")
    assert spent.seconds >= 0.5
    assert spent.mib >= 50


def test_a_server_is_ended_when_it_did_enough(tmp_path: Path) -> None:
    looks = iter([False, False, True])
    forever = [sys.executable, "-c", "import time; time.sleep(600)"]
    assert run(forever, tmp_path, until=lambda: next(looks, True)).exit_code < 0


@pytest.mark.parametrize("code", [0, 3])
def test_the_exit_code_is_the_command_s(tmp_path: Path, code: int) -> None:
    assert run([sys.executable, "-c", f"raise SystemExit({code})"], tmp_path).exit_code == code
