"""Hints about valid rules that may differ from their author's intention. A hint does not stop the monitor."""

import difflib
import json
from collections.abc import Iterator
from enum import StrEnum
from typing import Final

from msgspec import Struct

from rules.expectations.within import LogEntryWithinExpectation
from rules.matching.matcher import compile_rules
from rules.matching.required_keys import required_keys_of
from rules.pattern import GITLAB, NAME_FIELDS, Forge, Pattern, PatternForm, forge_of, glob_literals, names_ignore_case
from rules.rule import ClaimExpectation, Rule, RuleSet
from rules.selection import AllOf, AnyOf, Condition, FieldMatch, Not, outline, walk
from sigstore_entries.signing import EntryRef, Name, NameForm, Signer, SignerForm, Signing

KNOWN_ISSUERS: Final = (
    "https://token.actions.githubusercontent.com",
    "https://gitlab.com",
    "https://agent.buildkite.com",
    "https://accounts.google.com",
    "https://github.com/login/oauth",
    "https://login.microsoftonline.com",
    "https://oauth2.sigstore.dev/auth",
    "https://issuer.enforce.dev",
    "https://oidc.codefresh.io",
    "https://app.circleci.com",
)
_BROAD_FIELDS: Final = frozenset(
    {
        "issuer",
        "issuer_v1",
        "kind",
        "log",
        "runner_environment",
        "build_trigger",
        "github_workflow_trigger",
        "source_repository_visibility",
        "deployment_environment",
    }
)
_GITLAB_CLAIMS: Final = frozenset({"source_repository_uri", "source_repository_owner_uri", "run_invocation_uri"})
_REFS: Final = ("refs/heads/", "refs/tags/", "refs/pull/")
_STRANGERS: Final = (
    ("https://github.com/qzwxv/brimful/.github/workflows/publish.yml@refs/heads/main", KNOWN_ISSUERS[0]),
    ("https://github.com/jkplo/uvular/.github/workflows/build.yaml@refs/tags/1.0", KNOWN_ISSUERS[0]),
    ("https://gitlab.com/wxyzq/tundra//.gitlab-ci.yml@refs/heads/main", KNOWN_ISSUERS[1]),
    ("https://gitlab.com/vbnmq/oxbow//.gitlab-ci.yml@refs/tags/v2.0.0", KNOWN_ISSUERS[1]),
    ("qzwxv.jkplo@gmail.com", KNOWN_ISSUERS[3]),
    ("vbnmq@gmail.com", KNOWN_ISSUERS[4]),
    ("wxyzq@uvular.example", KNOWN_ISSUERS[5]),
)
"""Names of unrelated people: a rule for two of them selects nearly every signing."""


class HintId(StrEnum):
    """Each hint has its section in `docs/rules.md`."""

    NO_EXPECTATIONS = "no-expectations"
    NEVER_MATCHES = "never-matches"
    TOO_BROAD = "too-broad"
    UNINDEXED = "unindexed"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    SHADOWED = "shadowed"
    UNKNOWN_ISSUER = "unknown-issuer"
    LOOKS_LIKE_A_PATTERN = "looks-like-a-pattern"
    UNESCAPED_DOT = "unescaped-dot"
    OPEN_ENDED = "open-ended"
    REF_WITHOUT_REFS = "ref-without-refs"
    WHOLE_VALUE = "whole-value"
    NEVER_FOLLOWED = "never-followed"
    TWO_HOSTS = "two-hosts"
    CASE_SENSITIVE = "case-sensitive"


class Hint(Struct, frozen=True):
    """One hint. Lines and columns count from 1; line 0 means a rule that did not come from a file."""

    id: HintId
    rule: str
    message: str
    line: int
    column: int


def lint(ruleset: RuleSet) -> list[Hint]:
    """Every hint about a set of rules, in file order."""
    return [*(hint for rule in ruleset.rules for hint in _lint_rule(rule)), *_compare(ruleset.rules)]


def _lint_rule(rule: Rule) -> Iterator[Hint]:
    for hint_id, message in (*_shape_hints(rule), *_text_hints(rule)):
        yield Hint(hint_id, rule.id, message, rule.line, rule.column)


def _shape_hints(rule: Rule) -> Iterator[tuple[HintId, str]]:
    if not rule.expect:
        message = "no `expect`: every trusted match is reported. Describe a legitimate signing under `expect`"
        yield HintId.NO_EXPECTATIONS, message
    if contradiction := _contradiction(rule.select):
        yield HintId.NEVER_MATCHES, f"this rule can never match: {contradiction}"
    fields = dict.fromkeys(match.field for match in walk(rule.select))
    if fields.keys() <= _BROAD_FIELDS:
        message = f"selects by {', '.join(fields)} alone, which a large part of every log shares. Add an identity"
        yield HintId.TOO_BROAD, message
        return
    if len(found := _strangers(rule.select)) > 1:
        message = f"selects the signings of people who have nothing to do with each other, such as {found[0]} and "
        yield HintId.TOO_BROAD, f"{message}{found[-1]}. Name an owner, a repository or a domain"
    if required_keys_of(rule.select) is None:
        message = "holds no text that an entry must contain, so every entry of every log is decoded for it. "
        yield HintId.UNINDEXED, f"{message}Add an identity, or 6 fixed characters to the pattern"


