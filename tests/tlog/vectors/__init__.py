"""Reads the hand-made vectors beside this file; README.md says how they were made."""

import json
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).parent


def merkle() -> dict[str, Any]:
    """Seven leaves, their hashes, roots and proofs."""
    return _read("merkle.json")


def ct() -> dict[str, Any]:
    """One CT log's tree head, leaf, SCT list and static checkpoint."""
    return _read("ct.json")


def text(name: str) -> str:
    """A vector that is plain text, without its last newline where it is a key."""
    content = (HERE / name).read_text(encoding="utf-8")
    return content.rstrip("\n") if name.endswith(".vkey") else content


def _read(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((HERE / name).read_text(encoding="utf-8"))
    return document
