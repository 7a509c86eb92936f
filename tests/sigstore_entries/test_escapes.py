"""Texts of certificates, and so keys of the archive, are the same under each supported Python."""

import json
import subprocess
from typing import Any

import pytest

from sigstore_entries import escapes
from sigstore_entries.certificate import plain_text
from tests.support.pythons import python

_PROGRAM = """
import hashlib, json, runpy, sys, unicodedata
escaped = runpy.run_path(sys.argv[1])["escaped"]
every = [chr(number) for number in range(0x110000)]
texts = [escaped(each) for each in every]
print(json.dumps({
    "texts": hashlib.sha256("".join(texts).encode("utf-8", "surrogatepass")).hexdigest(),
    "printable and escaped": [ord(each) for each, text in zip(every, texts) if each.isprintable() and each != text],
    "kept": sorted({unicodedata.category(each) for each, text in zip(every, texts) if each == text and each != " "}),
    "spaces": [ord(each) for each in every if each.isspace()],
    "hexadecimal": [ord(each) for each in every if set(each.lower()) & set("0123456789abcdef") and not each.isascii()],
}))
"""


def derived(version: str) -> dict[str, Any]:
    """What a release of Python makes of every character, by the product's own file."""
    done = subprocess.run(
        [python(version), "-c", _PROGRAM, escapes.__file__], capture_output=True, check=True, timeout=120
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("version", ["3.12", "3.13"])
def test_each_python_derives_the_same_texts(version: str) -> None:
    here = derived("3.11")
    there = derived(version)
    for each in (here, there):
        assert each["printable and escaped"] == each["hexadecimal"] == []
        assert {"Cc", "Cf", "Co", "Cs", "Zl", "Zp", "Zs"}.isdisjoint(each.pop("kept"))
    assert there == here


def test_a_character_that_only_a_later_table_assigns_is_kept() -> None:
    defects: list[str] = []
    # U+1E4D0 came with Unicode 15.0: Python 3.11 does not know it. U+0378 is assigned nowhere.
    assert plain_text("\U0001e4d0\u0378", "names", defects) == "\U0001e4d0\u0378"
    assert defects == []
    # A format control of Unicode 15.0, which Python 3.11 does not know either, and a noncharacter.
    assert plain_text("a\U00013439\ufffe\n", "names", defects) == "a\\U00013439\\ufffe\\n"
    assert defects == ["names: holds a control or unprintable character"]
