"""YAML as a tree whose nodes know their line and column. Hostile or damaged text only raises `DocumentError`.

Only mappings, lists and scalars: no tags, no second document, and no merge keys unless the caller takes them. A scalar
keeps the text that was written, so `on`, `1.10` and `0123` stay these texts.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import yaml
from msgspec import Struct

MAX_BYTES: Final = 64 * 1024 * 1024
MAX_NODES: Final = 5_000_000
MAX_DEPTH: Final = 24
MAX_ALIASES: Final = 1_000
MAX_PROBLEMS: Final = 50

_LOADER: Final[type[yaml.SafeLoader | yaml.CSafeLoader]] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})


class SettingsProblem(Struct, frozen=True):
    """One error in a file. Lines and columns count from 1; 0 means that the place is unknown."""

    message: str
    line: int = 0
    column: int = 0


class DocumentError(ValueError):
    """The file cannot be used. `problems` are the errors found, in file order."""

    def __init__(self, problems: Sequence[SettingsProblem], name: str = "file") -> None:
        self.problems = tuple(problems)
        self.name = name
        super().__init__("\n".join(f"{name}:{each.line}:{each.column}: {each.message}" for each in self.problems))


class Misplaced(Exception):
    """One problem, raised to the caller that collects them."""

    def __init__(self, message: str, node: "Node | SettingsProblem") -> None:
        super().__init__(message)
        self.problem = SettingsProblem(message, node.line, node.column)


class YamlScalar(Struct, frozen=True):
    """A scalar as written. `plain` is false when it was quoted or a block."""

    text: str
    plain: bool
    line: int
    column: int

    @property
    def is_null(self) -> bool:
        """True for an empty value and for YAML's nulls."""
        return self.plain and self.text in _NULLS


class YamlSequence(Struct, frozen=True):
    """A YAML sequence."""

    items: tuple["Node", ...]
    line: int
    column: int


class YamlMapping(Struct, frozen=True):
    """A YAML mapping whose keys are scalars, each written once."""

    entries: tuple[tuple[YamlScalar, "Node"], ...]
    line: int
    column: int


Node = YamlScalar | YamlSequence | YamlMapping


class _Open:
    """A collection whose end has not been read yet."""

    __slots__ = ("anchor", "children", "column", "height", "is_mapping", "line", "merges", "size")

    def __init__(self, event: yaml.MappingStartEvent | yaml.SequenceStartEvent, *, merges: bool) -> None:
        self.merges = merges
        self.is_mapping = isinstance(event, yaml.MappingStartEvent)
        self.anchor = event.anchor
        self.line, self.column = _place(event)
        self.children: list[Node] = []
        self.size = 1
        self.height = 1  # levels of collections, with those of aliases

    @property
    def awaits_merged(self) -> bool:
        """True if the next value is that of a merge key."""
        return self.merges and self.is_mapping and len(self.children) % 2 == 1 and _is_merge_key(self.children[-1])

    def close(self) -> Node:
        if not self.is_mapping:
            return YamlSequence(tuple(self.children), self.line, self.column)
        entries: list[tuple[YamlScalar, Node]] = []
        merged: list[tuple[YamlScalar, Node]] = []
        seen: dict[str, int] = {}
        for key, value in zip(self.children[::2], self.children[1::2], strict=True):
            if not isinstance(key, YamlScalar):
                raise Misplaced("a key is a plain word here, not a list or a mapping", key)
            if _is_merge_key(key):
                if self.merges:
                    merged += _merged(value)
                    continue
                raise Misplaced("merge keys (<<) are not read: repeat the keys, or alias the whole value", key)
            if key.text in seen:
                raise Misplaced(f"key {key.text!r} was already given on line {seen[key.text]}", key)
            seen[key.text] = key.line
            entries.append((key, value))
        # SPEC yaml.org/type/merge: a key of the mapping itself wins, then the earlier merged mapping.
        fresh = dict(reversed([(key.text, (key, value)) for key, value in merged if key.text not in seen]))
        return YamlMapping((*entries, *fresh.values()), self.line, self.column)


def _is_merge_key(node: Node) -> bool:
    return isinstance(node, YamlScalar) and node.text == "<<" and node.plain


def _levels_merged(value: Node) -> int:
    """Levels of a merge key's value that are not in the tree: of the mapping, and of a list of mappings."""
    return 2 if isinstance(value, YamlSequence) else 1


def _merged(value: Node) -> Iterator[tuple[YamlScalar, Node]]:
    for each in value.items if isinstance(value, YamlSequence) else (value,):
        if not isinstance(each, YamlMapping):
            raise Misplaced("a merge key (<<) takes mappings", each)
        yield from each.entries


