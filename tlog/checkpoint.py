"""Checkpoints (C2SP tlog-checkpoint): a log's signed statement of its size and root hash."""

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Final

from tlog.merkle import EMPTY_ROOT, HASH_SIZE, MAX_TREE_SIZE, RootHash
from tlog.note import Note, UnverifiedNote

# SPEC tlog-checkpoint: "The number of leaves ... encoded as an ASCII decimal with no leading zeroes".
_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,18}")
_HEADER_LINES: Final = 3


class MalformedCheckpoint(ValueError):
    """The text was signed, but it is no checkpoint."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What the key signed: tree `size` in leaves and the 32-byte `root`, under the log's `origin`.

    `raw` is the whole signed note, byte for byte: the evidence.
    """

    origin: str
    size: int
    root: RootHash
    extensions: tuple[str, ...]
    raw: bytes


def parse_checkpoint(note: Note) -> Checkpoint:
    """Read a checkpoint out of a note that was opened with the log's key. Raises `MalformedCheckpoint`.

    Does not compare the origin with the one expected: `Checkpoint.origin` is what the log says.
    """
    return claimed_checkpoint(note)


def claimed_checkpoint(note: Note | UnverifiedNote) -> Checkpoint:
    """Read a checkpoint out of a note of which nothing need be verified. Raises `MalformedCheckpoint`."""
    lines = note.text.decode("utf-8")[:-1].split("\n")
    if len(lines) < _HEADER_LINES or not all(lines):
        raise MalformedCheckpoint("a checkpoint has origin, size and root, and no empty line")
    origin, size_line, root_line, *extensions = lines
    size = parse_tree_size(size_line)
    root = _parse_root(root_line)
    if size == 0 and root != EMPTY_ROOT:
        raise MalformedCheckpoint("a tree of size 0 has the hash of the empty string as its root")
    return Checkpoint(origin, size, root, tuple(extensions), note.raw)


def parse_tree_size(line: str) -> int:
    """Read a tree size: a plain decimal, below 2^63. Raises `MalformedCheckpoint`."""
    if not isinstance(line, str) or not _SIZE.fullmatch(line) or int(line) > MAX_TREE_SIZE:
        raise MalformedCheckpoint(f"tree size is not a plain decimal below 2^63: {line!r:.60}")
    return int(line)


def _parse_root(line: str) -> RootHash:
    try:
        root = base64.b64decode(line, validate=True)
    except (binascii.Error, ValueError) as error:
        raise MalformedCheckpoint(f"root hash is not base64: {line!r:.60}") from error
    # A second spelling of the same bytes would let one head look like two.
    if len(root) != HASH_SIZE or base64.b64encode(root).decode() != line:
        raise MalformedCheckpoint(f"root hash is not canonical base64 of {HASH_SIZE} bytes: {line!r:.60}")
    return RootHash(root)
