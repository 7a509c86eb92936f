"""Facts fetched for a whole batch are those of each entry by itself: nothing slips to a neighbour."""

import random
from collections.abc import Sequence
from datetime import timedelta
from itertools import product
from typing import Final

from msgspec.structs import replace
from sqlalchemy import event

from monitor.following.scan_batch import BatchMatches, RuleScanner
from monitor.judging.judge import RuleJudge
from monitor.model.log_source import LogApi, LogEntry
from monitor.model.state import Batch, Finding, Hit
from monitor.store.authorisations import Authorisations
from monitor.store.database import Database
from monitor.store.findings import digests_of
from monitor.store.store import Store
from rules.facts import Authorisation
from rules.matching.matcher import compile_rules
from rules.rule import Outcome, Verdict
from rules.rule_file import load_rules
from sigstore_entries.signing import EntryRef
from sigstore_entries.trust import CertificateAuthorities, CertificateAuthority
from tests.support import entries as made
from tests.support.alerts import NOW
from tests.support.parts import a_position, a_store

LOG: Final = "rekor"
CA, STRANGER = made.make_ca(), made.make_ca("stranger")
TRUSTED = CertificateAuthorities([CertificateAuthority("ca", CA.chain)])
RULES = compile_rules(
    load_rules("""\
version: 1
rules:
  - {id: leave, select: {identity: {glob: "*acme*"}}, expect: {authorised: []}}
  - {id: issuer, select: {identity: {glob: "*acme*"}}, expect: {same_issuer: true}}
  - {id: repository, select: {source_repository_uri: {glob: "*acme*"}}, expect: {same_repository_identifier: true}}
  - {id: rate, select: {identity: {glob: "*@acme.example"}}, expect: {rate: {at_most: 12, per: 1h}}}
  - {id: leave-too, select: {identity: {glob: "*acme*"}}, expect: {authorised: []}}
  - {id: rate-too, select: {identity: {glob: "*@acme.example"}}, expect: {rate: {at_most: 20, per: 1h}}}
""").rules
)
DIGESTS: Final = [f"{number:064x}" for number in range(12)]


def certificates(new: int) -> list[bytes]:
    """Those of a few identities, under the issuers and repository identifiers they should and should not have."""
    people = [
        made.make_certificate(ca, san=f"{name}@acme.example", issuer=issuer)
        for ca, name, issuer in product(
            (CA, STRANGER), ("dev", "ops", f"new{new}"), ("https://1.example", "https://2.example")
        )
    ]
    workflows = []
    for ca, name, identifier in product((CA, STRANGER), ("widget", f"new{new}"), ("1", "2")):
        claims = made.github_claims(f"acme/{name}") | {"source_repository_identifier": identifier}
        san = claims["build_config_uri"]
        workflows.append(made.make_certificate(ca, san=san, issuer=made.GITHUB_ISSUER, claims=claims))
    return people + workflows


def a_log(seed: int, size: int) -> list[LogEntry]:
    """Entries some of which cannot be read, are there twice, carry several certificates, or concern no rule."""
    chance, known = random.Random(seed), certificates(seed)
    other = made.make_certificate(CA, san="somebody@else.example")
    entries: list[LogEntry] = []
    for _ in range(size):
        kind = chance.randrange(8)
        signers = chance.sample(known, chance.randint(1, 3))
        digest = chance.choice(DIGESTS)
        if kind == 0:
            leaf = b'{"kind": "hashedrekord", "acme'
        elif kind == 1:
            leaf = made.hashedrekord_v2(other, digest)
        elif kind == 2 and entries:
            leaf = chance.choice(entries).leaf
        elif kind in {3, 4}:
            leaf = made.dsse_v2(*signers, payload=digest)
        else:
            leaf = made.hashedrekord_v2(signers[0], digest)
        entries.append(LogEntry(leaf))
    return entries


def scan(entries: Sequence[LogEntry], start: int) -> BatchMatches:
    return RuleScanner(RULES).scan(entries, start, LOG, LogApi.REKOR_V2)


