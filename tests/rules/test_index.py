"""The index finds exactly what asking every rule finds, only faster."""

import random
from types import MappingProxyType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from rules.matching.matcher import Matcher, TooManyUnindexed, compile_rules
from rules.pattern import Pattern, PatternForm, compile_regex
from rules.rule import Rule
from rules.selection import AllOf, AnyOf, Condition, FieldMatch, Not, matching_signers
from sigstore_entries.certificate import encode_utf8_string
from sigstore_entries.field_texts import extension_texts
from sigstore_entries.signing import Digest, EntryRef, Name, NameForm, Signer, SignerForm, Signing
from tests.rules.signings import email_signer, rule, signing

WORDS = ("acme", "widget", "Acme", "kite", "sky", "release", "https://github.com/", "/.github/workflows/", "@", "main")
REGEX_PARTS = (
    "acme", "wid.et", "(?i)acme", "(?i:kite)", "a+cme", "(acme|widget)", "[a-z]+", "ki?te", ".*", r"\.", "(?:sky){2}",
    r"https://github\.com/", "(?P<x>release)*", "main$", "x{0,2}y?", "(acme|)", "(?i)SKY(?-i)kite", r"\Qa.b\E", "^",
)  # fmt: skip
FIELDS = ("identity", "issuer", "source_repository_uri", "1.2.3.4")
DIGESTS = tuple(f"{number:02x}" * 32 for number in range(4))


def texts_of(signing: Signing) -> list[str]:
    """Every text anywhere in the entry, in any field."""
    texts = [digest.value for digest in signing.digests]
    for signer in signing.signers:
        texts += [name.value for name in signer.names]
        texts += [*signer.claims.values(), *signer.fingerprints, *filter(None, [signer.issuer])]
        texts += [text for raw in signer.extensions.values() for text in extension_texts(raw)]
    return texts


def brute_force(rules: list[Rule], signing: Signing) -> list[str]:
    return [each.id for each in rules if matching_signers(each.select, signing)]


