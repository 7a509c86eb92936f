"""Coverage: the entries that active rules were offered, as one bounded summary for each log.

Entries from the baseline up to the position count. Following offered all of them to a rule that was active from the
start; later rules are scanned one by one, up to a limit.
"""

import heapq
from collections.abc import Collection, Mapping
from typing import Any, Final

from msgspec import Struct

from alerts.alert import counted
from monitor.store.coverage import RuleCoverage, merged, union_size
from monitor.store.reading import Followed
from monitor.store.store import Store

_LOOKED_AT: Final = 50_000


class LogCoverage(Struct, frozen=True):
    """Coverage of one log. `uncovered` of the `rules` active there lack entries of `[first, last)`.

    `lacking` counts entries that at least one of them lacks; `least` are the rules that lack the most, in this
    order. If there are too many rules, both cover the newest rules only, and the `unlooked` others count as uncovered.
    """

    log: str
    first: int
    last: int
    rules: int = 0
    uncovered: int = 0
    lacking: int = 0
    least: tuple[RuleCoverage, ...] = ()
    unlooked: int = 0

    def lacks(self, rule: RuleCoverage) -> int:
        """Number of entries that a rule was not offered."""
        return sum(last - first for first, last in rule.missing(self.first, self.last))


def read_coverage(
    store: Store, followed: Mapping[str, Followed], shown: int, *, looked_at: int = _LOOKED_AT
) -> dict[str, LogCoverage]:
    """Coverage by log, with at most `shown` rules each."""
    active = store.coverage.active()
    found = {}
    for log, each in followed.items():
        rules, later = active.get(log, (0, 0))
        bare = LogCoverage(log, each.baseline_size, each.position.frontier.size, rules)
        found[log] = _looked_at(store, bare, later, shown, looked_at) if later else bare
    return found


def _looked_at(store: Store, bare: LogCoverage, later: int, shown: int, looked_at: int) -> LogCoverage:
    missing: list[tuple[int, int]] = []
    least: list[tuple[int, str, str, tuple[tuple[int, int], ...]]] = []
    uncovered = 0
    for group in store.coverage.groups(bare.log, bare.first, looked_at):
        lacks = group.missing(bare.first)
        if not lacks:
            continue
        missing += lacks
        uncovered += len(group.rules)
        ranges = merged([*group.ranges, (group.began, bare.last)])
        entries = sum(last - first for first, last in lacks)
        first_rules = heapq.nsmallest(shown, group.rules.items())
        least += [(-entries, rule, selection, ranges) for rule, selection in first_rules]
        least = heapq.nsmallest(shown, least)
    unlooked = max(0, later - looked_at)
    return LogCoverage(
        log=bare.log,
        first=bare.first,
        last=bare.last,
        rules=bare.rules,
        uncovered=uncovered + unlooked,
        lacking=union_size(missing),
        least=tuple(RuleCoverage(rule, bare.log, selection, ranges) for _, rule, selection, ranges in least),
        unlooked=unlooked,
    )


def rule_coverage(
    store: Store, followed: Mapping[str, Followed], selections: Mapping[str, str], wanted: Collection[str]
) -> list[RuleCoverage]:
    """All ranges that these rules were offered, in every log."""
    return [
        store.coverage.of_rule(log, rule, selections[rule])
        for log in sorted(followed)
        for rule in sorted(wanted)
        if rule in selections
    ]


def coverage_document(coverage: LogCoverage) -> dict[str, Any]:
    """Plain JSON types; ranges are `[first, last)`."""
    return {
        "from": coverage.first,
        "to": coverage.last,
        "rules": coverage.rules,
        "rules_not_covered": coverage.uncovered,
        "entries_not_covered": coverage.lacking,
        "least_covered": [
            {
                "rule": each.rule,
                "covered": [list(span) for span in each.ranges],
                "entries_not_covered": coverage.lacks(each),
            }
            for each in coverage.least
        ],
    }


def coverage_line(coverage: LogCoverage) -> str:
    """In words, for reports."""
    if not coverage.uncovered:
        every = counted(coverage.rules, "rule")
        return f"coverage: entries {coverage.first} to {coverage.last} were offered to {every}, the number in force"
    return (
        f"coverage: not all of entries {coverage.first} to {coverage.last} were offered to {coverage.uncovered} of "
        f"{counted(coverage.rules, 'rule')}; without at least one rule: {counted(coverage.lacking, 'entry')}"
    )
