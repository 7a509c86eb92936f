"""Untrusted text made safe to show: one line, without invisible characters and terminal control sequences."""

import re
import unicodedata
from typing import Final

# Cc: ANSI escapes and newlines. Cf: bidi overrides, zero-width and tag characters. Cs, Co, Cn: no agreed look.
# Zl, Zp: line and paragraph separators.
_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
# Letters and symbols by category that look blank: they hide the end of a name.
_BLANK: Final = frozenset("\u115f\u1160\u2800\u3164\uffa0")
# Code points that are not drawn (Unicode: Default_Ignorable_Code_Point): a name looks the same with and without one.
_UNDRAWN: Final = re.compile("[\u034f\u17b4\u17b5\u180b-\u180d\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef]")
_SHORT: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_MAX_MARKS: Final = 3


def inert_line(text: str, limit: int) -> str:
    r"""One visible line of at most `limit` characters of `text`, plus a note of how many were left out.

    Characters that move the cursor, change the direction, break the line or are invisible become `\u{202e}`-style
    escapes; a run of combining marks is cut after three.
    """
    if len(text) <= limit and text.isascii() and text.isprintable():
        return text
    shown: list[str] = []
    length = marks = 0
    for position, char in enumerate(text):
        category = unicodedata.category(char)
        marks = marks + 1 if category in {"Mn", "Me"} else 0
        piece = _piece(char, category, too_many_marks=marks > _MAX_MARKS)
        if length + len(piece) > limit:
            return "".join(shown) + f"… (+{len(text) - position} characters)"
        shown.append(piece)
        length += len(piece)
    return "".join(shown)


def _piece(char: str, category: str, *, too_many_marks: bool) -> str:
    if char in _SHORT:
        return _SHORT[char]
    if category in _UNSEEN or char in _BLANK or too_many_marks or _UNDRAWN.match(char):
        return f"\\u{{{ord(char):x}}}"
    return " " if category == "Zs" else char
