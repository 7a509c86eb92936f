"""Three days with Signwatch (docs/days/): what the pages say is typed again, and prints what they show."""

import json
import os
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from monitor.demo.processes import programs
from tests.browser.site_pages import chromium, eyes
from tests.docs.blocks import ROOT, blocks, blocks_in
from tests.docs.test_readme import Reader

DAYS = ROOT / "docs" / "days"
# Steps whose last command finds what it looks for: an unexpected signing, a log that lied.
FINDS = {"attack", "again"}
# Width, height and colours of each picture. With SIGNWATCH_PICTURES the walks write them there.
PICTURES = {
    "alert": (390, 1000, False),
    "overview": (1100, 900, False),
    "lied": (1100, 900, True),
    "report": (900, 1000, False),
}
_PICTURE = re.compile(r"^!\[[^\]]+\]\(pictures/([a-z]+)\.png\)$", re.MULTILINE)


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    # The canary's token command is looked for as a person's shell would.
    monkeypatch.setenv("PATH", f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}")
    with programs(tmp_path) as children:
        yield Reader(tmp_path, children)


def walk(page: Path, reader: Reader) -> dict[str, str]:
    """Type the scene and one page and look at its pictures, in order; returns what each step printed."""
    printed = {}
    for text in (DAYS / "README.md", page):
        # Every second part is the name of a picture.
        parts = _PICTURE.split(text.read_text(encoding="utf-8"))
        for part, picture in zip(parts[::2], [*parts[1::2], ""], strict=True):
            for block in blocks_in(part):
                if block.mark == "server":
                    reader.serves(block)
                elif block.mark == "test":
                    printed[block.says] = reader.types(block.text, expect=1 if block.says in FINDS else 0)
            if picture and chromium() is not None:
                look(picture, reader)
    return printed


def look(picture: str, reader: Reader) -> None:
    """Take one picture of the walk as it stands; the page fits its window and complains of nothing."""
    width, height, dark = PICTURES[picture]
    if picture == "report":
        url, path = reader.folder.as_uri(), "/report.html"
    else:
        url, path = reader.here("http://localhost:9464"), "/"
    if picture == "alert":
        (alert,) = json.loads(reader.types("signwatch alerts list --open --json"))["alerts"]
        path = f"/alerts/{alert['id']}"
    folder = Path(os.environ.get("SIGNWATCH_PICTURES", str(reader.folder)))
    with eyes(url, width=width, dark=dark) as person:
        person.pictures = None
        person.page.set_viewport_size({"width": width, "height": height})
        person.open(path)
        person.page.screenshot(path=folder / f"{picture}.png")
        assert person.look(picture)


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
