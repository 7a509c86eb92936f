"""The manual pages hold every command, and groff has nothing to say against them."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT
from tests.docs.commands_page import PROGRAMS, _commands, program
from tests.docs.man_pages import _text, man_page


def shown(name: str) -> str:
    """The page as a terminal shows it."""
    groff = shutil.which("groff")
    if groff is None:
        pytest.skip("groff is missing: install the Debian package groff-base (.ci/install-debian-packages)")
    done = subprocess.run(
        [groff, "-man", "-Tutf8", "-ww", "-rLL=200n", "-P-c", "-P-bou"],
        input=man_page(name).encode(),
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert done.stderr == b""
    return done.stdout.decode()


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_command_and_option_is_shown(name: str) -> None:
    text = re.sub(r"\s+", " ", shown(name))
    for words, command in _commands(name, program(name)):
        assert words in text
        for each in command.params:
            if each.param_type_name == "option" and not each.hidden and each.name != "help":
                assert each.opts[0] in text, (words, each.opts)


def test_an_example_can_be_copied() -> None:
    assert "signwatch run --once --config /etc/signwatch/signwatch.yaml" in shown("signwatch")


def test_a_line_that_looks_like_a_request_is_text() -> None:
    assert _text(".so /etc/passwd") == "\\&.so /etc/passwd"
    assert _text("a\\fB") == "a\\efB"


def test_make_man_writes_a_page_for_each_program(tmp_path: Path) -> None:
    assert "tests.docs.man_pages" in (ROOT / "Makefile").read_text(encoding="utf-8")
    subprocess.run([sys.executable, "-m", "tests.docs.man_pages", str(tmp_path)], cwd=ROOT, check=True, timeout=60)
    assert {each.name for each in (tmp_path / "man1").iterdir()} == {f"{name}.1" for name in PROGRAMS}


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_page_that_is_installed_is_the_help_of_today(name: str) -> None:
    kept = ROOT / "docs" / "man" / "man1" / f"{name}.1"
    assert kept.read_text(encoding="utf-8") == man_page(name), "make man writes it anew"
