"""Many rules compiled into one index, so that the time for an entry hardly depends on the number of rules.

Each rule is filed under literals of which one occurs in every text that it matches. One Aho-Corasick pass finds them.

Above the rules of the file lies the index of subscribed ones. It files a subscription under its keys by number alone;
its text is loaded when an entry shows one of them. Adding or removing one costs that one: whole values and heads go
into hash maps, and literals into a small recent search beside the large settled one until `settle` merges them.
"""

import bisect
import json
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, TypeVar

from ahocorasick_rs import BytesAhoCorasick, Implementation
from msgspec.structs import replace

from rules.matching.keys import MAX_LITERAL, Key, ValuePrefix, WholeValue
from rules.matching.required_keys import required_keys_of, value_key
from rules.pattern import fold
from rules.rule import Rule
from rules.selection import matching_signers, values
from sigstore_entries.signing import Signer, Signing

WINDOW: Final = 256 * 1024  # bytes searched at once: bounds the list of hits a text stuffed with literals can cause
_TABLE_BYTES: Final = 64 * 1024  # of literals that a full transition table (faster, some 200 times as big) is made for
_BETWEEN: Final = b"\n"


class LiteralSearch:
    """Finds literals, each known by its place in the order given."""

    def __init__(self, literals: Iterable[bytes]) -> None:
        found = list(literals)
        small = sum(map(len, found)) <= _TABLE_BYTES
        self._automaton = BytesAhoCorasick(found, implementation=Implementation.DFA if small else None)

    def find(self, texts: Sequence[str]) -> Iterator[tuple[int, int]]:
        """Every literal in every text, once for each pair, as (number of text, number of literal); perhaps others."""
        encoded = [text.encode("utf-8", "replace") for text in texts]
        ends: list[int] = []
        seen: set[tuple[int, int]] = set()
        for literal, start in self._hits(_BETWEEN.join(encoded)):
            ends = ends or list(accumulate(len(each) + len(_BETWEEN) for each in encoded))
            pair = bisect.bisect_right(ends, start), literal
            if pair not in seen:
                seen.add(pair)
                yield pair

    def _hits(self, data: bytes) -> Iterator[tuple[int, int]]:
        """Literal and place of each hit. Overlapping ones too: one must not hide another."""
        for offset in range(0, max(len(data), 1), WINDOW - MAX_LITERAL):
            window = data[offset : offset + WINDOW] if len(data) > WINDOW else data
            for literal, start, _ in self._automaton.find_matches_as_indexes(window, overlapping=True):
                yield literal, start + offset
            if len(data) <= WINDOW:
                return


# Nearly every key belongs to one rule, and there may be a million: a list for each would take most of the memory.
Numbers = int | list[int]
_Text = TypeVar("_Text", str, bytes)


class KeyIndex:
    """Rule numbers under keys of one kind of spelling, folded or not. `close` it, then look up."""

    def __init__(self, *, folded: bool) -> None:
        self._spelling: Callable[[str], str] | None = fold if folded else None
        self._wholes: dict[str, Numbers] = {}
        self._heads: dict[str, Numbers] = {}
        self._slashes: set[int] = set()
        self._literals: dict[bytes, Numbers] = {}
        self._of_literals: tuple[Numbers, ...] = ()
        self._search: LiteralSearch | None = None

    def add(self, key: Key, number: int) -> None:
        """File a rule."""
        if isinstance(key, WholeValue):
            put(self._wholes, key.text, number)
        elif isinstance(key, ValuePrefix):
            put(self._heads, key.text, number)
            self._slashes.add(key.text.count("/"))
        else:
            put(self._literals, key.data, number)

    def close(self) -> None:
        """Compile the literals; no rule can be added any more."""
        if self._literals:
            self._search = LiteralSearch(self._literals)
            self._of_literals = tuple(self._literals.values())
            self._literals = {}

    def find(self, texts: Sequence[str]) -> Iterator[tuple[int, Sequence[int]]]:
        """Rules filed under a key that some text shows, as (number of the text, rule numbers)."""
        if self._spelling is not None and (self._wholes or self._heads or self._search):
            texts = [self._spelling(text) for text in texts]
        if self._wholes:
            wholes = self._wholes
            for place in [place for place, text in enumerate(texts) if text in wholes]:
                yield place, _listed(wholes[texts[place]])
        for slashes in self._slashes:
            yield from self._begin(texts, slashes)
        if self._search is not None:
            for place, literal in self._search.find(texts):
                yield place, _listed(self._of_literals[literal])

    def _begin(self, texts: Sequence[str], slashes: int) -> Iterator[tuple[int, Sequence[int]]]:
        """Rules with a head of `slashes` slashes with which a text begins."""
        heads = self._heads
        for place, text in enumerate(texts):
            parts = text.split("/", slashes)
            if len(parts) > slashes and (head := text[: len(text) - len(parts[slashes])]) in heads:
                yield place, _listed(heads[head])


