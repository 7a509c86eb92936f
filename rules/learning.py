"""A proposed expectation, learned from earlier signings in a name.

Each part states one property of the usual signing, in a maintainer's words. A value that only one signing among many
has is left out: one theft must not make thefts expected.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from msgspec import Struct
from typing_extensions import override

from rules.acknowledged import SignerPattern
from rules.expectations.claims import without_ref
from rules.facts import Authorisation, AuthorisationFacts, DigestSource, Facts, KnownFacts, PastFacts
from rules.judge import judge
from rules.pattern import build_issuers, source_repository
from rules.rule import Rule, Verdict
from rules.subject import Subject, SubjectKind
from sigstore_entries.signing import ChainTrust, EntryRef, Signer, Signing

MAX_CHOICES: Final = 8
FEW: Final = 4
"""Up to this number of signings, every value is proposed, because no value is usual yet."""
_RARE: Final = 0.08
_DAY: Final = timedelta(days=1)
_LEAST_RATE: Final = 5
_BELIEVED: Final = frozenset({ChainTrust.TRUSTED, ChainTrust.NO_CERTIFICATE})
_GITHUB: Final = "https://token.actions.githubusercontent.com"
_GITLAB: Final = "https://gitlab.com"
_CLAIMS: Final[Mapping[str, tuple[str, ...]]] = {
    "ref": ("source_repository_ref", "github_workflow_ref"),
    "trigger": ("build_trigger", "github_workflow_trigger"),
    "runner": ("runner_environment",),
    "repository_identifier": ("source_repository_identifier",),
    "owner_identifier": ("source_repository_owner_identifier",),
}
LEARNED: Final = (
    "workflow",
    "ref",
    "trigger",
    "issuer",
    "repository",
    "repository_identifier",
    "owner_identifier",
    "runner",
)
"""Keys of `expect` that are learned from signings, by their importance for a maintainer."""


class ProposedExpectation(Struct, frozen=True):
    """One proposed expectation: its key in `expect`, its values, and the sentence a form shows beside its tick box.

    `seen` of the `past` trusted signings meet it; without a past it is a guess from the name alone.
    """

    key: str
    values: tuple[Any, ...]
    sentence: str
    seen: int = 0
    past: int = 0

    @property
    def expect(self) -> Any:
        """The value under `key`."""
        return list(self.values) if len(self.values) > 1 else self.values[0]


class NoPastFacts(PastFacts):
    """Nothing was seen before."""

    @override
    def times_signed(self, rule: str, digest: str, besides: EntryRef) -> int:
        return 0

    @override
    def issuers_of(self, rule: str, identity: str, besides: frozenset[bytes]) -> frozenset[str] | None:
        return frozenset()

    @override
    def repository_identifiers_of(self, rule: str, repository: str, besides: frozenset[bytes]) -> frozenset[str] | None:
        return frozenset()

    @override
    def signings(self, rule: str, after: datetime, up_to: datetime, besides: EntryRef) -> int:
        return 0

    @override
    def absent_at(self, where: EntryRef) -> datetime | None:
        return None


class NoAuthorisationFacts(AuthorisationFacts):
    """Nothing was allowed."""

    @override
    def authorisations(self, rule: str, digest: str) -> Sequence[Authorisation]:
        return ()

    @override
    def patterns(self, rule: str) -> Sequence[SignerPattern]:
        return ()


class NoKnownFacts(KnownFacts):
    """No list and no other log is known."""

    @override
    def digests_from(self, source: DigestSource) -> frozenset[str] | None:
        return None

    @override
    def in_certificate_log(self, certificate: bytes | None) -> bool | None:
        return None

    @override
    def in_signature_log(self, certificate: bytes | None) -> bool | None:
        return None


NO_FACTS: Final = Facts(NoPastFacts(), NoAuthorisationFacts(), NoKnownFacts())
"""Facts without any past: only the entry itself counts."""


def verdict_of(rule: Rule, signing: Signing, now: datetime) -> Verdict:
    """Verdict of a subscription's rule on one signing by itself."""
    return judge(rule, signing, NO_FACTS, now)


