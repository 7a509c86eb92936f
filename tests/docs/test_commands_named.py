"""Commands that pages name exist, with the options they are given."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.docs.blocks import ROOT, blocks
from tests.docs.commands_page import PROGRAMS, loaded, program

_PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "alerts").glob("*.md")])
_SUBSTITUTED = re.compile(r'"?\$\(.*?\)"?')
_NEXT = re.compile(r"[;|>&#]")
_INLINE = re.compile(r"`((?:signwatch|log-lite|ca-lite|sign-lite) [a-z][^`]*)`")


def named(page: Path) -> Iterator[str]:
    """Command lines of a page: in backticks, and at the start of a line of a block."""
    text = page.read_text(encoding="utf-8")
    yield from (line.replace("\n", " ") for line in _INLINE.findall(text))
    for block in blocks(page):
        joined = block.text.replace("\\\n", " ")
        yield from (line for line in joined.splitlines() if line.split(" ")[0] in PROGRAMS and block.language != "text")


def unknown(line: str) -> str | None:
    """What of a command line does not exist; None when all of it does."""
    name, *words = shlex.split(_NEXT.split(_SUBSTITUTED.sub("VALUE", line))[0])
    command: Any = program(name)
    while words and words[0] in getattr(command, "commands", {}):
        command = loaded(command.commands[words.pop(0)])
    if hasattr(command, "commands"):
        return f"command {words[0]!r}" if words and not re.match(r"[-{…]", words[0]) else None
    options = {flag for each in command.params for flag in (*each.opts, *each.secondary_opts)} | {"--help"}
    for word in words:
        if word.startswith("--") and word.partition("=")[0] not in options:
            return f"option {word!r}"
    return None


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_a_page_names_exists(page: Path) -> None:
    assert {line: what for line in named(page) if (what := unknown(line)) is not None} == {}


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("signwatch evidence verify fork.json", None),
        ("signwatch audit --json > report.json", None),
        ('signwatch evidence export "$(signwatch evidence list | head -n 1)" --output f.json', None),
        ("signwatch audti", "command 'audti'"),
        ("signwatch evidence verfy x", "command 'verfy'"),
        ("signwatch audit --jsn", "option '--jsn'"),
    ],
)
def test_a_command_that_does_not_exist_is_noticed(line: str, what: str | None) -> None:
    assert unknown(line) == what


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_shell_block_is_shell_and_says_how_it_is_kept_true(page: Path) -> None:
    for block in blocks(page):
        if block.language == "bash":
            done = subprocess.run(
                ["bash", "-n"], input=block.text, capture_output=True, text=True, timeout=120, check=False
            )
            assert done.returncode == 0, done.stderr
            assert block.mark in {"test", "server", "example"}, block.text
            assert block.says
