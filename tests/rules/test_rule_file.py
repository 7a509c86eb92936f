"""Rule files: what is refused, where, and with which words."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from rules.asking import read_ask
from rules.rule import LookBack, RuleSeverity, first_wanted
from rules.rule_file import load_rules
from rules.schema import json_schema, schema_text
from rules.selection import AllOf, FieldMatch
from settings.document import MAX_DEPTH, DocumentError, read_yaml

GOOD = """\
version: 1
rules:
  - id: acme-release
    title: Acme's release workflow
    select: {identity: {glob: "https://github.com/acme/widget/.github/workflows/*"}, issuer: "https://issuer.example"}
    expect: {workflow: ".github/workflows/release.yml", ref: {glob: "refs/tags/v*"}, trigger: [push, release]}
    notify: [console]
    severity: warn
"""
HEAD = "version: 1\nrules:\n"


def problems(text: str) -> list[tuple[int, int, str]]:
    with pytest.raises(DocumentError) as caught:
        load_rules(text, "rules.yaml")
    return [(each.line, each.column, each.message) for each in caught.value.problems]


def test_the_control_file_is_read() -> None:
    (rule,) = load_rules(GOOD).rules
    assert (rule.id, rule.title, rule.notify, rule.severity) == (
        "acme-release", "Acme's release workflow", ("console",), RuleSeverity.WARN
    )  # fmt: skip
    assert isinstance(rule.select, AllOf)
    assert [expectation.key for expectation in rule.expect] == ["workflow", "ref", "trigger"]
    assert (rule.line, rule.column) == (3, 5)


REFUSED = [
    ("select: {identiy: a@b.example}", 4, 14, "did you mean 'identity'?"),
    ("select: {identity: a@b.example}\n    expekt: {}", 5, 5, "did you mean 'expect'?"),
    ("select: {source-repository-uri: x}", 4, 14, "did you mean 'source_repository_uri'?"),
    ("select: {zzzzqqqq: x}", 4, 14, "known keys: identity, issuer"),
    ("select: {}", 4, 13, "select is empty"),
    ("select: {identity: a@b.example, identity: c@d.example}", 4, 37, "already given on line 4"),
    ("select: {identity: {regex: '('}}", 4, 32, "RE2"),
    ("select: {identity: {regex: '(?=x)'}}", 4, 32, "RE2"),
    ("select: {identity: {regex: '((a{1,100}){1,100}){1,100}'}}", 4, 32, "RE2"),
    ("select: {identity: {regex: 'a', glob: 'b'}}", 4, 24, "exactly one of"),
    ("select: {identity: {glob: '" + "*" * 40 + "'}}", 4, 31, "at most 32 stars"),
    ("select: {identity: {glob: '" + "x" * 1001 + "'}}", 4, 31, "at most 1000"),
    ("select: {identity: {exact: a, ignore_case: maybe}}", 4, 48, "not true or false"),
    ("select: {identity: }", 4, 24, "this is empty"),
    ("select: {identity: null}", 4, 24, "this is empty"),
    ("select: {identity: []}", 4, 24, "an empty list"),
    ('select: {identity: "a\\nb"}', 4, 24, "control character"),
    ('select: {identity: "a\\0b"}', 4, 24, "control character"),
    ("select: {digest: sha256:abc}", 4, 22, "64 hex digits"),
    ("select: {digest: md5:00}", 4, 22, "unknown digest algorithm"),
    ("select: {fingerprint: beef}", 4, 27, "40 or 64 hex digits"),
    ("select: {oid: {1.2.x: y}}", 4, 20, "oid has no key"),
    ("select: {any: x}", 4, 19, "list of conditions"),
    ("select: {kind: dsse}\n    severity: loud", 5, 15, "page, warn, info"),
    ("select: {kind: dsse}\n    backscan: everything", 5, 15, "none, followed, all, or a number"),
    ("select: {kind: dsse}\n    backscan: -1", 5, 15, "none, followed, all, or a number"),
    ("select: {kind: dsse}\n    backscan: [all]", 5, 15, "none, followed, all, or a number"),
    ("select: {kind: dsse}\n    notify: 'a b'", 5, 13, "a channel is named"),
    ("select: {kind: dsse}\n    expect: {ref: r, rate: {at_most: -1, per: 1h}}", 5, 38, "not a plain number"),
    ("select: {kind: dsse}\n    expect: {rate: {at_most: 1, per: 1 hour}}", 5, 38, "not a duration"),
    ("select: {kind: dsse}\n    expect: {same_issuer: false}", 5, 27, "write true"),
    ("select: {kind: dsse}\n    expect: {time_windows: {from: '25:00'}}", 5, 35, "time of day"),
    ("select: {kind: dsse}\n    expect: {time_windows: {from: '08:00', to: '08:00'}}", 5, 28, "empty"),
    ("select: {kind: dsse}\n    expect: {authorised: [{digest: '%s', expires: x}]}" % ("ab" * 32), 5, 113, "offset"),
    ("select: {kind: dsse}\n    expect: {digests_from: {url: 'http://list.example/x'}}", 5, 34, "https"),
    ("select: {kind: dsse}\n    expect: {digests_from: {command: [cat, list]}}", 5, 29, "url_file"),
    ("select: !!python/object:os.system {identity: x}", 4, 13, "tags are not read"),
    ("select: {identity: *nowhere}", 4, 24, "stands before its anchor"),
    ("select: &a {not: *a}", 4, 22, "stands before its anchor"),
    ("select: {<<: {identity: x}}", 4, 14, "merge keys"),
    ("select: {? [a] : b}", 4, 16, "a key is a plain word"),
    ("select: {identity: 'x'", 5, 1, "not YAML"),
    ("select: [" + "[" * 40, 4, 13 + MAX_DEPTH - 3, "nested deeper"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "line", "column", "words"), REFUSED, ids=[case[0][:50] for case in REFUSED])
def test_what_is_wrong_is_told_with_its_place(body: str, line: int, column: int, words: str) -> None:
    (found,) = problems(f"{HEAD}  - id: a\n    {body}\n")
    assert words in found[2]
    assert found[:2] == (line, column)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the file is empty"),
        ("[]", "the rule file is a mapping"),
        ("rules: []", "'version' is missing"),
        ("version: 2\nrules: []", "version 1"),
        ("version: 1", "'rules' is missing"),
        ("version: 1\nrules: {}", "rules is a list"),
        ("version: 1\nrules: []\n---\nversion: 1", "one YAML document"),
        ("version: 1\nrules: []\n\x00", "not YAML"),
        ("version: 1\nrules: [\t", "not YAML"),
        (f"{HEAD}  - select: {{kind: dsse}}", "'id' is missing"),
        (f"{HEAD}  - id: a", "'select' is missing"),
        (f"{HEAD}  - id: Not An Id\n    select: {{kind: dsse}}", "a rule id is"),
    ],
)
def test_a_file_that_is_no_rule_file_is_refused(text: str, words: str) -> None:
    assert words in problems(text)[0][2]


def test_every_problem_is_told_at_once() -> None:
    text = HEAD + "".join(f"  - {{id: r{number}, select: {{identiy: x}}}}\n" for number in range(3))
    assert [line for line, _, _ in problems(text)] == [3, 4, 5]
    assert len(problems(HEAD + "  - {id: r, selec: x}\n" * 500)) == 50
    twice = HEAD + "  - {id: r, select: {kind: a}}\n" * 2
    assert problems(twice)[0][2] == "rule id 'r' was already given on line 3"


def test_nested_aliases_stop_before_they_unfold() -> None:
    levels = ["x0: &x0 [" + "a, " * 9 + "a]"]
    levels += [f"x{n}: &x{n} [" + f"*x{n - 1}, " * 9 + f"*x{n - 1}]" for n in range(1, 9)]
    with pytest.raises(DocumentError, match="counting each use of an alias"):
        read_yaml("\n".join(levels))


def test_aliases_nest_no_deeper_than_written_levels() -> None:
    """A chain of aliases of little text would otherwise end the reader of the tree by its recursion."""
    chain = [f"&a{n} {'{not: ' * 16}*a{n - 1}{'}' * 16}" for n in range(1, 80)]
    with pytest.raises(DocumentError, match="nested deeper than 24 levels"):
        read_ask(f"select: {{any: [&a0 {{identity: x}}, {', '.join(chain)}]}}")
    read_yaml("a: &a " + "[" * 11 + "x" + "]" * 11 + "\nb: " + "[" * 12 + "*a" + "]" * 12)  # 24 levels


def test_an_alias_repeats_a_value() -> None:
    text = HEAD + "  - {id: a, select: &s {identity: x@y.example}}\n  - {id: b, select: *s}\n"
    first, second = load_rules(text).rules
    assert first.select == second.select


@pytest.mark.parametrize("word", ["on", "no", "0123", "1.10", "1e3", "2026-01-01", "0x1f", "1_000"])
def test_a_word_means_what_it_looks_like(word: str) -> None:
    (rule,) = load_rules(f"{HEAD}  - {{id: a, select: {{identity: {word}}}}}\n").rules
    assert isinstance(rule.select, FieldMatch)
    assert rule.select.patterns[0].text == word


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200) | st.text(alphabet="{}[]:,-*&!|>'\"# \nab", max_size=120))
def test_no_text_ends_in_anything_but_rules_or_problems(text: str) -> None:
    try:
        load_rules(text)
        load_rules(GOOD + text)
    except DocumentError as error:
        told = len(error.problems)
    else:
        told = 1
    assert told


def test_the_published_schema_is_the_one_the_reader_uses() -> None:
    assert Path(__file__).parents[2].joinpath("rules/schema.json").read_text("utf-8") == schema_text()
    jsonschema.Draft202012Validator.check_schema(json_schema())


def test_the_schema_agrees_with_the_reader() -> None:
    validator = jsonschema.Draft202012Validator(json_schema())
    assert validator.is_valid(yaml.safe_load(GOOD))
    not_a_schemas_business = ("RE2", "already given", "stars")
    for body, _, _, words in REFUSED[:15]:
        if any(each in words for each in not_a_schemas_business):
            continue
        document = yaml.safe_load(f"{HEAD}  - id: a\n    {body}\n")
        assert not validator.is_valid(document), body
    assert json.loads(schema_text()) == json_schema()


@pytest.mark.parametrize(
    ("look_back", "wanted"), [("none", None), ("followed", 40), ("all", 0), (30, 70), (90, 10), (100, 0), (999, 0)]
)
def test_a_rule_says_how_far_back_it_looks_and_its_selection_stays_the_same(
    look_back: LookBack, wanted: int | None
) -> None:
    (plain,) = load_rules(GOOD).rules
    (rule,) = load_rules(f"{GOOD}    backscan: {look_back}\n").rules
    assert (plain.backscan, rule.backscan) == (None, look_back)
    assert rule.selection_id() == plain.selection_id(), "or every range scanned so far would be lost"
    jsonschema.validate(yaml.safe_load(f"{GOOD}    backscan: {look_back}\n"), json_schema())
    assert first_wanted(look_back, 100, 40) == wanted
