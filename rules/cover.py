"""What must be found in an entry for a rule to match it: the keys under which the index files a rule."""

from typing import Final, NamedTuple

from rules.literals import Literal, cover_of, quality
from rules.pattern import Pattern, PatternForm
from rules.selection import AllOf, AnyOf, Condition, Match, Not

MAX_KEYS: Final = 64
_GOOD: Final = 24  # six rare characters


class ValueKey(NamedTuple):
    """A digest (hex, without its algorithm) or a fingerprint, looked up whole."""

    value: str
    is_digest: bool


Key = Literal | ValueKey


class Cover(NamedTuple):  # a tuple, because a million of them are made
    """Keys of which every matching signing shows at least one. `exact` are the whole values, when all are exact."""

    keys: tuple[Key, ...]
    exact: tuple[str, ...]
    quality: int


def cover_of_condition(condition: Condition) -> Cover | None:
    """The best cover of a condition; `None` when nothing certain must occur, as for a negation."""
    if isinstance(condition, Match):
        if condition.field == "identity" and len(condition.patterns) == 1:
            return _cover_of_identity(condition.patterns[0])
        return _cover_of_match(condition)
    if isinstance(condition, Not):
        return None
    if isinstance(condition, AllOf) and (good := _first_good(condition.conditions)) is not None:
        return good
    covers = [cover_of_condition(each) for each in condition.conditions]
    if isinstance(condition, AnyOf):
        return _union(covers)
    known = [cover for cover in covers if cover is not None]
    return max(known, key=lambda cover: cover.quality, default=None)


def _first_good(conditions: tuple[Condition, ...]) -> Cover | None:
    """A cover good enough to look no further: most rules name an identity and then an issuer."""
    for each in conditions:
        if isinstance(each, Match) and each.field == "identity" and (cover := cover_of_condition(each)) is not None:
            return cover if cover.quality >= _GOOD else None
    return None


def value_key(text: str) -> str:
    """How digests and fingerprints are filed: without the name of their algorithm."""
    return text if text.startswith("SHA256:") else text.rpartition(":")[2]


def _cover_of_identity(pattern: Pattern) -> Cover | None:
    """The same for the one identity that nearly every rule is about; there may be a million of them."""
    found = cover_of(pattern)
    is_exact = pattern.form is PatternForm.EXACT and not pattern.ignore_case
    return None if found is None else Cover(found, (pattern.text,) if is_exact else (), quality(found))


def _cover_of_match(match: Match) -> Cover | None:
    is_exact = all(each.form is PatternForm.EXACT and not each.ignore_case for each in match.patterns)
    if match.field in ("kind", "log"):
        return None
    if match.field in ("digest", "fingerprint"):
        if not is_exact or len(match.patterns) > MAX_KEYS:
            return None
        return Cover(
            tuple(ValueKey(value_key(each.text), match.field == "digest") for each in match.patterns), (), 1000
        )
    literals: dict[Literal, None] = {}
    for pattern in match.patterns:
        cover = cover_of(pattern)
        if cover is None:
            return None
        literals.update(dict.fromkeys(cover))
        if len(literals) > MAX_KEYS:
            return None
    exact = tuple(each.text for each in match.patterns) if is_exact else ()
    # An issuer vouches for many: a cover by identity or by a claim is worth more whenever there is one.
    worth = quality(tuple(literals)) - (1000 if match.field in ("issuer", "issuer_v1") else 0)
    return Cover(tuple(literals), exact, worth)


def _union(covers: list[Cover | None]) -> Cover | None:
    keys: dict[Key, None] = {}
    exact: list[str] = []
    worth = 1000
    all_exact = True
    for cover in covers:
        if cover is None:
            return None
        keys.update(dict.fromkeys(cover.keys))
        exact.extend(cover.exact)
        all_exact = all_exact and (bool(cover.exact) or all(isinstance(key, ValueKey) for key in cover.keys))
        worth = min(worth, cover.quality)
    if len(keys) > MAX_KEYS:
        return None
    return Cover(tuple(keys), tuple(exact) if all_exact else (), worth)
