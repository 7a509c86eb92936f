"""A log with varied signings behind real HTTP, and `signwatch` commands over an archive of it with small ranges."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from monitor.archive import map_answers, map_building, map_files, ranges, reading, writing
from monitor.archive.files import ArchiveFiles
from monitor.archive.search import Archive
from monitor.cli import run_command
from tests.support.entries import (
    NOT_BEFORE,
    canonical,
    dsse_v2,
    github_claims,
    hashedrekord_v2,
    make_certificate,
)
from tests.support.served_log import CA, ServedLog, served_log

RANGE = 64
GITHUB = "https://token.actions.githubusercontent.com"


def varied_bodies(count: int, first: int = 0) -> list[bytes]:
    """Entries of people, workflows of several organisations, two signers at once, and some that cannot be read."""
    bodies = []
    for number in range(first, first + count):
        at = NOT_BEFORE + timedelta(hours=number)
        person = make_certificate(CA, san=f"Dev{number % 7}@Example.com", not_before=at, serial=number + 1)
        claims = github_claims(f"org{number % 3}/repo{number % 5}", run=number)
        san = claims["build_config_uri"]
        workflow = make_certificate(CA, san=san, issuer=GITHUB, claims=claims, not_before=at, serial=number + 1)
        digest = f"{number:064x}"
        match number % 6:
            case 0:
                bodies.append(hashedrekord_v2(person, digest))
            case 1:
                bodies.append(dsse_v2(person, workflow, payload=digest))
            case 2:
                bodies.append(canonical("unheard-of", "9.9.9", {"number": number}))
            case _:
                bodies.append(hashedrekord_v2(workflow, digest))
    return bodies


def readable_bodies(count: int, first: int = 0) -> list[bytes]:
    """Entries of people and workflows."""
    bodies = varied_bodies(2 * count, 2 * first)
    return [body for number, body in enumerate(bodies, 2 * first) if number % 6 != 2][:count]


@dataclass
class Place:
    """The served log, the folder `signwatch` runs in, and its archive."""

    served: ServedLog
    capsys: pytest.CaptureFixture[str]

    @property
    def folder(self) -> Path:
        return self.served.folder

    @property
    def files(self) -> ArchiveFiles:
        return ArchiveFiles(str(self.folder / "archive"))

    def archive_in_folder(self) -> Archive:
        return Archive(self.files)

    @property
    def archive(self) -> Archive:
        return Archive(self.files, ["rekor-v2"])

    def run(self, *arguments: str, expect: int = 0) -> tuple[str, str]:
        """Run a command in this process."""
        self.capsys.readouterr()
        code = run_command([*arguments, "--config", str(self.served.config)])
        out, errors = self.capsys.readouterr()
        assert code == expect, f"{arguments} ended with {code}:\n{out}\n{errors}"
        return out, errors

    def build(self, *arguments: str, expect: int = 0) -> str:
        """Archive what is missing, in this process alone."""
        return self.run("archive", "build", "--log", "rekor-v2", "--jobs", "1", *arguments, expect=expect)[1]

    def found(self, *arguments: str, expect: int = 0) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Entries and summary of a search."""
        out, _ = self.run("search", "--json", *arguments, expect=expect)
        *entries, last = [json.loads(line) for line in out.splitlines()]
        return entries, last["summary"]


@pytest.fixture
def small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranges of 64 entries, and groups of 16: what happens at their borders happens often."""
    monkeypatch.setattr(ranges, "RANGE", RANGE)
    monkeypatch.setattr(writing, "RANGE", RANGE)
    for module in (map_files, map_building, map_answers):
        monkeypatch.setattr(module, "RANGE", RANGE)
        monkeypatch.setattr(module, "PART", 16)
    monkeypatch.setattr(writing, "ROW_GROUP", 16)
    monkeypatch.setattr(writing, "INDEX_GROUP", 16)
    monkeypatch.setattr(reading, "_TOGETHER", 3)


@pytest.fixture
def place(tmp_path: Path, capsys: pytest.CaptureFixture[str], small_ranges: None) -> Iterator[Place]:
    """A log of 200 varied entries, of which nothing is archived yet."""
    with served_log(tmp_path) as served:
        served.log.leaves[:] = varied_bodies(200)
        config = served.config.read_text() + "archive: {location: archive, write_every: 1s}\n"
        served.config.write_text(config)
        yield Place(served, capsys)
