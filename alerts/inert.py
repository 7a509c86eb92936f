"""Text that an attacker chose, made harmless to look at: one line, visible, capped."""

import hashlib
import re
import unicodedata
from typing import Any, Final

# Cc: ANSI escapes and newlines. Cf: bidi overrides, zero-width and tag characters. Cs, Co, Cn: no agreed look.
# Zl, Zp: line breaks by another name.
_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
# Letters and symbols by category, blank by look: they hide where a name ends.
_BLANK: Final = frozenset("\u115f\u1160\u2800\u3164\uffa0")
# Marks that are not drawn (Unicode: Default_Ignorable_Code_Point): two names with and without one look the same.
_UNDRAWN: Final = re.compile("[\u034f\u17b4\u17b5\u180b-\u180d\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef]")
_SHORT: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_MAX_MARKS: Final = 3
_PLAIN_KEY: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,179}")
_JSON_TEXT: Final = 2_000
_JSON_ITEMS: Final = 64


def inert_line(text: str, limit: int) -> str:
    r"""One visible line of at most `limit` characters of `text`, plus a note of how many were left out.

    Characters that move the cursor, change direction, break the line or show nothing become `\u{202e}`-style escapes;
    a pile of combining marks is cut after three.
    """
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


def inert_json(value: Any) -> Any:
    """Plain JSON with long strings cut and lone surrogates replaced; the encoder escapes the rest.

    Long lists of texts come from entries and are cut, which the last item says. Lists of objects are never cut.
    """
    match value:
        case str():
            text = value[:_JSON_TEXT].encode("utf-8", "replace").decode()
            return text if len(value) <= _JSON_TEXT else f"{text}… (+{len(value) - _JSON_TEXT} characters)"
        case dict():
            return {inert_json(key): inert_json(item) for key, item in value.items()}
        case list() | tuple():
            if len(value) <= _JSON_ITEMS or any(isinstance(item, dict | list | tuple) for item in value):
                return [inert_json(item) for item in value]
            return [*map(inert_json, value[:_JSON_ITEMS]), f"… (+{len(value) - _JSON_ITEMS} items)"]
        case _:
            return value


def header_token(key: str) -> str:
    """`key` itself when it is short plain ASCII, fit for any header; otherwise a digest of it, just as stable."""
    if _PLAIN_KEY.fullmatch(key):
        return key
    return "sha256-" + hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
