"""Writing rule files: YAML that reads back as exactly the text that went in."""

import re
from collections.abc import Mapping, Sequence
from typing import Final

_PLAIN = re.compile(r"[A-Za-z0-9/.][A-Za-z0-9/._@+-]*(?<![.-])", re.ASCII)
_ESCAPES: Final = {'"': '\\"', "\\": "\\\\"}

Value = str | bool | Sequence["Value"] | Mapping[str, "Value"]


def scalar(text: str) -> str:
    """One YAML scalar, quoted unless it is plainly a word."""
    # Words that YAML 1.1 readers take for something else than text are quoted for their sake; ours takes all as text.
    if _PLAIN.fullmatch(text) and not re.fullmatch(r"[0-9.+eE_-]+|y|n|yes|no|on|off|true|false|null", text.lower()):
        return text
    return '"' + "".join(_ESCAPES.get(char, char) for char in text) + '"'


def flow(value: Value) -> str:
    """A value on one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return scalar(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{scalar(key)}: {flow(each)}" for key, each in value.items()) + "}"
    return "[" + ", ".join(flow(each) for each in value) + "]"


def rule_lines(rule_id: str, title: str, select: Mapping[str, Value], expect: Mapping[str, Value]) -> list[str]:
    """One rule as lines of a rule file."""
    lines = [f"  - id: {scalar(rule_id)}", f"    title: {scalar(title)}", "    select:"]
    lines += [f"      {scalar(key)}: {flow(value)}" for key, value in select.items()]
    if expect:
        lines += ["    expect:", *(f"      {scalar(key)}: {flow(value)}" for key, value in expect.items())]
    return lines


def rule_id(*parts: str) -> str:
    """A rule id made of words that may hold anything."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")[:80].strip("-") or "rule"
