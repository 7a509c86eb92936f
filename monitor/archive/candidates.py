"""Entries of an archive that rules may select, found in the columns of its rows in one pass for any number of rules.

No entry that a rule selects is left out. Some entries are found that no rule selects, so the caller judges the entry
itself. Each distinct text is looked up once in the index of rules that following uses; the row's values then decide.
Rules without a key in that index are compared with the values of every row, once for equal values.
"""

from base64 import b64encode
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from msgspec.structs import replace

from monitor.archive.rows import KEYS, LEFT_OUT, UNREADABLE, fingerprint_bytes
from rules.matching.matcher import MAX_ASKED, MAX_UNINDEXED, Matcher, TooManyUnindexed, compile_rules
from rules.matching.required_keys import value_key
from rules.pattern import PatternForm
from rules.rule import Rule
from rules.selection import AllOf, AnyOf, Condition, FieldMatch, Not, walk

_ESCAPED: Final = "\\ud"  # half of a surrogate pair, which UTF-8 cannot hold: the row has an escape in its place
_FINGERPRINT_SIZES: Final = pa.array([16, 20, 32], pa.int32())  # a row holds other fingerprints as their text


class _Stored(NamedTuple):
    """Columns with every value of a field; `alone` if they hold no other values."""

    columns: tuple[str, ...]
    alone: bool = False


# A row holds a workflow among the identities where the certificate is the workflow's own.
_WORKFLOW: Final = _Stored(("workflows", "identities"))
_STORED: Final = {
    "identity": _Stored(("identities",), alone=True),
    "issuer": _Stored(("issuers",), alone=True),
    "issuer_v1": _Stored(("issuers",)),
    "source_repository_uri": _Stored(("repositories",)),
    "build_config_uri": _WORKFLOW,
    "build_signer_uri": _WORKFLOW,
    "source_repository_ref": _Stored(("refs",)),
    "github_workflow_ref": _Stored(("refs",)),
    "build_trigger": _Stored(("triggers",)),
    "github_workflow_trigger": _Stored(("triggers",)),
    "source_repository_identifier": _Stored(("repository_ids",), alone=True),
    "source_repository_owner_identifier": _Stored(("owner_ids",), alone=True),
    "runner_environment": _Stored(("runners",), alone=True),
    "kind": _Stored(("kind",), alone=True),
    # Bytes: without the name of the algorithm, and in one form for all spellings.
    "digest": _Stored(("digests",)),
    # The index alone holds that of the key in a certificate.
    "fingerprint": _Stored(("fingerprints", KEYS.name)),
}
_BYTES: Final = ("digest", "fingerprint")
_WITHOUT_KEYS: Final = Not(AllOf(()))

_Values = Mapping[str, Sequence[Any]]
_Test = Callable[[_Values], bool]


