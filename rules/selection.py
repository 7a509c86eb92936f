"""Selection: the conditions of a rule on a signer and its entry, and the signers that a rule selected.

An entry may carry signatures of other people, and unverified names. So only signers in `Selected.vouched` count as
the past, use up authorisations, and satisfy `log_entry_within`.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from enum import StrEnum
from typing import Final

from msgspec import Struct

from rules.pattern import Pattern, as_selected, exact, read_pattern, source_repository
from settings.document import Misplaced, Node, YamlMapping, YamlSequence
from settings.reading import Fields, read_list, read_text
from sigstore_entries.certificate import BY_NAME
from sigstore_entries.field_texts import extension_texts
from sigstore_entries.signing import ChainTrust, Digest, NameForm, SignatureCheck, Signer, SignerForm, Signing

MAX_CONDITIONS: Final = 200
REPOSITORY_SEGMENTS: Final = 2
"""Parts of the path of a repository, at least: the owner and the name."""
MAX_SEGMENTS: Final = 6
"""Most parts of the path of a repository that a signing is filed under."""
DIGEST_SIZES: Final = {"sha1": 40, "sha224": 56, "sha256": 64, "sha384": 96, "sha512": 128}

ENTRY_FIELDS: Final = ("digest", "kind", "log")
SIGNER_FIELDS: Final = ("identity", "issuer", "fingerprint")
CLAIM_FIELDS: Final = tuple(name for name in BY_NAME if name not in SIGNER_FIELDS)
COMBINERS: Final = ("all", "any", "not")
SELECT_KEYS: Final = (*SIGNER_FIELDS, *ENTRY_FIELDS, *CLAIM_FIELDS, "oid", *COMBINERS)

_OID = re.compile(r"[0-2](\.(0|[1-9][0-9]{0,17})){1,30}", re.ASCII)
_HEX = re.compile(r"[0-9a-f]+")


class FieldMatch(Struct, frozen=True, gc=False):
    """Some value of `field` matches one of the patterns.

    `field` is `identity`, `issuer`, `fingerprint`, `digest`, `kind`, `log`, a Fulcio claim name or a dotted OID.
    """

    field: str
    patterns: tuple[Pattern, ...]

    def holds(self, signing: Signing, signer: Signer | None) -> bool:
        """True if the condition holds for this signer of this entry."""
        patterns = self.patterns
        return any(pattern.matches(value) for value in values(self.field, signing, signer) for pattern in patterns)


class AllOf(Struct, frozen=True, gc=False):
    """Every condition holds."""

    conditions: tuple["Condition", ...]

    def holds(self, signing: Signing, signer: Signer | None) -> bool:
        """True if every condition holds for this signer of this entry."""
        return all(condition.holds(signing, signer) for condition in self.conditions)


class AnyOf(Struct, frozen=True, gc=False):
    """At least one condition holds."""

    conditions: tuple["Condition", ...]

    def holds(self, signing: Signing, signer: Signer | None) -> bool:
        """True if a condition holds for this signer of this entry."""
        return any(condition.holds(signing, signer) for condition in self.conditions)


class Not(Struct, frozen=True, gc=False):
    """The condition does not hold."""

    condition: "Condition"

    def holds(self, signing: Signing, signer: Signer | None) -> bool:
        """True if the condition fails for this signer of this entry."""
        return not self.condition.holds(signing, signer)


Condition = FieldMatch | AllOf | AnyOf | Not


def matching_signers(condition: Condition, signing: Signing) -> tuple[Signer | None, ...]:
    """Each signer that meets the condition; `None` stands for an entry without a signer."""
    signers: tuple[Signer | None, ...] = signing.signers or (None,)
    return tuple(signer for signer in signers if condition.holds(signing, signer))


def matched_values(condition: Condition, field: str, signing: Signing, signer: Signer | None) -> Iterator[str]:
    """Values of a field by which a condition holds for this signer, each once; values in negations are left out."""
    positive = [match for match in _positive(condition) if match.field == field]
    for value in dict.fromkeys(values(field, signing, signer)):
        if any(pattern.matches(value) for match in positive for pattern in match.patterns):
            yield value


def _positive(condition: Condition) -> Iterator[FieldMatch]:
    if isinstance(condition, FieldMatch):
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


def names_of(signing: Signing) -> Iterator[str]:
    """Every name a signing is filed under, as `rules.subject.Subject.key` spells them; some may come twice."""
    for digest in signing.digests:
        yield digest_text(digest)
    for signer in signing.signers:
        yield from _names_of_signer(signer)


def _names_of_signer(signer: Signer) -> Iterator[str]:
    for name in signer.names:
        value = name.value.lower()
        yield value
        if name.form is NameForm.URI:
            yield from _places(value)
    for repository in dict.fromkeys((signer.claims.get("source_repository_uri"), source_repository(signer))):
        if repository:
            yield from _places(repository.lower())
    owner = signer.claims.get("source_repository_owner_uri")
    if owner:
        yield owner.lower()
    for fingerprint in signer.fingerprints:
        yield normal_fingerprint(fingerprint)


def _places(uri: str) -> Iterator[str]:
    """The repository and the owner in the URI of a workflow or a repository."""
    head = uri.split("/.github/", maxsplit=1)[0].split("//.", maxsplit=1)[0] if "://" in uri else uri
    scheme, separator, rest = head.partition("://")
    if not separator:
        return
    parts = rest.split("@")[0].strip("/").split("/")[: MAX_SEGMENTS + 1]
    for count in range(REPOSITORY_SEGMENTS, len(parts) + 1):
        yield f"{scheme}://{'/'.join(parts[:count])}"


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
            conditions.append(FieldMatch(key.text, _read_patterns(key.text, value, negated=negated)))
    if not conditions:
        raise Misplaced("select is empty: it would match every entry of every log", node)
    return conditions[0] if len(conditions) == 1 else AllOf(tuple(conditions))


def _branches(node: Node) -> tuple[Node, ...]:
    if not isinstance(node, YamlSequence) or not node.items:
        raise Misplaced("this is a list of conditions", node)
    return node.items


def _read_oids(node: Node) -> Iterator[Condition]:
    fields = Fields(node, [], "oid", extra=is_oid)
    for key, value in fields.node.entries:
        yield FieldMatch(key.text, read_list(value, read_pattern))


def is_oid(text: str) -> bool:
    """True if the text is a dotted object identifier."""
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
    decided = isinstance(node, YamlMapping) and any(key.text == "ignore_case" for key, _ in node.entries)
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
    """Number of conditions and patterns in the tree."""
    if isinstance(condition, FieldMatch):
        return 1
    if isinstance(condition, Not):
        return 1 + count(condition.condition)
    return 1 + sum(count(each) for each in condition.conditions)


def walk(condition: Condition) -> Iterator[FieldMatch]:
    """Every `FieldMatch` of the tree, negated ones included."""
    if isinstance(condition, FieldMatch):
        yield condition
    elif isinstance(condition, Not):
        yield from walk(condition.condition)
    else:
        for each in condition.conditions:
            yield from walk(each)


def outline(condition: Condition) -> object:
    """The condition as plain lists, the same for the same meaning as written: for comparing and hashing rules."""
    if isinstance(condition, FieldMatch):
        patterns = sorted([each.form.value, each.text, each.ignore_case] for each in condition.patterns)
        return [condition.field, patterns]
    if isinstance(condition, Not):
        return ["not", outline(condition.condition)]
    kind = "all" if isinstance(condition, AllOf) else "any"
    return [kind, sorted((outline(each) for each in condition.conditions), key=repr)]


def constrains(condition: Condition, fields: Iterable[str]) -> bool:
    """True if every match needs a fulfilled condition on one of `fields`."""
    if isinstance(condition, FieldMatch):
        return condition.field in fields
    if isinstance(condition, Not):
        return False
    judged = (constrains(each, fields) for each in condition.conditions)
    return any(judged) if isinstance(condition, AllOf) else all(judged)


class Voucher(StrEnum):
    """Reason why a selected signer counts as the rule's signer, or does not."""

    AUTHORITY = "authority"
    """A certificate authority of the trust root issued the certificate."""
    FINGERPRINT = "fingerprint"
    """The rule names this very key or certificate."""
    NO_NAME = "no-name"
    """A key that the rule selected by neither a name nor a fingerprint, or an entry without a signer."""
    NOT_CHECKED = "not-checked"
    """The certificate's chain was not judged."""
    UNTRUSTED_CHAIN = "untrusted-chain"
    """A certificate that no authority of the trust root issued: any person can make one, with any name in it."""
    NAME_ALONE = "name-alone"
    """A key selected by a name that any person can put on a key of their own (a PGP user ID)."""
    WRONG_SIGNATURE = "wrong-signature"
    """This key or certificate did not make the entry's signature, so the entry says nothing about its alleged
    signer."""

    ONLY_LISTED = "only-listed"
    """The entry lists this key or certificate, and another one made its signature: any person can list it."""
    SIGNER_UNKNOWN = "signer-unknown"
    """The entry lists several keys or certificates and does not show whether this one made its signature."""


