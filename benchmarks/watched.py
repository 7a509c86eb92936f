"""The rules a service with many subscribers would hold, and which entries of the corpus they are about.

At any number of rules the same hundred entries (two in a thousand) are selected: all other rules watch
projects and people of the same shape that signed nothing, so what grows is only the number of rules.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.corpus import ENTRIES, GITHUB_ISSUER, GOOGLE_ISSUER, email_of, repository_of
from rules.pattern import Pattern, PatternForm, exact
from rules.rule import Rule
from rules.rule_file import DocumentValue, rule_lines
from rules.selection import AllOf, FieldMatch

HITS: Final = 100
_STEP: Final = ENTRIES // HITS


@dataclass(frozen=True, slots=True)
class Watch:
    """One subscription, in both forms: `rule` for the product, `identity` and `issuer` for a loop of `re`."""

    rule: Rule
    identity: str
    issuer: str


def watched_index(number: int) -> int:
    """Entry that subscription `number` is about; beyond the first hundred, one that the corpus does not hold."""
    return number * _STEP + number % 9 if number < HITS else ENTRIES + 10 * number + number % 10


def make_watches(count: int) -> list[Watch]:
    """`count` subscriptions: workflows by glob, workflows and people by exact name, some by regular expression."""
    return [_watch(number) for number in range(count)]


def make_rules(count: int) -> list[Rule]:
    """Only the rules of `make_watches`."""
    return [_watch(number).rule for number in range(count)]


def rule_file(rules: Sequence[Rule]) -> str:
    """Rules of `make_rules` as a file that `signwatch` reads."""
    lines = ["version: 1", "rules:"]
    for rule in rules:
        lines += rule_lines(rule.id, rule.id, _selection(rule), {})
    return "\n".join(lines) + "\n"


def _selection(rule: Rule) -> dict[str, DocumentValue]:
    assert isinstance(rule.select, AllOf)
    return {
        each.field: pattern.text if pattern.form is PatternForm.EXACT else {pattern.form.value: pattern.text}
        for each in rule.select.conditions
        if isinstance(each, FieldMatch)
        for pattern in each.patterns
    }


def _watch(number: int) -> Watch:
    index = watched_index(number)
    rule_id = f"watch-{number}"
    if index % 10 == 9:
        pattern, issuer = exact(email_of(index)), GOOGLE_ISSUER
    elif number % 10 == 5:
        repository = re.escape(repository_of(index)).replace("\\-", "-")
        text = rf"https://github\.com/{repository}/\.github/workflows/[a-z]+\.yml@refs/tags/v.*"
        pattern, issuer = Pattern(PatternForm.REGEX, text), GITHUB_ISSUER
    elif number % 10 in (3, 7):
        pattern = exact(f"https://github.com/{repository_of(index)}/.github/workflows/release.yml@refs/tags/v1.0.0")
        issuer = GITHUB_ISSUER
    else:
        pattern = Pattern(PatternForm.GLOB, f"https://github.com/{repository_of(index)}/.github/workflows/*")
        issuer = GITHUB_ISSUER
    rule = Rule(rule_id, AllOf((FieldMatch("identity", (pattern,)), FieldMatch("issuer", (exact(issuer),)))))
    return Watch(rule, _as_re(pattern), issuer)


def _as_re(pattern: Pattern) -> str:
    if pattern.form is PatternForm.REGEX:
        return pattern.text
    return ".*".join(re.escape(piece) for piece in pattern.text.split("*"))
