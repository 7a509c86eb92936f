"""Writes the programs' manual pages, one a program, from their own help: `python -m tests.docs.man_pages FOLDER`."""

import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.docs.commands_page import PROGRAMS, _argument, _commands, _default, program

SUMMARIES = {
    "signwatch": "watch Sigstore's transparency logs and tell of signings that were not expected",
    "log-lite": "a small transparency log, compatible with Rekor and Certificate Transparency",
    "ca-lite": "a small certificate authority, compatible with Fulcio",
    "sign-lite": "sign and verify with a Sigstore deployment",
}
_EXIT = (
    ("0", "fine"),
    ("1", "a log misbehaved, or something unexpected was signed"),
    ("2", "wrong usage or configuration"),
    ("3", "could not finish: an outage, or a fault of this installation"),
)
_FILES = (
    ("signwatch.yaml", "the configuration in the working directory, if no other is named"),
    ("~/.config/signwatch/signwatch.yaml", "else the user's"),
    ("/etc/signwatch/signwatch.yaml", "else the system's"),
)


@cache
def man_page(name: str) -> str:
    """The manual page of one program in the macros of man(7)."""
    lines = [
        f'.TH {_text(name.upper())} 1 "" "signwatch {version("signwatch")}" "Signwatch"',
        ".SH NAME",
        f"{_text(name)} \\- {_text(SUMMARIES[name])}",
        ".SH SYNOPSIS",
        f".B {_text(name)}",
        "[\\fIoptions\\fR] \\fIcommand\\fR [\\fIarguments\\fR]",
    ]
    for words, command in _commands(name, program(name)):
        lines.append(".SH DESCRIPTION" if words == name else f".SS {_quoted(words)}")
        lines += _prose(command.help or "")
        if words == name:
            lines += [".SH OPTIONS", *_options(command), ".SH COMMANDS"]
        elif not hasattr(command, "commands"):
            lines += _options(command)
    lines += [".SH EXIT STATUS", *_pairs(_EXIT)]
    if name == "signwatch":
        lines += [".SH FILES", *_pairs(_FILES), ".SH ENVIRONMENT"]
        lines += _pairs([("SIGNWATCH_COMMAND_OPTION", "stands for --option of a command, where it is not given")])
    return "\n".join(lines) + "\n"


def _options(command: Any) -> Iterator[str]:
    for each in command.params:
        if each.param_type_name == "argument":
            yield from _pair(_argument(each), getattr(each, "help", None) or "")
        elif not each.hidden and each.name != "help":
            default = _default(each).strip("`")
            told = (each.help or "") + (f" Default: {default}." if default not in ("", "required") else "")
            yield from _pair(", ".join((*each.opts, *each.secondary_opts)), told)


def _pairs(pairs: Any) -> Iterator[str]:
    for term, told in pairs:
        yield from _pair(term, told)


def _pair(term: str, told: str) -> Iterator[str]:
    yield from (".TP", f".B {_text(term)}", _text(told) or "\\&")


def _prose(text: str) -> Iterator[str]:
    """Paragraphs as they are; what follows `Example:` is set as it is written."""
    before, mark, after = text.replace("\b", "").strip().partition("Example")
    for paragraph in before.strip().split("\n\n"):
        yield ".PP"
        yield from (_text(line.strip()) for line in paragraph.splitlines() if line.strip())
    if mark:
        yield from (".PP", ".EX")
        yield from (_text(line.strip()) for line in after.partition(":")[2].strip().splitlines() if line.strip())
        yield ".EE"


def _text(text: str) -> str:
    """Text that roff takes for nothing else: no escape, no request at a line's start, hyphens that can be copied."""
    plain = text.replace("\\", "\\e").replace("-", "\\-")
    plain = "".join(each if each.isascii() else f"\\[u{ord(each):04X}]" for each in plain)
    return f"\\&{plain}" if plain[:1] in {".", "'"} else plain


def _quoted(text: str) -> str:
    return f'"{_text(text)}"'


if __name__ == "__main__":
    for name in PROGRAMS:
        into = Path(sys.argv[1]) / "man1"
        into.mkdir(parents=True, exist_ok=True)
        (into / f"{name}.1").write_text(man_page(name), encoding="utf-8")
