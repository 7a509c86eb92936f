"""Rules that subscribers may ask for, and one index over these and the rules of the file.

A request is `select` and `expect` of a rule: the part of the rule language that is cheap to match and judge for a
million people. Selected is a name, a repository, a digest or a key; expected is what the entry itself shows, or what
the subscriber's own past says of it. A list kept elsewhere, a command and what other logs show stay the operator's.

The index files a subscription under its keys by number alone; its text is loaded when an entry shows one of them.
Adding or removing one costs that one: whole values and heads go into hash maps, and literals into a small recent
search beside the large settled one until `settle` merges them.
"""

import hashlib
import json
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from collections.abc import Mapping as AnyMapping
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from rules.expectations.kinds import BY_KEY, read_expect
from rules.lint import HintId, lint
from rules.matching.keys import Head, Key, Literal, Whole
from rules.matching.matcher import (
    MAX_ASKED,
    LiteralSearch,
    Matcher,
    Matches,
    Numbers,
    is_large,
    put,
    texts_of,
    values_of_signer,
)
from rules.matching.required_keys import Cover, cover_of_condition
from rules.pattern import PatternForm, fold
from rules.rule import JudgedByPast, Rule, RuleSet
from rules.rule_file import flow, scalar
from rules.selection import matching_signers, read_select, walk
from settings.document import DocumentError, Listing, Mapping, Misplaced, Node, Problem, Scalar, read_yaml
from settings.reading import Fields
from sigstore_entries.signing import Signing

KEYS_VERSION: Final = 1
"""Raise it when `rules.matching` files a pattern under other keys: stored keys are then computed anew."""
SUBSCRIBERS: Final = "subscribers"
"""Name of the channel that every alert of a request is routed to."""
PREFIX: Final = "ask:"
"""Ids of these rules begin with it; no id in a rule file can."""
MAX_TEXT: Final = 16 * 1024
MAX_PATTERNS: Final = 20
MAX_REGEX: Final = 200
_MAX_VALUES: Final = 200
_ASK_KEYS: Final = ("select", "expect")
_OTHER_LOGS: Final = "it depends on which entries of other logs this installation selects, for whichever subscriber"
_ELSEWHERE: Final = "a subscription cannot read a list kept elsewhere. List the digests under `digests` instead"
_REFUSED: Final[AnyMapping[str, str]] = {
    "log_entry_within": _OTHER_LOGS,
    "certificate_log_within": _OTHER_LOGS,
    "digests_from": _ELSEWHERE,
}
_REFUSED_FIELDS: Final = frozenset({"kind", "log"})
BY_PAST: Final = frozenset(key for key, kind in BY_KEY.items() if issubclass(kind, JudgedByPast))
"""Keys of `expect` that depend on earlier signings, answers and announcements."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A checked request. `document` is its canonical JSON: equal requests have equal documents.

    One that is judged `by_past` belongs to a single subscription: what one subscriber answers or announces must not
    change what another is told. All others are shared by everyone who asks the same.
    """

    document: str
    keys: str

    @property
    def by_past(self) -> bool:
        """True if some expectation depends on earlier signings, answers or announcements."""
        return not BY_PAST.isdisjoint(json.loads(self.document).get("expect", ()))

    def digest(self, owner: str) -> bytes:
        """SHA-256 of the owner (empty for a shared request) and the document."""
        return hashlib.sha256(f"{owner}\n{self.document}".encode()).digest()


def read_ask(text: str) -> Ask:
    """Read `select` and `expect` as YAML or JSON. Raises `DocumentError` with the place and what would be allowed."""
    if len(text) > MAX_TEXT:
        raise DocumentError([Problem(f"longer than {MAX_TEXT // 1024} KiB")], "subscription")
    node = read_yaml(text, "subscription")
    try:
        _check(node)
        plain = _plain(node)
        document = json.dumps(plain, separators=(",", ":"), ensure_ascii=True)
        rule = _rule(node, PREFIX + "0")
        cover = _checked_cover(rule, node)
    except Misplaced as misplaced:
        raise DocumentError([misplaced.problem], "subscription") from None
    return Ask(document, keys_text(cover))


def ask_of(select: AnyMapping[str, Any], expect: AnyMapping[str, Any]) -> Ask:
    """Make a request of plain values. Raises `DocumentError`."""
    return read_ask(json.dumps({"select": select, **({"expect": expect} if expect else {})}))


def rule_of(number: int, document: str) -> Rule:
    """The rule of a stored request. Raises `DocumentError` if this version cannot read what an earlier one wrote."""
    try:
        return _rule(_node(json.loads(document)), f"{PREFIX}{number}")
    except (Misplaced, ValueError) as error:
        raise DocumentError([Problem(f"the stored request {number} cannot be read: {error}")], "subscription") from None


