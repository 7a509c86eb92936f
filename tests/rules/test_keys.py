"""Keys are sound: every match of a pattern shows one of them."""

import random

import pytest

from rules.matching.keys import MAX_LITERAL, MAX_SLASHES, MIN_LITERAL, Key, Literal, ValuePrefix, WholeValue
from rules.matching.required_keys import keys_of
from rules.pattern import Pattern, PatternForm, compile_regex, fold, glob_matches

WORKFLOW = "https://github.com/acme/widget/.github/workflows/x.yml@refs/heads/y"


def keys(text: str, *, ignore_case: bool = False, form: PatternForm = PatternForm.REGEX) -> set[bytes | str] | None:
    """Literals as bytes, heads as text with a star behind it, whole values as text."""
    found = keys_of(Pattern(form, text, ignore_case))
    return None if found is None else {_shown(key) for key in found}


def _shown(key: Key) -> bytes | str:
    return key.data if isinstance(key, Literal) else key.text + "*" if isinstance(key, ValuePrefix) else key.text


@pytest.mark.parametrize(
    ("regex", "expected"),
    [
        (r"https://github\.com/acme/widget/.*", {"https://github.com/acme/widget/*"}),
        (r"^https://github\.com/acme/widget/[.]github/.*$", {"https://github.com/acme/widget/*"}),
        (r"https://github\.com/acme/(widget|gadget)/.*", {"https://github.com/acme/*"}),
        (r"https://(github|gitlab)\.com/acme/widget/.*", {b"/acme/widget/"}),
        (r".?https://github\.com/acme/widget/.*", {b"/acme/widget/"}),
        (r"(?i)https://example\.invalid/team/project/.*", {b"//example.invali"}),
        (
            r"https://a\.example/bcd/e/.*|https://f\.example/ghi/j/.*",
            {"https://a.example/bcd/e/*", "https://f.example/ghi/j/*"},
        ),
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
def test_the_keys_of_a_regular_expression(regex: str, expected: set[bytes | str] | None) -> None:
    assert keys(regex) == expected


@pytest.mark.parametrize(
    ("text", "form", "expected"),
    [
        (WORKFLOW, PatternForm.EXACT, {WORKFLOW}),
        (
            "https://github.com/organisation/repository/*",
            PatternForm.GLOB,
            {"https://github.com/organisation/repository/*"},
        ),
        ("https://github.com/acme/widget/.github/workflows/*", PatternForm.GLOB, {"https://github.com/acme/widget/*"}),
        ("https://github.com/acme/*/x", PatternForm.GLOB, {"https://github.com/acme/*"}),
        ("https://github.com/acme*", PatternForm.GLOB, {b"m/acme"}),
        ("https://github.com/*/widget/*", PatternForm.GLOB, {b"/widget/"}),
        ("*/organisation/repository/*", PatternForm.GLOB, {b"/repository/"}),
        ("*@acme.example", PatternForm.GLOB, {b"@acme.example"}),
        ("*", PatternForm.GLOB, None),
        ("a@b.c", PatternForm.EXACT, {"a@b.c"}),
        ("a@b.c", PatternForm.GLOB, {"a@b.c"}),
        (r"a\*b", PatternForm.GLOB, {"a*b"}),
        ("", PatternForm.GLOB, {""}),
        (r"\*acme\\widget*", PatternForm.GLOB, {b"*acme\\widget"}),
        ("größe@müller.example*", PatternForm.GLOB, {"größe@müller.ex".encode()[:MAX_LITERAL]}),
    ],
)
def test_the_keys_of_names_and_globs(text: str, form: PatternForm, expected: set[bytes | str] | None) -> None:
    assert keys(text, form=form) == expected


def test_a_name_has_the_key_of_its_own_case_unless_case_is_ignored() -> None:
    assert keys("Alice@Acme.example", form=PatternForm.EXACT) == {"Alice@Acme.example"}
    assert keys("Alice@Acme.example", form=PatternForm.EXACT, ignore_case=True) == {"alice@acme.example"}
    assert keys("https://HOST.example/Team/A/*", form=PatternForm.GLOB, ignore_case=True) == {
        "https://host.example/team/a/*"
    }


def shows(value: str, key: Key) -> bool:
    value = fold(value) if key.folded else value
    if isinstance(key, WholeValue):
        return value == key.text
    if isinstance(key, ValuePrefix):
        assert key.text.endswith("/")
        assert key.text.count("/") <= MAX_SLASHES
        return value.startswith(key.text)
    assert MIN_LITERAL <= len(key.data) <= MAX_LITERAL
    return key.data in value.encode()


class Writer:
    """Writes a regular expression and a text it matches side by side."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def word(self) -> str:
        return "".join(self.random.choice("abcdeKs-//@") for _ in range(self.random.randint(3, 12)))

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
def test_every_text_a_regular_expression_matches_shows_a_key(ignore_case: bool) -> None:
    indexed, headed = 0, 0
    for seed in range(3000):
        writer = Writer(seed)
        regex, text = writer.sequence()
        try:
            compiled = compile_regex(regex, ignore_case)
        except ValueError:
            continue
        found = keys_of(Pattern(PatternForm.REGEX, regex, ignore_case))
        if found is None:
            continue
        indexed += 1
        headed += any(isinstance(key, ValuePrefix) for key in found)
        for value in (text, bent(text, writer.random), bent(text, writer.random)):
            if compiled.fullmatch(value.encode()) is not None:
                assert any(shows(value, key) for key in found), (regex, value)
    assert indexed > 500
    assert headed > 100 or ignore_case


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


def test_every_value_a_glob_matches_shows_a_key() -> None:
    chance = random.Random(11)
    matched = 0
    for _ in range(6000):
        pattern = "".join(chance.choice(("abc", "/", "/", "*", "K@s-", "\\*")) for _ in range(chance.randint(1, 9)))
        value = pattern.replace("\\*", "\0").replace("*", "x/y").replace("\0", "*")
        ignore_case = chance.random() < 0.5
        asked = Pattern(chance.choice((PatternForm.GLOB, PatternForm.EXACT)), pattern, ignore_case)
        found = keys_of(asked)
        for each in (value, pattern, value.swapcase()):
            if found is not None and asked.matches(each):
                matched += 1
                assert any(shows(each, key) for key in found), (pattern, each)
    assert matched > 3000


def test_hostile_patterns_and_values_take_linear_time() -> None:
    """None of these would end before the test suite does if anything here backtracked."""
    value = "a" * 50_000
    assert not glob_matches("*a" * 31 + "b", value)
    assert not Pattern(PatternForm.REGEX, "(a*)*b").matches(value)
    assert not Pattern(PatternForm.REGEX, "(a|a)*(a|a)*(a|a)*c", ignore_case=True).matches(value)
    assert Pattern(PatternForm.REGEX, ".*").matches("a\nb\udc80")
