"""Many rules compiled into one index, so that an entry costs about the same however many rules there are.

Two questions, in this order. *May* a rule match? One Aho-Corasick pass over the raw bytes of an entry finds literals
without which a rule cannot match. *Does* it match? Only the parsed signing decides: bytes that look like a name may
stand anywhere in a certificate its requester could influence.
"""

import bisect
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from ahocorasick_rs import BytesAhoCorasick, Implementation

from rules.cover import Cover, ValueKey, cover_of_condition, value_key
from rules.literals import MAX_LITERAL, MIN_LITERAL
from rules.rule import Rule
from rules.selection import extension_texts, matching_signers, normal_fingerprint
from sigstore_entries.signing import Signing

MAX_UNINDEXED: Final = 1_000
MAX_MATCHES: Final = 1_000
WINDOW: Final = 256 * 1024  # bytes searched at once: bounds the list of hits an entry stuffed with literals can cause
_SLASH: Final = ord("/")
_TABLE_BYTES: Final = 64 * 1024  # of literals that a full transition table (faster, some 200 times as big) is made for
_DIRECT: Final = 16  # with more candidates than this, values are looked up instead of asking rule after rule


class TooManyUnindexed(ValueError):
    """More rules than allowed cannot be indexed; each of them would be asked about every entry of every log."""

    def __init__(self, rules: Sequence[Rule], limit: int) -> None:
        self.rules = tuple(rules)
        names = ", ".join(rule.id for rule in rules[:5])
        super().__init__(
            f"{len(rules)} rules name nothing that an entry must contain (at most {limit} may): {names}, … "
            "Add an identity, repository, digest or fingerprint to each, or at least 6 fixed characters to its pattern"
        )


@dataclass(frozen=True, slots=True)
class Matches(Sequence[Rule]):
    """The rules that match a signing, in file order. `dropped` counts those left out beyond the cap: show it."""

    rules: tuple[Rule, ...]
    dropped: int = 0

    def __getitem__(self, index: int) -> Rule:  # type: ignore[override]  # no slices: take `rules`
        """The rule at a position."""
        return self.rules[index]

    def __len__(self) -> int:
        """How many rules match, without the dropped ones."""
        return len(self.rules)


class _Automaton:
    """Literals of one kind, and for each the rules filed under it: those decided by whole values first."""

    __slots__ = ("_members", "_parts", "_splits", "_starts")

    def __init__(self, files: "_Files") -> None:
        self._parts = tuple(_parts(files.literals))
        self._starts, self._splits, self._members = files.sorted_by_literal()

    def hits(self, data: bytes) -> list[tuple[int, int, int]]:
        """Every literal in `data`, as (number, start, end). Overlapping ones too: one must not hide another."""
        return [
            (number, start, end)
            for automaton, numbers in self._parts
            for place, start, end in automaton.find_matches_as_indexes(data, overlapping=True)
            if (number := numbers[place]) >= 0
        ]

    def rules_of(self, literal: int) -> Sequence[int]:
        """The rules filed under a literal."""
        return self._members[self._starts[literal] : self._starts[literal + 1]]

    def pattern_rules_of(self, literal: int) -> Sequence[int]:
        """Those of them that no whole value decides."""
        return self._members[self._splits[literal] : self._starts[literal + 1]]


def _parts(literals: Iterable[bytes]) -> Iterator[tuple[BytesAhoCorasick, "array[int]"]]:
    """Automata that together find all literals, and for each the numbers of its own.

    An automaton leaps to the next byte that some literal needs, as long as one byte does for all of them, and that is
    several times as fast as walking: so those that begin with a slash and those that hold an at sign stand apart.
    """
    slashed: tuple[list[bytes], array[int]] = [], array("i")
    # The first literal decides which of its bytes to leap to; this one leaves no choice, and stands for no rule.
    at_signs: tuple[list[bytes], array[int]] = [b"@" * MIN_LITERAL], array("i", [-1])
    others: tuple[list[bytes], array[int]] = [], array("i")
    for number, literal in enumerate(literals):
        of = slashed if literal[0] == _SLASH else at_signs if b"@" in literal else others
        of[0].append(literal)
        of[1].append(number)
    for found, numbers in (slashed, at_signs, others):
        if numbers and max(numbers) >= 0:
            small = sum(map(len, found)) <= _TABLE_BYTES
            yield BytesAhoCorasick(found, implementation=Implementation.DFA if small else None), numbers