_BY_CHAIN = {ChainTrust.TRUSTED: Voucher.AUTHORITY, ChainTrust.NOT_CHECKED: Voucher.NOT_CHECKED}
_VOUCHED = frozenset({Voucher.AUTHORITY, Voucher.FINGERPRINT})
_UNVERIFIED = frozenset({Voucher.UNTRUSTED_CHAIN, Voucher.NAME_ALONE, Voucher.WRONG_SIGNATURE, Voucher.ONLY_LISTED})


class SelectedSigner(Struct, frozen=True, gc=False):
    """One selected signer; `signer` is `None` where the entry names none."""

    signer: Signer | None
    voucher: Voucher

    @property
    def is_vouched(self) -> bool:
        """True if the rule's own signer made the signature."""
        return self.voucher in _VOUCHED

    @property
    def is_unverified(self) -> bool:
        """True if a stranger could have made the entry without a key of the alleged signer."""
        return self.voucher in _UNVERIFIED

    @property
    def believed(self) -> Signer | None:
        """The trusted part of the signer: for a self-made certificate around a named key, the key alone."""
        signer = self.signer
        if signer is None or self.voucher is not Voucher.FINGERPRINT or signer.trust is not ChainTrust.UNTRUSTED:
            return signer
        return Signer(SignerForm.KEY, fingerprints=signer.fingerprints, trust=ChainTrust.NO_CERTIFICATE)