def number_of(rule: str | None) -> int | None:
    """The number in a rule id of ours; `None` for a rule of the file."""
    return int(rule.removeprefix(PREFIX)) if rule is not None and rule.startswith(PREFIX) else None


def yaml_of(document: str) -> str:
    """A request as YAML for people: what `read_ask` reads."""
    plain = json.loads(document)
    lines: list[str] = []
    for part in _ASK_KEYS:
        if part in plain:
            lines.append(f"{part}:")
            lines += [f"  {scalar(key)}: {flow(value)}" for key, value in plain[part].items()]
    return "\n".join([*lines, ""])


def keys_text(cover: Cover) -> str:
    """Index keys as JSON: `[form, folded, text]` of each, literals in hex; then the fields."""
    keys = [[_FORMS[type(key)], int(key.folded), _text(key)] for key in cover.keys]
    return json.dumps([keys, list(cover.fields)], separators=(",", ":"))


def cover_of_document(document: str) -> Cover:
    """Keys computed from a stored request. Raises `DocumentError`."""
    cover = cover_of_condition(rule_of(0, document).select)
    if cover is None:
        raise DocumentError([Problem("the stored request names nothing that an entry must contain")], "subscription")
    return cover


_FORMS: Final[AnyMapping[type, str]] = {Whole: "w", Head: "h", Literal: "l"}


def _text(key: Key) -> str:
    return key.data.hex() if isinstance(key, Literal) else key.text


def _rule(node: Node, rule_id: str) -> Rule:
    fields = Fields(node, _ASK_KEYS, "a subscription")
    return Rule(id=rule_id, select=read_select(fields.need("select")), expect=fields.read("expect", read_expect, ()))


def _check(node: Node) -> None:
    """Refuse what costs more than one subscription may cost."""
    fields = Fields(node, _ASK_KEYS, "a subscription")
    fields.need("select")
    expect = fields.get("expect")
    if isinstance(expect, Mapping):
        for key, _ in expect.entries:
            if key.text in _REFUSED:
                raise Misplaced(f"`{key.text}` is not for subscriptions: {_REFUSED[key.text]}", key)
            if key.text not in BY_KEY:
                allowed = sorted(set(BY_KEY) - set(_REFUSED))
                raise Misplaced(f"expect has no key {key.text[:80]!r}; known keys: {', '.join(allowed)}", key)
    if _values(node) > _MAX_VALUES:
        raise Misplaced(f"more than {_MAX_VALUES} values in one subscription", node)


def _checked_cover(rule: Rule, node: Node) -> Cover:
    patterns = [(match.field, pattern) for match in walk(rule.select) for pattern in match.patterns]
    if len(patterns) > MAX_PATTERNS:
        raise Misplaced(f"select has {len(patterns)} patterns; a subscription may have {MAX_PATTERNS}", node)
    for field, pattern in patterns:
        if field in _REFUSED_FIELDS:
            raise Misplaced(f"`{field}` is the same for many signers: select an identity, repository or key", node)
        if pattern.form is PatternForm.REGEX and len(pattern.text) > MAX_REGEX:
            raise Misplaced(f"a regular expression of a subscription has at most {MAX_REGEX} characters", node)
    cover = cover_of_condition(rule.select)
    too_broad = [hint for hint in lint(RuleSet((rule,))) if hint.id in (HintId.TOO_BROAD, HintId.NEVER_MATCHES)]
    if too_broad:
        raise Misplaced(f"{too_broad[0].message}. Nothing was subscribed", node)
    if cover is None:
        raise Misplaced(
            "names nothing that an entry must contain, so it would match half the log. Add an identity, a repository, "
            "a digest or a fingerprint",
            node,
        )
    return cover


def _values(node: Node) -> int:
    if isinstance(node, Scalar):
        return 1
    children: Sequence[Node] = node.items if isinstance(node, Listing) else [value for _, value in node.entries]
    return sum(_values(child) for child in children)


def _plain(node: Node) -> Any:
    if isinstance(node, Scalar):
        return node.text
    if isinstance(node, Listing):
        return [_plain(item) for item in node.items]
    return {key.text: _plain(value) for key, value in sorted(node.entries, key=lambda entry: _order(entry[0].text))}


def _order(key: str) -> tuple[int, str]:
    return (_ASK_KEYS.index(key) if key in _ASK_KEYS else len(_ASK_KEYS)), key


def _node(value: Any) -> Node:
    if isinstance(value, str):
        return Scalar(value, plain=False, line=0, column=0)
    if isinstance(value, list):
        return Listing(tuple(_node(item) for item in value), 0, 0)
    if isinstance(value, dict):
        entries = tuple((Scalar(key, plain=False, line=0, column=0), _node(item)) for key, item in value.items())
        return Mapping(entries, 0, 0)
    raise ValueError(f"{value!r} is not a text, list or mapping")


