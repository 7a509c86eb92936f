"""Promises 2 and 3: after any death or failure, with or without its effect, the end is the undisturbed one."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

_LIMIT = 900
_SOAK_LIMIT = 3 * 3600


def run(program: str, folder: Path, which: str, part: int, parts: int, *, limit: float = _LIMIT) -> dict[str, int]:
    """Run one of the programs beside this file; returns its figures."""
    command = [sys.executable, "-m", f"tests.crash.{program}", str(folder), which, str(part), str(parts)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=limit, check=False)
    assert done.returncode == 0, done.stdout
    figures: dict[str, int] = json.loads(done.stdout)
    return figures


def test_a_process_that_dies_at_any_step_leaves_a_restart_the_same_end(tmp_path: Path) -> None:
    """Every state of the disk that a death between two calls can leave, through init, following, a fork, deliveries."""
    figures = run("dying", tmp_path, "distinct", 0, 1)
    assert figures["of"] > 50, "the story must have enough in it to mean something"
    assert figures["deaths"] == figures["of"]


def test_a_call_that_is_said_to_have_failed_changes_nothing_in_the_end(tmp_path: Path) -> None:
    """Commits, requests and messages: failed, and failed but happened."""
    figures = run("faulting", tmp_path, "telling", 0, 1)
    assert figures["of"] > 100, "the story must have enough in it to mean something"
    assert figures["faults"] == figures["of"]


@pytest.mark.soak
def test_dying_at_each_single_step_and_living_on_to_the_end_of_the_story(
    tmp_path: Path, covered: Callable[[str], None]
) -> None:
    figures = run("dying", tmp_path, "every", 0, 1, limit=_SOAK_LIMIT)
    assert figures["deaths"] == figures["of"] > 500
    covered(f"{figures['deaths']} deaths, one before each single call, each lived on to the end of the story")


@pytest.mark.soak
def test_each_single_call_failing_in_both_ways(tmp_path: Path, covered: Callable[[str], None]) -> None:
    figures = run("faulting", tmp_path, "every", 0, 1, limit=_SOAK_LIMIT)
    assert figures["faults"] == figures["of"] > 1000
    covered(f"{figures['faults']} faults: each single call failed without and with its effect")