def a_past(store: Store, entries: Sequence[LogEntry]) -> int:
    """Follow these first, and give leave for some digests; returns where the store stands then."""
    given = Authorisations(store.database)
    for number, digest in enumerate(DIGESTS):
        for count in range(number % 3):
            given.add("leave", Authorisation(f"sha256:{digest}", 1 + count, NOW + timedelta(days=30)), NOW)
            given.add("leave-too", Authorisation(f"sha256:{digest}", 3 + count, NOW + timedelta(days=30)), NOW)
    store.baseline(a_position(0, 200, LOG), "index 0")
    commit(store, 0, len(entries), judge(store, scan(entries, 0).hits))
    return len(entries)


def judge(store: Store, hits: Sequence[Hit]) -> list[Finding]:
    return list(RuleJudge(RULES, store.facts, lambda: (TRUSTED, ())).judge(hits, NOW))


def commit(store: Store, start: int, end: int, findings: Sequence[Finding]) -> None:
    batch = Batch(LOG, start, end, tuple(findings))
    store.advance(a_position(start, 200, LOG), a_position(end, 200, LOG), batch, [])


def told(findings: Sequence[Finding]) -> list[tuple[int, str, Verdict]]:
    return [(finding.selected.signing.where.index, finding.rule, finding.verdict) for finding in findings]


def test_a_batch_is_judged_as_if_every_entry_came_alone(database: Database) -> None:
    store = a_store(database)
    first = a_past(store, a_log(1, 40))
    entries = a_log(2, 80)
    scanned = scan(entries, first)
    assert len(scanned.unreadable) > 3
    assert len({hit.signing.where for hit in scanned.hits}) > 50
    at_once = told(judge(store, scanned.hits))
    alone: list[tuple[int, str, Verdict]] = []
    for at, entry in enumerate(entries, first):
        found = judge(store, scan([entry], at).hits)
        commit(store, at, at + 1, found)
        alone += told(found)
    assert at_once == alone
    outcomes = {(rule, verdict.outcome) for _, rule, verdict in at_once}
    assert outcomes == {(rule.id, outcome) for rule in RULES.rules for outcome in Outcome}, "every verdict was at stake"


def test_what_is_asked_for_a_batch_is_what_is_asked_one_by_one(database: Database) -> None:
    """Also for entries that were found before: an answer never includes the entry it is about."""
    store = a_store(database)
    entries = a_log(3, 80)
    last = a_past(store, entries)
    hits = scan(entries, 0).hits + scan(a_log(4, 20), last).hits
    facts, single = store.facts.ahead(hits), store.facts.stored
    elsewhere = EntryRef("another log", 1)
    labelled = {found.selected.signing.where: found.selected.certificates for found in judge(store, hits)}
    for hit in hits:
        for besides in (hit.signing.where, elsewhere):
            for rule in (*hit.rules, "no such rule"):
                for digest in (*digests_of(hit.signing), "sha256:00"):
                    assert facts.authorised.authorisations(rule, digest) == single.authorised.authorisations(
                        rule, digest
                    )
                    counted = facts.past.times_signed(rule, digest, besides)
                    assert counted == single.past.times_signed(rule, digest, besides)
                for hours in (1, 30):
                    span = rule, NOW - timedelta(hours=hours), NOW + timedelta(hours=1), besides
                    assert facts.past.signings(*span) == single.past.signings(*span)
        certificates = sorted(labelled[hit.signing.where])
        for own in map(frozenset[bytes], ((), certificates[:1], certificates)):
            for rule in hit.rules:
                for name in (*(name.value for signer in hit.signing.signers for name in signer.names), "nobody"):
                    assert facts.past.issuers_of(rule, name, own) == single.past.issuers_of(rule, name, own)
                for signer in hit.signing.signers:
                    repository = signer.claims.get("source_repository_uri", "nowhere")
                    known = facts.past.repository_identifiers_of(rule, repository, own)
                    assert known == single.past.repository_identifiers_of(rule, repository, own)


