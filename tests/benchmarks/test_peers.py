"""The comparison with other monitors says what it lacks before it does anything."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

import benchmarks.__main__
from benchmarks.__main__ import app
from benchmarks.peers import COMPARISONS, NoPeer, chosen_comparisons, named_peers


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


def test_only_chooses_by_log_by_program_and_by_name() -> None:
    named = {"REKOR_MONITOR": "a", "CT_MONITOR": "b", "CERTSPOTTER": "c"}
    assert chosen_comparisons(named, []) == list(COMPARISONS)
    for word, names in {
        "v2": ["v2_1", "v2_100", "v2_1000"],
        "ct": ["ct_1", "certspotter", "ct_100", "ct_1000"],
        "ct-monitor": ["ct_1", "ct_100", "ct_1000"],
        "certspotter": ["certspotter"],
        "v1_100": ["v1_100"],
    }.items():
        assert [each.name for each in chosen_comparisons(named, [word])] == names
    assert {each.peer for each in chosen_comparisons({"CT_MONITOR": "b"}, [])} == {"CT_MONITOR"}
    with pytest.raises(NoPeer, match=r"no comparison v3; there are v1, v2, ct, .*v2_100"):
        chosen_comparisons(named, ["v3", "v2"])
    with pytest.raises(NoPeer, match="set REKOR_MONITOR to the binary"):
        chosen_comparisons({"CT_MONITOR": "b"}, ["v1"])


def test_a_comparison_that_is_interrupted_keeps_and_shows_what_it_has(
    binary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = binary.parent / "figures.json"

    def interrupted(*_: object) -> Iterator[dict[str, float] | RuntimeError]:
        yield {"peer_v2_1_cpu": 4.203}
        assert json.loads(output.read_text(encoding="utf-8")) == {"peer_v2_1_cpu": 4.2}
        yield RuntimeError("two monitors differ")
        raise KeyboardInterrupt

    monkeypatch.setenv("REKOR_MONITOR", str(binary))
    monkeypatch.setattr(benchmarks.__main__, "measure_peers", interrupted)
    monkeypatch.setattr(benchmarks.__main__, "complete_corpus", lambda *_: iter(()))
    done = CliRunner().invoke(app, ["--peers", "--only", "v2", "--output", str(output)])
    assert done.exit_code == 3
    assert "4.20" in done.output
    assert "Not compared: two monitors differ" in done.output
    assert "Not compared: interrupted" in done.output
    assert json.loads(output.read_text(encoding="utf-8")) == {"peer_v2_1_cpu": 4.2}