def learn(subject: Subject, past: Sequence[Signing]) -> list[ProposedExpectation]:
    """Propose an expectation of signings in a name. `past` are signings in it, trusted or not; only trusted count."""
    shown = [found for signing in past if (found := _shown(signing))]
    parts = [part for key in LEARNED if (part := _learned(key, shown)) is not None]
    return parts or list(_guessed(subject))


def offers(times: Sequence[datetime]) -> list[ProposedExpectation]:
    """Expectations that depend on the subscriber's own past; proposed with an empty tick box.

    `times` are of past signings.
    """
    ordered = sorted(times)
    busiest = max((sum(at <= each <= at + _DAY for each in ordered) for at in ordered), default=0)
    rate = {"at_most": str(max(_LEAST_RATE, 2 * busiest)), "per": "1d"}
    chosen: Mapping[str, Any] = {"same_issuer": "true", "rate": rate, "authorised": []}
    return [ProposedExpectation(key, (value,), describe(key, value)) for key, value in chosen.items()]


def widen(parts: Mapping[str, Any], signing: Signing, rule: Rule, now: datetime) -> dict[str, Any]:
    """`expect` of a rule, with exactly the unexpected values of one signing added.

    Parts that a value of the signing cannot widen stay as they are.
    """
    widened = dict(parts)
    found = _shown(signing, anyway=True)
    reasons = {reason.id.replace("-", "_") for reason in verdict_of(rule, signing, now).reasons}
    for key in LEARNED:
        if key not in parts or key not in reasons:
            continue
        before = parts[key] if isinstance(parts[key], list) else [parts[key]]
        more = [value for value in found.get(key, ()) if value not in before]
        if more:
            widened[key] = [*before, *more]
    if not parts:
        return {part.key: part.expect for key in LEARNED if (part := _learned(key, [found])) is not None}
    return widened


