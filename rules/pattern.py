"""Text patterns: exact by default, globs and RE2 regular expressions when asked for. All match the whole value.

Nothing here takes more than linear time in the value: globs compare their fixed pieces from left to right, regular
expressions run in RE2, never in `re`.
"""

import functools
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import re2

from settings.document import Mapping, Misplaced, Node
from settings.reading import Fields, read_flag, read_text

MAX_PATTERN: Final = 1_000
REGEX_MEMORY: Final = 1 << 20  # bytes RE2 may use for one compiled pattern
MAX_STARS: Final = 32


class PatternForm(StrEnum):
    """How a pattern's text is read."""

    EXACT = "exact"
    GLOB = "glob"
    REGEX = "regex"


@dataclass(frozen=True, slots=True)
class Pattern:
    """One pattern. `ignore_case` folds A-Z only, as nothing else can be folded without changing lengths."""

    form: PatternForm
    text: str
    ignore_case: bool = False

    def matches(self, value: str) -> bool:
        """Whether the whole of `value` matches."""
        if self.form is PatternForm.EXACT:
            return self.text == value or (self.ignore_case and fold(self.text) == fold(value))
        if self.form is PatternForm.GLOB:
            return glob_matches(fold(self.text), fold(value)) if self.ignore_case else glob_matches(self.text, value)
        compiled = compile_regex(self.text, self.ignore_case)
        return compiled.fullmatch(value.encode("utf-8", "replace")) is not None

    def __str__(self) -> str:
        shown = self.text if self.form is PatternForm.EXACT else f"{self.form}:{self.text}"
        return f"{shown} (any case)" if self.ignore_case else shown


def exact(text: str) -> Pattern:
    """A pattern that only `text` itself matches."""
    return Pattern(PatternForm.EXACT, text)


def fold(text: str) -> str:
    """`text` with A-Z lowered and everything else as it was."""
    return text.lower() if text.isascii() else "".join(c.lower() if c.isascii() else c for c in text)


@functools.lru_cache(maxsize=4096)
def compile_regex(text: str, ignore_case: bool) -> Any:
    """Compile with RE2. Raises `ValueError` when RE2 refuses the pattern or it needs too much memory."""
    options = re2.Options()
    options.log_errors = False
    options.max_mem = REGEX_MEMORY
    options.never_capture = True
    options.dot_nl = True  # a line break in a hostile name must not slip past `.*`
    options.case_sensitive = not ignore_case
    try:
        return re2.compile(text.encode(), options)
    except re2.error as error:
        reason = error.args[0] if error.args else "refused"
        raise ValueError(reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)) from None


class _Any:
    """One `*` of a glob."""


_STAR: Final = _Any()


def glob_pieces(text: str) -> list[str | _Any]:
    r"""Split a glob into fixed text and stars. `\*` and `\\` are a literal star and backslash; `?` is ordinary."""
    pieces: list[str | _Any] = []
    literal: list[str] = []
    position = 0
    while position < len(text):
        char = text[position]
        if char == "\\" and text[position + 1 : position + 2] in ("*", "\\"):
            literal.append(text[position + 1])
            position += 2
            continue
        if char != "*":
            literal.append(char)
        else:
            if literal:
                pieces.append("".join(literal))
                literal = []
            if not pieces or pieces[-1] is not _STAR:
                pieces.append(_STAR)
        position += 1
    if literal:
        pieces.append("".join(literal))
    return pieces


def glob_literals(text: str) -> list[str]:
    """The fixed pieces of a glob, in order."""
    if "\\" not in text:
        return [piece for piece in text.split("*") if piece]
    return [piece for piece in glob_pieces(text) if isinstance(piece, str)]


def glob_prefix(text: str) -> tuple[str, bool]:
    """The fixed text that a glob begins with, and whether there is a star behind it."""
    if "\\" not in text:
        prefix, star, _ = text.partition("*")
        return prefix, bool(star)
    first, *rest = glob_pieces(text)
    return (first, bool(rest)) if isinstance(first, str) else ("", True)


@functools.lru_cache(maxsize=4096)
def _glob_parts(text: str) -> tuple[str, tuple[str, ...], str, bool]:
    pieces = glob_pieces(text)
    if all(isinstance(piece, str) for piece in pieces):
        return "".join(str(piece) for piece in pieces), (), "", False
    head = pieces.pop(0) if isinstance(pieces[0], str) else ""
    tail = pieces.pop() if isinstance(pieces[-1], str) else ""
    middle = tuple(piece for piece in pieces if isinstance(piece, str))
    return str(head), middle, str(tail), True


def glob_matches(text: str, value: str) -> bool:
    """Whether `value` matches a glob whose `*` stands for any characters, `/` included."""
    head, middle, tail, has_star = _glob_parts(text)
    if not has_star:
        return value == head
    if len(value) < len(head) + len(tail) or not value.startswith(head) or not value.endswith(tail):
        return False
    position, end = len(head), len(value) - len(tail)
    for piece in middle:
        # With nothing but stars between the pieces, taking each at its first place never loses a match.
        found = value.find(piece, position, end)
        if found < 0:
            return False
        position = found + len(piece)
    return True


def read_pattern(node: Node) -> Pattern:
    """Read `text`, `{exact: text}`, `{glob: text}` or `{regex: text}`, the latter three with `ignore_case: true`."""
    if not isinstance(node, Mapping):
        return exact(read_text(node))
    forms = [form.value for form in PatternForm]
    fields = Fields(node, [*forms, "ignore_case"], "a pattern")
    given = [form for form in forms if fields.get(form) is not None]
    if len(given) != 1:
        raise Misplaced("a pattern has exactly one of: exact, glob, regex", node)
    value = fields.need(given[0])
    text = read_text(value)
    pattern = Pattern(PatternForm(given[0]), text, fields.read("ignore_case", read_flag, default=False))
    _check(pattern, value)
    return pattern


def _check(pattern: Pattern, node: Node) -> None:
    if len(pattern.text) > MAX_PATTERN:
        raise Misplaced(f"a pattern is at most {MAX_PATTERN} characters", node)
    if pattern.form is PatternForm.GLOB and pattern.text.count("*") > MAX_STARS:
        raise Misplaced(f"a glob has at most {MAX_STARS} stars", node)
    if pattern.form is PatternForm.REGEX:
        try:
            compile_regex(pattern.text, pattern.ignore_case)
        except ValueError as error:
            raise Misplaced(f"not a regular expression that RE2 reads: {error}", node) from None