MAX_RECENT: Final = 2_000
"""Recent literals from which on `settle` has something to do."""
_Key = TypeVar("_Key", str, bytes)
Load = Callable[[Collection[int]], AnyMapping[int, Rule]]


class AskIndex:
    """Numbers of subscribed rules by key. One thread changes it, any number look things up meanwhile."""

    def __init__(self) -> None:
        self._wholes: tuple[dict[str, Numbers], dict[str, Numbers]] = ({}, {})
        self._heads: tuple[dict[str, Numbers], dict[str, Numbers]] = ({}, {})
        self._slashes: tuple[frozenset[int], frozenset[int]] = (frozenset(), frozenset())
        self._literals = (_Literals(), _Literals())
        self._lock = threading.Lock()
        self.fields: frozenset[str] = frozenset()
        self.size = 0

    def add(self, number: int, keys: str) -> None:
        """File a rule under keys as `rules.asking.keys_text` writes them."""
        found, fields = json.loads(keys)
        with self._lock:
            for form, folded, text in found:
                self._put(form, folded, text, number)
            if not self.fields.issuperset(fields):
                self.fields = self.fields | frozenset(fields)
            self.size += 1

    def remove(self, number: int, keys: str) -> None:
        """Take a rule out again; nothing happens where it is not filed."""
        found, _ = json.loads(keys)
        with self._lock:
            was_filed = False
            for form, folded, text in found:
                if form == "l":
                    was_filed |= self._literals[folded].remove(bytes.fromhex(text), number)
                else:
                    was_filed |= _take((self._wholes if form == "w" else self._heads)[folded], text, number)
            self.size -= was_filed

    def settle(self) -> bool:
        """Merge recent literals into the settled search, if there are many; false when there was nothing to do."""
        plain, folded = self._literals
        settled = plain.settle(self._lock)
        return folded.settle(self._lock) or settled

    def ready(self) -> None:
        """Compile recent literals: rules added since the last call are not found before."""
        with self._lock:
            for literals in self._literals:
                literals.compile()

    def find(self, texts: Sequence[str]) -> Iterator[tuple[int, Sequence[int]]]:
        """Rules filed under a key that some text shows, as (number of the text, rule numbers)."""
        for folded in (0, 1):
            wholes, heads = self._wholes[folded], self._heads[folded]
            literals = self._literals[folded]
            if not (wholes or heads or literals.any):
                continue
            spelled = [fold(text) for text in texts] if folded else texts
            for place, text in enumerate(spelled):
                if (numbers := wholes.get(text)) is not None:
                    yield place, _listed(numbers)
            for slashes in self._slashes[folded]:
                for place, text in enumerate(spelled):
                    parts = text.split("/", slashes)
                    if len(parts) > slashes:
                        numbers = heads.get(text[: len(text) - len(parts[slashes])])
                        if numbers is not None:
                            yield place, _listed(numbers)
            yield from literals.find(spelled)

    def _put(self, form: str, folded: int, text: str, number: int) -> None:
        if form == "l":
            self._literals[folded].add(bytes.fromhex(text), number)
            return
        put((self._wholes if form == "w" else self._heads)[folded], text, number)
        if form == "h" and (slashes := text.count("/")) not in self._slashes[folded]:
            plain, other = self._slashes
            more = self._slashes[folded] | {slashes}
            self._slashes = (plain, more) if folded else (more, other)


class _Literals:
    """Literals of one spelling: a settled search and a recent one. Numbers stay beside both, changed in place."""

    def __init__(self) -> None:
        self._numbers: dict[bytes, Numbers] = {}
        self._settled: tuple[tuple[bytes, ...], LiteralSearch] | None = None
        self._recent: dict[bytes, None] = {}
        self._known: frozenset[bytes] = frozenset()
        self._search: tuple[tuple[bytes, ...], LiteralSearch] | None = None
        self._stale = False

    @property
    def any(self) -> bool:
        return bool(self._numbers)

    def add(self, literal: bytes, number: int) -> None:
        put(self._numbers, literal, number)
        if literal not in self._known and literal not in self._recent:
            self._recent[literal] = None
            self._stale = True

    def remove(self, literal: bytes, number: int) -> bool:
        return _take(self._numbers, literal, number)

    def compile(self) -> None:
        if self._stale:
            recent = tuple(self._recent)
            self._search, self._stale = (recent, LiteralSearch(recent)), False

    def settle(self, lock: threading.Lock) -> bool:
        if len(self._recent) < MAX_RECENT:
            return False
        with lock:
            merged = tuple(self._numbers)
        # The long part, without the lock: what is added meanwhile stays recent.
        compiled = (merged, LiteralSearch(merged))
        with lock:
            self._settled, self._known = compiled, frozenset(merged)
            self._recent = {literal: None for literal in self._recent if literal not in self._known}
            self._search, self._stale = None, bool(self._recent)
            self.compile()
        return True

    def find(self, texts: Sequence[str]) -> Iterator[tuple[int, Sequence[int]]]:
        for part in (self._settled, self._search):
            if part is None:
                continue
            literals, search = part
            for place, literal in search.find(texts):
                numbers = self._numbers.get(literals[literal])
                if numbers is not None:
                    yield place, _listed(numbers)


