"""The real scanner and judge on real entries: nothing a rule selects is missed, in any shape."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from alerts.alert import Owner
from monitor.following.scan_batch import BatchMatches, RuleScanner, scan_batch
from monitor.judging.judge import RuleJudge
from monitor.model.log_source import LogApi, LogEntry
from monitor.model.state import Finding
from monitor.raising.entry_alerts import clock_alerts_of_findings
from monitor.raising.signing_alerts import alerts_of_findings
from monitor.store.findings import BatchPastFacts
from rules.matching.matcher import Matcher, compile_rules
from rules.rule import Outcome, Verdict
from rules.rule_file import load_rules
from sigstore_entries.signing import ChainTrust, EntryRef, Signing
from sigstore_entries.trust import CertificateAuthorities, CertificateAuthority, CtLogKey
from tests.support import entries as made
from tests.support.memory_facts import MemoryFacts, PastSigning
from tlog.merkle import Frontier, leaf_hash

NOW = made.NOT_BEFORE + timedelta(hours=1)
CA, STRANGER = made.make_ca(), made.make_ca("stranger")
CT_LOG = made.make_ct_log()
MINE = made.make_github_certificate(CA, "acme/widget", ref="refs/heads/main")
OTHERS = made.make_github_certificate(CA, "other/thing")
FORGED = made.make_github_certificate(STRANGER, "acme/widget")
RULES = """
version: 1
rules:
  - id: acme
    select: {identity: {glob: "https://github.com/acme/widget/*"}}
    expect: {ref: {glob: "refs/tags/v*"}}
