"""Text that an attacker chose, made harmless for display: one line, visible, capped."""

import hashlib
import re
from typing import Any, Final

from addresses.visible import inert_line

__all__ = ["header_token", "inert_cell", "inert_json", "inert_line"]

_PLAIN_KEY: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,179}")
_FORMULA: Final = re.compile(r"""(?:^|(?<=;))(?=[\s"]*[=+\-@\uff1d\uff0b\uff0d\uff20])""")
"""Beginning of a formula in a table: `=`, `+`, `-`, `@`, their fullwidth forms, also behind blanks or quotes.

Spreadsheets of many countries end a cell at a semicolon, also in a table that is separated by commas.
"""
_JSON_TEXT: Final = 2_000
_JSON_ITEMS: Final = 64


def inert_json(value: Any) -> Any:
    """Plain JSON with long strings cut and lone surrogates replaced; the encoder escapes the rest.

    Long lists of texts come from entries and are cut, with a note as the last item. Lists of objects are never cut.
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


def inert_cell(text: str) -> str:
    """A cell of a CSV table: an apostrophe precedes text that a spreadsheet would run as a formula."""
    return _FORMULA.sub("'", text)


def header_token(key: str) -> str:
    """`key` itself when it is short plain ASCII, fit for any header; otherwise a digest of it, which is as stable."""
    if _PLAIN_KEY.fullmatch(key):
        return key
    return "sha256-" + hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