class LayeredMatcher:
    """The rules of the file over the index of subscribed ones: a `Matcher` for both.

    Candidates are numbers: those of the file as they are, subscribed ones behind them. `load` reads subscribed rules by
    number; one that is gone is left out. However many subscribed rules match one entry, none is dropped.
    """

    def __init__(self, file: Matcher, asks: AskIndex, load: Load) -> None:
        self.file, self.asks, self._load = file, asks, load
        self.rules = file.rules
        self.unindexed = file.unindexed
        self._base = len(file.rules)

    @property
    def fields(self) -> frozenset[str]:
        """Fields whose texts make an entry a candidate."""
        return self.file.fields | self.asks.fields

    def asks_alone(self) -> "LayeredMatcher":
        """The subscribed rules without those of the file: for batches that other processes matched with the file's."""
        return LayeredMatcher(Matcher(()), self.asks, self._load)

    def rule(self, rule_id: str) -> Rule | None:
        """A rule in force or of a subscription; `None` when there is none of this id."""
        if not rule_id.startswith(PREFIX):
            return self.file.rule(rule_id)
        number = int(rule_id.removeprefix(PREFIX))
        return self._load([number]).get(number)

    def candidates(self, texts: Sequence[str]) -> Sequence[int]:
        """Candidates of the file's rules and of the requests, sorted by number."""
        found = set(self.file.candidates(texts))
        for _, numbers in self.asks.find(texts):
            found.update(self._base + number for number in numbers)
        return sorted(found)

    def candidates_batch(self, texts: Sequence[str], owners: Sequence[int]) -> dict[int, Sequence[int]]:
        """Candidates of many texts, by the owner of each text."""
        found = {owner: set(numbers) for owner, numbers in self.file.candidates_batch(texts, owners).items()}
        for place, numbers in self.asks.find(texts):
            known = found.setdefault(owners[place], set(self.unindexed))
            known.update(self._base + number for number in numbers)
        return {owner: sorted(numbers) for owner, numbers in found.items()}

    def confirm(self, signing: Signing, numbers: Sequence[int]) -> Matches:
        """Candidates that do select the signing."""
        of_file = self.file.confirm(signing, [number for number in numbers if number < self._base])
        if is_large(signing):
            return self._with_large(signing, of_file)
        loaded = self._load([number - self._base for number in numbers if number >= self._base])
        asked = tuple(rule for rule in loaded.values() if matching_signers(rule.select, signing))
        return Matches((*of_file.rules, *asked), signing, of_file.dropped)

    def _with_large(self, signing: Signing, of_file: Matches) -> Matches:
        """Subscribed rules of an entry with very many signers: each signer is asked about those it shows a key of.

        Small signers come first, as for the rules of the file, and those cut off are counted.
        """
        rules: dict[int, Rule] = {}
        kept = {id(signer) for signer in of_file.signing.signers} if of_file.rules else set()
        budget, cut = MAX_ASKED, 0
        for signer in sorted(signing.signers, key=values_of_signer):
            alone = replace(signing, signers=(signer,))
            found = self.asks.find(list(texts_of(alone, self.asks.fields)))
            numbers = {number for _, numbers in found for number in numbers}
            budget -= values_of_signer(signer) * len(numbers)
            if budget < 0:
                cut += len(numbers)
                continue
            chosen = {
                number: rule for number, rule in self._load(numbers).items() if rule.select.holds(signing, signer)
            }
            if chosen:
                rules.update(chosen)
                kept.add(id(signer))
        shown = tuple(signer for signer in signing.signers if id(signer) in kept)
        together = (*of_file.rules, *(rules[number] for number in sorted(rules)))
        return Matches(together, replace(signing, signers=shown), of_file.dropped + cut)

    def confirm_all(self, signing: Signing) -> Matches:
        """Every rule and request that selects the signing, by asking each."""
        return self.confirm(signing, self.candidates(list(texts_of(signing, self.fields))))


def _take(filed: dict[_Key, Numbers], key: _Key, number: int) -> bool:
    """Whether the number was filed under the key; it is not any more."""
    known = filed.get(key)
    if known is None or number not in _listed(known):
        return False
    left = [each for each in _listed(known) if each != number]
    if left:
        # A new list: a look-up may be reading the old one.
        filed[key] = left
    else:
        del filed[key]
    return True


def _listed(numbers: Numbers) -> Sequence[int]:
    return numbers if isinstance(numbers, list) else (numbers,)
