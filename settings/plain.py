"""A part of a file as plain Python values, for readers that know nothing of YAML but whose messages name a place."""

import re
from typing import Any

from settings.document import Listing, Mapping, Node, Scalar

_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,17})", re.ASCII)
_DECIMAL = re.compile(r"-?(0|[1-9][0-9]{0,17})\.[0-9]{1,9}", re.ASCII)


class Plain(dict[str, Any]):
    """A mapping as plain values. `places` says where each key stands: line and column, from 1 on."""

    def __init__(self, values: dict[str, Any], places: dict[str, tuple[int, int]]) -> None:
        super().__init__(values)
        self.places = places


def plain_mapping(node: Mapping) -> Plain:
    """The mapping as plain values, with its places."""
    values = {key.text: _plain(value) for key, value in node.entries}
    return Plain(values, {key.text: (key.line, key.column) for key, _ in node.entries} | {"": (node.line, node.column)})


def _plain(node: Node) -> Any:
    if isinstance(node, Listing):
        return [_plain(item) for item in node.items]
    if isinstance(node, Mapping):
        return plain_mapping(node)
    return _plain_scalar(node) if node.plain else node.text


def _plain_scalar(node: Scalar) -> Any:
    if node.is_null:
        return None
    if node.text in {"true", "false"}:
        return node.text == "true"
    if _NUMBER.fullmatch(node.text):
        return int(node.text)
    return float(node.text) if _DECIMAL.fullmatch(node.text) else node.text
