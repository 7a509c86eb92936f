"""docs/search.md is typed as it stands, in the folder of a demonstration, and prints what it shows."""

import re
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from monitor.archive.files import ArchiveFiles
from monitor.archive.writing import read_manifest
from monitor.config import load_config
from monitor.demo.processes import program, programs, wait_until
from tests.docs.blocks import ROOT, Block, blocks
from tests.docs.test_days import masked
from tests.docs.test_readme import Reader
from tests.support.waiting import PATIENCE

PAGES = [ROOT / "docs" / "search.md", ROOT / "docs" / "scale.md"]
# Steps whose last command names a damaged file, or finds an unexpected signing.
EXIT_CODES = {"lost": 3, "one machine": 1}
_UP = "Ctrl-C stops it all."


def marked(mark: str) -> dict[str, Block]:
    return {block.says: block for page in PAGES for block in blocks(page) if block.mark == mark}


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    """A reader in the folder of the demonstration, which stays up."""
    (demo,) = marked("server").values()
    name, *arguments = demo.text.split()
    with programs(tmp_path) as children:
        children.start(name, [program(name), *arguments])
        log = tmp_path / "logs" / f"{name}.log"

        def is_up() -> bool:
            children.check_alive()
            return _UP in log.read_text(errors="replace")

        wait_until("the demonstration", is_up, seconds=PATIENCE)
        made = Reader(tmp_path / demo.says, children)
        settings = load_config(made.folder / "signwatch.yaml")
        assert settings.web is not None
        assert settings.archive is not None
        made.listens("9464", settings.web.listen[1])
        files = ArchiveFiles(settings.archive.location)

        def is_archived() -> bool:
            known = [read_manifest(files, log) for log in ("rekor-v2", "ct")]
            return all(each is not None and each.spans() == [(1, 3)] for each in known)

        wait_until("what the demonstration signed to be archived", is_archived, seconds=PATIENCE)
        yield made


def test_the_pages_of_search_and_scale_do_what_they_say(reader: Reader) -> None:
    printed = {}
    for step, block in marked("test").items():
        if block.language == "sql":
            with duckdb.connect() as other:
                where = block.text.replace("archive/", f"{reader.folder}/archive/")
                found = other.execute(where).fetchall()
            assert found == [("refs/heads/totally-legit", 1), ("refs/tags/v1.4.2", 1)]
            continue
        out = reader.types(block.text, expect=EXIT_CODES.get(step, 0))
        printed[step] = masked(out + reader.said)
    shown = {step: masked(block.text) for step, block in marked("output").items()}
    assert shown
    assert {step: printed[step] for step in shown} == shown


def test_every_command_of_search_is_in_a_block_that_says_how_it_is_kept_true() -> None:
    for page in PAGES:
        for block in blocks(page):
            if re.search(r"^(signwatch|rekor-cli|curl|dask) ", block.text, re.MULTILINE):
                assert block.mark in {"test", "server", "example"}, block.text