class CandidateSearch:
    """Finds the entries of one log that some rule may select.

    `find` needs rows with `columns`, and for `fingerprints` the column `KEYS`: see `Archive.rows`.
    """

    def __init__(self, rules: Matcher, log: str) -> None:
        """Raises `TooManyUnindexed` when too many rules would be compared with every row."""
        self._rules, self._log = rules.rules, log
        matches = [match for rule in self._rules for match in walk(rule.select)]
        fields = {match.field for match in matches} & _STORED.keys()
        columns = {column for field in fields for column in _STORED[field].columns}
        named: dict[str, set[bytes]] = {}
        for match in matches:
            if match.field in _BYTES:
                for column in _STORED[match.field].columns:
                    named.setdefault(column, set()).update(_bytes_of(match))
        self._bytes = {column: pa.array(values, pa.binary()) for column, values in named.items()}
        self._texts = sorted(columns - {"kind"} - self._bytes.keys())
        self.columns = tuple(sorted((columns - {KEYS.name}) | {"kind", "defect"}))
        self.fingerprints = tuple(sorted(named.get(KEYS.name, ())))
        self._read = (*self.columns, "signers", *([KEYS.name] if self.fingerprints else ()))
        if rules.fields <= _STORED.keys():
            self._index = rules
        else:
            stored = [replace(rule, select=_stored_part(rule.select)) for rule in self._rules]
            self._index = compile_rules(stored, max_unindexed=len(stored))
        unindexed = self._index.unindexed
        if len(unindexed) > MAX_UNINDEXED:
            raise TooManyUnindexed([self._rules[number] for number in unindexed], MAX_UNINDEXED)
        self._about_bytes = frozenset(
            number for number, rule in enumerate(self._rules) if any(each.field in _BYTES for each in walk(rule.select))
        )
        self._unindexed = frozenset(unindexed)
        self._tests: dict[int, _Test] = {}

    def undecided(self) -> list[Rule]:
        """Rules about which the columns say nothing: every entry may be theirs."""
        return [rule for rule in self._rules if _constant(rule.select, possible=True)]

    def find(self, rows: pa.Table) -> list[int]:
        """Numbers of the rows whose entry a rule may select, or that were not decoded, in order.

        `rows` are those of `Archive.rows` with `columns` and `fingerprints`.
        """
        found = _numbers(pc.or_kleene(pc.equal(rows["kind"], UNREADABLE), pc.equal(rows["defect"], LEFT_OUT)))
        shown: set[int] = set()
        by_text: dict[str, set[int]] = {}
        for column in self._texts:
            hits, unsure = self._texts_in(rows[column].combine_chunks(), by_text)
            shown |= hits
            found |= unsure
        by_value: dict[bytes, set[int]] = {}
        for column in self._bytes:
            hits, unsure = self._bytes_in(column, rows[column].combine_chunks(), by_value)
            shown |= hits
            found |= unsure
        asked = sorted((set(range(len(rows))) if self._unindexed else shown) - found)
        chosen = rows.select(self._read).take(pa.array(asked, pa.int64()))
        decided: dict[object, tuple[bool, frozenset[int]]] = {}
        for number, row in zip(asked, chosen.to_pylist(), strict=True):
            if self._may_select(row, by_text, by_value, decided):
                found.add(number)
        return sorted(found)

    def _texts_in(self, column: pa.Array, by_text: dict[str, set[int]]) -> tuple[set[int], set[int]]:
        """Rows with a text that shows a key of a rule, and rows with a text that is not exact.

        Adds the numbers of these rules to `by_text`.
        """
        owners, coded = pc.list_parent_indices(column), column.flatten().dictionary_encode()
        texts = coded.dictionary.to_pylist()
        hits = set()
        for place, numbers in self._index.find(texts):
            hits.add(place)
            by_text.setdefault(texts[place], set()).update(numbers)
        escaped = _numbers(pc.match_substring(coded.dictionary, _ESCAPED))
        return _owners(owners, coded.indices, hits), _owners(owners, coded.indices, escaped)

    def _bytes_in(self, name: str, column: pa.Array, by_value: dict[bytes, set[int]]) -> tuple[set[int], set[int]]:
        """Rows with a value that a rule names, and rows with a value that is not exact, as in `_texts_in`."""
        owners, values = pc.list_parent_indices(column), column.flatten()
        is_wanted = pc.is_in(values, value_set=self._bytes[name])
        for value in pc.unique(values.filter(is_wanted)).to_pylist():
            for _, numbers in self._index.find(_spellings(value)):
                by_value.setdefault(value, set()).update(numbers)
        unsure: set[int] = set()
        if name != "digests":
            usual = pc.is_in(pc.binary_length(values), value_set=_FINGERPRINT_SIZES)
            unsure = set(owners.filter(pc.invert(usual)).to_pylist())
        return set(owners.filter(is_wanted).to_pylist()), unsure

    def _may_select(
        self,
        row: dict[str, Any],
        by_text: Mapping[str, set[int]],
        by_value: Mapping[bytes, set[int]],
        decided: dict[object, tuple[bool, frozenset[int]]],
    ) -> bool:
        """True if a rule may select the entry of a row.

        `decided` holds, for texts, if a rule about texts alone may select them, and the other rules to ask.
        """
        row["kind"] = (row["kind"],)
        # Each of several signers has all of its fingerprints in its own column.
        of_entry = {"kind": row["kind"], "digests": row.get("digests", ()), KEYS.name: ()}
        signers = [each | of_entry for each in row["signers"] or ()]
        texts = (row["kind"], *(tuple(row[column]) for column in self._texts))
        known = None if signers else decided.get(texts)
        if known is None:
            numbers = {number for column in self._texts for text in row[column] for number in by_text.get(text, ())}
            numbers |= self._unindexed
            known = self._any(numbers - self._about_bytes, signers or [row]), frozenset(numbers & self._about_bytes)
            if not signers:
                decided[texts] = known
        if known[0]:
            return True
        values = (value for column in self._bytes for value in row[column])
        return self._any(known[1].union(*(by_value.get(value, ()) for value in values)), signers or [row])

    def _any(self, numbers: Collection[int], signers: Sequence[_Values]) -> bool:
        """True if a rule of these may select one of the signers.

        Also true where the answer takes too many comparisons: reading the entry itself has a bound, and counts the
        rules beyond it.
        """
        if len(signers) > 1 and len(numbers) * sum(map(_values_of, signers)) > MAX_ASKED:
            return True
        return any(self._test(number)(signer) for number in numbers for signer in signers)

    def _test(self, number: int) -> _Test:
        test = self._tests.get(number)
        if test is None:
            test = self._tests[number] = _test(self._rules[number].select, self._log, possible=True)
        return test


