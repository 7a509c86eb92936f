"""Literals are sound: whatever a pattern matches holds one of them."""

import random

import pytest

from rules.literals import MAX_LITERAL, MIN_LITERAL, cover_of
from rules.pattern import Pattern, PatternForm, compile_regex, glob_matches


def literals(text: str, *, ignore_case: bool = False, form: PatternForm = PatternForm.REGEX) -> set[bytes] | None:
    cover = cover_of(Pattern(form, text, ignore_case))
    return None if cover is None else {literal.data for literal in cover}


@pytest.mark.parametrize(
    ("regex", "expected"),
    [
        (r"https://github\.com/acme/widget/.*", {b"/acme/widget/"}),
        (r"alice@acme\.example", {b"alice@acme.examp"}),
        (r"(alice|bobby)@acme\.example", {b"@acme.example"}),
        (r"(alice@ac|bobby@ac).*", {b"alice@ac", b"bobby@ac"}),
        (r"alice@acme|bobby@acme", {b"alice@acme", b"bobby@acme"}),
        (r"alice@acme|.*", None),
        (r"(alice@acme)?.*", None),
        (r"(alice@acme){0,3}", None),
        (r"(alice@acme)+", {b"alice@acme"}),
        (r"alice@acme\.example?", {b"alice@acme.examp"}),
        (r"widgets?", {b"widget"}),
        (r"widgett*", {b"widget"}),
        (r"widge[t]+x", None),
        (r"[a]widget.", {b"widget"}),
        (r"[^]a-z]widget", {b"widget"}),
        (r"[[:alpha:]]widget", {b"widget"}),
        (r"[\]]widget", {b"widget"}),
        (r"\p{Greek}widget\pN", {b"widget"}),
        (r"\x{61}widget\x41", {b"widget"}),
        (r"\Qwid.get\E", None),
        (r"(?P<name>widget)", {b"widget"}),
        (r"(?<name>widget)", {b"widget"}),
        (r"(?:widget)", {b"widget"}),
        (r"(?i)widget", {b"widget"}),
        (r"(?i)WIDGET", {b"widget"}),
        (r"(?i)kiosk-lamp", None),  # (?i)k also matches U+212A, (?i)s also U+017F
        (r"(?i:acme)-widget", {b"-widget"}),
        (r"(?i)aa(?-i)Widget", {b"Widget"}),
        (r"((?i)aa|bb)Widget", {b"Widget"}),
        (r"^widget$", {b"widget"}),
        (r"\bwidget\b", {b"widget"}),
        (r"wid(get", None),
        (r"a{2}bcdefgh", {b"bcdefgh"}),
        (r"a{bcdefgh", {b"a{bcdefgh"}),
        (r"abc.def", None),
    ],
)
def test_the_literals_of_a_regular_expression(regex: str, expected: set[bytes] | None) -> None:
    assert literals(regex) == expected


@pytest.mark.parametrize(
    ("text", "form", "expected"),
    [
        ("https://github.com/acme/widget/.github/workflows/x.yml@refs/heads/y", PatternForm.EXACT, {b"/acme/widget/"}),
        ("https://github.com/a/b/.github/workflows/c.yml@refs/heads/main", PatternForm.EXACT, {b"/a/b/."}),
        ("https://github.com/organisation/repository/*", PatternForm.GLOB, {b"/repository/"}),
        ("*@acme.example", PatternForm.GLOB, {b"@acme.example"}),
        ("*", PatternForm.GLOB, None),
        ("a@b.c", PatternForm.EXACT, None),
        (r"\*acme\\widget*", PatternForm.GLOB, {b"*acme\\widget"}),
        ("größe@müller.example", PatternForm.EXACT, {"größe@müller.ex".encode()[:MAX_LITERAL]}),
    ],
)
def test_the_literals_of_names_and_globs(text: str, form: PatternForm, expected: set[bytes] | None) -> None:
    assert literals(text, form=form) == expected


