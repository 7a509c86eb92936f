"""The first index of subscribers' requests is compiled once: every thread of the process waits for a compilation."""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import pytest
from msgspec import Struct

from monitor.judging.active_rules import AskedRules
from rules.matching import matcher
from rules.matching.matcher import MAX_RECENT, LiteralSearch


class Change(Struct, frozen=True):
    """A request that was added, filed under one literal."""

    number: int
    active: bool = True
    owned: bool = False

    @property
    def keys(self) -> str:
        return json.dumps([[["l", 0, self.literal.encode().hex()]], ["identity"]])

    @property
    def literal(self) -> str:
        return f"/repository-{self.number}/"


class Requests:
    """The first `last` requests."""

    def __init__(self, last: int) -> None:
        self.last, self.fails_at = last, 0

    def last_change(self) -> int:
        return self.last

    def changed(self, after: int, up_to: int) -> Iterator[Change]:
        for number in range(after + 1, up_to + 1):
            if number == self.fails_at:
                raise OSError("the database failed")
            yield Change(number)

    def documents(self, numbers: Collection[int]) -> Mapping[int, str]:
        return dict.fromkeys(numbers, "")


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of literals that were compiled at once, in order."""
    sizes: list[int] = []

    def search(literals: Iterable[bytes]) -> LiteralSearch:
        found = list(literals)
        sizes.append(len(found))
        return LiteralSearch(found)

    monkeypatch.setattr(matcher, "LiteralSearch", search)
    return sizes


def numbers_of(asked: AskedRules, number: int) -> list[Any]:
    return [
        found for _, numbers in asked.index.find([f"https://example.org{Change(number).literal}x"]) for found in numbers
    ]


def test_a_change_after_the_first_index_compiles_that_change_alone(compiled: list[int]) -> None:
    requests = Requests(MAX_RECENT + 500)
    asked = AskedRules(requests)
    asked.refresh()
    assert compiled == [MAX_RECENT + 500]
    requests.last += 1
    assert asked.refresh() == 1
    asked.index.settle()
    assert compiled[1:] == [1]
    for number in (1, MAX_RECENT, requests.last):
        assert numbers_of(asked, number) == [number]


def test_few_requests_are_in_force_after_the_first_refresh(compiled: list[int]) -> None:
    asked = AskedRules(Requests(3))
    asked.refresh()
    assert numbers_of(asked, 3) == [3]
    assert compiled == [3]


def test_a_first_index_that_broke_off_files_no_request_twice() -> None:
    requests = Requests(10)
    requests.fails_at = 6
    asked = AskedRules(requests)
    with pytest.raises(OSError, match="failed"):
        asked.refresh()
    requests.fails_at = 0
    asked.refresh()
    assert (asked.index.size, numbers_of(asked, 2), numbers_of(asked, 9)) == (10, [2], [9])