def _values_of(signer: _Values) -> int:
    return sum(map(len, signer.values()))


def _numbers(mask: pa.Array | pa.ChunkedArray) -> set[int]:
    """Numbers of the true values."""
    return set(pc.indices_nonzero(pc.fill_null(mask, fill_value=False)).to_pylist())


def _owners(owners: pa.Array, codes: pa.Array, wanted: set[int]) -> set[int]:
    """Rows of the values with these codes."""
    if not wanted:
        return set()
    return set(owners.filter(pc.is_in(codes, value_set=pa.array(sorted(wanted), codes.type))).to_pylist())


def _spellings(value: bytes) -> list[str]:
    """The forms in which a rule may write a digest or a fingerprint."""
    return [value.hex(), f"SHA256:{b64encode(value).decode().rstrip('=')}"]


def _stored(match: FieldMatch) -> _Stored | None:
    """The columns of a match; `None` when they cannot decide it."""
    plain = all(each.form is PatternForm.EXACT and not each.ignore_case for each in match.patterns)
    return _STORED.get(match.field) if plain or match.field not in _BYTES else None


def _bytes_of(match: FieldMatch) -> Iterator[bytes]:
    return (fingerprint_bytes(value_key(each.text)) for each in match.patterns)


def _stored_part(condition: Condition) -> Condition:
    """A condition with a key for each entry that `condition` selects, in the stored fields alone."""
    match condition:
        case FieldMatch():
            return condition if condition.field in _STORED else _WITHOUT_KEYS
        case AllOf() | AnyOf():
            return replace(condition, conditions=tuple(map(_stored_part, condition.conditions)))
    return condition


def _constant(condition: Condition, *, possible: bool) -> bool | None:
    """The answer of `_test` for all rows; `None` when it depends on the row."""
    match condition:
        case FieldMatch():
            stored = _stored(condition)
            if condition.field == "log" or (stored is not None and (possible or stored.alone)):
                return None
            return possible
        case Not():
            opposite = _constant(condition.condition, possible=not possible)
            return None if opposite is None else not opposite
    answers = [_constant(each, possible=possible) for each in condition.conditions]
    decisive = isinstance(condition, AnyOf)
    if decisive in answers:
        return decisive
    return None if None in answers else not decisive


def _test(condition: Condition, log: str, *, possible: bool) -> _Test:
    """Decides by one signer's values if the condition may hold; if it surely holds, where `possible` is false."""
    match condition:
        case FieldMatch():
            return _test_of_match(condition, log, possible=possible)
        case Not():
            opposite = _test(condition.condition, log, possible=not possible)
            return lambda values: not opposite(values)
    tests = [_test(each, log, possible=possible) for each in condition.conditions]
    if isinstance(condition, AllOf):
        return lambda values: all(test(values) for test in tests)
    return lambda values: any(test(values) for test in tests)


def _test_of_match(match: FieldMatch, log: str, *, possible: bool) -> _Test:
    patterns, stored = match.patterns, _stored(match)
    if match.field == "log":
        is_in = any(pattern.matches(log) for pattern in patterns)
        return lambda _: is_in
    if stored is None or not (possible or stored.alone):
        return lambda _: possible
    columns = stored.columns
    if match.field in _BYTES:
        wanted = frozenset(_bytes_of(match))
        return lambda values: any(not wanted.isdisjoint(values[column]) for column in columns)
    return lambda values: any(
        pattern.matches(text) for column in columns for text in values[column] for pattern in patterns
    )
