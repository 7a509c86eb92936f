"""What every folder of tests shares: at the end of a run, what the long tests covered is said in one place."""

import os
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, settings

_COVERED = "covered"

# Tests start hundreds of our programs. Without their compiled modules each would compile two hundred files first, which
# an installed package never does: half of a command's processor time.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


# A run says the same of the same tree on any machine: the examples follow from the test alone, and no clock decides.
# `--hypothesis-profile=random` looks further.
_ANY_MACHINE = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.register_profile("random", _ANY_MACHINE)
settings.register_profile("same", _ANY_MACHINE, derandomize=True, database=None)
settings.load_profile("same")


@pytest.fixture
def covered(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Takes a sentence with figures: what a test went through. All of them are printed at the end of the run."""
    return lambda sentence: record_property(_COVERED, sentence)


class FailuresAtOnce:
    """Names each failure when it happens: a run that is cut off prints no summary."""

    def __init__(self, terminal: pytest.TerminalReporter) -> None:
        self._terminal = terminal

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Print the test's name, where it failed and the first line of the reason."""
        if report.failed:
            reason = (report.longreprtext.strip().splitlines() or [""])[-1]
            self._terminal.ensure_newline()
            self._terminal.write_line(f"FAILED {report.nodeid} ({report.when}): {reason[:300]}")


@pytest.hookimpl(trylast=True)  # the terminal reporter is there then
def pytest_configure(config: pytest.Config) -> None:
    """In the process that prints, and in no worker, name failures at once."""
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    if terminal is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(FailuresAtOnce(terminal), "failures-at-once")


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
        terminalreporter.write_line(f"{missing} skipped, which shows less than a whole run; the reasons are below")
