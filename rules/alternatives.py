"""Cutting a long regular expression at its alternatives into several short ones."""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

MAX_PIECES: Final = 1_000

_FLAGS: Final = re.compile(r"\(\?[imsU-]+\)")
_OPENING: Final = re.compile(r"\(\?(?::|P?<[A-Za-z0-9_]+>)|\((?!\?)")
_QUANTIFIERS: Final = frozenset("*+?{")


class _Group(NamedTuple):
    """Alternatives beside each other: where the first one starts, and where each of them ends."""

    start: int
    ends: tuple[int, ...]


def split_alternatives(text: str, limit: int) -> list[str]:
    """Regular expressions of at most `limit` characters that together match the texts that this RE2 expression matches.

    Cut is at the alternatives outside all groups, or at those in the longest group that is neither repeated nor in
    another one. Raises `ValueError` when that is not enough.
    """
    if len(text) <= limit:
        return [text]
    group = _alternatives(text)
    head, tail, start = text[: group.start], text[group.ends[-1] :], group.start
    parts: list[str] = []
    for end in group.ends:
        alternative, start = text[start:end], end + 1
        if parts and len(parts[-1]) + 1 + len(alternative) + len(tail) <= limit:
            parts[-1] += "|" + alternative
        else:
            parts.append(head + alternative)
    pieces: list[str] = []
    for part in parts:
        if len(pieces) >= MAX_PIECES:
            raise ValueError(f"too long: it would become more than {MAX_PIECES} patterns")
        pieces += split_alternatives(part + tail, limit)
    return pieces


def _alternatives(text: str) -> _Group:
    """The alternatives to cut a text at. Raises `ValueError` when it has none that can be cut."""
    flags = _FLAGS.match(text)
    start = flags.end() if flags else 0
    bars: list[int] = []
    groups: list[_Group] = []
    depth, inside, ends = 0, 0, list[int]()
    for at, end in _marks(text, start):
        if text[at] == "(":
            depth += 1
            if depth == 1:
                inside, ends = end, []
        elif text[at] == "|":
            if depth <= 1:
                (ends if depth else bars).append(at)
        else:
            depth -= 1
            if depth == 0 and ends and text[end : end + 1] not in _QUANTIFIERS:
                groups.append(_Group(inside, (*ends, at)))
    if bars:
        return _Group(start, (*bars, len(text)))
    if not groups:
        raise ValueError("too long, without alternatives to cut it at")
    return max(groups, key=lambda each: each.ends[-1] - each.start)


def _marks(text: str, at: int) -> Iterator[tuple[int, int]]:
    """Where each opening, bar and closing parenthesis starts and ends, outside of escapes and character classes.

    Raises `ValueError` for text in which a cut would change the meaning: quoted text, flags in the middle.
    """
    while at < len(text):
        end = at + 1
        if text.startswith("\\Q", at):
            raise ValueError("too long, and not cut because it holds quoted text (\\Q)")
        if text[at] == "\\":
            end = at + 2
        elif text[at] == "[":
            end = _class_end(text, at)
        elif text[at] == "(":
            opening = _OPENING.match(text, at)
            if opening is None:
                raise ValueError("too long, and not cut because it holds flags in the middle")
            end = opening.end()
            yield at, end
        elif text[at] in "|)":
            yield at, end
        at = end


def _class_end(text: str, at: int) -> int:
    """Where a character class that opens at `at` ends: `]` right after the opening, or in `[:alpha:]`, ends nothing."""
    at += 2 if text.startswith("[^", at) else 1
    first = at
    while at < len(text):
        if text[at] == "\\":
            at += 2
        elif text.startswith("[:", at) and (end := text.find(":]", at)) >= 0:
            at = end + 2
        elif text[at] == "]" and at > first:
            return at + 1
        else:
            at += 1
    raise ValueError("a character class without an end")
