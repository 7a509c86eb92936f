"""Which signings a rule is about: conditions on one signer and the entry it stands in.

Conditions on a signer hold on one and the same signer: an entry signed by A under one issuer and by B under another is
not a signing by A under B's issuer.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from rules.forges import as_selected
from rules.pattern import Pattern, exact, read_pattern
from settings.document import Listing, Mapping, Misplaced, Node
from settings.reading import Fields, read_list, read_text
from sigstore_entries.field_texts import extension_texts
from sigstore_entries.fulcio import BY_NAME
from sigstore_entries.signing import Digest, Signer, Signing

MAX_CONDITIONS: Final = 200
DIGEST_SIZES: Final = {"sha1": 40, "sha224": 56, "sha256": 64, "sha384": 96, "sha512": 128}

ENTRY_FIELDS: Final = ("digest", "kind", "log")
SIGNER_FIELDS: Final = ("identity", "issuer", "fingerprint")
CLAIM_FIELDS: Final = tuple(name for name in BY_NAME if name not in SIGNER_FIELDS)
COMBINERS: Final = ("all", "any", "not")
SELECT_KEYS: Final = (*SIGNER_FIELDS, *ENTRY_FIELDS, *CLAIM_FIELDS, "oid", *COMBINERS)

_OID = re.compile(r"[0-2](\.(0|[1-9][0-9]{0,17})){1,30}", re.ASCII)
_HEX = re.compile(r"[0-9a-f]+")


@dataclass(frozen=True, slots=True)
class Match:
    """Some value of `field` matches one of the patterns.

    `field` is `identity`, `issuer`, `fingerprint`, `digest`, `kind`, `log`, a Fulcio claim name or a dotted OID.
    """

    field: str
    patterns: tuple[Pattern, ...]

    def holds(self, signing: Signing, signer: Signer | None) -> bool:
        """Whether the condition holds for this signer of this entry."""
        patterns = self.patterns
        return any(pattern.matches(value) for value in values(self.field, signing, signer) for pattern in patterns)


@dataclass(frozen=True, slots=True)
class AllOf:
    """Every condition holds."""

    conditions: tuple["Condition", ...]

    def holds(self, signing: Signing, signer: Signer | None) -> bool:
        """Whether every condition holds for this signer of this entry."""
        return all(condition.holds(signing, signer) for condition in self.conditions)


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one condition holds."""

    conditions: tuple["Condition", ...]

    def holds(self, signing: Signing, signer: Signer | None) -> bool:
        """Whether a condition holds for this signer of this entry."""
        return any(condition.holds(signing, signer) for condition in self.conditions)


@dataclass(frozen=True, slots=True)
class Not:
    """The condition does not hold."""

    condition: "Condition"

    def holds(self, signing: Signing, signer: Signer | None) -> bool:
        """Whether the condition fails for this signer of this entry."""
        return not self.condition.holds(signing, signer)


Condition = Match | AllOf | AnyOf | Not


def matching_signers(condition: Condition, signing: Signing) -> tuple[Signer | None, ...]:
    """Each signer the condition holds for; `None` stands for the entry itself when it names no signer."""
    signers: tuple[Signer | None, ...] = signing.signers or (None,)
    return tuple(signer for signer in signers if condition.holds(signing, signer))


def matched_values(condition: Condition, field: str, signing: Signing, signer: Signer | None) -> Iterator[str]:
    """Values of a field by which a condition holds for this signer, each once; what negations ask is left out."""
    positive = [match for match in _positive(condition) if match.field == field]
    for value in dict.fromkeys(values(field, signing, signer)):
        if any(pattern.matches(value) for match in positive for pattern in match.patterns):
            yield value


def _positive(condition: Condition) -> Iterator[Match]:
    if isinstance(condition, Match):
        yield condition
    elif not isinstance(condition, Not):
        for each in condition.conditions:
            yield from _positive(each)


def values(field: str, signing: Signing, signer: Signer | None) -> Iterator[str]:
    """Every value a field has, as patterns see it: digests as `sha256:…`, hex in lower case."""
    if field == "digest":
        yield from (digest_text(digest) for digest in signing.digests)
    elif field == "kind":
        yield signing.kind
    elif field == "log":
        yield signing.where.log
    elif signer is not None:
        yield from _signer_values(field, signer)


def _signer_values(field: str, signer: Signer) -> Iterator[str]:
    if field == "identity":
        yield from (name.value for name in signer.names)
    elif field == "fingerprint":
        yield from (normal_fingerprint(fingerprint) for fingerprint in signer.fingerprints)
    elif field == "issuer":
        yield from _each_once(signer.issuer, signer.claims.get("issuer"), signer.claims.get("issuer_v1"))
    elif field in BY_NAME:
        yield from _each_once(signer.claims.get(field))
    else:
        yield from extension_texts(signer.extensions.get(field))


def _each_once(*candidates: str | None) -> Iterator[str]:
    yield from dict.fromkeys(value for value in candidates if value is not None)


def digest_text(digest: Digest) -> str:
    """`algorithm:hex`, both in lower case."""
    return f"{digest.algorithm.lower()}:{digest.value.lower()}"


def normal_fingerprint(text: str) -> str:
    """Fingerprints as they are compared: hex in lower case without separators; SSH's `SHA256:` form as it is."""
    if text.startswith("SHA256:"):
        return text
    return text.replace(":", "").replace(" ", "").lower()


