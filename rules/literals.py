r"""Literals a pattern cannot match without: what the index searches for before anybody parses an entry.

The one rule here is soundness: every value a pattern matches holds one of its literals, byte for byte in UTF-8 (after
folding A-Z for folded ones). When in doubt a literal is cut short or given up; that costs speed, never a match.
"""

import re
from dataclasses import dataclass
from typing import Final, NamedTuple

from rules.pattern import Pattern, PatternForm, fold, glob_literals

MIN_LITERAL: Final = 6  # bytes; shorter ones are found everywhere
MAX_LITERAL: Final = 16  # bytes; longer ones make the automaton bigger, not better
_TELLING: Final = 12  # bytes of a path with its slashes that are not found in everybody's
MAX_ALTERNATIVES: Final = 16
MAX_GROUPS: Final = 50

# Found in very many identities, so worth little as a literal: what stands around them is taken instead.
_COMMON: Final = re.compile(
    r"https?://(?:token\.actions\.githubusercontent\.com|accounts\.google\.com|github\.com/login/oauth)"
    r"|(?:https?://)?(?:www\.)?git(?:hub|lab)\.com/?|https?://|oauth"
    r"|/?\.github/workflows/?|/?\.gitlab-ci|@?refs/(?:heads|tags|pull)/|@refs/|(?:heads|tags|pull)/"
    r"|(?:release|publish|build|main|ci)(?:\.ya?ml)?\b|\bmaster\b|\.ya?ml|github-hosted|self-hosted|workflow_dispatch"
    r"|\.?iam\.gserviceaccount\.com",
    re.ASCII,
)
_ORDINARY: Final = re.compile(r"[^\\.\[\](){}|^$*+?]+")
_GITHUB: Final = "https://github.com/"
_WORKFLOWS: Final = "/.github/workflows/"
_RARE_ENOUGH: Final = 3


class Literal(NamedTuple):
    """Bytes to search for. `folded` ones are searched in a copy with A-Z lowered. `rare` is how selective it is."""

    data: bytes
    folded: bool = False
    rare: int = 0


def cover_of(pattern: Pattern) -> tuple[Literal, ...] | None:
    """Literals of which every matching value holds at least one; `None` when there is no such short list."""
    if pattern.form is PatternForm.EXACT:
        literal = _window(pattern.text, pattern.ignore_case)
        return None if literal is None else (literal,)
    if pattern.form is PatternForm.GLOB:
        return _best([_Run(piece, pattern.ignore_case) for piece in glob_literals(pattern.text)])
    return _RegexReader(pattern.text, pattern.ignore_case).cover()


def quality(cover: tuple[Literal, ...]) -> int:
    """How selective a cover is, for choosing between covers: its weakest literal counts, and few beat many."""
    return min(literal.rare for literal in cover) * 4 - len(cover)


@dataclass(frozen=True, slots=True)
class _Run:
    """Text that occurs as it stands. `folded` when the pattern ignores case there."""

    text: str
    folded: bool


_Cover = tuple[Literal, ...]


def _best(runs: list[_Run]) -> _Cover | None:
    found = [literal for run in runs if (literal := _window(run.text, run.folded)) is not None]
    return (max(found, key=lambda literal: literal.rare),) if found else None


def _window(text: str, folded: bool) -> Literal | None:
    """The piece of a run worth searching for."""
    text = fold(text) if folded else text
    start, end = _rare_span(text)
    rare = end - start
    if not rare:
        end = len(text)
    # One more character on either side keeps `/acme/widget/` from being found in `acme/widget2`.
    start, end = max(start - 1, 0), min(end + 1, len(text))
    if end - start < MIN_LITERAL:
        end = min(start + MIN_LITERAL, len(text))
        start = max(end - MIN_LITERAL, 0)
    start = _searchable(text, start, end)
    data = text[start:end].encode("utf-8", "replace")[:MAX_LITERAL]
    return Literal(data, folded, rare) if len(data) >= MIN_LITERAL else None


