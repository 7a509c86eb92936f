"""The drawing of the monitor's rooms is the contract that import-linter checks."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_drawing_has_the_floors_of_the_contract() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    (layers,) = (each["layers"] for each in contracts if each["name"] == "the floors of the monitor")
    floors = [[name.strip().removeprefix("monitor.") for name in layer.split("|")] for layer in layers]
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    drawing = page.partition("## The rooms of the monitor")[2].split("```")[1].strip()
    drawn = [re.fullmatch(r"((?:\w+/? {2,})+)(\S.*)", line) for line in drawing.splitlines()]
    assert [re.findall(r"\w+", found[1]) for found in drawn if found is not None] == floors
    assert None not in drawn, "each floor says its content"


def test_each_room_has_a_row() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    rooms = {path.parent.name for path in (ROOT / "monitor").glob("*/__init__.py")}
    assert {room for room in rooms if f"| `{room}/` |" not in page} == set()
