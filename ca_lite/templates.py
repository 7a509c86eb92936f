"""The part of Go's template language that Fulcio's ci-provider configuration uses.

`{{ .claim }}`, `{{ index . "claim" }}` and `{{ if eq VALUE "text" }}…{{ else }}…{{ end }}`, with Go's
`missingkey=error`: a claim that is not there is an error, never an empty string. Any other template is a parse error.
"""

import re
from collections.abc import Mapping
from typing import Final, TypeAlias

from msgspec import Struct

_LIMIT: Final = 4096
_DEPTH: Final = 8
_ACTION: Final = re.compile(r"\{\{-?\s*(.*?)\s*-?\}\}", re.DOTALL)
_VALUE: Final = r'(?:\.(?P<field>[A-Za-z_][A-Za-z0-9_]*)|\(?index \. "(?P<index>[^"\\]{1,200})"\)?)'
_FIELD: Final = re.compile(_VALUE)
_IF: Final = re.compile(rf'if eq {_VALUE} "(?P<text>[^"\\]{{0,200}})"')


class TemplateError(ValueError):
    """A template does not parse, or names a claim that the token does not have."""


class _Text(Struct, frozen=True):
    text: str


class _Claim(Struct, frozen=True):
    name: str


class _If(Struct, frozen=True):
    claim: str
    equals: str
    then: "tuple[_Node, ...]"
    otherwise: "tuple[_Node, ...]"


_Node: TypeAlias = _Text | _Claim | _If


def check_template(template: str) -> None:
    """Raise `TemplateError` unless the template parses."""
    _parse(template)


def render(template: str, values: Mapping[str, str], issuer: str) -> str:
    """Text of a template, or of the claim it names when it holds no `{{`. Raises `TemplateError`."""
    if "{{" not in template:
        if template not in values:
            raise TemplateError(f"value <{template}> not present in either claims or defaults. Issuer: {issuer}")
        return values[template]
    return _render(_parse(template), values, issuer)


def _render(nodes: tuple[_Node, ...], values: Mapping[str, str], issuer: str) -> str:
    parts = []
    for node in nodes:
        if isinstance(node, _Text):
            parts.append(node.text)
        elif isinstance(node, _Claim):
            parts.append(_lookup(node.name, values, issuer))
        else:
            taken = node.then if _lookup(node.claim, values, issuer) == node.equals else node.otherwise
            parts.append(_render(taken, values, issuer))
    return "".join(parts)


def _lookup(name: str, values: Mapping[str, str], issuer: str) -> str:
    if name not in values:
        raise TemplateError(f"value <{name}> not present in either claims or defaults. Issuer: {issuer}")
    return values[name]


def _parse(template: str) -> tuple[_Node, ...]:
    if len(template) > _LIMIT:
        raise TemplateError(f"template is longer than {_LIMIT} characters")
    pieces = _ACTION.split(template)  # text, action, text, action, …, text
    if any("{{" in text or "}}" in text for text in pieces[::2]):
        raise TemplateError(f"unclosed action in template {template!r}")
    parser = _Parser(pieces)
    nodes, ended_by = parser.block(0)
    if ended_by:
        raise TemplateError(f"unexpected {{{{{ended_by}}}}} in template {template!r}")
    return nodes


class _Parser:
    """Walks the pieces of one template."""

    def __init__(self, pieces: list[str]) -> None:
        self._pieces = pieces
        self._at = 0

    def block(self, depth: int) -> tuple[tuple[_Node, ...], str]:
        """Nodes up to the `else` or `end` that closes them, or up to the end of the text."""
        if depth > _DEPTH:
            raise TemplateError(f"conditions nested deeper than {_DEPTH}")
        nodes: list[_Node] = []
        while self._at < len(self._pieces):
            piece, is_action = self._pieces[self._at], self._at % 2 == 1
            self._at += 1
            if not is_action:
                nodes.append(_Text(piece))
            elif piece in ("else", "end"):
                return tuple(nodes), piece
            else:
                nodes.append(self._action(piece, depth))
        return tuple(nodes), ""

    def _action(self, action: str, depth: int) -> _Node:
        if claim := _FIELD.fullmatch(action):
            return _Claim(claim["field"] or claim["index"])
        condition = _IF.fullmatch(action)
        if condition is None:
            raise TemplateError(f"template action {{{{{action}}}}} is not supported")
        then, ended_by = self.block(depth + 1)
        otherwise: tuple[_Node, ...] = ()
        if ended_by == "else":
            otherwise, ended_by = self.block(depth + 1)
        if ended_by != "end":
            raise TemplateError("{{if}} without {{end}}")
        return _If(condition["field"] or condition["index"], condition["text"], then, otherwise)
