"""What the pages say of each other, of the tests and of the machine they were written on."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from monitor.cli import _CODES
from monitor.commands.terminal import Exit
from monitor.store.tables import SCHEMA
from tests.docs.blocks import ROOT

_PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "docker").rglob("*.md")])
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


def anchors(page: Path) -> set[str]:
    """Headings as GitHub links to them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def broken_links(page: Path) -> Iterator[str]:
    """Links of a page that lead to no file or heading of this repository."""
    for link in _LINK.findall(page.read_text(encoding="utf-8")):
        target, _, anchor = link.partition("#")
        if "://" in link or link.startswith("mailto:"):
            continue
        path = page.parent / target if target else page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            yield link


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_inside_the_repository_leads_somewhere(page: Path) -> None:
    assert list(broken_links(page)) == []


def test_a_link_to_nowhere_would_be_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A title\n[fine](page.md#a-title) [gone](gone.md) [no heading](#other)\n")
    assert list(broken_links(page)) == ["gone.md", "#other"]


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_test_a_page_names_exists(page: Path) -> None:
    for file, name in _TEST.findall(page.read_text(encoding="utf-8")):
        assert (ROOT / file).is_file(), file
        assert not name or f"def {name}(" in (ROOT / file).read_text(encoding="utf-8"), f"{file}::{name}"


def test_each_of_the_nine_promises_names_a_test_that_shows_it() -> None:
    architecture = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    promises = re.findall(r"^\| \d\. ([^|]+) \|", architecture.partition("## Promises")[2], re.MULTILINE)
    assert len(promises) == 9
    rows = (ROOT / "docs/verification.md").read_text(encoding="utf-8").splitlines()
    for number, promise in enumerate(promises, 1):
        (row,) = (row for row in rows if row.startswith(f"| {number} | {promise}"))
        assert _TEST.search(row), row


def test_each_claim_names_a_test_that_exists_and_its_adversary() -> None:
    page = (ROOT / "docs/verification.md").read_text(encoding="utf-8")
    table = page.partition("## How each claim is checked")[2].partition("\n## ")[0]
    rows = [line.strip("|").split(" | ") for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 20
    for claim, tests, adversary in rows:
        assert _TEST.findall(tests), claim
        assert adversary.strip(), claim
    named = {file for row in rows for file, _ in _TEST.findall(row[1])}
    attacks = {str(path.relative_to(ROOT)) for path in (ROOT / "tests/threats").glob("test_*.py")}
    assert attacks - named == {"tests/threats/test_scenarios.py"}, "whole stories: see the promises"


def test_every_file_the_architecture_names_is_there() -> None:
    rooms = (ROOT / "docs/architecture.md").read_text(encoding="utf-8").partition("## The rooms of the monitor")[2]
    named = set(re.findall(r"`([a-z_]+/[a-z_/]*(?:\.py)?)`", rooms))
    assert len(named) > 30
    missing = {each for each in named if not (ROOT / each).exists() and not (ROOT / "monitor" / each).exists()}
    assert missing == set()


def test_every_exit_code_is_on_its_page() -> None:
    page = (ROOT / "docs/exit-codes.md").read_text(encoding="utf-8")
    assert {int(code) for code in re.findall(r"^\| (\d) \|", page, re.MULTILINE)} == {int(code) for code in Exit}
    assert {code for _, code, _ in _CODES} < set(Exit)


def test_the_changelog_names_the_schema_of_the_database() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"schema {SCHEMA}" in changelog


# Put together from halves, so that this file is not found by itself.
_FORBIDDEN = {
    "a path of a machine": r"/(work|tmp|root)" + r"/[a-z]|/home" + r"/[a-z]",
    "a package registry": r"pypi" + r"\.org|pythonhosted" + r"\.org|npmjs" + r"\.(org|com)|deb\.debian" + r"\.org",
}


def files() -> list[Path]:
    """Files git knows of, or would add."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout: which files belong to it is not known")
    names = [name for name in listed.stdout.split("\0") if name]
    return [ROOT / name for name in names if (ROOT / name).is_file()]


@pytest.mark.parametrize("what", _FORBIDDEN)
def test_no_file_names(what: str) -> None:
    pattern = re.compile(_FORBIDDEN[what])
    paths = files()
    assert Path(__file__) in paths, "control: this file is looked at"
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in paths
        if (match := pattern.search(path.read_text(encoding="utf-8", errors="replace"))) is not None
    ]
    assert found == []
