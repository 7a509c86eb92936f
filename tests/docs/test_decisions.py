"""Every dependency has a page that says why it is there."""

import re
import tomllib
from collections import Counter
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_FOLDER = _ROOT / "docs" / "decisions"
_PAGES = sorted(path for path in _FOLDER.glob("*.md") if path.name != "README.md")
_MAX_WORDS = 400


def dependencies() -> set[str]:
    """Names in pyproject.toml: runtime, extras and development."""
    document = tomllib.loads((_ROOT / "pyproject.toml").read_text())
    wanted = list(document["project"]["dependencies"])
    for extra in document["project"]["optional-dependencies"].values():
        wanted += extra
    for group in document["dependency-groups"].values():
        wanted += group
    names = (re.match(r"[A-Za-z0-9._-]+", requirement) for requirement in wanted)
    return {name.group().lower().replace("_", "-") for name in names if name is not None}


def named(page: Path) -> list[str]:
    """Dependencies a page is about."""
    (line,) = re.findall(r"^Dependencies: (.*)\. Status: ", page.read_text(), re.MULTILINE)
    return re.findall(r"`([a-z0-9-]+)`", line)


def test_every_dependency_has_exactly_one_decision_and_every_decision_a_dependency() -> None:
    counted = Counter(name for page in _PAGES for name in named(page))
    assert set(counted) == dependencies()
    assert {name: count for name, count in counted.items() if count > 1} == {}


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: page.stem)
def test_a_page_is_half_a_page_with_context_decision_and_consequences(page: Path) -> None:
    text = page.read_text()
    assert text.startswith("# ")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == ["Context", "Decision", "Consequences"]
    assert len(text.split()) <= _MAX_WORDS
    assert all(part.strip() for part in re.split(r"^#.*$", text, flags=re.MULTILINE)[1:])


def test_the_index_lists_every_page_with_its_title() -> None:
    index = (_FOLDER / "README.md").read_text()
    listed = re.findall(r"^\| \[(.*?)\]\((.*?)\) \| (.*?) \|$", index, re.MULTILINE)
    pages = {page.name: page for page in _PAGES}
    assert sorted(name for _, name, _ in listed) == sorted(pages)
    for title, name, names in listed:
        assert f"# {title}\n" in pages[name].read_text()
        assert re.findall(r"`([a-z0-9-]+)`", names) == named(pages[name])
