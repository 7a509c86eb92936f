"""The commands in the hands of people: read by `head`, without colour, in a narrow window."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from monitor.demo.processes import program
from tests.docs.commands_page import PROGRAMS


def run(command: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_reader_that_has_seen_enough_ends_the_command_without_a_traceback(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as closed:
        command = [program("signwatch"), "--help"]
        done = subprocess.run(command, stdout=closed, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.stderr == ""
    assert done.returncode == 3, "its output did not arrive"


@pytest.mark.parametrize("name", PROGRAMS)
def test_help_fits_a_narrow_window_and_has_no_colour_when_asked_for_none(name: str, tmp_path: Path) -> None:
    done = run([program(name), "--help"], tmp_path, COLUMNS="50", NO_COLOR="1", TERM="xterm")
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    assert max(len(line) for line in done.stdout.splitlines()) <= 50


@pytest.mark.parametrize(
    ("name", "words", "code"),
    [
        ("signwatch", ["stauts"], 2),
        ("signwatch", ["run", "--config", "nowhere.yaml"], 2),
        ("log-lite", ["serve", "--dir", "nowhere"], 2),
        ("ca-lite", ["serve", "--dir", "nowhere"], 2),
        ("sign-lite", ["sign", "nothing.txt", "--trust-config", "nowhere.json"], 2),
    ],
)
def test_a_mistake_is_told_in_a_sentence_and_a_code(name: str, words: list[str], code: int, tmp_path: Path) -> None:
    done = run([program(name), *words], tmp_path, NO_COLOR="1")
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    said = re.sub(r"[\s│]+", " ", done.stderr)
    assert words[0] in said if len(words) == 1 else "nowhere" in said or "nothing.txt" in said
