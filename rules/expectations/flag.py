"""Expectations that are either asked for or not written down."""

from settings.document import Misplaced, Node
from settings.reading import read_flag


def read_true(node: Node) -> None:
    """Accept `true` alone. Raises `Misplaced`: `false` would look like a setting and mean nothing."""
    if not read_flag(node):
        raise Misplaced("write true, or leave the key out", node)
