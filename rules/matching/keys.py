"""Index keys of a pattern: every value that it matches equals a key, begins with one, or contains one.

Soundness is required: every value that a pattern matches shows one of its keys, after folding A-Z for folded keys.
When in doubt a key is shortened or given up, which costs speed and never a match. A literal is searched for in UTF-8.
"""

import re
from typing import Final, NamedTuple

from rules.pattern import fold

MIN_LITERAL: Final = 6  # bytes; shorter ones are found everywhere
MAX_LITERAL: Final = 16  # bytes; longer ones make the automaton bigger, not better
MAX_SLASHES: Final = 5  # of a head: `https://host/organisation/repository/`
_TELLING: Final = 12  # bytes of a path with its slashes that are rare among paths

# Texts of very many identities, so useless as keys: the texts around them are used instead.
_COMMON: Final = re.compile(
    r"https?://(?:token\.actions\.githubusercontent\.com|accounts\.google\.com|github\.com/login/oauth)"
    r"|(?:https?://)?(?:www\.)?git(?:hub|lab)\.com/?|https?://|oauth"
    r"|/?\.github/workflows/?|/?\.gitlab-ci|@?refs/(?:heads|tags|pull)/|@refs/|(?:heads|tags|pull)/"
    r"|(?:release|publish|build|main|ci)(?:\.ya?ml)?\b|\bmaster\b|\.ya?ml|github-hosted|self-hosted|workflow_dispatch"
    r"|\.?iam\.gserviceaccount\.com",
    re.ASCII,
)
_GITHUB: Final = "https://github.com/"
_WORKFLOWS: Final = "/.github/workflows/"
_RARE_ENOUGH: Final = 3


class WholeValue(NamedTuple):
    """All of the value. `folded` keys are compared with A-Z lowered; `rare` is how selective a key is."""

    text: str
    folded: bool = False
    rare: int = 0


class ValuePrefix(NamedTuple):
    """The beginning of a value, up to and with its last slash, or its fifth."""

    text: str
    folded: bool = False
    rare: int = 0


class Literal(NamedTuple):
    """Bytes anywhere in the value."""

    data: bytes
    folded: bool = False
    rare: int = 0


Key = WholeValue | ValuePrefix | Literal
Keys = tuple[Key, ...]


def quality(keys: Keys) -> int:
    """Selectivity of keys, for a choice between them: the weakest key counts, and few keys are better than many."""
    return min([key.rare for key in keys]) * 4 - len(keys)


def best_of(candidates: list[Keys]) -> Keys | None:
    """The best of several sets of keys, each of which would be sound."""
    return max(candidates, key=_preference, default=None)


def _preference(keys: Keys) -> int:
    # A head is looked up at once, a literal is searched for byte by byte, so a literal must be much rarer to be better.
    return quality(keys) * (2 if all(isinstance(key, ValuePrefix) for key in keys) else 1)


def whole_of(text: str, *, folded: bool) -> WholeValue:
    """The key of a pattern that only this text matches."""
    text = fold(text) if folded else text
    start, end = _rare_span(text)
    return WholeValue(text, folded, end - start)


def head_of(text: str, *, folded: bool) -> ValuePrefix | None:
    """The key of a pattern with values that begin with `text`; `None` when the text is not selective."""
    parts = text.split("/", MAX_SLASHES)
    text = text[: len(text) - len(parts[-1])]
    text = fold(text) if folded else text
    if text.startswith(_GITHUB):
        rare = len(text) - len(_GITHUB) - 1
    else:
        start, end = _rare_span(text)
        rare = end - start
    return ValuePrefix(text, folded, rare) if rare >= _RARE_ENOUGH else None


def literal_of(text: str, *, folded: bool) -> Literal | None:
    """The most selective piece of a text that every value contains; `None` when it is too short."""
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
    start = _telling_end(text, start, end)
    data = text[start:end].encode("utf-8", "replace")[:MAX_LITERAL]
    return Literal(data, folded, rare) if len(data) >= MIN_LITERAL else None


def _telling_end(text: str, start: int, end: int) -> int:
    """Index in `text[start:end]` to start at when the text is too long to search for."""
    if end - start <= MAX_LITERAL:
        return start
    at = text.find("@", start, end)
    if at >= 0 and "/" not in text[start:end]:
        # Both sides of the `@`: many names share the domain, and many domains share a name.
        return min(max(at - MAX_LITERAL // 2 - 1, start), end - MAX_LITERAL)
    # The end of `/organisation/repository/` is more selective, if it is long enough.
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
