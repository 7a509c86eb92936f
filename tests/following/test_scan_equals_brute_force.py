"""Scanning finds what decoding every entry and asking every rule finds, with entries by any author."""

import random
import re

import pytest

from monitor.following.scan_batch import RuleScanner, scan_batch
from monitor.model.log_source import LogApi, LogEntry
from rules.matching.matcher import compile_rules
from rules.pattern import Pattern, PatternForm
from rules.rule import Rule
from rules.selection import AllOf, AnyOf, Condition, FieldMatch, matching_signers
from sigstore_entries.entry import decode_ct, decode_rekor
from sigstore_entries.signing import UNREADABLE_SIGNER, EntryRef, Signing, Unreadable
from tests.support import entries as made
from tests.support.hostile_certificates import CLAIMS, PLAIN_OIDS, hostile_body, hostile_certificate


def decoded(leaf: bytes, index: int, api: LogApi) -> Signing | Unreadable:
    where = EntryRef("log", index)
    return decode_ct(leaf, where) if api is LogApi.CT_RFC6962 else decode_rekor(leaf, where)


def rules_about(signings: list[Signing], chance: random.Random, count: int) -> list[Rule]:
    """Rules by every field and in every form, about texts that do occur."""
    signers = [signer for signing in signings for signer in signing.signers]
    known = {"identity": [name.value for signer in signers for name in signer.names]}
    for claim in CLAIMS:
        known[claim] = [signer.claims[claim] for signer in signers if claim in signer.claims]
    for oid in PLAIN_OIDS:
        raw = [signer.extensions[oid] for signer in signers if oid in signer.extensions]
        known[oid] = [value.decode("latin-1") for value in raw]

    def condition() -> Condition:
        if chance.random() < 0.1:
            signing = chance.choice(signings)
            if chance.random() < 0.5 and signing.digests:
                return match("digest", f"{signing.digests[0].algorithm}:{signing.digests[0].value}")
            return match("fingerprint", *(print_ for each in signing.signers for print_ in each.fingerprints[-1:]))
        field = chance.choice([*known, "identity", "identity", "identity"])
        texts = known[field] or ["nothing of the kind"]
        return FieldMatch(field, tuple(pattern(chance.choice(texts), chance) for _ in range(chance.choice((1, 1, 2)))))

    def select() -> Condition:
        if chance.random() < 0.6:
            return condition()
        return chance.choice((AllOf, AnyOf))((condition(), condition()))

    return [Rule(f"rule-{number}", select()) for number in range(count)]


def match(field: str, *texts: str) -> FieldMatch:
    return FieldMatch(field, tuple(Pattern(PatternForm.EXACT, text) for text in texts or ("none",)))


def pattern(text: str, chance: random.Random) -> Pattern:
    """A pattern that matches the text, or nearly."""
    ignore_case = chance.random() < 0.3
    shown = text.swapcase() if ignore_case else text
    form = chance.choice(list(PatternForm))
    at = chance.randint(0, len(text))
    end = chance.choice((at, len(text), min(len(text), at + 5)))
    if form is PatternForm.GLOB:
        return Pattern(form, shown[:at].replace("\\", "\\\\") + "*" + shown[end:].replace("\\", "\\\\"), ignore_case)
    if form is PatternForm.REGEX:
        return Pattern(form, re.escape(text[:at][:300]) + ".*" + re.escape(text[end:][:300]), ignore_case)
    return Pattern(form, shown, ignore_case)


@pytest.mark.parametrize("api", [LogApi.REKOR_V1, LogApi.CT_RFC6962])
@pytest.mark.parametrize("seed", range(6))
def test_every_match_in_hostile_entries_is_found(seed: int, api: LogApi) -> None:
    chance = random.Random(seed)
    make_leaf = hostile_body if api is LogApi.REKOR_V1 else lambda of: made.x509_leaf(hostile_certificate(of))
    leaves = [make_leaf(chance) for _ in range(300)]
    results = [decoded(leaf, index, api) for index, leaf in enumerate(leaves)]
    signings = [each for each in results if isinstance(each, Signing)]
    rules = rules_about(signings, chance, 150)
    asked = {
        (signing.where.index, rule.id)
        for signing in signings
        for rule in rules
        if matching_signers(rule.select, signing)
    }
    for kept in (rules, rules[:3], [rule for rule in rules if compile_rules([rule], max_unindexed=1).unindexed == ()]):
        names = {rule.id for rule in kept}
        scanner = RuleScanner(compile_rules(kept, max_unindexed=len(kept)))
        scan = scan_batch([LogEntry(leaf) for leaf in leaves], 0, "log", api, scanner).scan
        found = {(hit.signing.where.index, rule) for hit in scan.hits for rule in hit.rules}
        assert found == {(index, rule) for index, rule in asked if rule in names}
        assert sum(scan.kinds.values()) == len(leaves)
        in_part = {each.unreadable.where.index for each in scan.unreadable if each.unreadable.code == UNREADABLE_SIGNER}
        assert in_part <= {each.where.index for each in signings if each.unread}
        unreadable = {each.unreadable.where.index for each in scan.unreadable} - in_part
        assert unreadable <= {each.where.index for each in results if isinstance(each, Unreadable)}
        assert scan.kinds.get("unreadable", 0) == len(unreadable)
    assert len(asked) > 300
