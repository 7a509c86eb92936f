"""docs/commands.md is what the programs say of themselves."""

from tests.docs.blocks import ROOT
from tests.docs.commands_page import PROGRAMS, page


def test_the_page_lists_every_command_with_every_option() -> None:
    kept = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    again = "after changing a command, run: python -m tests.docs.commands_page > docs/commands.md"
    assert kept == page(), again


def test_every_program_and_a_nested_command_are_on_it() -> None:
    """Control for the generator: an empty page would agree with itself."""
    lines = page().splitlines()
    assert {f"## {name}" for name in PROGRAMS} <= set(lines)
    assert "### signwatch evidence verify" in lines
    assert any("SIGSTORE_IDENTITY_TOKEN" in line for line in lines)