def read_select(node: Node) -> Condition:
    """Read a `select` mapping: every key in it must hold."""
    condition = _read_all(node, negated=False)
    if count(condition) > MAX_CONDITIONS:
        raise Misplaced(f"more than {MAX_CONDITIONS} conditions in one rule", node)
    return condition


def _read_all(node: Node, *, negated: bool) -> Condition:
    fields = Fields(node, SELECT_KEYS, "select")
    conditions: list[Condition] = []
    for key, value in fields.node.entries:
        if key.text in ("all", "any"):
            parts = tuple(_read_all(item, negated=negated) for item in _branches(value))
            conditions.append(AllOf(parts) if key.text == "all" else AnyOf(parts))
        elif key.text == "not":
            conditions.append(Not(_read_all(value, negated=not negated)))
        elif key.text == "oid":
            conditions.extend(_read_oids(value))
        else:
            conditions.append(Match(key.text, _read_patterns(key.text, value, negated=negated)))
    if not conditions:
        raise Misplaced("select is empty: it would match every entry of every log", node)
    return conditions[0] if len(conditions) == 1 else AllOf(tuple(conditions))


def _branches(node: Node) -> tuple[Node, ...]:
    if not isinstance(node, Listing) or not node.items:
        raise Misplaced("this is a list of conditions", node)
    return node.items


def _read_oids(node: Node) -> Iterator[Condition]:
    fields = Fields(node, [], "oid", extra=is_oid)
    for key, value in fields.node.entries:
        yield Match(key.text, read_list(value, read_pattern))


def is_oid(text: str) -> bool:
    """Whether the text is a dotted object identifier."""
    return _OID.fullmatch(text) is not None


def _read_patterns(field: str, node: Node, *, negated: bool) -> tuple[Pattern, ...]:
    if field == "digest":
        return read_list(node, lambda item: exact(read_digest(item)))
    if field == "fingerprint":
        return read_list(node, lambda item: exact(_read_fingerprint(item)))
    return read_list(node, lambda item: _read_pattern(field, item, negated=negated))


def _read_pattern(field: str, node: Node, *, negated: bool) -> Pattern:
    pattern = read_pattern(node)
    # An explicit `ignore_case` decides, in either way.
    decided = isinstance(node, Mapping) and any(key.text == "ignore_case" for key, _ in node.entries)
    return pattern if decided else as_selected(field, pattern, negated=negated)


def read_digest(node: Node) -> str:
    """`sha256:…` with the right number of hex digits; a bare 64 digits are SHA-256."""
    text = read_text(node)
    try:
        return normal_digest(text)
    except ValueError as error:
        raise Misplaced(str(error), node) from None


def normal_digest(text: str) -> str:
    """`algorithm:hex` in lower case. Raises `ValueError` for another form."""
    lowered = text.strip().lower()
    algorithm, colon, value = lowered.rpartition(":")
    algorithm = algorithm if colon else "sha256"
    size = DIGEST_SIZES.get(algorithm)
    if size is None:
        raise ValueError(f"unknown digest algorithm {algorithm[:40]!r}: known are {', '.join(DIGEST_SIZES)}")
    if len(value) != size or not _HEX.fullmatch(value):
        raise ValueError(f"a {algorithm} digest is {size} hex digits, such as {algorithm}:{'0f' * (size // 2)}")
    return f"{algorithm}:{value}"


def _read_fingerprint(node: Node) -> str:
    text = read_text(node)
    normal = normal_fingerprint(text)
    if normal.startswith("SHA256:"):
        return normal
    if not _HEX.fullmatch(normal) or len(normal) not in (40, 64):
        raise Misplaced("a fingerprint is 40 or 64 hex digits (PGP, certificate, key) or SHA256:… (SSH)", node)
    return normal


def count(condition: Condition) -> int:
    """How many conditions and patterns the tree holds."""
    if isinstance(condition, Match):
        return 1
    if isinstance(condition, Not):
        return 1 + count(condition.condition)
    return 1 + sum(count(each) for each in condition.conditions)


def walk(condition: Condition) -> Iterator[Match]:
    """Every `Match` of the tree, negated ones included."""
    if isinstance(condition, Match):
        yield condition
    elif isinstance(condition, Not):
        yield from walk(condition.condition)
    else:
        for each in condition.conditions:
            yield from walk(each)


def outline(condition: Condition) -> object:
    """The condition as plain lists, the same for the same meaning as written: for comparing and hashing rules."""
    if isinstance(condition, Match):
        patterns = sorted([each.form.value, each.text, each.ignore_case] for each in condition.patterns)
        return [condition.field, patterns]
    if isinstance(condition, Not):
        return ["not", outline(condition.condition)]
    kind = "all" if isinstance(condition, AllOf) else "any"
    return [kind, sorted((outline(each) for each in condition.conditions), key=repr)]


def constrains(condition: Condition, fields: Iterable[str]) -> bool:
    """Whether no signer can match without a condition on one of `fields` having held."""
    if isinstance(condition, Match):
        return condition.field in fields
    if isinstance(condition, Not):
        return False
    judged = (constrains(each, fields) for each in condition.conditions)
    return any(judged) if isinstance(condition, AllOf) else all(judged)
