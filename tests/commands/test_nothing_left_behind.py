"""A command that is refused leaves no file and no folder behind."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from monitor.cli import run_command
from tests.support.served_log import ServedLog, served_log


@pytest.fixture
def served(tmp_path: Path) -> Iterator[ServedLog]:
    """A log, and the configuration of a monitor with an archive and no database."""
    with served_log(tmp_path) as log:
        log.config.write_text(log.config.read_text(encoding="utf-8") + "archive: {location: archive}\n", "utf-8")
        yield log


def files(folder: Path) -> set[str]:
    # SQLite keeps both while a connection is open, and removes them when the last one is closed.
    return {str(each.relative_to(folder)) for each in folder.rglob("*") if not each.name.endswith(("-wal", "-shm"))}


REFUSED = {
    ("scan", "--log", "nope", "--from", "0"): 2,
    ("scan", "--log", "rekor-v2", "--from", "5", "--to", "9"): 2,
    ("scan", "--log", "rekor-v2", "--from", "2", "--to", "1"): 2,
    ("scan", "--log", "rekor-v2", "--from", "0", "--rule", "nope"): 2,
    ("backscan", "--log", "nope"): 2,
    ("archive", "build", "--log", "nope"): 2,
    ("archive", "verify", "--mend", "--log", "nope"): 2,
    ("archive", "compact", "--log", "nope"): 2,
    ("audit", "--log", "nope", "--junit", "audit.xml"): 2,
    ("search", "widget", "--kind", "nope", "--parquet", "found.parquet"): 2,
    ("search", "widget", "--complete", "all.json"): 2,
    ("report", "--from", "nope", "--output", "report.html"): 2,
    ("backup", "none/backup.tar"): 3,
    ("restore", "none.tar"): 2,
    ("subscribers", "import", "none.jsonl"): 2,
    ("evidence", "export", "nope", "--output", "evidence.json"): 2,
}
WITHOUT_DATABASE = [
    ("run",),
    ("run", "--once"),
    ("audit",),
    ("backscan",),
    ("backup", "backup.tar"),
    ("subscribers", "export", "--output", "subscribers.jsonl"),
    ("site",),
]


@pytest.mark.parametrize("words", REFUSED, ids=" ".join)
def test_a_refused_command_leaves_nothing_behind(
    served: ServedLog, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(served.folder)
    assert run_command(["init", "--config", str(served.config)]) == 0
    before = files(served.folder)
    assert run_command([*words, "--config", str(served.config)]) == REFUSED[words]
    assert files(served.folder) == before


@pytest.mark.parametrize("words", WITHOUT_DATABASE, ids=" ".join)
def test_a_command_without_a_database_leaves_nothing_behind(
    served: ServedLog, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(served.folder)
    before = files(served.folder)
    assert run_command([*words, "--config", str(served.config)]) != 0
    assert files(served.folder) == before


def test_a_scan_leaves_nothing_behind_but_a_ledger_to_resume(
    served: ServedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = ["scan", "--log", "rekor-v2", "--from", "0", "--to", "3", "--patience", "0", "--config", str(served.config)]
    before = files(served.folder)
    assert run_command(scan) == 0, "control"
    assert files(served.folder) == before
    with monkeypatch.context() as patched:
        patched.setattr("monitor.commands.scan.scan_range", _broken)
        assert run_command(scan) == 3
    [folder, ledger] = sorted(files(served.folder) - before)
    assert (folder, ledger.endswith(".db")) == ("scans", True)
    assert run_command(scan) == 2, "an unfinished scan of this range is not begun anew"
    assert files(served.folder) - before == {folder, ledger}
    assert run_command([*scan, "--resume"]) == 0
    assert files(served.folder) - before == {folder}, "the folder was there before this scan"


def _broken(*_args: object, **_options: object) -> None:
    raise OSError("broken")


def test_a_folder_for_scans_that_cannot_be_written_is_told(
    served: ServedLog, capsys: pytest.CaptureFixture[str]
) -> None:
    (served.folder / "scans").write_text("no folder", encoding="utf-8")
    assert run_command(["scan", "--log", "rekor-v2", "--from", "0", "--config", str(served.config)]) == 3
    assert "the ledger of the scan cannot be kept here" in capsys.readouterr().err


def test_a_name_of_no_archived_log_is_no_success_of_compact(
    served: ServedLog, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["archive", "compact", "--config", str(served.config)]) == 0, "control: nothing to join"
    assert run_command(["archive", "compact", "--log", "nope", "--config", str(served.config)]) == 2
    assert "nothing is archived of nope" in capsys.readouterr().err
