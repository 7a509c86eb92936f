"""Reading a rule file, strictly: every problem at once, each with its line and column."""

import re
from typing import Final

from rules.expectations.kinds import read_expect
from rules.lookback import read_look_back
from rules.rule import Rule, RuleSet, RuleSeverity
from rules.selection import read_select
from settings.document import MAX_PROBLEMS, DocumentError, Listing, Misplaced, Node, Problem, read_yaml
from settings.reading import Fields, read_choice, read_list, read_text

VERSION: Final = "1"
FILE_KEYS: Final = ("version", "rules")
RULE_KEYS: Final = ("id", "title", "select", "expect", "notify", "severity", "backscan")

_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}", re.ASCII)
_CHANNEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)


def load_rules(text: str, name: str = "rules") -> RuleSet:
    """Read a rule file. Raises `DocumentError` with every problem found; `name` is what messages call the file."""
    root = read_yaml(text, name)
    problems: list[Problem] = []
    rules: list[Rule] = []
    try:
        nodes = _rule_nodes(root)
    except Misplaced as misplaced:
        raise DocumentError([misplaced.problem], name) from None
    lines: dict[str, int] = {}
    for node in nodes:
        try:
            rules.append(_read_rule(node, lines))
        except Misplaced as misplaced:
            problems.append(misplaced.problem)
            if len(problems) >= MAX_PROBLEMS:
                break
    if problems:
        raise DocumentError(problems, name)
    return RuleSet(tuple(rules), name)


def _rule_nodes(root: Node) -> tuple[Node, ...]:
    fields = Fields(root, FILE_KEYS, "the rule file")
    version = fields.need("version")
    if read_text(version) != VERSION:
        raise Misplaced(f"this release reads rule files of version {VERSION}", version)
    rules = fields.need("rules")
    if not isinstance(rules, Listing):
        raise Misplaced("rules is a list, each item starting with '- id: …'", rules)
    return rules.items


def _read_rule(node: Node, lines: dict[str, int]) -> Rule:
    fields = Fields(node, RULE_KEYS, "a rule")
    name = fields.need("id")
    rule_id = _read_name(name, _ID, "a rule id is a-z, 0-9, '.', '_' and '-', at most 100 characters")
    if rule_id in lines:
        raise Misplaced(f"rule id {rule_id!r} was already given on line {lines[rule_id]}", name)
    lines[rule_id] = node.line
    return Rule(
        id=rule_id,
        select=read_select(fields.need("select")),
        expect=fields.read("expect", read_expect, ()),
        title=fields.read("title", read_text, ""),
        notify=fields.read("notify", _read_channels, ()),
        severity=fields.read("severity", _read_severity, RuleSeverity.PAGE),
        backscan=fields.read("backscan", read_look_back, None),
        line=node.line,
        column=node.column,
    )


def _read_name(node: Node, form: re.Pattern[str], message: str) -> str:
    text = read_text(node)
    if not form.fullmatch(text):
        raise Misplaced(message, node)
    return text


def _read_channels(node: Node) -> tuple[str, ...]:
    return read_list(node, lambda item: _read_name(item, _CHANNEL, "a channel is named as under `channels`"))


def _read_severity(node: Node) -> RuleSeverity:
    return RuleSeverity(read_choice(node, [severity.value for severity in RuleSeverity]))
