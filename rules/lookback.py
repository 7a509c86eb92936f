"""How far back a rule that came late looks: what it is offered of the entries logged before it began."""

from typing import Final, Literal, cast

from settings.document import Misplaced, Node, Scalar
from settings.reading import read_number

LookBack = int | Literal["none", "followed", "all"]
"""`none`; `followed`: from where following the log began; `all`: from its first entry; or so many entries back."""

WORDS: Final = ("none", "followed", "all")


def read_look_back(node: Node) -> LookBack:
    """Read one of the words, or a number of entries."""
    if isinstance(node, Scalar) and node.text in WORDS:
        return cast("LookBack", node.text)
    try:
        entries = read_number(node)
    except Misplaced:
        entries = 0
    if entries < 1:
        raise Misplaced(f"how far to look back is {', '.join(WORDS)}, or a number of entries from 1 to 999999999", node)
    return entries


def first_wanted(look_back: LookBack, began: int, followed_from: int) -> int | None:
    """First entry that a rule is to be offered.

    `began` is the log's size when the rule came, `followed_from` the entry that following began at. `None` when
    nothing before `began` is wanted.
    """
    match look_back:
        case "none":
            return None
        case "followed":
            return followed_from
        case "all":
            return 0
        case int():
            return max(0, began - look_back)