"""


def matcher(text: str = RULES) -> Matcher:
    return compile_rules(load_rules(text).rules)


def scan(
    leaves: Sequence[bytes | LogEntry], api: LogApi = LogApi.REKOR_V1, rules: Matcher | None = None
) -> BatchMatches:
    entries = [leaf if isinstance(leaf, LogEntry) else LogEntry(leaf) for leaf in leaves]
    return RuleScanner(rules or matcher()).scan(entries, 1000, "log", api)


def indexes(found: BatchMatches) -> list[int]:
    return [hit.signing.where.index for hit in found.hits]


@pytest.mark.parametrize(
    "body",
    [
        made.hashedrekord_v1,
        made.hashedrekord_v2,
        made.dsse_v1,
        made.dsse_v2,
        made.intoto_v1,
        made.intoto_v2,
        made.cose,
        lambda cert: made.dsse_v1(OTHERS, cert),
        lambda cert: made.hashedrekord_v1(cert).replace(b'"apiVersion"', b' "apiVersion"', 1),
    ],
    ids=["hashedrekord1", "hashedrekord2", "dsse1", "dsse2", "intoto1", "intoto2", "cose", "second signer", "not JCS"],
)
def test_a_matching_entry_is_found_in_every_kind_of_body(body: Any) -> None:
    found = scan([body(OTHERS), body(MINE), body(OTHERS), body(MINE)])
    assert indexes(found) == [1001, 1003]
    assert found.hits[0].rules == ("acme",)
    assert found.hits[0].leaf == body(MINE)
    assert sum(found.kinds.values()) == 4
    assert found.unreadable == ()


def test_a_matching_certificate_is_found_in_a_ct_log() -> None:
    claims = made.github_claims("acme/widget")
    poisoned, tbs = made.make_precertificate(CA, san=claims["build_config_uri"], claims=claims)
    entry = LogEntry(made.precert_leaf(CA, tbs), made.precert_extra(poisoned, CA.chain))
    for api in (LogApi.CT_RFC6962, LogApi.CT_STATIC):
        found = scan([made.x509_leaf(OTHERS), entry, made.x509_leaf(MINE)], api)
        assert indexes(found) == [1001, 1002]
        assert found.kinds == {"certificate": 2, "precertificate": 1}
        assert found.hits[0].extra == entry.extra


def test_rules_by_digest_and_by_fingerprint_find_what_no_haystack_shows() -> None:
    digest = "ab" * 32
    rules = matcher(f"version: 1\nrules:\n  - {{id: d, select: {{digest: 'sha256:{digest}'}}}}\n")
    assert indexes(scan([made.hashedrekord_v1(OTHERS), made.hashedrekord_v1(OTHERS, digest)], rules=rules)) == [1001]
    mine = made.make_certificate(CA, san="https://github.com/acme/widget/x", key=made.make_key("mine"))
    (hit,) = scan([made.hashedrekord_v1(mine)]).hits
    assert len(hit.signing.signers[0].fingerprints) == 2
    for fingerprint in hit.signing.signers[0].fingerprints:
        rules = matcher(f"version: 1\nrules:\n  - {{id: f, select: {{fingerprint: '{fingerprint}'}}}}\n")
        assert indexes(scan([made.hashedrekord_v1(OTHERS), made.hashedrekord_v1(mine)], rules=rules)) == [1001]


def test_what_cannot_be_decoded_is_kept_and_its_neighbours_are_found() -> None:
    leaves = [b"\xff", made.hashedrekord_v1(MINE), b"{}", b"", made.hashedrekord_v1(MINE)]
    found = scan(leaves)
    assert indexes(found) == [1001, 1004]
    assert [(u.unreadable.where.index, u.leaf) for u in found.unreadable] == [
        (1000, b"\xff"),
        (1002, b"{}"),
        (1003, b""),
    ]
    assert found.kinds == {"hashedrekord": 2, "unreadable": 3}


def test_a_signer_that_is_not_read_leaves_a_trace_beside_one_that_is() -> None:
    junk = made.dsse_v1(made.pem(b"junk"), MINE)
    strangers = made.dsse_v1(OTHERS, made.pem(b"junk"))
    found = scan([junk, strangers, made.dsse_v1(OTHERS, MINE)])
    assert indexes(found) == [1000, 1002]
    assert [(u.unreadable.where.index, u.unreadable.code, u.leaf) for u in found.unreadable] == [
        (1000, "unreadable-signer", junk),
        (1001, "unreadable-signer", strangers),
    ]
    assert "1 of 2 signers cannot be read" in found.unreadable[0].unreadable.reason
    assert "Read in it: https://github.com/acme/widget/" in found.unreadable[0].unreadable.reason
    assert found.kinds == {"dsse": 3}


def test_no_number_of_other_signatures_hides_a_signer_from_its_rule() -> None:
    junk = [made.spki_of(made.make_key(f"junk {number}")) for number in range(200)]
    found = scan([made.dsse_v1(*junk, OTHERS), made.dsse_v1(*junk, MINE), made.dsse_v1(MINE, *junk)])
    assert indexes(found) == [1001, 1002]


def test_a_name_in_the_wrong_place_is_a_candidate_and_no_match() -> None:
    decoy = made.make_certificate(
        CA, san="https://github.com/evil/x", claims={"github_workflow_name": "https://github.com/acme/widget/x"}
    )
    assert indexes(scan([made.hashedrekord_v1(decoy)])) == []


def test_examining_hashes_every_leaf_wherever_the_batch_begins() -> None:
    leaves = [b"leaf %d" % i for i in range(40)]
    whole = Frontier().extended(leaf_hash(leaf) for leaf in leaves)
    for cut in range(41):
        before = Frontier().extended(leaf_hash(leaf) for leaf in leaves[:cut])
        batch = scan_batch([LogEntry(x) for x in leaves[cut:]], cut, "log", LogApi.REKOR_V2, RuleScanner(matcher()))
        assert (batch.start, batch.end) == (cut, 40)
        assert batch.extend(before) == whole


def judged(
    leaves: Sequence[bytes | LogEntry], facts: MemoryFacts | None = None, rules: Matcher | None = None
) -> list[Finding]:
    rules = rules or matcher()
    authorities = CertificateAuthorities([CertificateAuthority("https://ca.example", CA.chain)])
    keys = (CtLogKey(CT_LOG.log_id, CT_LOG.spki),)
    judge = RuleJudge(rules, facts or MemoryFacts(), lambda: (authorities, keys))
    return list(judge.judge(scan(leaves, rules=rules).hits, NOW))


def test_a_trusted_chain_and_an_unmet_expectation_are_unexpected() -> None:
    good = made.make_github_certificate(CA, "acme/widget", ref="refs/tags/v1")
    first, second = judged([made.hashedrekord_v1(good), made.hashedrekord_v1(MINE)])
    assert first.verdict.outcome is Outcome.EXPECTED
    assert second.verdict.outcome is Outcome.UNEXPECTED
    assert second.selected.signing.signers[0].trust is ChainTrust.TRUSTED
    assert second.selected.signing.signers[0].trusted_by == "https://ca.example"


def test_a_self_made_certificate_is_unverified_whatever_it_says() -> None:
    (finding,) = judged([made.hashedrekord_v1(FORGED)])
    assert finding.verdict.outcome is Outcome.UNVERIFIED


ODD = (
    made.OddCertificate()
    .with_extension("2.5.29.37", bytes.fromhex("300a06082b06010505070303"))
    .with_extension(made.SAN_OID, made.san_value((0x86, b"https://github.com/acme/widget/x@refs/tags/v1")))
    .with_extension("1.3.6.1.4.1.57264.1.14", made.der(0x0C, b"refs/tags/v1"))
)


@pytest.mark.parametrize(
    "odd",
    [
        ODD.with_extension("1.2.3", b"a" * 40_000),
        ODD.with_extension("1.2.3", b"a").with_extension("1.2.3", b"a"),
        ODD.with_extension("2.5.29.19", b"junk"),
    ],
    ids=["40 kB", "a repeated extension", "refused by the library"],
)
def test_an_odd_certificate_is_unexpected_from_the_authority_and_unverified_from_a_stranger(
    odd: made.OddCertificate,
) -> None:
    (control,) = judged([made.hashedrekord_v1(ODD.signed_by(CA))])
    assert control.verdict.outcome is Outcome.EXPECTED
    by_authority, by_stranger = judged([made.hashedrekord_v1(odd.signed_by(ca)) for ca in (CA, STRANGER)])
    assert by_authority.verdict.outcome is Outcome.UNEXPECTED
    assert {reason.id for reason in by_authority.verdict.reasons} == {"unreadable-part"}
    assert by_stranger.verdict.outcome is Outcome.UNVERIFIED


def test_a_certificate_used_outside_its_validity_is_a_defect_of_the_signing() -> None:
    late = LogEntry(made.hashedrekord_v1(MINE), integrated_time=made.NOT_BEFORE + timedelta(minutes=30))
    (finding,) = judged([late])
    assert any(defect.startswith("validity") for defect in finding.selected.signing.signers[0].defects)


def test_the_certificate_timestamp_is_checked_against_the_ct_logs_of_the_root() -> None:
    stamped = made.make_certificate(CA, san="https://github.com/acme/widget/x", ct_log=CT_LOG)
    other = made.make_certificate(CA, san="https://github.com/acme/widget/x", ct_log=made.make_ct_log("other"))
    found = judged([made.hashedrekord_v1(stamped), made.hashedrekord_v1(other), made.hashedrekord_v1(MINE)])
    assert [f.selected.signing.signers[0].sct_verified for f in found] == [True, False, None]
    assert [len(f.promises) for f in found] == [1, 0, 0]


def test_a_certificate_timestamp_seconds_after_the_log_took_the_entry_in_is_no_news() -> None:
    stamped = made.hashedrekord_v1(made.make_certificate(CA, san="https://github.com/acme/widget/x", ct_log=CT_LOG))
    (control,) = judged([stamped])
    (promise,) = control.promises
    for seconds, told in ((5, 0), (599, 0), (601, 1)):
        found = judged([LogEntry(stamped, integrated_time=promise.at - timedelta(seconds=seconds))])
        assert [len(each.promises) for each in found] == [1]
        assert len(clock_alerts_of_findings("log", found, NOW)) == told


def test_what_a_ct_log_says_of_a_strangers_certificate_is_not_asked() -> None:
    """Anybody can make one by the thousand: each is refused before anything dear is done with it."""
    stamped = made.make_certificate(STRANGER, san="https://github.com/acme/widget/x", ct_log=CT_LOG)
    (finding,) = judged([made.hashedrekord_v1(stamped)])
    signer = finding.selected.signing.signers[0]
    assert (signer.trust, signer.sct_verified) == (ChainTrust.UNTRUSTED, None)
    assert finding.promises == (), "the entry carries no promise to a submitter"


def test_findings_of_one_batch_know_of_each_other() -> None:
    """A leave to sign once is used up by the first of two signings, in one batch as in two."""
    digest = f"sha256:{made.ARTIFACT}"
    stored = MemoryFacts(past=[PastSigning("acme", EntryRef("log", 1), NOW - timedelta(hours=2), frozenset({digest}))])
    past = BatchPastFacts(stored, NOW)
    found = judged([made.hashedrekord_v1(MINE), made.hashedrekord_v1(MINE), made.hashedrekord_v1(FORGED)])
    for finding in found:
        past.remember(finding)
    past.remember(replace(found[1], rule="calm", verdict=Verdict(Outcome.EXPECTED)))
    here = found[1].selected.signing.where
    assert past.times_signed("acme", digest, here) == 2
    assert past.times_signed("acme", digest, EntryRef("log", 99_999)) == 3
    assert past.times_signed("other", digest, here) == 0
    assert past.signings("acme", made.NOT_BEFORE - timedelta(seconds=1), NOW, here) == 1
    assert past.signings("acme", NOW - timedelta(hours=3), NOW, here) == 2
    assert past.signings("acme", made.NOT_BEFORE, NOW, here) == 0
    name = found[0].selected.signing.signers[0].names[0].value
    repository, own = "https://github.com/acme/widget", found[1].selected.certificates
    assert past.issuers_of("acme", name, frozenset()) == frozenset(), "what was unexpected is no past"
    assert past.issuers_of("calm", name, frozenset()) == frozenset([made.GITHUB_ISSUER])
    assert past.issuers_of("calm", name, own) == frozenset(), "a certificate is not the past of its own entry"
    assert past.repository_identifiers_of("calm", repository, frozenset()) == frozenset(["420001"])
    stored.issuers = stored.repository_identifiers = None
    assert past.issuers_of("calm", name, own) is None
    assert past.repository_identifiers_of("calm", repository, own) is None


def test_a_signing_can_be_told_apart_from_its_neighbour_under_several_rules() -> None:
    both = matcher(RULES + "  - {id: all, select: {issuer: '" + made.GITHUB_ISSUER + "'}}\n")
    found = judged([made.hashedrekord_v1(MINE), made.hashedrekord_v1(OTHERS)], rules=both)
    assert [(f.rule, f.selected.signing.where.index) for f in found] == [("acme", 1000), ("all", 1000), ("all", 1001)]
    assert all(isinstance(f.selected.signing, Signing) for f in found)


def test_an_entry_whose_signature_is_wrong_is_told_of_the_log_and_not_in_the_name_of_its_alleged_signer() -> None:
    """A person who makes a log take a made-up signature could otherwise page a victim and use up their leave."""
    forged = made.hashedrekord_v1(MINE, signature=made.PLACEHOLDER_SIGNATURE)
    real, wrong, again = judged([made.hashedrekord_v1(MINE), forged, forged])
    assert real.verdict.outcome is Outcome.UNEXPECTED, "control"
    assert [each.verdict.outcome for each in (wrong, again)] == [Outcome.UNVERIFIED] * 2
    assert wrong.verdict.reasons[0].id == "wrong-signature"
    assert wrong.selected.vouched == (), "it is no past, uses up nothing and answers nothing"
    rules = {rule.id: rule for rule in matcher().rules}
    alerts = alerts_of_findings([real, wrong, again], rules, NOW)
    assert [(alert.kind, alert.index) for alert in alerts] == [
        ("unexpected-signing", real.selected.signing.where.index),
        ("entry-signature-wrong", wrong.selected.signing.where.index),
    ]
    assert alerts[1].owner is Owner.LOG_MISBEHAVED
