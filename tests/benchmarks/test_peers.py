"""The comparison with other monitors says what it lacks before it does anything."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.__main__ import app
from benchmarks.peers import NoPeer, named_peers


@pytest.fixture
def binary(tmp_path: Path) -> Path:
    made = tmp_path / "rekor_monitor"
    made.write_text("#!/bin/sh\n", encoding="utf-8")
    made.chmod(0o755)
    return made


def test_a_named_binary_is_found_from_another_folder(binary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(binary.parent)
    assert named_peers({"REKOR_MONITOR": "./rekor_monitor", "CT_MONITOR": ""}) == {"REKOR_MONITOR": str(binary)}


def test_a_name_without_a_program_is_refused_by_its_variable(binary: Path) -> None:
    binary.chmod(0o644)
    for path in (binary, binary.parent / "missing", binary.parent):
        with pytest.raises(NoPeer, match=f"CT_MONITOR={path}: there is no such program"):
            named_peers({"CT_MONITOR": str(path)})


def test_without_a_binary_nothing_is_made_and_the_variables_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("REKOR_MONITOR", "CT_MONITOR", "CERTSPOTTER"):
        monkeypatch.delenv(name, raising=False)
    done = CliRunner().invoke(app, ["--peers", "--corpus", str(tmp_path / "corpus"), "--output", str(tmp_path / "b")])
    assert done.exit_code == 2
    assert all(name in done.output for name in ("REKOR_MONITOR", "CT_MONITOR", "CERTSPOTTER"))
    assert list(tmp_path.iterdir()) == []
