"""An answer is exported as one file that shows, without asking any log, that each entry is in a head the log signed."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest

from monitor.archive.proofs import RunProver
from monitor.archive.writing import read_manifest
from monitor.cli import run_command
from tests.archive.conftest import Place, varied_bodies
from tests.support.served_log import signing_body
from tlog.merkle import verify_inclusion


def verified(place: Place, file: Path, *more: str, expect: int = 0) -> dict[str, Any]:
    place.capsys.readouterr()
    keys = more or ("--trusted-root", str(place.folder / "trusted_root.json"))
    assert run_command(["evidence", "verify", str(file), "--json", *keys]) == expect
    document: dict[str, Any] = json.loads(place.capsys.readouterr().out)
    return document


@pytest.fixture
def proof(place: Place, tmp_path: Path) -> Path:
    """Proof of every entry of one person, made with the log at hand."""
    place.build()
    file = tmp_path / "mine.json"
    place.run("search", "dev3@example.com", "--prove", str(file))
    return file


@pytest.mark.parametrize(("first", "last"), [(0, 200), (0, 150), (37, 200), (130, 171), (64, 128), (199, 200)])
def test_every_entry_of_a_run_is_proven_wherever_the_run_begins_and_ends(place: Place, first: int, last: int) -> None:
    place.build("--from", str(first), "--to", str(last))
    manifest = read_manifest(place.files, "rekor-v2")
    assert manifest is not None
    (run,) = manifest.runs
    proven = RunProver(place.files, manifest, run).prove(range(first, last), {})
    assert [each.index for each in proven.entries] == list(range(first, last))
    root = run.end().root()
    for each in proven.entries:
        verify_inclusion(each.index, last, each.leaf_hash, each.path, root)


def test_an_exported_answer_verifies_without_log_and_archive(place: Place, proof: Path) -> None:
    entries, _ = place.found("dev3@example.com")
    place.served.down = True
    shown = verified(place, proof)
    assert shown["verdict"] == "verified"
    (log,) = shown["logs"]
    assert log["entries"] == [each["index"] for each in entries]
    assert all("Dev3@Example.com" in sentence for sentence in log["shows"])
    assert json.loads(proof.read_text())["about"]["coverage"]["complete"] is True


def test_without_the_log_the_hashes_are_proven(place: Place, tmp_path: Path) -> None:
    place.build()
    place.served.down = True
    file = tmp_path / "mine.json"
    place.run("search", "--entry", "rekor-v2:7", "--prove", str(file), "--offline")
    assert "whose bytes are not in the file" in verified(place, file)["logs"][0]["shows"][0]


def test_a_key_that_is_no_logs_verifies_nothing(place: Place, proof: Path, tmp_path: Path) -> None:
    root = json.loads((place.folder / "trusted_root.json").read_text())
    other = tmp_path / "other.json"
    other.write_text(json.dumps(root | {"tlogs": []}))
    assert verified(place, proof, "--trusted-root", str(other), expect=1)["verdict"] == "another-key"


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("entries", 0, "index"), 8),
        (("entries", 0, "leaf"), base64.b64encode(varied_bodies(1)[0]).decode()),
        (("entries", 0, "leafHash"), base64.b64encode(bytes(32)).decode()),
        (("entries", 0, "path"), []),
        (("size",), 199),
        (("head",), base64.b64encode(b"no head").decode()),
        (("api",), "ct-rfc6962"),
        (("entries",), []),
    ],
)
def test_a_changed_file_shows_nothing(place: Place, proof: Path, where: tuple[Any, ...], value: Any) -> None:
    document = json.loads(proof.read_text())
    verified(place, proof)
    at = document["logs"][0]
    for step in where[:-1]:
        at = at[step]
    at[where[-1]] = value
    proof.write_text(json.dumps(document))
    place.capsys.readouterr()
    assert (
        run_command(["evidence", "verify", str(proof), "--trusted-root", str(place.folder / "trusted_root.json")]) == 1
    )


def test_an_unexpected_signings_alert_says_how_to_prove_it(place: Place, tmp_path: Path) -> None:
    place.served.config.write_text(
        place.served.config.read_text().replace("poll_seconds: 1", "poll_seconds: 1, start: 0")
    )
    place.run("init")
    place.served.log.append(signing_body("refs/heads/evil"))
    place.run("run", "--once", expect=1)
    alerts = [json.loads(line) for line in (place.folder / "alerts.jsonl").read_text().splitlines()]
    (alert,) = [each for each in alerts if each["kind"] == "unexpected-signing"]
    found = re.search(r"signwatch search --entry \S+ --prove signing\.json", json.dumps(alert))
    assert found is not None
    command = found[0].split()
    file = tmp_path / "signing.json"
    place.run(*command[1:-1], str(file))
    assert "refs/heads/evil" in verified(place, file)["logs"][0]["shows"][0]