class Writer:
    """Writes a regular expression and a text it matches side by side."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def word(self) -> str:
        return "".join(self.random.choice("abcdeKs-/@") for _ in range(self.random.randint(3, 12)))

    def item(self, depth: int) -> tuple[str, str]:
        kind = self.random.randint(0, 11)
        char = self.random.choice("abcdksKS.-/@")
        if kind <= 3:
            return (f"\\{char}" if char == "." else char), char
        if kind in (4, 10, 11) and depth < 3:
            word = self.word()
            return f"(?:{word})", word
        if kind == 5:
            return "[a-cK]", self.random.choice("abcK")
        if kind == 6:
            return ".", self.random.choice("xyz\n")
        if depth > 1:
            return "a", "a"
        inner, text = self.sequence(depth + 1)
        other, _ = self.sequence(depth + 1)
        opening = self.random.choice(("(", "(?:", "(?i:", "(?s:"))
        branches = [inner, other] if self.random.random() < 0.5 else [inner]
        self.random.shuffle(branches)
        return f"{opening}{'|'.join(branches)})", text

    def sequence(self, depth: int = 0) -> tuple[str, str]:
        regex, text = "", ""
        for _ in range(self.random.randint(1, 5)):
            item, matched = self.item(depth)
            before = self.word() if self.random.random() < 0.4 else ""
            quantifier = self.random.choice(("", "", "", "", "", "", "?", "*", "+", "{2}", "{0,2}", "{1,}", "+?"))
            times = {
                "?": (0, 1),
                "*": (0, 3),
                "+": (1, 3),
                "{2}": (2, 2),
                "{0,2}": (0, 2),
                "{1,}": (1, 3),
                "+?": (1, 2),
            }
            low, high = times.get(quantifier, (1, 1))
            regex += before + item + quantifier
            text += before + matched * self.random.randint(low, high)
        return regex, text


def bent(text: str, chance: random.Random) -> str:
    """The text in another case, by Unicode's rules."""
    special = {"k": "\u212a", "s": "\u017f"}
    return "".join(chance.choice((c, c.swapcase(), special.get(c.lower(), c))) for c in text)


@pytest.mark.parametrize("ignore_case", [False, True])
def test_every_text_a_regular_expression_matches_holds_a_literal(ignore_case: bool) -> None:
    indexed = 0
    for seed in range(3000):
        writer = Writer(seed)
        regex, text = writer.sequence()
        try:
            compiled = compile_regex(regex, ignore_case)
        except ValueError:
            continue
        cover = cover_of(Pattern(PatternForm.REGEX, regex, ignore_case))
        if cover is None:
            continue
        indexed += 1
        assert all(MIN_LITERAL <= len(literal.data) <= MAX_LITERAL for literal in cover)
        for value in (text, bent(text, writer.random), bent(text, writer.random)):
            data = value.encode()
            if compiled.fullmatch(data) is not None:
                assert any(each.data in (data.lower() if each.folded else data) for each in cover), (regex, value)
    assert indexed > 500


def naive_glob(pattern: str, value: str) -> bool:
    if not pattern:
        return not value
    if pattern[0] == "*":
        return naive_glob(pattern[1:], value) or (bool(value) and naive_glob(pattern, value[1:]))
    return bool(value) and pattern[0] == value[0] and naive_glob(pattern[1:], value[1:])


def test_globs_agree_with_a_slow_reading_of_them() -> None:
    chance = random.Random(7)
    matched = 0
    for _ in range(4000):
        pattern = "".join(chance.choice("ab*") for _ in range(chance.randint(0, 6)))
        value = "".join(chance.choice("ab") for _ in range(chance.randint(0, 7)))
        assert glob_matches(pattern, value) is naive_glob(pattern, value), (pattern, value)
        matched += glob_matches(pattern, value)
    assert matched > 300


def test_hostile_patterns_and_values_take_linear_time() -> None:
    """None of these would end before the test suite does if anything here backtracked."""
    value = "a" * 50_000
    assert not glob_matches("*a" * 31 + "b", value)
    assert not Pattern(PatternForm.REGEX, "(a*)*b").matches(value)
    assert not Pattern(PatternForm.REGEX, "(a|a)*(a|a)*(a|a)*c", ignore_case=True).matches(value)
    assert Pattern(PatternForm.REGEX, ".*").matches("a\nb\udc80")
