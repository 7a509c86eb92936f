"""Log lines: one line a record with any content, UTC, with levels, as text, logfmt or JSON."""

import json
import logging
import os
import subprocess
import sys
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


@pytest.mark.parametrize("wanted", LogFormat)
@pytest.mark.parametrize(
    "evil", ["a\nlevel=error msg=forged", "\x1b[2J", "\u2028next", "\u202egnp", "\udc80", 'q"uote']
)
def test_what_a_server_said_stays_on_its_line(wanted: LogFormat, evil: str) -> None:
    line = formatter(wanted).format(record("own_trouble part=%s", evil))
    assert len(line.splitlines()) == 1
    assert line.isprintable()
    line.encode()


@pytest.mark.parametrize("wanted", LogFormat)
def test_a_value_that_is_cut_says_how_much_is_missing(wanted: LogFormat) -> None:
    line = formatter(wanted).format(record("own_trouble part=%s", "x" * 20_000))
    assert len(line) < 10_000
    assert "characters more)" in line


def test_a_traceback_is_a_field() -> None:
    line = formatter(LogFormat.JSON).format(record("defect part=%s", "x", error=ValueError("bad\nnews")))
    assert "ValueError: bad" in json.loads(line)["exception"]
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
