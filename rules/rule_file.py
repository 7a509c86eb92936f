"""Rule files, read and written. Reading is strict: it reports all problems at once, each with line and column.

Writing gives YAML that reads back as exactly the same text.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from rules.expectations.kinds import read_expect
from rules.rule import Rule, RuleSet, RuleSeverity, read_look_back
from rules.selection import read_select
from settings.document import MAX_PROBLEMS, DocumentError, Misplaced, Node, SettingsProblem, YamlSequence, read_yaml
from settings.reading import Fields, read_choice, read_list, read_text

VERSION: Final = "1"
FILE_KEYS: Final = ("version", "rules")
RULE_KEYS: Final = ("id", "title", "select", "expect", "notify", "severity", "backscan")

_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}", re.ASCII)
_CHANNEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)


def load_rules(text: str, name: str = "rules") -> RuleSet:
    """Read a rule file. Raises `DocumentError` with every problem found; `name` is what messages call the file."""
    root = read_yaml(text, name)
    problems: list[SettingsProblem] = []
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
    if not isinstance(rules, YamlSequence):
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


_PLAIN = re.compile(r"[A-Za-z0-9/.][A-Za-z0-9/._@+-]*(?<![.-])", re.ASCII)
_ESCAPES: Final = {'"': '\\"', "\\": "\\\\"}

DocumentValue = str | bool | Sequence["DocumentValue"] | Mapping[str, "DocumentValue"]


def scalar(text: str) -> str:
    """One YAML scalar, quoted unless it is plainly a word."""
    # Words that YAML 1.1 readers do not take as text are quoted for these readers; ours takes all words as text.
    if _PLAIN.fullmatch(text) and not re.fullmatch(r"[0-9.+eE_-]+|y|n|yes|no|on|off|true|false|null", text.lower()):
        return text
    return '"' + "".join(_ESCAPES.get(char, char) for char in text) + '"'


def flow(value: DocumentValue) -> str:
    """A value on one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return scalar(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{scalar(key)}: {flow(each)}" for key, each in value.items()) + "}"
    return "[" + ", ".join(flow(each) for each in value) + "]"


def rule_lines(
    rule_id: str, title: str, select: Mapping[str, DocumentValue], expect: Mapping[str, DocumentValue]
) -> list[str]:
    """One rule as lines of a rule file."""
    lines = [f"  - id: {scalar(rule_id)}", f"    title: {scalar(title)}", "    select:"]
    lines += [f"      {scalar(key)}: {flow(value)}" for key, value in select.items()]
    if expect:
        lines += ["    expect:", *(f"      {scalar(key)}: {flow(value)}" for key, value in expect.items())]
    return lines


def rule_id(*parts: str) -> str:
    """A rule id made of arbitrary words."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")[:80].strip("-") or "rule"
