"""`signwatch init` writes a configuration for where keys come from, and says what is missing before it writes."""

from pathlib import Path

import pytest

from ca_lite.tuf_repository import create_repository
from monitor.cli import run_command
from monitor.commands.starting_files import CONFIG, config_text
from monitor.config import load_config
from tests.support.alerts import NOW
from tests.support.served_log import served_log


def init(folder: Path, *arguments: str) -> int:
    return run_command(["init", "--config", str(folder / "signwatch.yaml"), *arguments])


def test_the_default_is_the_public_repository() -> None:
    assert config_text("public-good") == CONFIG


@pytest.mark.parametrize("name", ["public-good", "staging"])
def test_a_known_repository_needs_its_name_only(name: str, tmp_path: Path) -> None:
    assert init(tmp_path, "--tuf", name, "--rule-for", "release@acme.example", "--files-only") == 0
    assert load_config(tmp_path / "signwatch.yaml").trust.tuf == name
    assert "release@acme.example" in (tmp_path / "rules.yaml").read_text()


def test_a_private_repository_is_a_url_and_its_first_root(tmp_path: Path) -> None:
    root = tmp_path / "my root: 1.json"
    root.write_text("{}")
    assert init(tmp_path, "--tuf", "https://tuf.acme.example/", "--tuf-root", str(root), "--files-only") == 0
    trust = load_config(tmp_path / "signwatch.yaml").trust
    assert (trust.tuf, trust.tuf_root) == ("https://tuf.acme.example/", root)


def test_a_trusted_root_file_is_checked_and_then_followed(tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.mkdir()
    with served_log(made) as served:
        root = served.folder / "trusted_root.json"
        assert init(tmp_path, "--trusted-root", str(root), "--files-only") == 0
        assert load_config(tmp_path / "signwatch.yaml").trust.trusted_root == root


WRONG = {
    "a url without its root": (["--tuf", "https://tuf.acme.example"], "--tuf-root FILE"),
    "a root that is not there": (["--tuf", "https://tuf.acme.example", "--tuf-root", "no.json"], "no.json"),
    "a root without its url": (["--tuf-root", "no.json"], "needs --tuf"),
    "no url": (["--tuf", "ftp://tuf.acme.example"], "neither public-good nor staging"),
    "both sources": (["--tuf", "staging", "--trusted-root", "no.json"], "one or the other"),
    "a trusted root that is not there": (["--trusted-root", "no.json"], "Nothing was written"),
    "a trusted root that is none": (["--trusted-root", __file__], "not a trusted root"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_told_before_anything_is_written(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, told = WRONG[name]
    assert init(tmp_path, *arguments, "--files-only") == 2
    assert told in " ".join(capsys.readouterr().err.split())
    assert list(tmp_path.iterdir()) == []


def test_a_repository_that_cannot_be_reached_is_an_outage_with_a_next_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "root.json"
    root.write_text("{}")
    assert init(tmp_path, "--tuf", "http://127.0.0.1:9", "--tuf-root", str(root)) == 0, "control: files are written"
    (tmp_path / "root.json").write_bytes(_a_root(tmp_path))
    assert init(tmp_path) == 3
    said = " ".join(capsys.readouterr().err.split())
    for part in ("http://127.0.0.1:9", "could not be refreshed", "nothing was begun", "trust.proxy", "trusted_root"):
        assert part in said
    assert "verified last" not in said, "there are none"


def _a_root(folder: Path) -> bytes:
    for name in ("repository", "keys"):
        (folder / name).mkdir()
    create_repository(folder / "repository", folder / "keys", NOW)
    return (folder / "repository" / "root.json").read_bytes()
