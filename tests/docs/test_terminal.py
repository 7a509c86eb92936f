"""The commands in the hands of people: read by `head`, without colour, in a narrow window."""

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from datetime import timedelta
from pathlib import Path

import pytest

from alerts.alert import lasting
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


@pytest.mark.parametrize("words", [["--help"], ["status", "--help"], ["rules", "--help"]])
def test_help_says_the_same_in_a_pipe_in_plain_lines_and_on_a_terminal_in_boxes(
    words: list[str], tmp_path: Path
) -> None:
    piped = run([program("signwatch"), *words], tmp_path).stdout
    seen = on_terminal([program("signwatch"), *words], columns=160)
    assert "│" not in piped
    assert "│" in seen

    def told(text: str) -> set[str]:
        # On a terminal the kinds of values, and of each option its variable, stand elsewhere.
        left_out = re.sub(r"\[[^\]]*\]|<\S*", " ", re.sub(r"\x1b\[[0-9;]*m|[│╭╮╰╯─]", " ", text))
        return set(re.findall(r"[A-Za-z-]{3,}", left_out))

    assert told(piped) <= told(seen)
    assert ("\n    signwatch status --rule acme-release\n" in piped) == (words[0] == "status")


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


def test_a_table_cuts_nothing_in_a_narrow_window_and_keeps_its_first_column_whole() -> None:
    """On a terminal of 60 columns, by a real pseudo-terminal."""
    identity, title = "3f2a91bc04de", "https://github.com/acme/" + "long-name" * 20
    rows = [(identity, "2026", title)]
    code = f"from monitor.commands.terminal import table; table(('id', 'at', 'title'), {rows!r})"
    seen = on_terminal([sys.executable, "-c", code], columns=60)
    assert identity in seen
    assert title in re.sub(r"\s", "", seen), "folded, not cut"
    assert "…" not in seen


@pytest.mark.parametrize("columns", [30, 40, 60, 80, 200])
def test_a_table_of_many_columns_shows_every_cell_in_every_window(columns: int) -> None:
    heads = ("log", "verified", "still to read", "last success", "rules not covered")
    row = ("rekor-v1/1612449908243782142", "123456789", "17", "2026-11-29T02:11:30Z", "acme-release")
    code = f"from monitor.commands.terminal import table; table({heads!r}, [{row!r}, {row!r}])"
    seen = on_terminal([sys.executable, "-c", code], columns=columns)
    if columns < 80:
        lines = seen.replace("\r", "").split("\n")
        assert lines == [*(f"{head}: {cell}" for head, cell in zip(heads, row, strict=True)), ""] * 2 + [""]
    else:
        assert [cell for cell in row[1:] if cell[: 8 if columns < 200 else None] not in seen] == []


def on_terminal(command: list[str], columns: int) -> str:
    """What a command writes to a terminal of this width."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES"}} | {
        "TERM": "dumb"
    }
    running = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    seen = b""
    with contextlib.suppress(OSError):  # Linux ends a terminal without writers with EIO
        while piece := os.read(ours, 65536):
            seen += piece
    os.close(ours)
    assert running.wait() == 0
    return seen.decode()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 seconds"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "1 minute"),
        (119, "1 minute"),
        (7199, "119 minutes"),
        (7200, "2 hours"),
        (172799, "47 hours"),
        (172800, "2 days"),
    ],
)
def test_a_length_of_time_has_one_unit_in_the_right_number(seconds: int, words: str) -> None:
    assert lasting(timedelta(seconds=seconds)) == words