class Draw:
    """Random rules and signings from one seed; small alphabets make matches frequent."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def text(self) -> str:
        return "".join(self.random.choice(WORDS) for _ in range(self.random.randint(1, 5)))

    def pattern(self, known: list[str]) -> Pattern:
        form = self.random.choice(list(PatternForm))
        text = self.random.choice(known) if known and self.random.random() < 0.6 else self.text()
        if form is PatternForm.GLOB:
            for _ in range(self.random.randint(0, 3)):
                at = self.random.randint(0, len(text))
                text = text[:at] + "*" + text[at + self.random.randint(0, 4) :]
        if form is PatternForm.REGEX:
            parts = [self.random.choice((*REGEX_PARTS, *WORDS)) for _ in range(self.random.randint(1, 5))]
            text = "".join(parts) + ("|" + self.text() if self.random.random() < 0.3 else "")
            try:
                compile_regex(text, ignore_case=False)
            except ValueError:
                text = "acme.*"
        ignore_case = self.random.random() < 0.3
        return Pattern(form, text.swapcase() if ignore_case and form is not PatternForm.REGEX else text, ignore_case)

    def condition(self, known: list[str], depth: int = 0) -> Condition:
        kind = self.random.random()
        if depth < 3 and kind < 0.35:
            parts = tuple(self.condition(known, depth + 1) for _ in range(self.random.randint(1, 3)))
            return AllOf(parts) if self.random.random() < 0.5 else AnyOf(parts)
        if depth < 3 and kind < 0.42:
            return Not(self.condition(known, depth + 1))
        if kind < 0.5:
            return FieldMatch("digest", (Pattern(PatternForm.EXACT, f"sha256:{self.random.choice(DIGESTS)}"),))
        if kind < 0.55:
            return FieldMatch("fingerprint", (Pattern(PatternForm.EXACT, self.random.choice(DIGESTS)),))
        patterns = tuple(self.pattern(known) for _ in range(self.random.randint(1, 2)))
        return FieldMatch(self.random.choice(FIELDS), patterns)

    def signer(self) -> Signer:
        texts = [self.text() for _ in range(4)]
        return Signer(
            SignerForm.CERTIFICATE,
            tuple(Name(NameForm.URI, text) for text in texts[: self.random.randint(0, 2)]),
            issuer=texts[2] if self.random.random() < 0.8 else None,
            claims=MappingProxyType({"source_repository_uri": texts[3]} if self.random.random() < 0.7 else {}),
            extensions=MappingProxyType({"1.2.3.4": encode_utf8_string(self.text())}),
            fingerprints=(self.random.choice(DIGESTS),),
        )

    def signing(self, index: int) -> Signing:
        signers = tuple(self.signer() for _ in range(self.random.choice((0, 1, 1, 1, 2))))
        digests = tuple(Digest("sha256", value) for value in self.random.sample(DIGESTS, self.random.randint(0, 2)))
        return Signing(EntryRef("rekor", index), "dsse", "0.0.1", signers, digests)


def check_matcher(matcher: Matcher, rules: list[Rule], signings: list[Signing]) -> int:
    """Compare every way of asking with brute force; how many matches there were."""
    shown = [(text, position) for position, entry in enumerate(signings) for text in texts_of(entry)]
    batch = matcher.candidates_batch([text for text, _ in shown], [position for _, position in shown])
    matches = 0
    for position, entry in enumerate(signings):
        wanted = brute_force(rules, entry)
        matches += len(wanted)
        alone = matcher.candidates(texts_of(entry))
        assert batch.get(position, list(matcher.unindexed)) == alone
        assert [each.id for each in matcher.confirm(entry, alone)] == wanted
        assert [each.id for each in matcher.confirm_all(entry)] == wanted
    return matches


@pytest.mark.parametrize("seed", range(8))
def test_the_index_agrees_with_asking_every_rule(seed: int) -> None:
    draw = Draw(seed)
    signings = [draw.signing(index) for index in range(60)]
    known = [name.value for entry in signings for signer in entry.signers for name in signer.names]
    rules = [Rule(f"r{number}", draw.condition(known)) for number in range(500)]
    matcher = compile_rules(rules, max_unindexed=len(rules))
    assert check_matcher(matcher, rules, signings) > 100
    assert len(matcher.unindexed) < len(rules) * 0.8


@settings(max_examples=150, deadline=None)
@given(st.integers(min_value=0, max_value=2**48))
def test_no_single_rule_is_lost(seed: int) -> None:
    draw = Draw(seed)
    signings = [draw.signing(index) for index in range(5)]
    rules = [Rule("r", draw.condition([name.value for entry in signings for s in entry.signers for name in s.names]))]
    check_matcher(compile_rules(rules), rules, signings)


def test_a_match_that_only_joining_two_texts_makes_is_none() -> None:
    matcher = compile_rules([rule("{identity: {glob: '*alice@acme.example*'}}")])
    texts = ["..alice@acme.example..", "alice@", "acme.example", ""]
    assert matcher.candidates_batch(texts, [0, 1, 2, 3]) == {0: [0]}


def test_only_the_parsed_name_decides_not_bytes_that_look_like_it() -> None:
    """A requester may write `https://good/…` into an earlier extension; the certificate still names the victim's."""
    spoof = signing(
        {"github_workflow_name": "\x06\x03\x55\x1d\x11\x04\x1a https://github.com/good/repo/x.yml@refs/heads/y"}
    )
    good, real = (
        rule('{identity: {glob: "https://github.com/good/repo/*"}}'),
        rule('{identity: {glob: "*acme/widget/*"}}'),
    )
    matcher = compile_rules([good, real])
    numbers = matcher.candidates([*texts_of(spoof), "https://github.com/good/repo/x.yml@refs/heads/y"])
    assert numbers == [0, 1]
    assert list(matcher.confirm(spoof, numbers)) == list(matcher.confirm_all(spoof)) == [real]


def test_rules_that_cannot_be_indexed_are_visible_and_capped() -> None:
    wild = rule("{not: {identity: alice@acme.example}}")
    matcher = compile_rules([rule("{identity: bob@acme.example}"), wild])
    assert matcher.unindexed == (1,)
    assert matcher.candidates(["nothing"]) == [1]
    with pytest.raises(TooManyUnindexed, match="under-test") as caught:
        compile_rules([wild] * 3, max_unindexed=2)
    assert len(caught.value.rules) == 3


def test_matches_beyond_the_cap_are_counted_never_silent() -> None:
    rules = [rule("{identity: alice@acme.example}")] * 30
    matcher = compile_rules(rules, max_matches=10)
    entry = signing(signers=(email_signer(),))
    matches = matcher.confirm(entry, matcher.candidates(texts_of(entry)))
    assert (len(matches), matches.dropped) == (10, 20)


