"""Log lines: one line a record with any content, UTC, with levels, as text, logfmt or JSON."""

import json
import logging
import os
import re
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from command_line.log_format import LogFormat, formatter
from monitor.demo.processes import program

_LOGGER = "monitor.test"


def record(message: str, *arguments: object, error: BaseException | None = None) -> logging.LogRecord:
    thrown = None if error is None else (type(error), error, error.__traceback__)
    made = logging.LogRecord(_LOGGER, logging.WARNING, __file__, 1, message, arguments, thrown)
    made.created, made.msecs = 1_767_225_600.25, 250.0
    return made


def as_json(message: str, *arguments: object) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(formatter(LogFormat.JSON).format(record(message, *arguments)))
    return document


def test_an_event_becomes_fields_with_their_types() -> None:
    assert as_json("own_trouble part=%s logs=%d", "disk", 3) == {
        "time": "2026-01-01T00:00:00.250Z",
        "level": "warning",
        "logger": _LOGGER,
        "event": "own_trouble",
        "part": "disk",
        "logs": 3,
    }
    line = formatter(LogFormat.LOGFMT).format(record("own_trouble part=%s logs=%d", "the disk", 3))
    assert line == (
        'time=2026-01-01T00:00:00.250Z level=warning logger=monitor.test event=own_trouble part="the disk" logs=3'
    )
    text = formatter(LogFormat.TEXT).format(record("own_trouble part=%s", "disk"))
    assert text == "2026-01-01T00:00:00Z WARNING monitor.test own_trouble part=disk"


def test_any_other_message_is_one_field() -> None:
    assert as_json("Job %s is late", "x")["message"] == "Job x is late"
    assert as_json("100% sure")["message"] == "100% sure"
    assert as_json("a b=%s", float("nan"))["b"] == "nan"
    assert as_json("a level=%s", "mine") | {"time": ""} == {
        "time": "",
        "level": "warning",
        "logger": _LOGGER,
        "event": "a",
        "level_": "mine",
    }


HOSTILE = {
    "a newline": "a\nlevel=error msg=forged",
    "carriage return": "safe\rforged",
    "ANSI": "\x1b[2J\x1b]0;title\x07",
    "C1 control": "\x9b31m",
    "delete": "a\x7fb",
    "NUL": "a\x00b",
    "line separator": "\u2028next\u2029\x85\x0b\x0c\x1c",
    "bidi override": "\u202egnp\u2066\u200f",
    "zero width": "pay\u200bpal\ufeff\u2060\u00ad",
    "undrawn marks": "wid\ufe0fget\u034f\U000e0041\U000e0100",
    "blank letters": "a\u3164b\u2800",
    "pile of marks": "Z" + "\u0335" * 200,
    "lone surrogate": "\udc80",
    "private use": "\ue000",
    "quote": 'q"uote\\',
}


def is_inert(text: str) -> bool:
    marks = ["Mn" if unicodedata.category(each) in {"Mn", "Me"} else "-" for each in text]
    undrawn = {0x034F, 0x3164, 0x2800, 0xFE0F, 0xE0100}
    return text.isprintable() and not undrawn & set(map(ord, text)) and "MnMnMnMn" not in "".join(marks)


@pytest.mark.parametrize("wanted", LogFormat)
@pytest.mark.parametrize("evil", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("message", ["own_trouble part=%s", "The file %s is odd"], ids=["event", "sentence"])
def test_hostile_text_is_inert_in_a_line(wanted: LogFormat, evil: str, message: str) -> None:
    line = formatter(wanted).format(record(message, evil))
    assert len(line.splitlines()) == 1
    assert is_inert(line)
    line.encode()
    if wanted is LogFormat.JSON:
        # A reader of JSON brings escapes back to life, on the terminal of `jq -r` too.
        assert all(is_inert(str(each)) for each in json.loads(line).values())


@pytest.mark.parametrize("wanted", LogFormat)
@pytest.mark.parametrize("evil", HOSTILE.values(), ids=HOSTILE)
def test_hostile_text_is_inert_in_a_traceback_and_in_extra_fields(wanted: LogFormat, evil: str) -> None:
    told = record("defect", error=ValueError(evil))
    told.name_of_file = evil
    lines = formatter(wanted).format(told).split("\n")
    assert all(map(is_inert, lines))
    assert all(line.startswith("  ") for line in lines[1:]), "no text of an error begins a record"
    assert wanted is LogFormat.TEXT or len(lines) == 1
    if wanted is LogFormat.JSON:
        fields = json.loads(lines[0])
        assert is_inert(fields["name_of_file"])
        assert all(map(is_inert, fields["exception"].split("\n")))


@pytest.mark.parametrize("wanted", LogFormat)
@pytest.mark.parametrize("evil", ["x" * 20_000, "\x1b" * 20_000], ids=["letters", "escapes"])
def test_a_value_that_is_cut_says_how_much_is_missing(wanted: LogFormat, evil: str) -> None:
    line = formatter(wanted).format(record("own_trouble part=%s", evil))
    assert len(line) < 18_000
    assert re.search(r"\(\+\d+ characters\)", line)


def test_a_traceback_is_a_field() -> None:
    line = formatter(LogFormat.JSON).format(record("defect part=%s", "x", error=ValueError("bad\nnews")))
    assert "  ValueError: bad" in json.loads(line)["exception"]
    assert "\n" not in line


def run(tmp_path: Path, *words: str, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", _SAYS, *words],
        cwd=tmp_path,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stderr


# The program itself, with a command of this test's that logs.
_SAYS = """
import logging, sys
import typer
from monitor import cli
from monitor.commands import status
def told(level: str = "info") -> None:
    logging.getLogger("monitor.test").log(getattr(logging, level.upper()), "said level_of=%s", level)
status.status = told
cli.main(sys.argv[1:])
"""


def test_format_and_level_come_from_options_and_variables(tmp_path: Path) -> None:
    assert json.loads(run(tmp_path, "--log-format", "json", "status"))["event"] == "said"
    assert json.loads(run(tmp_path, "status", SIGNWATCH_LOG_FORMAT="json"))["level"] == "info"
    assert "event=said" in run(tmp_path, "--log-format", "logfmt", "status", SIGNWATCH_LOG_FORMAT="json")
    assert run(tmp_path, "status", SIGNWATCH_LOG_LEVEL="error") == ""
    assert "DEBUG" in run(tmp_path, "-v", "status", "--level", "debug")
    assert run(tmp_path, "status", "--level", "debug") == "", "control"
    assert "level_of=warning" in run(tmp_path, "status", SIGNWATCH_STATUS_LEVEL="warning"), "any option has a variable"
    assert "level_of=info" in run(tmp_path, "status", SIGNWATCH_VERSION="1.2.3"), (
        "a build system's name changes nothing"
    )


def test_an_unknown_format_is_misuse(tmp_path: Path) -> None:
    done = subprocess.run(
        [program("signwatch"), "--log-format", "xml", "status"], cwd=tmp_path, capture_output=True, check=False
    )
    assert done.returncode == 2
