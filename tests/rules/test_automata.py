"""However literals are split over automata, each one is found wherever it stands."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rules.index import compile_rules
from rules.pattern import exact
from rules.rule import Rule
from rules.selection import Match

names = st.lists(st.text("/@a.", min_size=6, max_size=20), min_size=1, max_size=6, unique=True)


@given(names, st.lists(st.text("/@a.", max_size=40), min_size=1, max_size=4))
@example(["@@@@@@"], ["@@@@@@@@@"])
@example(["//////", "@@@@@@", "aaaaaa"], ["//////@@@@@@aaaaaa", "@@@@@@"])
@settings(max_examples=200, deadline=None)
def test_every_rule_whose_name_stands_in_a_haystack_is_a_candidate(wanted: list[str], haystacks: list[str]) -> None:
    rules = [Rule(f"rule-{number}", Match("identity", (exact(name),))) for number, name in enumerate(wanted)]
    matcher = compile_rules(rules)
    batch = dict(matcher.candidates_batch([each.encode() for each in haystacks]))
    for position, haystack in enumerate(haystacks):
        present = {number for number, name in enumerate(wanted) if name in haystack}
        assert present <= set(matcher.candidates(haystack.encode()))
        assert present <= set(batch.get(position, ()))


@pytest.mark.parametrize("kept", ["/acme/widget/", "someone@acme.example", "spiffe:acme"])
def test_a_haystack_of_at_signs_and_slashes_makes_nobody_a_candidate(kept: str) -> None:
    matcher = compile_rules([Rule("rule", Match("identity", (exact(kept),)))])
    assert list(matcher.candidates(kept.encode())) == [0]
    assert list(matcher.candidates(b"@" * 500 + b"/" * 500)) == []
