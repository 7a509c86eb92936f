"""The index finds exactly what asking every rule about every entry finds, over the benchmark's 50,000 entries.

Up to a thousand rules the product's own rules are asked, one after the other, without the index. A hundred thousand
rules are five thousand million questions; there sorting and `re` answer them, with nothing of the product but the
decoded names and issuers.
"""

import multiprocessing
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest

from benchmarks.corpus import make_corpus, read_corpus
from benchmarks.examining import BATCH, make_workload
from benchmarks.product import make_scanner
from benchmarks.watched import HITS, Watch, make_rules, make_watches, watched_index
from rules.rule import Rule
from rules.selection import matching_signers
from sigstore_entries.entry import decode_rekor
from sigstore_entries.signing import EntryRef, Signing

Pairs = set[tuple[int, str]]
_Part = TypeVar("_Part")
_Result = TypeVar("_Result")
_TOO_MANY = 100_000
_SOME = 5_000
_PART = 500

pytestmark = pytest.mark.soak


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    for _ in make_corpus(folder):
        pass
    return folder


def found_by_index(version: str, bodies: Sequence[bytes], rules: Sequence[Rule]) -> Pairs:
    workload = make_workload(version, bodies, make_scanner(rules))
    found: Pairs = set()
    for number, batch in enumerate(workload.batches):
        scan = workload.scanner.scan(batch, number * BATCH, "bench", workload.api)
        assert not scan.unreadable
        found.update((hit.signing.where.index, rule) for hit in scan.hits for rule in hit.rules)
    return found


def decoded(bodies: Sequence[bytes], positions: Iterable[int]) -> Iterator[Signing]:
    for position in positions:
        signing = decode_rekor(bodies[position], EntryRef("bench", position))
        assert isinstance(signing, Signing)
        yield signing


def asked(bodies: Sequence[bytes], rules: Sequence[Rule], positions: Iterable[int]) -> Pairs:
    """Every rule about each of these entries."""
    signings = decoded(bodies, positions)
    return {(each.where.index, rule.id) for each in signings for rule in rules if matching_signers(rule.select, each)}


def names_and_issuers(bodies: Sequence[bytes], positions: Iterable[int]) -> list[tuple[str, str | None]]:
    signers = [signing.signers[0] for signing in decoded(bodies, positions)]
    assert all(len(signer.names) == 1 for signer in signers)
    return [(signer.names[0].value, signer.issuer) for signer in signers]


def searched(told: Sequence[tuple[str, str | None]], watches: Iterable[Watch]) -> Pairs:
    """Every one of these rules about all entries, told by name and issuer in their order.

    Names that begin alike stand together when they are sorted; any other name a pattern cannot match.
    """
    names = sorted((name, number) for number, (name, _) in enumerate(told))
    found: Pairs = set()
    for watch in watches:
        head = fixed_head(watch.identity)
        at = bisect_left(names, (head,))
        while at < len(names) and names[at][0].startswith(head):
            name, number = names[at]
            if re.fullmatch(watch.identity, name) and told[number][1] == watch.issuer:
                found.add((number, watch.rule.id))
            at += 1
    return found


def fixed_head(pattern: str) -> str:
    r"""Characters that everything a pattern of `re` matches begins with; of its syntax only `\` and a dot is read."""
    head = ""
    if "|" in pattern:
        return head
    for char, escaped in re.findall(r"(\\?)(.)", pattern):
        if (not char and escaped in ".[(^$*+?{") or (char and escaped.isalnum()):
            return head[:-1] if escaped in "*+?{" else head
        head += escaped
    return head


_work: Callable[[Any], Iterable[Any]]


def spread(work: Callable[[_Part], Iterable[_Result]], parts: Sequence[_Part]) -> list[_Result]:
    """Results of every part, in order, from every core. Forked workers inherit all that `work` holds."""
    global _work  # noqa: PLW0603  what a forked worker inherits has to be reachable from the module
    _work = work
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("fork")) as pool:
        return [each for results in pool.map(_one_part, parts) for each in results]


def _one_part(part: Any) -> list[Any]:
    return list(_work(part))


def parts_of(count: int) -> list[range]:
    return [range(start, min(start + _PART, count)) for start in range(0, count, _PART)]


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("count", [1, 1_000])
def test_the_index_finds_what_asking_every_rule_about_every_entry_finds(corpus: Path, version: str, count: int) -> None:
    bodies, rules = read_corpus(corpus, version), make_rules(count)
    wanted = set(spread(partial(asked, bodies, rules), parts_of(len(bodies))))
    assert len(wanted) == min(count, HITS)
    assert found_by_index(version, bodies, rules) == wanted


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_hundred_thousand_rules_find_what_asking_them_finds(corpus: Path, version: str) -> None:
    """Every rule about every entry by sorting and `re`; and by the product's own patterns about some of the entries."""
    bodies, watches = read_corpus(corpus, version), make_watches(_TOO_MANY)
    rules = [watch.rule for watch in watches]
    told = spread(partial(names_and_issuers, bodies), parts_of(len(bodies)))
    wanted = searched(told, watches)
    assert len(wanted) == HITS
    assert found_by_index(version, bodies, rules) == wanted
    some = sorted({*map(watched_index, range(0, HITS, 5)), *range(0, len(bodies), _SOME)})
    by_rules = asked(bodies, rules, some)
    assert by_rules == {pair for pair in wanted if pair[0] in some}


def test_the_sorted_search_begins_with_what_a_pattern_fixes() -> None:
    assert fixed_head(r"https://github\.com/a/b\-c/\.github/.*") == "https://github.com/a/b-c/.github/"
    assert fixed_head(r"alice@acme\.example") == "alice@acme.example"
    assert fixed_head("ab|c") == ""
    assert {fixed_head(each) for each in ("ab*", "a(b)", r"a\d", "ab{2}", "a[b]")} == {"a"}