def _strangers(condition: Condition) -> list[str]:
    """Names of unrelated people that a rule selects."""
    selected = []
    for name, issuer in _STRANGERS:
        owner, is_uri = name.partition("//.")[0].partition("/.github/")[0], "://" in name
        claims = {"source_repository_uri": owner, "build_signer_uri": name} if is_uri else {}
        form = NameForm.URI if is_uri else NameForm.EMAIL
        signer = Signer(SignerForm.CERTIFICATE, (Name(form, name),), issuer, claims)
        if condition.holds(Signing(EntryRef("", 0), "hashedrekord", "", (signer,)), signer):
            selected.append(name)
    return selected


def _text_hints(rule: Rule) -> Iterator[tuple[HintId, str]]:
    yield from _two_hosts(rule)
    for match in walk(rule.select):
        for pattern in match.patterns:
            yield from _pattern_hints(match.field, pattern)
    for expectation in rule.expect:
        if isinstance(expectation, LogEntryWithinExpectation) and _is_about_one_log(rule.select):
            yield (
                HintId.NEVER_FOLLOWED,
                (
                    "`log_entry_within` looks for entries that some rule selects, and `kind` or `log` keeps this one "
                    "from selecting them: each certificate would be reported. Leave it out"
                ),
            )
        if isinstance(expectation, ClaimExpectation):
            for pattern in expectation.patterns:
                yield from _pattern_hints(expectation.key, pattern)


def _pattern_hints(field: str, pattern: Pattern) -> Iterator[tuple[HintId, str]]:
    shown = f"{field} {pattern.text[:100]!r}"
    if field == "issuer" and pattern.form is PatternForm.EXACT and pattern.text not in KNOWN_ISSUERS:
        near = difflib.get_close_matches(pattern.text, KNOWN_ISSUERS, n=1, cutoff=0.85)
        if near:
            yield HintId.UNKNOWN_ISSUER, f"{shown} is not a well-known issuer: did you mean {near[0]!r}?"
    if pattern.form is PatternForm.EXACT and _looks_like_a_pattern(pattern.text):
        yield (
            HintId.LOOKS_LIKE_A_PATTERN,
            f"{shown} is taken literally: write {{glob: …}} or {{regex: …}} if it is a pattern",
        )
    if pattern.form is PatternForm.REGEX and not set("*+?{[|\\").intersection(pattern.text.replace("\\.", "")):
        message = f"{shown} matches exactly this text: a regular expression must match the whole value. "
        yield HintId.WHOLE_VALUE, f"{message}Write '.*' where other text may come before or after it"
    elif pattern.form is PatternForm.REGEX and _has_bare_dot(pattern.text):
        yield HintId.UNESCAPED_DOT, f"{shown}: a '.' matches any character; write '\\.' for a dot"
    if field in ("identity", "source_repository_uri", "repository", "builder") and _is_open_ended(pattern):
        yield HintId.OPEN_ENDED, f"{shown} also matches longer names such as …-evil: end the fixed part with '/' or '@'"
    if field in NAME_FIELDS and pattern.form is PatternForm.REGEX and _minds_case(pattern):
        message = f"{shown}: names on this host are case-insensitive, and certificates carry the spelling of their "
        "owner. "
        yield HintId.CASE_SENSITIVE, f"{message}Add ignore_case: true"
    if field in ("ref", "source_repository_ref") and _lacks_refs(pattern):
        yield HintId.REF_WITHOUT_REFS, f"{shown}: refs are whole, such as refs/tags/v1 or refs/heads/main"


def _two_hosts(rule: Rule) -> Iterator[tuple[HintId, str]]:
    """Claims with the host of a self-managed GitLab, which Fulcio until September 2026 does not write."""
    matches = list(walk(rule.select))
    if any(match.field == "identity" for match in matches):
        return
    for match in matches:
        for pattern in match.patterns if match.field in _GITLAB_CLAIMS else ():
            host = "/".join(pattern.text.split("/", 3)[:3])
            if pattern.form is PatternForm.REGEX or not host.startswith("https://") or "*" in host:
                continue
            if not names_ignore_case(pattern.text) and forge_of(host) is not Forge.GITHUB:
                message = f"{match.field} {pattern.text[:100]!r}: for a self-managed GitLab, Fulcio until September "
                message += f"2026 writes {GITLAB} into this claim, so it selects nothing. Select by identity "
                yield HintId.TWO_HOSTS, f"{message}({host}/…) as well, as `rules init {pattern.text[:100]}` does"


def _minds_case(pattern: Pattern) -> bool:
    plain = pattern.text.replace("\\", "").lstrip("^.*(?:")
    return not pattern.ignore_case and "(?i" not in pattern.text and names_ignore_case(plain)


def _is_about_one_log(condition: Condition) -> bool:
    """True if every match must be of a kind or in a log: an entry and its certificate never both are."""
    if isinstance(condition, FieldMatch):
        return condition.field in ("kind", "log")
    return isinstance(condition, AllOf) and any(_is_about_one_log(each) for each in condition.conditions)