class Selected(Struct, frozen=True, gc=False):
    """The signers of one entry that one rule selected, in the entry's order."""

    signing: Signing
    signers: tuple[SelectedSigner, ...]

    @property
    def vouched(self) -> tuple[Signer, ...]:
        """Signers that count as the past, use up authorisations and satisfy delayed expectations."""
        if len(self.signers) == 1 and not self.signers[0].is_vouched:
            return ()
        return tuple(each.believed for each in self.signers if each.is_vouched and each.believed is not None)

    @property
    def certificates(self) -> frozenset[bytes]:
        """Trusted certificates of the whole entry (`Signer.issued`), which do not count as the past of this entry."""
        return frozenset(signer.issued for signer in self.signing.signers if signer.issued is not None)


def select(condition: Condition, signing: Signing) -> Selected:
    """Select the signers that a condition holds for. Chains must have been judged before (`Signer.trust`)."""
    return Selected(
        signing,
        tuple(
            SelectedSigner(signer, _voucher(condition, signing, signer))
            for signer in matching_signers(condition, signing)
        ),
    )


def _voucher(condition: Condition, signing: Signing, signer: Signer | None) -> Voucher:
    if signer is None:
        return Voucher.NO_NAME
    if signer.signature is SignatureCheck.WRONG:
        return Voucher.WRONG_SIGNATURE
    if signer.trust in _BY_CHAIN:
        return _listed(signer) or _BY_CHAIN[signer.trust]
    if names_key(condition, signing, signer):
        return _by_fingerprint(condition, signing, signer)
    if signer.trust is ChainTrust.UNTRUSTED:
        return Voucher.UNTRUSTED_CHAIN
    nameless = replace(signer, names=())
    return Voucher.NO_NAME if condition.holds(signing, nameless) else Voucher.NAME_ALONE


def _listed(certified: Signer) -> Voucher | None:
    """Reason why a certificate in the entry may not have signed it; `None` without one."""
    if certified.only_listed:
        return Voucher.ONLY_LISTED
    return Voucher.SIGNER_UNKNOWN if certified.maybe_signed else None


def _by_fingerprint(condition: Condition, signing: Signing, signer: Signer) -> Voucher:
    """The voucher of a key that the rule names: it made the signature, or is only listed beside the signing key."""
    others = {*signer.only_listed, *signer.maybe_signed}
    if names_key(condition, signing, _with_keys(signer, lambda key: key not in others)):
        return Voucher.FINGERPRINT
    if names_key(condition, signing, _with_keys(signer, lambda key: key not in signer.only_listed)):
        return Voucher.SIGNER_UNKNOWN
    return Voucher.ONLY_LISTED


def _with_keys(signer: Signer, is_wanted: Callable[[str], bool]) -> Signer:
    return replace(signer, fingerprints=tuple(key for key in signer.fingerprints if is_wanted(key)))


def names_key(condition: Condition, signing: Signing, signer: Signer) -> bool:
    """True if the condition holds for this signer, and a fulfilled fingerprint condition is one cause."""
    if isinstance(condition, FieldMatch):
        return condition.field == "fingerprint" and condition.holds(signing, signer)
    if not isinstance(condition, (AllOf, AnyOf)):
        return False
    # Most conditions name no key at all, which is found out faster than whether they hold.
    return any(names_key(each, signing, signer) for each in condition.conditions) and condition.holds(signing, signer)
