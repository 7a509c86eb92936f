"""A program whose standard streams are closed or full: it never ends with 1, the exit code for a misbehaving log."""

import subprocess
import sys
from pathlib import Path

import pytest
import typer

from command_line.program import LazyCommand, listing, run

_PROGRAMS = ("signwatch", "ca-lite", "log-lite", "sign-lite")
_FULL = Path("/dev/full")


def ended(streams: str, *words: str) -> subprocess.CompletedProcess[str]:
    """The program of this environment with its streams as a shell sets them."""
    program = str(Path(sys.executable).parent / words[0])
    command = ["sh", "-c", f'"$@" {streams}', "sh", program, *words[1:]]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("name", _PROGRAMS)
def test_a_closed_stream_changes_no_exit_code(name: str) -> None:
    for streams in ("<&-", ">&-", "2>&-", "<&- >&- 2>&-"):
        done = ended(streams, name, "--version")
        assert (done.returncode, done.stderr) == (0, ""), streams
        done = ended(streams, name, "nonsense")
        assert done.returncode == 2, (streams, done.stderr)
        assert "Traceback" not in done.stderr


def test_an_error_told_with_standard_error_closed_keeps_its_exit_code(tmp_path: Path) -> None:
    words = ("signwatch", "status", "--config", str(tmp_path / "none.yaml"))
    assert ended("2>&-", *words).returncode == 2
    assert ended("<&- >&- 2>&-", *words, "--json").returncode == 2


@pytest.mark.skipif(not _FULL.exists(), reason="needs /dev/full, which Linux has")
@pytest.mark.parametrize("words", [("--version",), ("config", "schema"), ("rules", "lint", "none.yaml", "--json")])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_cannot_be_written_is_unfinished(
    words: tuple[str, ...], unbuffered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    done = ended(f"> {_FULL}", "signwatch", *words)
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    assert ("none.yaml: the rules cannot be read" if "none.yaml" in words else "No space left on device") in done.stderr


@pytest.mark.skipif(not _FULL.exists(), reason="needs /dev/full, which Linux has")
def test_so_is_an_error_that_cannot_be_told() -> None:
    assert ended(f"2> {_FULL}", "signwatch", "rules", "lint", "none.yaml").returncode == 3


def defective() -> None:
    """Fail as no command should."""
    raise ValueError("a defect")


def test_a_defect_shows_where_it_is_and_is_unfinished(capsys: pytest.CaptureFixture[str]) -> None:
    app = typer.Typer(cls=listing(LazyCommand("fail", f"{__name__}:defective", "Fail.")))
    app.callback()(lambda: None)
    assert run(app, "program", ["fail"]) == 3
    told = capsys.readouterr().err
    assert "ValueError: a defect" in told
    assert "in defective" in told