def _looks_like_a_pattern(text: str) -> bool:
    return "*" in text or "\\." in text or text.startswith("^") or text.endswith("$")


def _has_bare_dot(text: str) -> bool:
    """A dot between letters that is neither escaped nor the start of `.*`: nearly always intended as a literal dot."""
    for at, char in enumerate(text):
        if char != "." or text[:at].endswith("\\") or text[at + 1 : at + 2] in ("*", "+", "?", "{"):
            continue
        if at and text[at - 1].isalnum() and text[at + 1 : at + 2].isalnum():
            return True
    return False


def _is_open_ended(pattern: Pattern) -> bool:
    """A fixed part that stops in the middle of a name, then anything: `https://github.com/acme*`."""
    if pattern.form is PatternForm.EXACT or "/" not in pattern.text:
        return False
    if pattern.form is PatternForm.GLOB:
        pieces = glob_literals(pattern.text)
        return pattern.text.endswith("*") and bool(pieces) and pieces[-1][-1].isalnum()
    return pattern.text.removesuffix("$").endswith(".*") and pattern.text.removesuffix("$")[:-2][-1:].isalnum()


def _lacks_refs(pattern: Pattern) -> bool:
    return pattern.form is not PatternForm.REGEX and not pattern.text.startswith((*_REFS, "*"))


def _contradiction(condition: Condition) -> str | None:
    """Reason why a condition cannot hold, as far as exact values show it."""
    if isinstance(condition, AnyOf):
        reasons = [_contradiction(each) for each in condition.conditions]
        return reasons[0] if all(reasons) else None
    if not isinstance(condition, AllOf):
        return None
    for each in condition.conditions:
        if found := _contradiction(each):
            return found
    flat = list(_flatten(condition))
    negated = {json.dumps(outline(each.condition)) for each in flat if isinstance(each, Not)}
    for each in flat:
        if json.dumps(outline(each)) in negated:
            return "it asks for a condition and for its opposite"
    return _disjoint(match for match in flat if isinstance(match, FieldMatch))


def _flatten(condition: Condition) -> Iterator[Condition]:
    if isinstance(condition, AllOf):
        for each in condition.conditions:
            yield from _flatten(each)
    else:
        yield condition


def _disjoint(matches: Iterator[FieldMatch]) -> str | None:
    """Two conditions on a single-valued field with no exact value in common."""
    known: dict[str, list[FieldMatch]] = {}
    for match in matches:
        # A signer may carry several names and fingerprints, an entry several digests.
        if match.field in ("identity", "fingerprint", "digest", "issuer") or match.field[0].isdigit():
            continue
        for other in known.get(match.field, []):
            for one, two in ((match, other), (other, match)):
                exact = [each.text for each in one.patterns if each.form is PatternForm.EXACT and not each.ignore_case]
                if len(exact) == len(one.patterns) and not any(p.matches(text) for p in two.patterns for text in exact):
                    return (
                        f"no {match.field} is both {', '.join(exact[:3])} and {', '.join(map(str, two.patterns[:3]))}"
                    )
        known.setdefault(match.field, []).append(match)
    return None


def _compare(rules: tuple[Rule, ...]) -> Iterator[Hint]:
    """Rules that select the same as an earlier one, and exact ones that a pattern with the same `expect` covers."""
    first: dict[str, Rule] = {}
    for rule in rules:
        known = first.setdefault(json.dumps(outline(rule.select)), rule)
        if known is rule:
            continue
        if known.expect == rule.expect:
            message = f"selects and expects the same as {known.id!r}: each match is reported twice"
            yield Hint(HintId.DUPLICATE, rule.id, message, rule.line, rule.column)
        else:
            message = (
                f"selects the same as {known.id!r} and has other expectations: one reports the signings that the "
                "other expects"
            )
            yield Hint(HintId.CONFLICT, rule.id, message, rule.line, rule.column)
    yield from _shadowed(rules)


def _shadowed(rules: tuple[Rule, ...]) -> Iterator[Hint]:
    broad = [rule for rule in rules if isinstance(rule.select, FieldMatch) and not _is_exact_identity(rule.select)]
    matcher = compile_rules(broad, max_unindexed=len(broad))
    for rule in rules:
        if not isinstance(rule.select, FieldMatch) or not _is_exact_identity(rule.select):
            continue
        for pattern in rule.select.patterns:
            signer = Signer(SignerForm.CERTIFICATE, (Name(NameForm.OTHER, pattern.text),))
            covering = matcher.confirm_all(Signing(EntryRef("", 0), "", "", (signer,)))
            for other in (each for each in covering if each.expect == rule.expect):
                message = f"{pattern.text[:100]!r} also matches {other.id!r}, which expects the same: it is reported "
                "twice"
                yield Hint(HintId.SHADOWED, rule.id, message, rule.line, rule.column)


def _is_exact_identity(match: FieldMatch) -> bool:
    return match.field == "identity" and all(each.form is PatternForm.EXACT for each in match.patterns)