def read_yaml(text: str, name: str = "file", *, merges: bool = False) -> Node:
    """Read one YAML document; with `merges`, keys `<<` of YAML 1.1 too.

    Raises `DocumentError`; time and memory are bounded by the caps above.
    """
    if len(text) > MAX_BYTES:
        raise DocumentError([SettingsProblem(f"the file is larger than {MAX_BYTES // 2**20} MiB")], name)
    try:
        return _Composer(merges=merges).run(text)
    except Misplaced as misplaced:
        raise DocumentError([misplaced.problem], name) from None
    except yaml.YAMLError as error:
        raise DocumentError([_yaml_problem(error)], name) from None
    except UnicodeEncodeError:
        raise DocumentError([SettingsProblem("the file holds characters that are not Unicode text")], name) from None


class _Composer:
    """Builds the tree from parser events, so that each cap holds before the memory is spent."""

    def __init__(self, *, merges: bool) -> None:
        self._merges = merges
        self._stack: list[_Open] = []
        self._anchors: dict[str, tuple[Node, int, int]] = {}  # with its size and height
        self._nodes = 0
        self._aliases = 0
        self._root: Node | None = None

    def run(self, text: str) -> Node:
        for event in _events(text):
            if isinstance(event, yaml.DocumentStartEvent) and self._root is not None:
                raise Misplaced("this file is one YAML document: remove this '---'", _at(event))
            if isinstance(event, yaml.NodeEvent):
                self._node(event)
            elif isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
                done = self._stack.pop()
                self._add(done.close(), done.size, 1, done.anchor, done.height)
        if self._root is None:
            raise Misplaced("the file is empty", YamlScalar("", plain=True, line=1, column=1))
        return self._root

    def _node(self, event: yaml.NodeEvent) -> None:
        here = _at(event)
        if isinstance(event, yaml.AliasEvent):
            self._alias(event, here)
            return
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise Misplaced(f"tags are not read here: {tag!r}", here)
        if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            self._check_depth(1, here)
            self._stack.append(_Open(event, merges=self._merges))
        elif isinstance(event, yaml.ScalarEvent):
            scalar = YamlScalar(event.value, not event.style, here.line, here.column)
            self._add(scalar, 1, 1, event.anchor)

    def _alias(self, event: yaml.AliasEvent, here: YamlScalar) -> None:
        self._aliases += 1
        if self._aliases > MAX_ALIASES:
            raise Misplaced(f"more than {MAX_ALIASES} aliases: write some of the values out, or split the file", here)
        known = self._anchors.get(event.anchor or "")
        if known is None:
            raise Misplaced(f"alias *{event.anchor} stands before its anchor, or inside it", here)
        node, size, height = known
        # Readers of the tree call themselves for each level: a chain of aliases must not be deeper than written levels.
        self._check_depth(height - self._levels_gone(node), here)
        self._add(node, size, size, None, height)

    def _levels_gone(self, node: Node) -> int:
        """Levels above the end of an alias that merging removes: a chain of merged mappings becomes no deeper."""
        if not self._stack:
            return 0
        if self._stack[-1].awaits_merged:
            return _levels_merged(node)
        is_listed = len(self._stack) > 1 and not self._stack[-1].is_mapping and self._stack[-2].awaits_merged
        return 2 if is_listed else 0

    def _check_depth(self, height: int, here: Node) -> None:
        if len(self._stack) + height > MAX_DEPTH:
            raise Misplaced(f"nested deeper than {MAX_DEPTH} levels, with those of aliases: write it flatter", here)

    def _add(self, node: Node, size: int, cost: int, anchor: str | None, height: int = 0) -> None:
        # An alias costs its whole size at each use: otherwise nested aliases could expand beyond the memory.
        self._nodes += cost
        if self._nodes > MAX_NODES:
            told = "counting each use of an alias with all of its values: use fewer aliases, or split the file"
            raise Misplaced(f"more than {MAX_NODES} values, {told}", node)
        if anchor is not None:
            self._anchors[anchor] = (node, size, height)
        if self._stack:
            parent = self._stack[-1]
            levels = height + 1 - (_levels_merged(node) if parent.awaits_merged else 0)
            parent.children.append(node)
            parent.size += size
            parent.height = max(parent.height, levels)
        else:
            self._root = node


def _events(text: str) -> Iterator[yaml.Event]:
    yield from yaml.parse(text, Loader=_LOADER)


def _place(event: yaml.Event) -> tuple[int, int]:
    mark = event.start_mark
    return (mark.line + 1, mark.column + 1) if mark is not None else (0, 0)


def _at(event: yaml.Event) -> YamlScalar:
    line, column = _place(event)
    return YamlScalar("", plain=True, line=line, column=column)


def _yaml_problem(error: yaml.YAMLError) -> SettingsProblem:
    mark = getattr(error, "problem_mark", None)
    what = getattr(error, "problem", None) or getattr(error, "reason", None) or "cannot be read"
    message = f"not YAML: {what}"
    if what == "found character that cannot start any token":
        # The YAML reader does not name the character: nearly always a tab, else one of @, ` and %.
        message = "not YAML: a tab, or a text that begins with @, ` or %. Indent with spaces, and quote such a text"
    return SettingsProblem(message, mark.line + 1, mark.column + 1) if mark is not None else SettingsProblem(message)