class _Files:
    """Rules filed under literals while the index is built, in flat arrays: a million rules are a million of each."""

    __slots__ = ("_exact", "_others", "literals")

    def __init__(self) -> None:
        self.literals: dict[bytes, int] = {}
        self._exact = (array("I"), array("I"))
        self._others = (array("I"), array("I"))

    def add(self, literal: bytes, number: int, *, is_exact: bool) -> None:
        known = self.literals.setdefault(literal, len(self.literals))
        literals, numbers = self._exact if is_exact else self._others
        literals.append(known)
        numbers.append(number)

    def sorted_by_literal(self) -> tuple["array[int]", "array[int]", "array[int]"]:
        """Where each literal's rules start, where those start that no whole value decides, and all rule numbers."""
        count = len(self.literals)
        sizes_exact, sizes_others = _count(self._exact[0], count), _count(self._others[0], count)
        starts, splits, total = array("I", [0]), array("I"), 0
        for of_exact, of_others in zip(sizes_exact, sizes_others, strict=True):
            splits.append(total + of_exact)
            total += of_exact + of_others
            starts.append(total)
        members = array("I", bytes(4 * total))
        for (literals, numbers), nexts in ((self._exact, starts[:-1]), (self._others, splits[:])):
            for literal, number in zip(literals, numbers, strict=True):
                members[nexts[literal]] = number
                nexts[literal] += 1
        return starts, splits, members


def _count(literals: "array[int]", count: int) -> "array[int]":
    sizes = array("I", bytes(4 * count))
    for literal in literals:
        sizes[literal] += 1
    return sizes


class Matcher:
    """The compiled rules. Immutable, safe to share between threads and, after a fork, between processes.

    `unindexed` are the numbers of rules that are candidates for every entry: while there is one, every entry costs a
    full decode. `needs_digests` and `needs_fingerprints` say that some rule is filed under these, which no haystack
    shows: hand them to `candidates` as `values`, or send the entry through `confirm_all`.
    """

    def __init__(
        self, rules: Sequence[Rule], *, max_unindexed: int = MAX_UNINDEXED, max_matches: int = MAX_MATCHES
    ) -> None:
        """Index the rules. Raises `TooManyUnindexed`."""
        self.rules = tuple(rules)
        self._max_matches = max_matches
        self.needs_digests = False
        self.needs_fingerprints = False
        self._by_value: dict[str, int | list[int]] = {}
        self._by_exact: dict[str, int | list[int]] = {}
        plain, folded = _Files(), _Files()
        unindexed: list[int] = []
        for number, rule in enumerate(self.rules):
            cover = cover_of_condition(rule.select)
            if cover is None:
                unindexed.append(number)
            else:
                self._file(number, cover, plain, folded)
        if len(unindexed) > max_unindexed:
            raise TooManyUnindexed([self.rules[number] for number in unindexed], max_unindexed)
        self.unindexed: tuple[int, ...] = tuple(unindexed)
        self._plain = _Automaton(plain)
        self._folded = _Automaton(folded)
        self._has_folded = bool(folded.literals)

    def _file(self, number: int, cover: Cover, plain: _Files, folded: _Files) -> None:
        for key in cover.keys:
            if isinstance(key, ValueKey):
                _put(self._by_value, key.value, number)
                self.needs_digests |= key.is_digest
                self.needs_fingerprints |= not key.is_digest
                continue
            (folded if key.folded else plain).add(key.data, number, is_exact=bool(cover.exact))
        for value in cover.exact:
            _put(self._by_exact, value, number)

    def candidates(self, haystack: bytes, values: Iterable[str] = ()) -> Sequence[int]:
        """Numbers of the rules that may match an entry, in order; every rule that does match is among them.

        `haystack` holds the raw bytes of every certificate or key of the entry, `values` its digests (hex) and
        fingerprints as far as they are known.
        """
        found: dict[int, set[int]] = {}
        self._search(haystack, [0], 0, found)
        return self._with_values(found.get(0, set()), values)

    def candidates_batch(
        self, haystacks: Sequence[bytes], values: Sequence[Iterable[str]] | None = None
    ) -> list[tuple[int, Sequence[int]]]:
        """`candidates` for many entries in one pass: (position, rule numbers) of each entry that has any, in order."""
        found: dict[int, set[int]] = {}
        for start, end in _groups(haystacks):
            offsets, offset = [], 0
            for haystack in haystacks[start:end]:
                offsets.append(offset)
                offset += len(haystack)
            self._search(b"".join(haystacks[start:end]), offsets, start, found)
        if not self.unindexed and (values is None or not self._by_value):
            # Nothing but a literal makes a candidate, and nearly no entry holds one.
            return [(position, tuple(sorted(found[position]))) for position in sorted(found)]
        given = values if values is not None else [()] * len(haystacks)
        numbered = (
            (position, self._with_values(found.get(position, set()), given[position]))
            for position in range(len(haystacks))
        )
        return [(position, numbers) for position, numbers in numbered if numbers]

    def _search(self, data: bytes, offsets: list[int], first: int, found: dict[int, set[int]]) -> None:
        """Add to `found`, by position, the rules whose literals stand in the entries that begin at `offsets`."""
        for automaton, searched in ((self._plain, data), (self._folded, data.lower() if self._has_folded else b"")):
            seen: set[tuple[int, int]] = set()
            for literal, start, end in _windowed(automaton, searched):
                position = bisect.bisect_right(offsets, start) - 1
                # A literal that only the joining of two entries made is in neither of them.
                if position + 1 < len(offsets) and end > offsets[position + 1]:
                    continue
                if (literal, position) not in seen:
                    seen.add((literal, position))
                    found.setdefault(first + position, set()).update(automaton.rules_of(literal))

    def _with_values(self, found: set[int], values: Iterable[str]) -> Sequence[int]:
        if self._by_value:
            for value in values:
                found.update(_get(self._by_value, value_key(normal_fingerprint(value))))
        if not found:
            return self.unindexed
        found.update(self.unindexed)
        return tuple(sorted(found))

    def confirm(self, signing: Signing, numbers: Sequence[int]) -> Matches:
        """Which of the candidates match, decided on the parsed signing alone."""
        if len(numbers) > _DIRECT:
            wanted = set(numbers)
            numbers = sorted(number for number in self._numbers_of(signing) if number in wanted)
        return self._decide(signing, numbers)

    def confirm_all(self, signing: Signing) -> Matches:
        """Every rule that matches a signing, found through its values: for entries whose bytes cannot be searched."""
        return self._decide(signing, sorted(self._numbers_of(signing)))

    def _decide(self, signing: Signing, numbers: Iterable[int]) -> Matches:
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
        return Matches(tuple(matched), dropped)

    def _numbers_of(self, signing: Signing) -> set[int]:
        found = set(self.unindexed)
        for value in _keyed_values(signing):
            found.update(_get(self._by_value, value))
        texts = set(_texts(signing))
        for text in texts:
            found.update(_get(self._by_exact, text))
        for automaton, joined in (
            (self._plain, "\n".join(texts)),
            (self._folded, "\n".join(texts) if self._has_folded else ""),
        ):
            data = joined.encode("utf-8", "replace")
            searched = data.lower() if automaton is self._folded else data
            for literal in {hit[0] for hit in _windowed(automaton, searched)}:
                found.update(automaton.pattern_rules_of(literal))
        return found


