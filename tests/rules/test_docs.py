"""The documentation names everything there is, and its examples are rules."""

import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from rules import judge as judging
from rules.expectations.kinds import KINDS
from rules.lint import HintId
from rules.rule import Expectation, Reason
from rules.rule_file import load_rules
from rules.schema import json_schema
from rules.selection import ENTRY_FIELDS, SIGNER_FIELDS

DOCS = Path(__file__).parents[2] / "docs"
PAGES = DOCS / "expectations"
RULES = (DOCS / "rules.md").read_text("utf-8")
EXAMPLES = [
    (path.name, block)
    for path in (DOCS / "rules.md", *sorted(PAGES.glob("*.md")))
    for block in re.findall(r"```yaml\n(.*?)```", path.read_text("utf-8"), re.DOTALL)
]
OTHER_REASONS = {each.id for each in vars(judging).values() if isinstance(each, Reason)} | {
    "unreadable-part",
    "logged-after-expiry",
    "acknowledged-pattern",
}


@pytest.mark.parametrize("kind", KINDS, ids=[kind.id for kind in KINDS])
def test_each_expectation_has_a_page_with_an_example(kind: type[Expectation]) -> None:
    page = PAGES / f"{kind.id}.md"
    text = page.read_text("utf-8")
    key = kind.key
    assert f"`{key}`" in text
    (example,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    (rule,) = load_rules(example, page.name).rules
    assert [each.key for each in rule.expect] == [key]
    assert f"| `{key}` | [{kind.id}](expectations/{kind.id}.md)" in RULES


def test_there_is_a_page_for_each_reason_and_for_nothing_else() -> None:
    assert {page.stem for page in PAGES.glob("*.md")} == {kind.id for kind in KINDS} | OTHER_REASONS
    assert all(f"expectations/{reason}.md" in RULES for reason in OTHER_REASONS)


def test_each_kind_has_its_own_id_and_key() -> None:
    assert len({kind.id for kind in KINDS}) == len({kind.key for kind in KINDS}) == len(KINDS)


@pytest.mark.parametrize(("name", "example"), EXAMPLES)
def test_each_example_is_a_rule_file(name: str, example: str) -> None:
    assert load_rules(example, name).rules
    jsonschema.validate(yaml.safe_load(example), json_schema(), jsonschema.Draft202012Validator)


def test_hints_and_fields_are_documented() -> None:
    assert all(f"`{hint}`" in RULES for hint in HintId)
    assert all(f"`{field}`" in RULES for field in (*SIGNER_FIELDS, *ENTRY_FIELDS, "oid", "all", "any", "not"))
