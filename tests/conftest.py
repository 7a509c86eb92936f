"""What every folder of tests shares: at the end of a run, what the long tests covered is said in one place."""

import os
from collections.abc import Callable

import pytest

_COVERED = "covered"

# Tests start hundreds of our programs. Without their compiled modules each would compile two hundred files first, which
# an installed package never does: half of a command's processor time.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.fixture
def covered(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Takes a sentence with figures: what a test went through. All of them are printed at the end of the run."""
    return lambda sentence: record_property(_COVERED, sentence)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was covered, how long each took, and, of long tests, what was left out."""
    reports = [each for each in terminalreporter.getreports("passed") if isinstance(each, pytest.TestReport)]
    lines = [(report, value) for report in reports for name, value in report.user_properties if name == _COVERED]
    if not lines:
        return
    terminalreporter.section("covered")
    for report, sentence in lines:
        minutes, seconds = divmod(round(report.duration), 60)
        terminalreporter.write_line(f"{minutes:3} min {seconds:2} s  {report.nodeid.partition('::')[0]}: {sentence}")
    missing = len(terminalreporter.getreports("skipped"))
    if missing:
        terminalreporter.write_line(f"{missing} skipped: what they would have shown was not shown; `-rs` says why")
