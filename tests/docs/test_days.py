"""Three days with Signwatch (docs/days/): what the pages say is typed again, and prints what they show."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from monitor.demo.processes import programs
from tests.docs.blocks import ROOT, blocks
from tests.docs.test_readme import Reader

DAYS = ROOT / "docs" / "days"
# Steps whose last command finds what it looks for: an unexpected signing, a log that lied.
FINDS = {"attack", "again"}


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    with programs(tmp_path) as children:
        yield Reader(tmp_path, children)


def walk(page: Path, reader: Reader) -> dict[str, str]:
    """Type the scene and one page, in order; returns what each step printed."""
    printed = {}
    for block in (*blocks(DAYS / "README.md"), *blocks(page)):
        if block.mark == "server":
            reader.serves(block)
        elif block.mark == "test":
            printed[block.says] = reader.types(block.text, expect=1 if block.says in FINDS else 0)
    return printed


def masked(text: str) -> str:
    """Output without ids, ports and times."""
    text = re.sub(r"\b[0-9a-f]{12,}\b", "ID", text)
    text = re.sub(r"\b(localhost|127\.0\.0\.1):\d+", r"\1:PORT", text)
    return re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+(Z|\+00:00)", "TIME", text).strip()


@pytest.mark.parametrize("name", ["maintainer", "sre", "auditor"])
def test_a_day_goes_as_its_page_says(name: str, reader: Reader) -> None:
    page = DAYS / f"{name}.md"
    shown = {block.says: block.text for block in blocks(page) if block.mark == "output"}
    printed = walk(page, reader)
    assert shown
    assert {step: masked(printed[step]) for step in shown} == {step: masked(text) for step, text in shown.items()}


def test_every_picture_of_the_days_is_there_and_is_small() -> None:
    for page in DAYS.glob("*.md"):
        for picture in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
            raw = (DAYS / picture).read_bytes()
            assert raw.startswith(b"\x89PNG")
            assert len(raw) < 200_000
