"""A rule, the question to each of its expectations about one signing, the answer, and the verdict."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar, Final, Literal, Protocol, Self, cast

from msgspec import Struct

from rules.facts import Facts
from rules.pattern import Pattern, any_of, read_pattern, source_repository
from rules.selection import Condition, outline
from settings.document import Misplaced, Node, YamlScalar
from settings.reading import read_list, read_number
from sigstore_entries.signing import Signer, SignerForm, Signing


class Outcome(StrEnum):
    """Expected, unexpected, or unverified: the certificate does not chain to a trusted authority.

    Any person can log a self-made certificate with any name, so `unverified` is counted and reported in a digest.
    """

    EXPECTED = "expected"
    UNEXPECTED = "unexpected"
    UNVERIFIED = "unverified"


class Reason(Struct, frozen=True, gc=False):
    """A difference between a signing and the expectations. `id` names the page `docs/expectations/<id>.md`."""

    id: str
    sentence: str
    expected: str = ""
    found: str = ""


class Verdict(Struct, frozen=True, gc=False):
    """A rule's judgement of a signing, with every reason, not only the first."""

    outcome: Outcome
    reasons: tuple[Reason, ...] = ()


LookBack = int | Literal["none", "followed", "all"]
"""`none`; `followed`: from the first followed entry; `all`: from the log's first entry; or a number of entries back."""

WORDS: Final = ("none", "followed", "all")


def read_look_back(node: Node) -> LookBack:
    """Read one of the words, or a number of entries."""
    if isinstance(node, YamlScalar) and node.text in WORDS:
        return cast("LookBack", node.text)
    try:
        entries = read_number(node)
    except Misplaced:
        entries = 0
    if entries < 1:
        raise Misplaced(f"how far to look back is {', '.join(WORDS)}, or a number of entries from 1 to 999999999", node)
    return entries


def first_wanted(look_back: LookBack, began: int, followed_from: int) -> int | None:
    """First entry that a rule is to be offered.

    `began` is the log's size when the rule came, `followed_from` the entry that following began at. `None` when no
    entry before `began` is wanted.
    """
    match look_back:
        case "none":
            return None
        case "followed":
            return followed_from
        case "all":
            return 0
        case int():
            return max(0, began - look_back)


Schema = Mapping[str, Any]
CT_KINDS = (SignerForm.CERTIFICATE.value, SignerForm.PRECERTIFICATE.value)  # kinds of entries of a CT log
_SAID_BY_AUTHORITY = ("timestamp-response", "integrated-time", "ct-timestamp")


class RuleSeverity(StrEnum):
    """Urgency of an unexpected signing under this rule."""

    PAGE = "page"
    WARN = "warn"
    INFO = "info"


class Rule(Struct, frozen=True, gc=False):
    """Signings to watch, and the form of a legitimate one.

    `expect` empty means that every trusted match is news. `notify` empty means the default channels, no `backscan` the
    default range. `line` and `column` are where the rule starts in its file, 0 when it did not come from one.
    """

    id: str
    select: Condition
    expect: "tuple[Expectation, ...]" = ()
    title: str = ""
    notify: tuple[str, ...] = ()
    severity: RuleSeverity = RuleSeverity.PAGE
    backscan: LookBack | None = None
    line: int = 0
    column: int = 0

    def selection_id(self) -> str:
        """Hex SHA-256 of the rule's selection: as long as it stays, the ranges scanned for the rule stay valid."""
        return hashlib.sha256(json.dumps(outline(self.select)).encode()).hexdigest()


class RuleSet(Struct, frozen=True):
    """The rules of one file, in order. `name` is what messages call the file."""

    rules: tuple[Rule, ...]
    name: str = "rules"


class Case(Struct, frozen=True, gc=False):
    """One signer of one entry under one rule. `now` is when it is judged, which may be for the second time.

    `signer` holds only the trusted part of the signer; `certificates` are the trusted ones of the whole entry.
    """

    rule: Rule
    signing: Signing
    signer: Signer | None
    facts: Facts
    now: datetime
    certificates: frozenset[bytes] = frozenset()

    def claim(self, name: str) -> str | None:
        """A Fulcio claim of the signer's certificate; `None` when it is absent or could not be read."""
        if self.signer is None:
            return None
        return self.signer.issuer if name == "issuer" else self.signer.claims.get(name)

    @property
    def repository(self) -> str | None:
        """URI of the source repository on the host that the certificate means."""
        return source_repository(self.signer) if self.signer is not None else None

    @property
    def identities(self) -> tuple[str, ...]:
        """The names the signer carries."""
        return tuple(name.value for name in self.signer.names) if self.signer is not None else ()

    @property
    def certificate_only(self) -> bool:
        """True if the entry is a certificate in a CT log: it names the signer and no artifact."""
        return self.signer is not None and (
            self.signer.form is SignerForm.PRECERTIFICATE
            or (not self.signing.digests and self.signing.kind in CT_KINDS)
        )

    @property
    def signed_at(self) -> datetime | None:
        """Time of signing, by the most trustworthy source in the entry; `None` when the entry has no time."""
        if self.signer is not None and self.signer.not_before is not None:
            return self.signer.not_before
        ranked = [time for source in _SAID_BY_AUTHORITY for time in self.signing.times if time.source == source]
        return ranked[0].at if ranked else None