def put(filed: dict[_Text, Numbers], key: _Text, number: int) -> None:
    """File a rule number under a key; one number stands for itself, several are a list."""
    known = filed.get(key)
    if known is None:
        filed[key] = number
    elif isinstance(known, list):
        known.append(number)
    else:
        filed[key] = [known, number]


def _listed(filed: Numbers) -> Sequence[int]:
    return filed if isinstance(filed, list) else (filed,)


MAX_UNINDEXED: Final = 1_000
MAX_MATCHES: Final = 1_000
MAX_VALUES: Final = 1_000  # names, claims and fingerprints of an entry whose every signer is kept
MAX_ASKED: Final = 5_000_000  # values compared with rules for one entry: some seconds


class TooManyUnindexed(ValueError):
    """Too many rules cannot be indexed; each of them would be asked about every entry of every log."""

    def __init__(self, rules: Sequence[Rule], limit: int) -> None:
        self.rules = tuple(rules)
        names = ", ".join(rule.id for rule in rules[:5])
        super().__init__(
            f"rules without a text that an entry must contain: {len(rules)} (at most {limit} may): {names}, … "
            "Add an identity, repository, digest or fingerprint to each, or at least 6 fixed characters to its pattern"
        )


@dataclass(frozen=True, slots=True)
class Matches(Sequence[Rule]):
    """The rules that match a signing, in file order. `dropped` counts those left out beyond the caps: show it.

    `signing` is the entry to judge; for a very large entry it holds only the signers that these rules select.
    """

    rules: tuple[Rule, ...]
    signing: Signing
    dropped: int = 0

    def __getitem__(self, index: int) -> Rule:  # type: ignore[override]  # no slices: take `rules`
        """The rule at a position."""
        return self.rules[index]

    def __len__(self) -> int:
        """Number of rules that match, without the dropped ones."""
        return len(self.rules)


