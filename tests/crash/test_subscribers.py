"""A subscriber's steps under SIGKILL: nothing lost, and nothing sent twice under another key."""

import json
import subprocess
import sys
from pathlib import Path

_LIMIT = 580


def test_a_death_at_any_step_of_confirming_telling_and_leaving_loses_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.crash.subscribers", str(tmp_path)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=_LIMIT, check=False)
    assert done.returncode == 0, done.stdout
    figures = json.loads(done.stdout)
    assert all(figures["deaths"][stage] >= 2 for stage in ("confirm", "tell", "leave", "stop")), figures
    assert figures["repeated"] >= 2, "control: a death after a mail was taken repeats it, under its own key"