def crowd(count: int, names: int = 4) -> tuple[Signer, ...]:
    """Signers with several names each, among which rules find nothing."""
    return tuple(
        email_signer(names=tuple(Name(NameForm.EMAIL, f"b{at}-{number}@crowd.example") for number in range(names)))
        for at in range(count)
    )


def test_a_crowd_of_signers_changes_nothing_about_what_matches() -> None:
    digest = "ab" * 32
    rules = [
        rule("{identity: alice@acme.example, issuer: https://login.acme.example}"),
        rule("{identity: alice@acme.example}"),
        rule(f"{{digest: sha256:{digest}, identity: bob@acme.example}}"),
        rule("{all: [{not: {identity: {glob: '*crowd*'}}}, {issuer: https://accounts.google.com}]}"),
        rule("{identity: carol@acme.example}"),
        rule(f"{{digest: sha256:{'00' * 32}}}"),
    ]
    alice, bob = email_signer(), email_signer("bob@acme.example")
    entry = signing(signers=(*crowd(200), bob, *crowd(200), alice), digests=(Digest("sha256", digest),))
    matches = compile_rules(rules).confirm_all(entry)
    assert (list(matches), matches.dropped) == ([rules[1], rules[2], rules[3]], 0)
    assert matches.signing == replace(entry, signers=(bob, alice))
    small = signing(signers=(*crowd(2), alice))
    assert compile_rules(rules).confirm_all(small).signing is small


def test_a_flood_of_names_cuts_off_itself_and_not_the_certificate_among_it() -> None:
    """What a rule may be asked about is bounded; the small signer is asked about first, the rest is counted."""
    victims = [f"victim{number}@acme.example" for number in range(3_000)]
    rules = [rule(f"{{identity: {address}}}") for address in (*victims[:300], "alice@acme.example")]
    flood = email_signer(names=tuple(Name(NameForm.EMAIL, each) for each in victims * 10))
    matches = compile_rules(rules).confirm_all(signing(signers=(flood, email_signer(), flood)))
    assert list(matches) == [rules[-1]]
    assert matches.signing.signers == (email_signer(),)
    assert matches.dropped == 300


def test_digests_and_fingerprints_are_found_by_their_values() -> None:
    rules = [
        rule(f"{{digest: sha256:{'ab' * 32}}}"),
        rule(f"{{fingerprint: '{'C' * 64}'}}"),
        rule("{digest: %s}" % ("00" * 32)),
    ]
    matcher = compile_rules(rules)
    assert matcher.fields == {"digest", "fingerprint"}
    assert not matcher.unindexed
    numbers = matcher.candidates(texts_of(signing()))
    assert numbers == [0, 1]
    assert list(matcher.confirm(signing(), numbers)) == rules[:2]


def test_identity_and_issuer_must_belong_to_one_signer() -> None:
    both = rule("{identity: alice@acme.example, issuer: https://login.acme.example}")
    mixed = signing(signers=(email_signer(), email_signer("bob@acme.example", "https://login.acme.example")))
    matcher = compile_rules([both])
    assert len(matcher.confirm_all(signing(signers=(email_signer(issuer="https://login.acme.example"),)))) == 1
    assert len(matcher.confirm_all(mixed)) == 0


def test_rules_with_one_head_in_several_depths_and_cases_are_all_found() -> None:
    globs = (
        "https://github.com/acme/*",
        "https://github.com/acme/widget/*",
        "https://github.com/acme/widget/.github/workflows/*",
        "*@refs/tags/v1.2.3",
    )
    cased = [(glob, case) for glob in globs for case in ("false", "true")]
    rules = [rule(f"{{identity: {{glob: '{glob}', ignore_case: {case}}}}}") for glob, case in cased]
    matcher = compile_rules(rules)
    assert matcher.unindexed == ()
    assert matcher.candidates([signing().signers[0].names[0].value]) == list(range(8))
    assert list(matcher.confirm_all(signing())) == rules
    upper = signing(names=(Name(NameForm.URI, signing().signers[0].names[0].value.upper()),))
    assert list(matcher.confirm_all(upper)) == rules[1::2]
    assert matcher.candidates(["https://github.com/acme", "https://github.com/acm/widget/x", "", "/////"]) == []


def test_a_text_with_half_a_character_is_what_a_regular_expression_sees_of_it() -> None:
    odd = signing(names=(Name(NameForm.PGP_USER_ID, "https://host.example/a\udc80b/c"),))
    matching = rule("{identity: {regex: 'https://host\\.example/a\\?b/c'}}")
    assert list(compile_rules([matching]).confirm_all(odd)) == [matching]