def unlike(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """The values that widening adds, in words."""
    told = []
    for key, value in after.items():
        old = before.get(key, [])
        known = old if isinstance(old, list) else [old]
        new = [each for each in (value if isinstance(value, list) else [value]) if each not in known]
        if new:
            # The words name a branch or tag: `branch main`, `tags v…`.
            told.append(_or(new) if key == "ref" else f"{_SUBJECTS[key]} {_or(new)}")
    return told


def describe(key: str, value: Any) -> str:
    """One part of an `expect` in words a maintainer reads."""
    values = value if isinstance(value, list) else [value]
    sentence = _SENTENCES.get(key)
    if key in _PAST_SENTENCES:
        if not isinstance(value, Mapping):
            return _PAST_SENTENCES[key]
        per = {"1d": "a day", "1h": "an hour", "7d": "a week"}.get(str(value["per"]), f"in {value['per']}")
        return _PAST_SENTENCES[key].format(at_most=value["at_most"], per=per)
    if sentence is None:
        return f"{key.replace('_', ' ')} is {_or(values)}"
    return sentence.format(_or(values))


def in_words(expect: Mapping[str, Any]) -> list[str]:
    """All parts of an `expect` in words, in the order of importance for a maintainer."""
    ordered = sorted(expect, key=lambda key: LEARNED.index(key) if key in LEARNED else len(LEARNED))
    return [describe(key, expect[key]) for key in ordered]


_SENTENCES: Final[Mapping[str, str]] = {
    "workflow": "releases come from the workflow {}",
    "ref": "they are built on {}",
    "trigger": "they are started by {}",
    "issuer": "the signer's login comes from {}",
    "repository": "the source repository is {}",
    "repository_identifier": "the repository keeps its number {}, which a deleted and re-created one would not",
    "owner_identifier": "the owner keeps the number {}, which a renamed or new account would not",
    "runner": "they are built on {} runners",
    "builder": "the build instructions are {}",
    "digests": "the digest is one of {}",
}
_PAST_SENTENCES: Final[Mapping[str, str]] = {
    "same_issuer": "each signer keeps its earlier login service",
    "same_repository_identifier": "each repository keeps the number it was seen with before",
    "rate": "there are at most {at_most} signings {per}",
    "authorised": "you announced its digest before",
}
_SUBJECTS: Final[Mapping[str, str]] = {
    "workflow": "workflow",
    "trigger": "start by",
    "issuer": "login from",
    "repository": "repository",
    "repository_identifier": "repository number",
    "owner_identifier": "owner number",
    "runner": "runners",
}


def _shown(signing: Signing, *, anyway: bool = False) -> dict[str, tuple[Any, ...]]:
    """Values of one signing, by part; empty for a signing without a trusted authority."""
    found: dict[str, tuple[Any, ...]] = {}
    for signer in signing.signers:
        if signer.trust in _BELIEVED or anyway:
            for key, value in _values(signer):
                if value not in found.get(key, ()):
                    found[key] = (*found.get(key, ()), value)
    return found


def _values(signer: Signer) -> Iterator[tuple[str, Any]]:
    if signer.issuer is not None:
        yield "issuer", signer.issuer
    workflow, repository = signer.claims.get("build_config_uri"), source_repository(signer)
    if repository:
        yield "repository", repository
    if workflow is not None and repository is not None and workflow.startswith(f"{repository}/"):
        yield "workflow", without_ref(workflow)[len(repository) + 1 :].lstrip("/")
    for key, names in _CLAIMS.items():
        value = next((signer.claims[name] for name in names if name in signer.claims), None)
        if value:
            yield key, _ref(value) if key == "ref" else value


def _ref(value: str) -> Any:
    """Tags of releases as the pattern they share: no tag is signed twice."""
    tag = value.removeprefix("refs/tags/")
    if tag == value:
        return value
    return {"glob": "refs/tags/v*"} if tag[:1] == "v" and tag[1:2].isdigit() else {"glob": "refs/tags/*"}


def _learned(key: str, shown: Sequence[Mapping[str, tuple[Any, ...]]]) -> ProposedExpectation | None:
    carrying = [each[key] for each in shown if key in each]
    # A part that some signings lack would make each of these unexpected.
    if not carrying or len(carrying) < len(shown) - max(1, int(len(shown) * _RARE)) or (key == "runner" and not shown):
        return None
    counts = Counter(str(value) for values in carrying for value in values)
    by_text = {str(value): value for values in carrying for value in values}
    least = 1 if len(carrying) <= FEW else max(2, int(len(carrying) * _RARE))
    usual = [text for text, count in counts.most_common(MAX_CHOICES) if count >= least]
    if not usual:
        return None
    kept = tuple(by_text[text] for text in usual)
    matching = sum(1 for values in carrying if all(str(value) in usual for value in values))
    return ProposedExpectation(key, kept, describe(key, list(kept)), matching, len(shown))


def _guessed(subject: Subject) -> Iterator[ProposedExpectation]:
    """A guess from the name alone, before the first signing in it."""
    if subject.kind is SubjectKind.REPOSITORY:
        guesses: dict[str, tuple[Any, ...]] = {
            "ref": ({"glob": "refs/tags/*"},),
            "issuer": build_issuers(subject.host),
            "repository": (subject.text,),
        }
        for key, values in guesses.items():
            yield ProposedExpectation(key, values, describe(key, values[0] if len(values) == 1 else list(values)))


def _or(values: Sequence[Any]) -> str:
    words = [word(value) for value in values]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def word(value: Any) -> str:
    """One value of a part as people write it."""
    if isinstance(value, Mapping):
        text = str(value.get("glob") or value.get("regex") or value.get("exact"))
        text = text.removesuffix("*") + "…" if text.endswith("*") else text
        value = text
    text = str(value)
    if text.startswith("refs/tags/"):
        return f"tags {text.removeprefix('refs/tags/')}" if text != "refs/tags/…" else "any tag"
    if text.startswith("refs/heads/"):
        return f"branch {text.removeprefix('refs/heads/')}"
    known = {_GITHUB: "GitHub Actions", _GITLAB: "GitLab CI"}
    return known.get(text, text.removeprefix(".github/workflows/"))
