"""Rules filed under their keys, and looked up by the texts an entry shows."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from rules.matching.keys import Head, Key, Whole
from rules.matching.literal_search import LiteralSearch
from rules.pattern import fold

# Nearly every key is the key of one rule, and there may be a million: a list for each would be most of the memory.
_Numbers = int | list[int]
_Text = TypeVar("_Text", str, bytes)


class KeyIndex:
    """Rule numbers under keys of one kind of spelling, folded or not. `close` it, then look up."""

    def __init__(self, *, folded: bool) -> None:
        self._spelling: Callable[[str], str] | None = fold if folded else None
        self._wholes: dict[str, _Numbers] = {}
        self._heads: dict[str, _Numbers] = {}
        self._slashes: set[int] = set()
        self._literals: dict[bytes, _Numbers] = {}
        self._of_literals: tuple[_Numbers, ...] = ()
        self._search: LiteralSearch | None = None

    def add(self, key: Key, number: int) -> None:
        """File a rule."""
        if isinstance(key, Whole):
            _put(self._wholes, key.text, number)
        elif isinstance(key, Head):
            _put(self._heads, key.text, number)
            self._slashes.add(key.text.count("/"))
        else:
            _put(self._literals, key.data, number)

    def close(self) -> None:
        """Compile what is searched for; nothing can be added any more."""
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
                yield place, _numbers(wholes[texts[place]])
        for slashes in self._slashes:
            yield from self._begin(texts, slashes)
        if self._search is not None:
            for place, literal in self._search.find(texts):
                yield place, _numbers(self._of_literals[literal])

    def _begin(self, texts: Sequence[str], slashes: int) -> Iterator[tuple[int, Sequence[int]]]:
        """Rules whose head, of so many slashes, a text begins with."""
        heads = self._heads
        for place, text in enumerate(texts):
            parts = text.split("/", slashes)
            if len(parts) > slashes and (head := text[: len(text) - len(parts[slashes])]) in heads:
                yield place, _numbers(heads[head])


def _put(filed: dict[_Text, _Numbers], key: _Text, number: int) -> None:
    known = filed.get(key)
    if known is None:
        filed[key] = number
    elif isinstance(known, list):
        known.append(number)
    else:
        filed[key] = [known, number]


def _numbers(filed: _Numbers) -> Sequence[int]:
    return filed if isinstance(filed, list) else (filed,)
