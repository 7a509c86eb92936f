"""A rule and a set of rules, as values."""

import hashlib
import json
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from rules.lookback import LookBack
from rules.selection import Condition, outline

if TYPE_CHECKING:
    from rules.expectations.case import Expectation


class RuleSeverity(StrEnum):
    """How loud an unexpected signing under this rule is."""

    PAGE = "page"
    WARN = "warn"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Rule:
    """Signings to watch, and the form of a legitimate one.

    `expect` empty means that every trusted match is news. `notify` empty means the default channels, no `backscan` the
    default range. `line` and `column` are where the rule starts in its file, 0 when it did not come from one.
    """

    id: str
    select: Condition
    expect: tuple["Expectation", ...] = ()
    title: str = ""
    notify: tuple[str, ...] = ()
    severity: RuleSeverity = RuleSeverity.PAGE
    backscan: LookBack | None = None
    line: int = 0
    column: int = 0

    def selection_id(self) -> str:
        """Hex SHA-256 of what the rule selects: as long as it stays, the ranges scanned for the rule stay valid."""
        return hashlib.sha256(json.dumps(outline(self.select)).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class RuleSet:
    """The rules of one file, in order. `name` is what messages call the file."""

    rules: tuple[Rule, ...]
    name: str = "rules"
