"""The check of plain technical English that `make check` runs: each sentence names its subject.

`python -m tests.docs.plain_english` prints every place to mend and exits with 1 when there is one.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
_SOURCES: Final = (
    "addresses", "alerts", "benchmarks", "ca_lite", "command_line", "deploy", "docker", "docs", "inbound", "log_lite",
    "monitor", "outbound", "rules", "settings", "sigstore_entries", "sign_lite", "tlog",
)  # fmt: skip
_SUFFIXES: Final = frozenset({".py", ".md", ".j2", ".yaml", ".yml", ".html", ".txt"})
_RIDDLES: Final = re.compile(r"\b(whoever|nobody|somebody|everybody|whatever)\b", re.IGNORECASE)
_POINTER: Final = re.compile(r"See `[\w.]+`\.?")


def riddles(text: str) -> Iterator[tuple[int, str]]:
    """Line number and word of each pronoun that hides a subject."""
    for number, line in enumerate(text.splitlines(), 1):
        for found in _RIDDLES.finditer(line):
            yield number, found.group()


def pointers(source: str) -> Iterator[tuple[int, str]]:
    """Line number and text of each docstring that only names another place."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            told = ast.get_docstring(node)
            if told is not None and _POINTER.fullmatch(told.strip()):
                yield getattr(node, "lineno", 1), told


def files() -> Iterator[Path]:
    """Source and documentation, without tests: a test's name may quote a person."""
    yield from sorted(ROOT.glob("*.md"))
    for folder in _SOURCES:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in _SUFFIXES and "__pycache__" not in path.parts:
                yield path


def main() -> int:
    """Print what to mend. Returns the exit code."""
    found = 0
    for path in files():
        text = path.read_text(encoding="utf-8")
        places = [(number, f"{word!r}: name the subject") for number, word in riddles(text)]
        if path.suffix == ".py":
            places += [(number, f"{told!r}: say it here, or use @override") for number, told in pointers(text)]
        for number, told in sorted(places):
            print(f"{path.relative_to(ROOT)}:{number}: {told}")
            found += 1
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main())
