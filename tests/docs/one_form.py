"""Numbers and times as alerts, pages and commands write them: a number agrees with its noun, a time has one form."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

# What may follow a 1 and end in "s": verbs, and units that are abbreviations or the same for one and many.
_NO_PLURALS: Final = frozenset({"is", "was", "has", "does", "this", "as", "ms", "series", "across", "less", "hours_"})
_ONE: Final = re.compile(r"(?<![\w.,:/#-])1 ((?:more |other |open |older |new |further )*)([a-z]{3,})\b(?![-/:=.]\w)")
_NOUNS: Final = (
    "entry|log|alert|second|minute|hour|day|week|finding|rule|head|tree|event|witness|promise|match|delivery|file|"
    "signature|time|signing|run|piece|digest|channel|key|row|silence"
)
_MANY: Final = re.compile(
    rf"(?<![\w.,:/#-])(?!1 )\d[\d,\u202f]* (?:more |other |open |older |new )*(?:{_NOUNS})\b(?![-/:])"
)
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d\S*(?: UTC)?|\b\d\d:\d\d(?::\d\d)? (?:UTC|GMT)")
_FORM: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_SHORT: Final = re.compile(r"(?<![\w.,:/-])\d+(?:\.\d+)? (?:s|sec|secs|min|mins|h|hrs|d)\b(?![-/'])")
_PLURAL_AFTER: Final = re.compile(r" (?:(?:more|further|other|new|open|shorter|older|known) )*([a-z]+s)\b")
_VERBS: Final = (
    _NO_PLURALS
    | {"bytes", "notifies", "exists", "belongs", "extends", "lies", "unless", "works", "status"}
    | {
        *(
            "holds",
            "stands",
            "shows",
            "verifies",
            "signs",
            "gives",
            "fits",
            "fails",
            "begins",
            "tells",
            "names",
            "answers",
        ),
        *("says", "matches", "differs"),
    }
)
_CLOCK: Final = re.compile(r"%H:%M|%-?I:")
RFC_3339: Final = "%Y-%m-%dT%H:%M:%SZ"


def wrong_numbers(text: str) -> list[str]:
    """Every "1 entries" and "2 entry" in a text."""
    one = (found.group() for found in _ONE.finditer(text) if found[2].endswith("s") and not _is_no_plural(found[2]))
    return [*one, *(found.group() for found in _MANY.finditer(text))]


def other_times(text: str) -> list[str]:
    """Every time that is not RFC 3339 in UTC to the second, and every length of time with its unit cut short."""
    times = (found.group().rstrip(".,;:)|\"'<`*]}") for found in _TIME.finditer(text))
    return [*(each for each in times if not _FORM.fullmatch(each)), *(each.group() for each in _SHORT.finditer(text))]


def _is_no_plural(word: str) -> bool:
    return word in _NO_PLURALS or word.endswith("ss")


def counts_by_hand(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of each f-string that puts a number that may be 1 before a plural; a constant is never 1."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            for value, after in zip(node.values, node.values[1:], strict=False):
                if isinstance(value, ast.FormattedValue) and isinstance(after, ast.Constant):
                    found = _PLURAL_AFTER.match(str(after.value))
                    told = ast.unparse(value.value)
                    if found and found[1] not in _VERBS and not told.rpartition(".")[2].strip("_").isupper():
                        yield node.lineno, f"{{{told}}}{found.group()}"


def clocks_by_hand(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of each time that is written in another form than `RFC_3339`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if _CLOCK.search(node.value) and node.value.removeprefix("%a ") != RFC_3339:
                yield node.lineno, node.value
        elif isinstance(node, ast.FormattedValue) and ".isoformat()" in ast.unparse(node.value):
            yield node.lineno, ast.unparse(node.value)


def counts_in_template(text: str) -> Iterator[tuple[int, str]]:
    """Line and text of each place of a template that puts a number before a plural."""
    for number, line in enumerate(text.splitlines(), 1):
        for found in re.finditer(r"\{\{ *([^{}]*?) *\}\}( (?:more |other |further |shorter )*([a-z]+s))\b", line):
            is_counted = "counted(" in found[1] or "== 1" in found[1] or found[3] in _VERBS
            if not is_counted:
                yield number, found.group()


def python_files(root: Path, *rooms: str) -> list[Path]:
    """Python files of some rooms."""
    return sorted(path for room in rooms for path in (root / room).rglob("*.py"))
