"""However many literals there are and wherever they stand, each one is found in each text that holds it."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rules.matching.matcher import WINDOW, LiteralSearch

literals = st.lists(st.text("/@a.", min_size=6, max_size=16).map(str.encode), min_size=1, max_size=6, unique=True)


@given(literals, st.lists(st.text("/@a.ö\n", max_size=40), max_size=4))
@example([b"@@@@@@"], ["@@@@@@@@@"])
@example([b"//////", b"@@@@@@", b"aaaaaa"], ["//////@@@@@@aaaaaa", "@@@@@@"])
@example([b"@@@@@@"], ["ööö", "", "@@@", "@@@", "@@@@@@"])
@settings(max_examples=200, deadline=None)
def test_every_literal_is_found_in_every_text_that_holds_it(wanted: list[bytes], texts: list[str]) -> None:
    present = {
        (place, number)
        for place, text in enumerate(texts)
        for number, literal in enumerate(wanted)
        if literal in text.encode()
    }
    found = list(LiteralSearch(wanted).find(texts))
    assert set(found) == present  # none of these holds a line break, which is what stands between two texts
    assert len(found) == len(present)


@pytest.mark.parametrize("implementation", ["table", "automaton"])
def test_a_literal_at_every_offset_of_a_large_text_is_found(implementation: str) -> None:
    filling = [b"%06d-%06d" % (number, number) for number in range(1 if implementation == "table" else 6_000)]
    search = LiteralSearch([*filling, b"alice@acme.examp"])
    needle, size = "alice@acme.example", WINDOW
    for offset in [0, *range(size - 45, size + 5), 2 * size - 45, 700_000 - len(needle)]:
        text = "." * offset + needle + "." * (700_000 - offset - len(needle))
        assert list(search.find(["first", text])) == [(1, len(filling))]