def test_a_thousand_hits_are_no_thousand_queries(database: Database) -> None:
    """A rate looks at another time for each; all else is asked for hundreds of hits at once."""
    store = a_store(database)
    a_past(store, a_log(1, 40))
    mine = made.make_certificate(STRANGER, san="dev@acme.example", issuer="https://1.example")
    entries = [LogEntry(made.hashedrekord_v2(mine, f"{number:064x}")) for number in range(1000)]
    hits = [replace(hit, rules=("leave", "issuer")) for hit in scan(entries, 1000).hits]
    asked = 0

    def count(*_: object) -> None:
        nonlocal asked
        asked += 1

    event.listen(database.engine, "before_cursor_execute", count)
    judge(store, hits)
    event.remove(database.engine, "before_cursor_execute", count)
    assert len(hits) == 1000
    assert asked < 30


def test_hits_of_many_rules_are_judged_and_kept_with_few_statements(database: Database) -> None:
    """Patterns and certificates are asked for all rules of a batch at once, leave and rates for each rule."""
    matcher = compile_rules(
        load_rules(
            "version: 1\nrules:\n"
            + "".join(
                f"  - {{id: rule-{number}, select: {{identity: dev-{number}@acme.example}}}}\n" for number in range(100)
            )
        ).rules
    )
    entries = [
        LogEntry(
            made.hashedrekord_v2(
                made.make_certificate(CA, san=f"dev-{each}@acme.example"), DIGESTS[each % len(DIGESTS)]
            )
        )
        for each in range(100)
    ]
    store = a_store(database)
    store.baseline(a_position(0, 200, LOG), "index 0")
    asked = 0

    def count(*_: object) -> None:
        nonlocal asked
        asked += 1

    event.listen(database.engine, "before_cursor_execute", count)
    hits = RuleScanner(matcher).scan(entries, 0, LOG, LogApi.REKOR_V2).hits
    findings = RuleJudge(matcher, store.facts, lambda: (TRUSTED, ())).judge(hits, NOW)
    commit(store, 0, len(entries), findings)
    event.remove(database.engine, "before_cursor_execute", count)
    assert len({finding.rule for finding in findings}) == 100
    assert all(finding.verdict.outcome is Outcome.UNEXPECTED for finding in findings)
    assert asked < 40


def test_many_rules_with_a_past_of_their_own_on_one_name_are_asked_for_together(database: Database) -> None:
    """Subscribers of one name who each ask for announcements and known issuers: few queries, and an answer for each."""
    names = [f"own-{number}" for number in range(200)]
    expect = "expect: {authorised: [], same_issuer: true, rate: {at_most: 1, per: 1d}}"
    text = "".join(f"  - {{id: {name}, select: {{identity: dev@acme.example}}, {expect}}}\n" for name in names)
    rules = compile_rules(load_rules(f"version: 1\nrules:\n{text}").rules)
    store = a_store(database)
    given = Authorisation(f"sha256:{DIGESTS[0]}", 1, NOW + timedelta(days=30))
    Authorisations(database).add("own-7", given, NOW)
    mine = made.make_certificate(CA, san="dev@acme.example", issuer="https://1.example")
    [hit] = RuleScanner(rules).scan([LogEntry(made.hashedrekord_v2(mine, DIGESTS[0]))], 0, LOG, LogApi.REKOR_V2).hits
    asked = 0

    def count(*_: object) -> None:
        nonlocal asked
        asked += 1

    event.listen(database.engine, "before_cursor_execute", count)
    found = RuleJudge(rules, store.facts, lambda: (TRUSTED, ())).judge([hit], NOW)
    event.remove(database.engine, "before_cursor_execute", count)
    assert {each.rule for each in found if each.verdict.outcome is Outcome.EXPECTED} == {"own-7"}
    assert len(found) == len(names)
    # What an announced digest was signed already is asked for the one rule that announced it.
    assert asked < 30
