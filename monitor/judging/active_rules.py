"""The rules in force: read at start and whenever the file changes, and the index of subscribers' requests.

After a bad change of the file the old rules stay in force. The index follows the database change by change.
"""

import threading
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from msgspec import Struct
from msgspec.structs import replace

from alerts.alert import Alert
from monitor.config import Config
from monitor.judging.rule_file import read_rules
from monitor.model.errors import BadConfig
from monitor.raising.signing_alerts import MISSED, NOT_SIGNED, SEEN
from rules.asking import SUBSCRIBERS, rule_of
from rules.canary import CANARY
from rules.matching.matcher import AskIndex, LayeredMatcher, Matcher, TooManyUnindexed, compile_rules, number_of
from rules.rule import LookBack, Rule, RuleSet

if TYPE_CHECKING:
    from monitor.store.store import Route

_KEPT: Final = 50_000


class RequestChange(Protocol):
    """One request that was added, changed or removed. It is filed under `keys`."""

    @property
    def number(self) -> int:
        """Number of the request."""

    @property
    def keys(self) -> Any:
        """Keys of the index, as `rules.matching.matcher.AskIndex` takes them."""

    @property
    def active(self) -> bool:
        """True while a subscription asks for it."""

    @property
    def owned(self) -> bool:
        """True if it is one subscription's own, so that its text and keys may change under its number."""


class RequestTexts(Protocol):
    """Stored requests."""

    def last_change(self) -> int:
        """Number of the newest change."""

    def changed(self, after: int, up_to: int) -> Iterable[RequestChange]:
        """Changes of `(after, up_to]`, oldest first."""

    def documents(self, numbers: Collection[int]) -> Mapping[int, str]:
        """Texts of requests by number."""


class AskedRules:
    """Requests in force. `refresh` is called by one thread; everything else from any.

    Texts of requests are loaded when an entry shows a key of one: a million requests are a million keys in memory.
    """

    def __init__(self, asks: RequestTexts) -> None:
        self._asks = asks
        self.index = AskIndex()
        self._known: OrderedDict[int, Rule] = OrderedDict()
        self._filed: dict[int, str] = {}
        self._lock = threading.Lock()
        self._change = 0
        self._begun = False

    @property
    def change(self) -> int:
        """Number of the last change that is in the index."""
        return self._change

    def refresh(self) -> int:
        """Apply the changes since the last call; return their number."""
        last = self._asks.last_change()
        changes, owned = 0, set[int]()
        if last > self._change:
            # A first index that broke off is begun again: a part of it may be filed.
            is_first, self._begun = not self._begun, True
            for each in self._asks.changed(self._change, last):
                changes += 1
                # A request must not be filed twice. Only owned requests change their keys while they are in force.
                if not is_first:
                    self.index.remove(each.number, self._filed.pop(each.number, each.keys))
                if each.active:
                    self.index.add(each.number, each.keys)
                    if each.owned:
                        self._filed[each.number] = each.keys
                owned |= {each.number} if each.owned else set()
            if is_first:
                # All literals at once, and not again with the first change: a compilation holds the interpreter's lock.
                self.index.settle()
            self.index.ready()
            with self._lock:
                for number in owned:
                    self._known.pop(number, None)
                self._change = last
        return changes

    def load(self, numbers: Collection[int]) -> Mapping[int, Rule]:
        """Rules of requests by number; unknown ones are left out. Raises `OwnFault`."""
        with self._lock:
            change = self._change
            found = {number: self._known[number] for number in numbers if number in self._known}
        missing = [number for number in numbers if number not in found]
        if missing:
            loaded = {number: rule_of(number, text) for number, text in self._asks.documents(missing).items()}
            found.update(loaded)
            with self._lock:
                # A text that was read before a change must not be cached after it.
                if change == self._change:
                    self._known.update(loaded)
                while len(self._known) > _KEPT:
                    self._known.popitem(last=False)
        return {number: found[number] for number in numbers if number in found}


class HeldRules(Struct, frozen=True):
    """One compiled set of rules. `selections` holds the selection id of each rule, for its scanned ranges.

    `backscans` and `notify` hold these settings of the rules that have them. `everything` is `matcher` with the
    subscribers' requests, which change in place.
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
    """Holds the rules of one file, and `own` ones beside them. Safe to use from several threads."""

    def __init__(
        self, path: Path, channels: Collection[str], asked: AskedRules | None = None, own: Sequence[Rule] = ()
    ) -> None:
        self._path, self._channels, self._own = path, frozenset(channels), tuple(own)
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
        """True after a change or a request for a reload, once two checks in a row found the same file.

        A file that is still being written may be valid with only a part of the rules, so it must settle first.
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
        """Channels that the rule names itself; none for the default channels or a removed rule."""
        return self.held.notify.get(rule_id or "", ())

    def _load(self, generation: int) -> HeldRules:
        read = read_rules(self._path, self._channels)
        rules = replace(read, rules=(*read.rules, *self._own))
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


def route_of(config: Config, rules: RuleKeeper | None) -> "Route":
    """The function that chooses an alert's channels: the rule's own, the canary's, else the default ones."""

    def route(alert: Alert) -> Sequence[str]:
        if number_of(alert.rule) is not None:
            return (SUBSCRIBERS,)
        if alert.kind == SEEN:
            return (CANARY,)
        if alert.kind in {MISSED, NOT_SIGNED} and config.canary is not None and config.canary.notify:
            return config.canary.notify
        return (rules.channels_of(alert.rule) if rules is not None else ()) or config.notify

    return route