def _searchable(text: str, start: int, end: int) -> int:
    """Where in `text[start:end]` to start when it is too long: an at sign, or a slash in front, is found fast."""
    if end - start <= MAX_LITERAL:
        return start
    at = text.find("@", start, end)
    if at >= 0 and "/" not in text[start:end]:
        # Both sides of it: many names share the domain, and many domains share a name.
        return min(max(at - MAX_LITERAL // 2 - 1, start), end - MAX_LITERAL)
    # Of `/organisation/repository/` the end says more, if there is enough of it.
    slash = text.find("/", start + 1, end - 1)
    return slash if slash >= 0 and end - slash >= _TELLING else start


def _rare_span(text: str) -> tuple[int, int]:
    """The first stretch without common parts that is not tiny, else the longest; `(0, 0)` when all is common."""
    if text.startswith(_GITHUB) and (end := text.find(_WORKFLOWS, len(_GITHUB))) >= len(_GITHUB) + _RARE_ENOUGH:
        return len(_GITHUB), end
    if "@" in text and "/" not in text:
        return 0, len(text)
    best, position = (0, 0), 0
    for common in _COMMON.finditer(text):
        span = (position, common.start())
        if span[1] - span[0] >= _RARE_ENOUGH:
            return span
        best = max(best, span, key=lambda each: each[1] - each[0])
        position = common.end()
    return max(best, (position, len(text)), key=lambda each: each[1] - each[0])


class _GiveUp(Exception):
    """Something in the expression is not understood well enough to promise anything."""


class _RegexReader:
    r"""Reads as much of RE2's syntax as is needed to know which text must occur. Unknown things end a run.

    An expression RE2 accepted is well formed, so a surprise here means this reader is wrong: it gives up.
    """

    def __init__(self, text: str, folded: bool) -> None:
        self._text = text
        self._at = 0
        self._folded = folded
        self._groups = 0

    def cover(self) -> _Cover | None:
        try:
            cover = self._alternatives(depth=0)
        except (_GiveUp, IndexError):
            return None
        if self._at != len(self._text):
            return None
        return cover

    def _alternatives(self, depth: int) -> _Cover | None:
        self._groups += 1
        if self._groups > MAX_GROUPS or depth > MAX_GROUPS:
            raise _GiveUp
        outer = self._folded
        branches = [self._sequence(depth)]
        while self._peek() == "|":
            self._at += 1
            branches.append(self._sequence(depth))
        # RE2: a flag set inside a group holds until the group's end, through later branches.
        self._folded = outer
        return _union(branches)

    def _sequence(self, depth: int) -> _Cover | None:
        """One branch: the best cover among its runs of fixed text and its groups."""
        runs: list[_Run] = []
        covers: list[_Cover] = []
        current: list[str] = []

        def end_run() -> None:
            if current:
                runs.append(_Run("".join(current), run_folded))
                current.clear()

        run_folded = self._folded
        while (char := self._peek()) not in ("", "|", ")"):
            if self._folded != run_folded:
                end_run()
                run_folded = self._folded
            if char == "(":
                end_run()
                cover = self._group(depth)
                if not self._optional() and cover is not None:
                    covers.append(cover)
                continue
            if not self._folded and (plain := self._plain_text()):
                current.append(plain)
                continue
            literal = self._single(char)
            at_least_once, exactly_once = self._quantity()
            if literal is None or not at_least_once or (self._folded and not _folds_safely(literal)):
                end_run()
                continue
            current.append(literal)
            if not exactly_once:
                end_run()
        end_run()
        best = _best(runs)
        return max([*covers, *([best] if best is not None else [])], key=quality, default=None)

    def _plain_text(self) -> str:
        """Take ordinary characters up to the last one a quantifier cannot belong to."""
        match = _ORDINARY.match(self._text, self._at)
        if match is None:
            return ""
        end = match.end()
        if end < len(self._text) and self._text[end] in "*+?{":
            end -= 1
        taken = self._text[self._at : end]
        self._at = end
        return taken

    def _group(self, depth: int) -> _Cover | None:
        """From `(` to behind `)`. A group that only sets flags changes them for the rest of the enclosing group."""
        self._at += 1
        if not self._text.startswith("?", self._at):
            return self._inside(depth)
        self._at += 1
        for name_start in ("P<", "<"):
            if self._text.startswith(name_start, self._at):
                self._at = self._text.index(">", self._at) + 1
                return self._inside(depth)
        outer = self._folded
        self._flags()
        if self._peek() == ")":
            self._at += 1
            return None
        self._at += 1
        cover = self._inside(depth)
        self._folded = outer
        return cover

    def _inside(self, depth: int) -> _Cover | None:
        cover = self._alternatives(depth + 1)
        if self._peek() != ")":
            raise _GiveUp
        self._at += 1
        return cover

    def _flags(self) -> None:
        value = True
        while (char := self._peek()) not in (":", ")"):
            if char == "i":
                self._folded = value
            elif char == "-":
                value = False
            elif char not in ("m", "s", "U"):
                raise _GiveUp
            self._at += 1

    def _single(self, char: str) -> str | None:
        """One character, class or anchor; its text when it is one fixed character."""
        self._at += 1
        if char == "[":
            self._skip_class()
            return None
        if char == "\\":
            return self._escape()
        return None if char in ".^$" else char

    def _escape(self) -> str | None:
        char = self._text[self._at]
        self._at += 1
        if not char.isalnum() and char.isascii():
            return char
        if char in ("p", "P", "x") and self._peek() == "{":
            self._at = self._text.index("}", self._at) + 1
        elif char in ("p", "P"):
            self._at += 1
        elif char == "x":
            self._at += 2
        elif char.isdigit() or char in ("Q", "E"):
            # Octal escapes and quoting spans are rare in names, and reading them wrongly would lose matches.
            raise _GiveUp
        return None

    def _skip_class(self) -> None:
        if self._peek() == "^":
            self._at += 1
        if self._peek() == "]":
            self._at += 1
        while self._peek() != "]":
            if self._text.startswith("[:", self._at) and (end := self._text.find(":]", self._at + 2)) >= 0:
                self._at = end + 2
            elif self._text[self._at] == "\\":
                self._at += 2
            else:
                self._at += 1
                if self._at >= len(self._text):
                    raise _GiveUp
        self._at += 1

    def _optional(self) -> bool:
        return not self._quantity()[0]

    def _quantity(self) -> tuple[bool, bool]:
        """Read what may follow an item: whether it occurs at least once, and whether exactly once."""
        char = self._peek()
        if char in ("*", "?", "+") and char:
            self._at += 1
            result = (char == "+", False)
        elif char == "{" and (bounds := self._bounds()) is not None:
            result = (bounds[0] > 0, bounds == (1, 1))
        else:
            return True, True
        if self._peek() == "?":
            self._at += 1
        # A quantifier on a quantifier, as in `a**`, is not RE2; one behind `{n}` may be: give up.
        if self._peek() in ("*", "+", "?"):
            raise _GiveUp
        return result

    def _bounds(self) -> tuple[int, int | None] | None:
        end = self._text.find("}", self._at)
        inner = self._text[self._at + 1 : end] if end >= 0 else ""
        low, comma, high = inner.partition(",")
        if not low.isdecimal() or (high and not high.isdecimal()):
            return None  # RE2 takes a brace that is no repetition literally
        self._at = end + 1
        return int(low), (int(low) if not comma else int(high) if high else None)

    def _peek(self) -> str:
        return self._text[self._at] if self._at < len(self._text) else ""


def _folds_safely(char: str) -> bool:
    # RE2 folds by Unicode: (?i)k also matches U+212A and (?i)s also U+017F, whose bytes no literal would find.
    return char.isascii() and char not in "ksKS"


def _union(branches: list[_Cover | None]) -> _Cover | None:
    union: dict[Literal, None] = {}
    for branch in branches:
        if branch is None:
            return None
        union.update(dict.fromkeys(branch))
    return tuple(union) if len(union) <= MAX_ALTERNATIVES else None
