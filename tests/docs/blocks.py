"""Code blocks of a page, with the comment above each that says how it is kept true."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(
    r"(?:^<!-- (?P<marks>[^\n]*) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block. `mark` and `says` are the two sides of `<!-- mark: says -->`; empty when there is none."""

    language: str
    text: str
    mark: str
    says: str


def blocks(page: Path) -> list[Block]:
    """Every fenced block of a page, in order."""
    return blocks_in(page.read_text(encoding="utf-8"))


def blocks_in(text: str) -> list[Block]:
    """Every fenced block of a text, in order."""
    found = []
    for match in _BLOCK.finditer(text):
        mark, _, says = (match["marks"] or "").partition(": ")
        found.append(Block(match["language"], match["text"], mark, says))
    return found