def compile_rules(
    rules: Sequence[Rule], *, max_unindexed: int = MAX_UNINDEXED, max_matches: int = MAX_MATCHES
) -> Matcher:
    """Index rules. Raises `TooManyUnindexed` when more than `max_unindexed` of them cannot be."""
    return Matcher(rules, max_unindexed=max_unindexed, max_matches=max_matches)


def _windowed(automaton: _Automaton, data: bytes) -> Iterator[tuple[int, int, int]]:
    if len(data) <= WINDOW:
        yield from automaton.hits(data)
        return
    step = WINDOW - MAX_LITERAL
    for offset in range(0, len(data), step):
        for literal, start, end in automaton.hits(data[offset : offset + WINDOW]):
            yield literal, start + offset, end + offset


def _groups(haystacks: Sequence[bytes]) -> Iterator[tuple[int, int]]:
    """Runs of haystacks to search in one go, each near `WINDOW` bytes."""
    start, size = 0, 0
    for position, haystack in enumerate(haystacks):
        if size and size + len(haystack) > WINDOW:
            yield start, position
            start, size = position, 0
        size += len(haystack)
    if start < len(haystacks):
        yield start, len(haystacks)


def _keyed_values(signing: Signing) -> Iterator[str]:
    for digest in signing.digests:
        yield value_key(digest.value.lower())
    for signer in signing.signers:
        for fingerprint in signer.fingerprints:
            yield value_key(normal_fingerprint(fingerprint))


def _texts(signing: Signing) -> Iterator[str]:
    """Every text a literal may come from."""
    for signer in signing.signers:
        yield from (name.value for name in signer.names)
        yield from signer.claims.values()
        if signer.issuer is not None:
            yield signer.issuer
        for raw in signer.extensions.values():
            yield from extension_texts(raw)


def _put(filed: dict[str, int | list[int]], key: str, number: int) -> None:
    known = filed.get(key)
    if known is None:
        filed[key] = number
    elif isinstance(known, int):
        filed[key] = [known, number]
    else:
        known.append(number)


def _get(filed: dict[str, int | list[int]], key: str) -> Sequence[int]:
    known = filed.get(key)
    if known is None:
        return ()
    return (known,) if isinstance(known, int) else known
