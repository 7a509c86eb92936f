r"""Literals that occur in every text that a regular expression matches, read from the expression itself.

Soundness is required: every matching text shows one of the keys. Unknown syntax ends a run of fixed text or makes
the reader give up, which costs speed and never a match.
"""

import re
from typing import Final

from rules.matching.keys import Key, Keys, best_of, head_of, literal_of

MAX_ALTERNATIVES: Final = 16
MAX_GROUPS: Final = 50
_ORDINARY: Final = re.compile(r"[^\\.\[\](){}|^$*+?]+")


def keys_of_regex(text: str, *, folded: bool) -> Keys | None:
    """Keys of which at least one is in every text that the whole expression matches; `None` without a short list."""
    return _Reader(text, folded).keys()


class _GiveUp(Exception):
    """The expression holds unknown syntax, so no key is certain."""


class _Branch:
    """State of one branch so far. `leads` is true while the branch holds only the current run."""

    def __init__(self, *, leads: bool) -> None:
        self.found: list[Keys] = []
        self.run: list[str] = []
        self.leads = leads
        self._folded = False

    def add(self, text: str, *, folded: bool) -> None:
        """Go on with the current run."""
        if self.run and folded != self._folded:
            self.end_run()
        self._folded = folded
        self.run.append(text)

    def end_run(self) -> None:
        """End the run: the next literal may not stand right behind it."""
        if self.run:
            text = "".join(self.run)
            head = head_of(text, folded=False) if self.leads and not self._folded else None
            literal = literal_of(text, folded=self._folded)
            self.found.extend((key,) for key in (head, literal) if key is not None)
            self.run.clear()
        self.leads = False


class _Reader:
    r"""Reads the part of RE2's syntax that determines which text must occur. Unknown syntax ends a run.

    RE2 accepted the expression, so a syntax error here means that this reader is wrong: it gives up.
    """

    def __init__(self, text: str, folded: bool) -> None:
        self._text = text
        self._at = 0
        self._folded = folded
        self._groups = 0

    def keys(self) -> Keys | None:
        try:
            keys = self._alternatives(depth=0)
        except (_GiveUp, IndexError):
            return None
        return keys if self._at == len(self._text) else None

    def _alternatives(self, depth: int) -> Keys | None:
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

    def _sequence(self, depth: int) -> Keys | None:
        """One branch: the best keys among its runs of fixed text and its groups."""
        # The whole text must match, so the text begins with the beginning of a branch of the whole expression.
        branch = _Branch(leads=depth == 0)
        while (char := self._peek()) not in ("", "|", ")"):
            if char == "(":
                branch.end_run()
                keys = self._group(depth)
                if not self._optional() and keys is not None:
                    branch.found.append(keys)
            elif not self._folded and (plain := self._plain_text()):
                branch.add(plain, folded=False)
            else:
                self._item(char, branch)
        branch.end_run()
        return best_of(branch.found)

    def _item(self, char: str, branch: "_Branch") -> None:
        """One character, class or anchor with its quantifier."""
        literal = self._single(char)
        at_least_once, exactly_once = self._quantity()
        if char == "^" and exactly_once and branch.leads and not branch.run:
            return
        if literal is None or not at_least_once or (self._folded and not _folds_safely(literal)):
            branch.end_run()
            return
        branch.add(literal, folded=self._folded)
        if not exactly_once:
            branch.end_run()

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

    def _group(self, depth: int) -> Keys | None:
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
        keys = self._inside(depth)
        self._folded = outer
        return keys

    def _inside(self, depth: int) -> Keys | None:
        keys = self._alternatives(depth + 1)
        if self._peek() != ")":
            raise _GiveUp
        self._at += 1
        return keys

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
        """Read the quantifier of an item: whether it occurs at least once, and whether exactly once."""
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


def _union(branches: list[Keys | None]) -> Keys | None:
    union: dict[Key, None] = {}
    for branch in branches:
        if branch is None:
            return None
        union.update(dict.fromkeys(branch))
    return tuple(union) if len(union) <= MAX_ALTERNATIVES else None