class Matcher:
    """The compiled rules. Immutable, safe to share between threads and, after a fork, between processes.

    `fields` are those whose texts make an entry a candidate, by the names that rules give them. `unindexed` are the
    numbers of rules that are candidates for every entry: while there is one, every entry costs a full decode.
    """

    def __init__(
        self, rules: Sequence[Rule], *, max_unindexed: int = MAX_UNINDEXED, max_matches: int = MAX_MATCHES
    ) -> None:
        """Index the rules. Raises `TooManyUnindexed`."""
        self.rules = tuple(rules)
        self._max_matches = max_matches
        self._plain, self._folded = KeyIndex(folded=False), KeyIndex(folded=True)
        unindexed: list[int] = []
        fields: set[str] = set()
        for number, rule in enumerate(self.rules):
            required = required_keys_of(rule.select)
            if required is None:
                unindexed.append(number)
                continue
            fields.update(required.fields)
            for key in required.keys:
                (self._folded if key.folded else self._plain).add(key, number)
        if len(unindexed) > max_unindexed:
            raise TooManyUnindexed([self.rules[number] for number in unindexed], max_unindexed)
        self._plain.close()
        self._folded.close()
        self.unindexed: tuple[int, ...] = tuple(unindexed)
        self.fields = frozenset(fields)
        self._by_id: dict[str, Rule] | None = None

    def rule(self, rule_id: str) -> Rule | None:
        """The rule of an id; `None` when there is none."""
        if self._by_id is None:
            self._by_id = {rule.id: rule for rule in self.rules}
        return self._by_id.get(rule_id)

    def candidates(self, texts: Sequence[str]) -> Sequence[int]:
        """Numbers of the rules that may match an entry, in order, including every rule that does match.

        `texts` are all values the entry has in one of `fields`: names and claims as decoding gives them, digests and
        fingerprints in lower-case hex without the name of their algorithm. More texts may make more candidates.
        """
        found = set(self.unindexed)
        for _, numbers in self.find(texts):
            found.update(numbers)
        return sorted(found)

    def candidates_batch(self, texts: Sequence[str], owners: Sequence[int]) -> dict[int, Sequence[int]]:
        """`candidates` by entry, for many: `texts[i]` is a text of entry `owners[i]`, all its texts are given.

        An entry is left out when it has no candidates but the `unindexed`.
        """
        found: dict[int, set[int]] = {}
        for place, numbers in self.find(texts):
            found.setdefault(owners[place], set(self.unindexed)).update(numbers)
        return {owner: sorted(numbers) for owner, numbers in found.items()}

    def find(self, texts: Sequence[str]) -> Iterator[tuple[int, Sequence[int]]]:
        """Rules filed under a key that some text shows, as (number of the text, rule numbers)."""
        yield from self._plain.find(texts)
        yield from self._folded.find(texts)

    def confirm(self, signing: Signing, numbers: Sequence[int]) -> Matches:
        """The candidates that match, decided on the parsed signing alone."""
        if is_large(signing):
            return self._confirm_large(signing)
        matched: list[Rule] = []
        dropped = 0
        for number in numbers:
            rule = self.rules[number]
            if not matching_signers(rule.select, signing):
                continue
            if len(matched) < self._max_matches:
                matched.append(rule)
            else:
                dropped += 1
        return Matches(tuple(matched), signing, dropped)

    def _confirm_large(self, signing: Signing) -> Matches:
        """Matches of an entry with very many signers, in bounded time.

        A signer is compared with the rules of which it shows a key. Small signers come first: a certificate of a
        trusted authority is small, so a flood of large signers cannot push it out. Signers left out are counted.
        """
        shared = {*self.unindexed, *self._numbers(texts_of(replace(signing, signers=()), self.fields))}
        rules: set[int] = set()
        places: list[int] = []
        cut: set[int] = set()
        asked, size = 0, 0
        for place in sorted(range(len(signing.signers)), key=lambda each: values_of_signer(signing.signers[each])):
            signer = signing.signers[place]
            values_of = values_of_signer(signer)
            numbers = shared | self._numbers(texts_of(replace(signing, signers=(signer,)), self.fields))
            asked += values_of * len(numbers)
            if asked > MAX_ASKED:
                cut |= numbers
                continue
            chosen = {number for number in numbers if self.rules[number].select.holds(signing, signer)}
            together = rules | chosen
            # Judging asks each of these rules about each of these signers once more.
            if len(together) > self._max_matches or len(together) * (size + values_of) > MAX_ASKED:
                cut |= chosen
            elif chosen:
                rules, size = together, size + values_of
                places.append(place)
        kept = replace(signing, signers=tuple(signing.signers[place] for place in sorted(places)))
        return Matches(tuple(self.rules[number] for number in sorted(rules)), kept, len(cut - rules))

    def _numbers(self, texts: Iterable[str]) -> set[int]:
        return {number for _, numbers in self.find(list(texts)) for number in numbers}

    def confirm_all(self, signing: Signing) -> Matches:
        """Every rule that matches a signing, found through its decoded values."""
        return self.confirm(signing, self.candidates(list(texts_of(signing, self.fields))))


def values_of_signer(signer: Signer) -> int:
    """Number of values that rules may be asked about, at least one."""
    return 1 + len(signer.names) + len(signer.fingerprints) + len(signer.claims)


def is_large(signing: Signing) -> bool:
    """True if an entry has too many signers to compare each of them with every rule."""
    return len(signing.signers) > 1 and sum(map(values_of_signer, signing.signers)) > MAX_VALUES


def compile_rules(
    rules: Sequence[Rule], *, max_unindexed: int = MAX_UNINDEXED, max_matches: int = MAX_MATCHES
) -> Matcher:
    """Index rules. Raises `TooManyUnindexed` when more than `max_unindexed` of them cannot be."""
    return Matcher(rules, max_unindexed=max_unindexed, max_matches=max_matches)


def texts_of(signing: Signing, fields: frozenset[str]) -> Iterator[str]:
    """Every text of a decoded entry in one of the fields, as `Matcher.candidates` wants it."""
    for field in sorted(fields):
        for signer in signing.signers or (None,):
            for text in values(field, signing, signer):
                yield value_key(text) if field == "digest" else text
                if not text.isascii():
                    yield text.encode("utf-8", "replace").decode()  # the form in which RE2 gets the text


PREFIX: Final = "ask:"
"""Ids of the rules of subscribers begin with it; no id in a rule file can."""
MAX_RECENT: Final = 2_000
"""Recent literals from which on `settle` has something to do."""
Load = Callable[[Collection[int]], Mapping[int, Rule]]


def number_of(rule: str | None) -> int | None:
    """The number in a rule id of ours; `None` for a rule of the file."""
    return int(rule.removeprefix(PREFIX)) if rule is not None and rule.startswith(PREFIX) else None


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
        # The long part, without the lock: what is added meanwhile stays recent. ahocorasick_rs keeps the interpreter's
        # lock all the same, so that every other thread waits for it.
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


def _take(filed: dict[_Text, Numbers], key: _Text, number: int) -> bool:
    """Remove the number from the key; true if it was filed there."""
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
