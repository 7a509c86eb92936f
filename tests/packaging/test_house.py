"""Bounds of the source that no tool of `make check` knows."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
MAKES_TRUSTED_HEADS = re.compile(r"monitor/(proof/\w+|store/history)\.py")
EXCEPTIONS_TO_COMPLEXITY = 5


def sources() -> Iterator[tuple[str, str]]:
    """Path and text of every Python file of the programs that Git knows."""
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in listed.stdout.splitlines():
        if not name.startswith(("tests/", "benchmarks/")) and (ROOT / name).is_file():
            yield name, (ROOT / name).read_text("utf-8")


def calls_of(name: str, text: str) -> int:
    calls = (node.func for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call))
    return sum(name in {getattr(func, "id", ""), getattr(func, "attr", "")} for func in calls)


def test_a_head_is_trusted_by_a_proof_or_read_back_from_the_store_and_nowhere_else() -> None:
    makers = {path for path, text in sources() if calls_of("TrustedHead", text)}
    assert makers, "control: the name is still the same"
    assert {path for path in makers if not MAKES_TRUSTED_HEADS.fullmatch(path)} == set()


def test_few_functions_are_excepted_from_the_bound_on_complexity() -> None:
    excepted = [path for path, text in sources() for _ in range(text.count("noqa: C901"))]
    assert len(excepted) <= EXCEPTIONS_TO_COMPLEXITY, excepted
