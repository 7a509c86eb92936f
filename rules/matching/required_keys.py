"""Keys under which the index files a rule: an entry that shows none of them cannot match the rule."""

from typing import Final, NamedTuple

from rules.matching.keys import MIN_LITERAL, Key, Keys, WholeValue, best_of, head_of, literal_of, quality, whole_of
from rules.matching.regex_keys import keys_of_regex
from rules.pattern import Pattern, PatternForm, glob_pieces, glob_prefix
from rules.selection import AllOf, AnyOf, Condition, FieldMatch, Not

MAX_KEYS: Final = 64
_GOOD: Final = 24  # six rare characters
_SURE: Final = 250  # as rare as a digest
_IDENTITY: Final = ("identity",)


class RequiredKeys(NamedTuple):  # a tuple, because a million of them are made
    """Keys of which every matching signing shows at least one, and the fields with these values."""

    keys: Keys
    fields: tuple[str, ...]
    quality: int


def required_keys_of(condition: Condition) -> RequiredKeys | None:
    """The most selective required keys of a condition; `None` when nothing certain must occur, as for a negation."""
    if isinstance(condition, FieldMatch):
        if condition.field == "identity" and len(condition.patterns) == 1:
            keys = keys_of(condition.patterns[0])  # the case of nearly every rule; there may be a million
            return None if keys is None else RequiredKeys(keys, _IDENTITY, quality(keys))
        return _required_by_match(condition)
    if isinstance(condition, Not):
        return None
    if isinstance(condition, AllOf) and (good := _first_good(condition.conditions)) is not None:
        return good
    alternatives = [required_keys_of(each) for each in condition.conditions]
    if isinstance(condition, AnyOf):
        return _union(alternatives)
    known = [required for required in alternatives if required is not None]
    return max(known, key=lambda required: required.quality, default=None)


def keys_of(pattern: Pattern) -> Keys | None:
    """Keys of which at least one is in every value that the pattern matches; `None` without a short list."""
    text, folded = pattern.text, pattern.ignore_case
    if pattern.form is PatternForm.EXACT:
        return (whole_of(text, folded=folded),)
    if pattern.form is PatternForm.REGEX:
        return keys_of_regex(text, folded=folded)
    prefix, has_star = glob_prefix(text)
    if not has_star:
        return (whole_of(prefix, folded=folded),)
    head = head_of(prefix, folded=folded)
    if head is not None and head.rare * 4 >= _GOOD:
        return (head,)
    pieces = (literal_of(each, folded=folded) for each in glob_pieces(text) if isinstance(each, str))
    return best_of([(key,) for key in (head, *pieces) if key is not None])


def value_key(text: str) -> str:
    """Key of a digest: without the name of its algorithm."""
    return text if text.startswith("SHA256:") else text.rpartition(":")[2]


def _first_good(conditions: tuple[Condition, ...]) -> RequiredKeys | None:
    """The first required keys that are selective enough: most rules name an identity and then an issuer."""
    for each in conditions:
        if (
            isinstance(each, FieldMatch)
            and each.field == "identity"
            and (required := required_keys_of(each)) is not None
        ):
            return required if required.quality >= _GOOD else None
    return None


def _required_by_match(match: FieldMatch) -> RequiredKeys | None:
    if match.field in ("kind", "log"):
        return None
    if match.field in ("digest", "fingerprint"):
        return _required_by_values(match)
    found: dict[Key, None] = {}
    for pattern in match.patterns:
        keys = keys_of(pattern)
        # A short claim, such as `push`, is in very many entries; a short name is not.
        if keys is None or (match.field != "identity" and any(map(_is_short, keys))):
            return None
        found.update(dict.fromkeys(keys))
        if len(found) > MAX_KEYS:
            return None
    # An issuer has many signers: required keys by identity or by a claim are better if there are any.
    worth = quality(tuple(found)) - (1000 if match.field in ("issuer", "issuer_v1") else 0)
    return RequiredKeys(tuple(found), (match.field,), worth)


def _is_short(key: Key) -> bool:
    return isinstance(key, WholeValue) and len(key.text) < MIN_LITERAL


def _required_by_values(match: FieldMatch) -> RequiredKeys | None:
    exact = [each.text for each in match.patterns if each.form is PatternForm.EXACT and not each.ignore_case]
    if len(exact) < len(match.patterns) or len(exact) > MAX_KEYS:
        return None
    keys = tuple(WholeValue(value_key(text), rare=_SURE) for text in exact)
    return RequiredKeys(keys, (match.field,), quality(keys))


def _union(alternatives: list[RequiredKeys | None]) -> RequiredKeys | None:
    known = [required for required in alternatives if required is not None]
    keys = dict.fromkeys(key for required in known for key in required.keys)
    if len(known) < len(alternatives) or len(keys) > MAX_KEYS:
        return None
    fields = tuple(dict.fromkeys(field for required in known for field in required.fields))
    return RequiredKeys(tuple(keys), fields, min(required.quality for required in known))
