"""Keeps the compiled rules: read at start and whenever the file changes; a bad change leaves the old ones in force."""

import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from monitor.judging.asked_rules import AskedRules
from monitor.judging.rules_file import read_rules
from monitor.model.errors import BadConfig
from rules.asking import AskIndex, LayeredMatcher
from rules.matching.matcher import Matcher, TooManyUnindexed, compile_rules
from rules.rule import LookBack, Rule, RuleSet


@dataclass(frozen=True, slots=True)
class HeldRules:
    """One compiled set of rules. `selections` says what each selects, for the ranges scanned for it.

    `backscans` says how far back those look that say so themselves, `notify` which channels those name that name any.
    `everything` is `matcher` with what subscribers ask for, which changes in place.
    """

    generation: int
    rules: RuleSet
    matcher: Matcher
    selections: dict[str, str]
    backscans: dict[str, LookBack]
    notify: dict[str, tuple[str, ...]]
    everything: LayeredMatcher

    @property
    def unindexed(self) -> list[str]:
        """Ids of the rules that are asked about every entry."""
        return [self.matcher.rules[number].id for number in self.matcher.unindexed]


class RuleKeeper:
    """Holds the rules of one file. Safe to use from several threads."""

    def __init__(self, path: Path, channels: Collection[str], asked: AskedRules | None = None) -> None:
        self._path, self._channels = path, frozenset(channels)
        self._index, self._loader = (AskIndex(), _none) if asked is None else (asked.index, asked.load)
        self.asked = asked
        self._lock = threading.Lock()
        self._seen = self._looked = _state_of(path)
        self._held = self._load(1)

    @property
    def held(self) -> HeldRules:
        """The rules in force."""
        with self._lock:
            return self._held

    def is_due(self, *, asked: bool = False) -> bool:
        """Whether to read the file again: it changed or was asked for, and it looks as it did at the last look.

        A file that is still being written may be whole rules all the same, only not all of them: it is left to settle.
        """
        looked, self._looked = self._looked, _state_of(self._path)
        return self._looked == looked and (asked or self._looked != self._seen)

    def reload(self) -> HeldRules:
        """Read the file again. Raises `BadConfig` and keeps the rules in force when it cannot be used."""
        self._seen = self._looked = _state_of(self._path)
        held = self._load(self.held.generation + 1)
        if _state_of(self._path) != self._seen:
            raise BadConfig(
                f"{self._path}: the file changed while it was read. The rules in force stay until it settles."
            )
        with self._lock:
            self._held = held
        return held

    def channels_of(self, rule_id: str | None) -> tuple[str, ...]:
        """Channels the rule names itself; none when it takes the default or is gone."""
        return self.held.notify.get(rule_id or "", ())

    def _load(self, generation: int) -> HeldRules:
        rules = read_rules(self._path, self._channels)
        try:
            matcher = compile_rules(rules.rules)
        except TooManyUnindexed as error:
            raise BadConfig(f"{self._path}: {error}") from error
        selections = {rule.id: rule.selection_id() for rule in rules.rules}
        backscans = {rule.id: rule.backscan for rule in rules.rules if rule.backscan is not None}
        notify = {rule.id: rule.notify for rule in rules.rules if rule.notify}
        everything = LayeredMatcher(matcher, self._index, self._loader)
        return HeldRules(generation, rules, matcher, selections, backscans, notify, everything)


def _none(numbers: Collection[int]) -> Mapping[int, Rule]:  # noqa: ARG001  nothing is asked for here
    return {}


def _state_of(path: Path) -> tuple[int, int, int] | None:
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_mtime_ns, state.st_size, state.st_ino
