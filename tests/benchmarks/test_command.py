"""What a command costs is the cost of its whole tree of processes."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.command import TookTooLong, run

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


def test_a_command_that_takes_too_long_is_ended_with_its_children_and_its_cost_is_told(tmp_path: Path) -> None:
    child = [sys.executable, "-c", "import time; time.sleep(600)"]
    hangs = f"{BURN}import subprocess\nheld = subprocess.Popen({child!r})\nprint(held.pid, flush=True)\nheld.wait()"

    def not_before_the_child_runs() -> bool:
        _wait(lambda: (tmp_path / "output.txt").read_text(encoding="utf-8").endswith("\n"))
        return False

    with pytest.raises(TookTooLong, match="did not end in 1 seconds and was ended") as ended:
        run([sys.executable, "-c", hangs], tmp_path, longest=1, until=not_before_the_child_runs)
    assert ended.value.spent.seconds >= 0.5
    _wait(lambda: not _is_alive(int(ended.value.spent.output)))


def _wait(happens: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not happens():
        assert time.monotonic() < until
        time.sleep(0.02)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
