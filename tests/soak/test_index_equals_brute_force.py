"""The index finds exactly what asking every rule about every entry finds, over the benchmark's 50,000 entries."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from benchmarks.corpus import make_corpus, read_corpus
from benchmarks.examining import BATCH, make_workload
from benchmarks.product import make_scanner
from benchmarks.watched import HITS, make_rules, watched_index
from rules.rule import Rule
from rules.selection import matching_signers
from sigstore_entries.rekor import decode_rekor
from sigstore_entries.signing import EntryRef, Signing

# With this many rules, asking every one of them about every entry would take hours: see the test.
_TOO_MANY = 100_000
_SOME = 5_000

pytestmark = pytest.mark.soak


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    for _ in make_corpus(folder):
        pass
    return folder


def found_by_index(version: str, bodies: Sequence[bytes], rules: Sequence[Rule]) -> set[tuple[int, str]]:
    workload = make_workload(version, bodies, make_scanner(rules))
    found: set[tuple[int, str]] = set()
    for number, batch in enumerate(workload.batches):
        scan = workload.scanner.scan(batch, number * BATCH, "bench", workload.api)
        assert not scan.unreadable
        found.update((hit.signing.where.index, rule) for hit in scan.hits for rule in hit.rules)
    return found


def found_by_asking(bodies: Sequence[bytes], positions: Iterable[int], rules: Sequence[Rule]) -> set[tuple[int, str]]:
    found: set[tuple[int, str]] = set()
    for position in positions:
        signing = decode_rekor(bodies[position], EntryRef("bench", position))
        assert isinstance(signing, Signing)
        found.update((position, rule.id) for rule in rules if matching_signers(rule.select, signing))
    return found


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("count", [1, 1_000])
def test_the_index_finds_what_asking_every_rule_about_every_entry_finds(corpus: Path, version: str, count: int) -> None:
    bodies, rules = read_corpus(corpus, version), make_rules(count)
    asked = found_by_asking(bodies, range(len(bodies)), rules)
    assert len(asked) == min(count, HITS)
    assert found_by_index(version, bodies, rules) == asked


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_hundred_thousand_rules_find_what_asking_them_finds(corpus: Path, version: str) -> None:
    """Every rule is asked about some watched entries and some others; the index is asked about all of them."""
    bodies, rules = read_corpus(corpus, version), make_rules(_TOO_MANY)
    positions = {*map(watched_index, range(0, HITS, 5)), *range(0, len(bodies), _SOME)}
    found = found_by_index(version, bodies, rules)
    assert len(found) == HITS
    assert {each for each in found if each[0] in positions} == found_by_asking(bodies, sorted(positions), rules)