class Check(Struct, frozen=True, gc=False):
    """One check: its label, the expected value, the value found, and whether it was as expected.

    `sentence` is the meaning of an unmet check.
    """

    label: str
    expected: str
    found: str
    ok: bool
    sentence: str


class Expectation(Protocol):
    """One kind of expectation. `id` names `docs/expectations/<id>.md`, `key` its place in a rule's `expect`."""

    id: ClassVar[str]
    key: ClassVar[str]
    schema: ClassVar[Schema]

    @classmethod
    def read(cls, node: Node) -> Self:
        """Read the value under `key`. Raises `Misplaced`."""

    def checks(self, case: Case) -> Iterator[Check]:
        """All checks of this expectation, met or unmet."""


class DelayedExpectation:
    """An expectation about an event after the entry was read.

    A plain class, no protocol and no `ABC`: every hit asks every expectation whether it is one.
    """

    __slots__ = ()

    def due_at(self, case: Case) -> datetime | None:
        """Time by which the event must have happened; before it, `checks` is empty.

        `None` when the case needs no such event.
        """
        raise NotImplementedError


class JudgedByFacts:
    """Base class of expectations that ask about earlier signings: a verdict is valid only until that past changes."""

    __slots__ = ()


ABSENT: Final = "(not in the certificate)"
_LACKS: Final = " The certificate lacks this claim, so it counts as unexpected."
PATTERNS: Final[Schema] = {"$ref": "#/$defs/patterns"}


class ClaimExpectation(Struct, frozen=True):
    """Base class of expectations on one claim of a Fulcio certificate: it is there, reads, and matches a pattern.

    `claims` are tried in order: the claim itself, then its equivalents in older certificates.
    """

    patterns: tuple[Pattern, ...]

    id: ClassVar[str]
    key: ClassVar[str]
    schema: ClassVar[Schema] = PATTERNS
    claims: ClassVar[tuple[str, ...]]
    sentence: ClassVar[str]

    @classmethod
    def read(cls, node: Node) -> Self:
        """Read a pattern or a list of patterns."""
        return cls(read_list(node, read_pattern))

    def unmet(self, case: Case) -> Iterator[Reason]:
        """The reasons that `checks` gives, without making a check of each claim that is as expected."""
        none = True
        for _, value in self.found(case):
            none = False
            for pattern in self.patterns:
                if self.accepts(pattern, value):
                    break
            else:
                yield Reason(self.id, self.sentence, any_of(self.patterns), value)
        if none:
            yield Reason(self.id, self.sentence + _LACKS, any_of(self.patterns), ABSENT)

    def checks(self, case: Case) -> Iterator[Check]:
        """One check for each of the claims the certificate carries; one that fails when it carries none."""
        found = list(self.found(case))
        expected = any_of(self.patterns)
        if not found:
            yield Check(self.claims[0], expected, ABSENT, ok=False, sentence=self.sentence + _LACKS)
        for name, value in found:
            ok = any(self.accepts(pattern, value) for pattern in self.patterns)
            yield Check(name, expected, value, ok, self.sentence)

    def found(self, case: Case) -> Iterator[tuple[str, str]]:
        """Names and values of the claims that the certificate carries."""
        for name in self.claims:
            if (value := case.claim(name)) is not None:
                yield name, value

    def accepts(self, pattern: Pattern, value: str) -> bool:
        """True if the claim matches the pattern."""
        return pattern.matches(value)


def unmet(expectation: Expectation, case: Case) -> Iterator[Reason]:
    """The reasons an expectation gives against a signing; none when it is met."""
    if isinstance(expectation, ClaimExpectation):
        yield from expectation.unmet(case)
        return
    for check in expectation.checks(case):
        if not check.ok:
            yield Reason(expectation.id, check.sentence, check.expected, check.found)
