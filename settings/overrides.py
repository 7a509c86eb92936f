"""Environment variables that replace keys of a settings file: `SIGNWATCH__WEB__LISTEN` for `listen` under `web`."""

from collections.abc import Mapping
from typing import Final

from msgspec.structs import replace

from settings.document import DocumentError, Misplaced, Node, YamlMapping, YamlScalar, read_yaml

SEPARATOR: Final = "__"
_MOST: Final = 1_000
_LONGEST: Final = 65_536


def variables(environment: Mapping[str, str], prefix: str) -> list[str]:
    """Names of the variables that stand for keys, in order."""
    return sorted(name for name in environment if name.startswith(prefix + SEPARATOR))


def overridden(node: Node, environment: Mapping[str, str], prefix: str) -> Node:
    """The node with every key that a variable `PREFIX__SECTION__KEY` names set to the variable's value, read as YAML.

    Names are compared without regard to case, and `-` equals `_`. A list is replaced as a whole. Raises `Misplaced`,
    which names the variable.
    """
    names = variables(environment, prefix)
    if len(names) > _MOST:
        raise Misplaced(f"more than {_MOST} variables begin with {prefix + SEPARATOR}", node)
    for name in names:
        path = name.removeprefix(prefix + SEPARATOR).split(SEPARATOR)
        node = _with(node, path, _value(name, environment[name], node), name)
    return node


def _value(name: str, text: str, at: Node) -> Node:
    if len(text) > _LONGEST:
        raise Misplaced(f"the variable {name} is longer than {_LONGEST} characters", at)
    try:
        return _placed(read_yaml(text, name), at)
    except DocumentError as error:
        raise Misplaced(f"the variable {name} is no YAML: {error.problems[0].message}", at) from error


def _with(node: Node, path: list[str], value: Node, name: str) -> Node:
    if not all(path):
        raise Misplaced(f"the variable {name} names no key: write PREFIX__SECTION__KEY", node)
    if not isinstance(node, YamlMapping):
        raise Misplaced(f"the variable {name} names a key below a plain value (a list is set as a whole)", node)
    key, *rest = path
    for place, (known, inner) in enumerate(node.entries):
        if _same(known.text, key):
            entries = list(node.entries)
            entries[place] = (known, _with(inner, rest, value, name) if rest else value)
            return replace(node, entries=tuple(entries))
    fresh = YamlScalar(key.lower(), plain=True, line=node.line, column=node.column)
    inner = _with(replace(node, entries=()), rest, value, name) if rest else value
    return replace(node, entries=(*node.entries, (fresh, inner)))


def _same(known: str, key: str) -> bool:
    return known.lower().replace("-", "_") == key.lower().replace("-", "_")


def _placed(node: Node, at: Node) -> Node:
    """The value with the place of the file's root, because a variable has no line."""
    return replace(node, line=at.line, column=at.column)
