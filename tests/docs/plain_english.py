"""The check of plain technical English that `make check` runs: each sentence names its subject.

`python -m tests.docs.plain_english` prints every place to mend and exits with 1 when there is one.
"""

import ast
import io
import re
import sys
import tokenize
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
_ANY_PERSON: Final = re.compile(r"\b(anyone|anybody|someone)\b", re.IGNORECASE)
_POINTER: Final = re.compile(r"(?:See|Like|The same as) (?:the )?`?[\w.]+`?(?: \w+)?\.?")
_QUESTION: Final = re.compile(r"(?:What|Who|Whose|Which|Where|Whether|How|That of|Those) ")


def riddles(text: str) -> Iterator[tuple[int, str]]:
    """Line number and word of each pronoun that hides a subject."""
    for number, line in enumerate(text.splitlines(), 1):
        for found in _RIDDLES.finditer(line):
            yield number, found.group()


def strangers(text: str) -> Iterator[tuple[int, str]]:
    """Line number and word of each pronoun in place of "any person", "a stranger", "an attacker" or "a reader"."""
    for number, line in enumerate(text.splitlines(), 1):
        for found in _ANY_PERSON.finditer(line):
            yield number, found.group()


def pointers(source: str) -> Iterator[tuple[int, str]]:
    """Line number and text of each docstring that only names another place."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            told = ast.get_docstring(node)
            if told is not None and _POINTER.fullmatch(told.strip()):
                yield getattr(node, "lineno", 1), told


def questions(source: str) -> Iterator[tuple[int, str]]:
    """Line number and first words of each docstring that begins with an indirect question in place of a noun."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            told = ast.get_docstring(node)
            if told is not None and _QUESTION.match(told):
                yield getattr(node, "lineno", 1), " ".join(told.split()[:4])


def unsaid(source: str) -> Iterator[tuple[int, str]]:
    """Line number and text of each string that is a statement of its own: the rest of a message that ended before it.

    Docstrings, also those of attributes, are no such strings.
    """
    for node in ast.walk(ast.parse(source)):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        for field in ("body", "orelse", "finalbody"):
            block = getattr(node, field, None)
            before: ast.AST | None = None
            for each in block if isinstance(block, list) else []:
                is_text = isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant | ast.JoinedStr)
                explains = isinstance(before, ast.Assign | ast.AnnAssign) or (before is None and documented)
                if is_text and not explains and ast.unparse(each) != "...":
                    yield each.lineno, ast.unparse(each)[:80]
                before = each


def prose(source: str) -> str:
    """Comments, docstrings and messages of assertions, each on its own lines: a file's data may quote a person."""
    lines = [""] * (source.count("\n") + 1)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            lines[token.start[0] - 1] = token.string
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assert) and node.msg is not None:
            for part in ast.walk(node.msg):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    lines[part.lineno - 1] += f" {part.value}"
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            told = ast.get_docstring(node, clean=False)
            if told is not None:
                for number, line in enumerate(told.split("\n"), first.lineno - 1):
                    lines[number] += f" {line}"
    return "\n".join(lines)


def tests() -> Iterator[Path]:
    """Python files of the tests, but for this check and its own test, which quote the words."""
    for path in sorted((ROOT / "tests").rglob("*.py")):
        if path.stem not in {"plain_english", "test_plain_english"}:
            yield path


def files() -> Iterator[Path]:
    """Source and documentation."""
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
        places = [(number, f"{word!r}: name the subject") for number, word in (*riddles(text), *strangers(text))]
        if path.suffix == ".py":
            places += [(number, f"{told!r}: say it here, or use @override") for number, told in pointers(text)]
            places += [(number, f"{told!r}: begin with the noun") for number, told in questions(text)]
            places += [(number, f"{told!r}: no statement uses this text") for number, told in unsaid(text)]
        found += _told(path, places)
    for path in tests():
        source = path.read_text(encoding="utf-8")
        places = [(number, f"{word!r}: name the subject") for number, word in riddles(prose(source))]
        places += [(number, f"{told!r}: say it here, or use @override") for number, told in pointers(source)]
        places += [(number, f"{told!r}: no statement uses this text") for number, told in unsaid(source)]
        found += _told(path, places)
    return int(found > 0)


def _told(path: Path, places: list[tuple[int, str]]) -> int:
    for number, told in sorted(places):
        print(f"{path.relative_to(ROOT)}:{number}: {told}")
    return len(places)


if __name__ == "__main__":
    sys.exit(main())
