"""The product as the figures use it: the daemon's own parts, put together as the daemon does."""

from collections.abc import Sequence

from monitor.following.scan_batch import RuleScanner
from rules.matching.matcher import compile_rules
from rules.rule import Rule


class BenchScanner(RuleScanner):
    """The daemon's scanner, with the compiled rules at hand for its judge."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.matcher = compile_rules(rules)
        super().__init__(self.matcher)


def make_scanner(rules: Sequence[Rule]) -> BenchScanner:
    """The daemon's scanner for these rules."""
    return BenchScanner(rules)
