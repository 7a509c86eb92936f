"""Facts from the database mean what the rules' own tests mean by them."""

from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy import event, text

from alerts.alert import Owner
from monitor.model.state import Finding
from monitor.store.authorisations import Authorisations
from monitor.store.database import Database
from rules.facts import Authorisation
from rules.rule import Outcome, Verdict
from sigstore_entries.signing import ChainTrust, EntryRef, Signing
from tests.support.alerts import NOW
from tests.support.parts import DIGEST, LOG, Clock, a_batch, a_finding, a_position, a_signing, a_store

RULE = "acme-release"
HERE = EntryRef(LOG, 3)
ELSEWHERE = EntryRef(LOG, 99)


def expected(signing: Signing) -> Finding:
    return replace(a_finding(signing.where.index, signing=signing), verdict=Verdict(Outcome.EXPECTED))


def test_the_past_is_what_was_found_and_believed(database: Database) -> None:
    store = a_store(database)
    store.baseline(a_position(0, head=9), "index 0")
    findings = [
        expected(a_signing(1, issuer="https://one", repository="https://r")),
        expected(a_signing(2, issuer="https://fake", trust=ChainTrust.UNTRUSTED)),
        expected(a_signing(3, issuer="https://two", issued=b"3")),
        expected(a_signing(4, issuer="https://ct", kind="certificate")),
        a_finding(5, signing=a_signing(5, issuer="https://thief")),
    ]
    store.advance(a_position(0, head=9), a_position(6, head=9), a_batch(0, 6, findings), [])
    facts = store.facts.stored.past
    name = "release@acme.example"
    assert facts.issuers_of(RULE, name, frozenset()) == frozenset({"https://one", "https://two", "https://ct"})
    assert facts.issuers_of(RULE, name, frozenset({b"3"})) == frozenset({"https://one", "https://ct"})
    assert facts.issuers_of(RULE, "other@acme.example", frozenset()) == frozenset()
    assert facts.issuers_of("other", name, frozenset()) == frozenset(), "another rule is another past"
    assert facts.repository_identifiers_of(RULE, "https://r", frozenset()) == frozenset({"17"})
    assert facts.times_signed(RULE, f"sha256:{DIGEST}", ELSEWHERE) == 4
    assert facts.times_signed(RULE, f"sha256:{DIGEST}", HERE) == 3
    assert facts.times_signed("other", f"sha256:{DIGEST}", HERE) == 0
    assert facts.signings(RULE, NOW - timedelta(hours=1), NOW, ELSEWHERE) == 3, "certificates are no signings"
    assert facts.signings(RULE, NOW - timedelta(hours=1), NOW, HERE) == 2
    assert facts.signings(RULE, NOW, NOW + timedelta(hours=1), ELSEWHERE) == 0, "the beginning is left out"


def test_an_absence_counts_only_while_every_such_log_is_read(database: Database) -> None:
    clock = Clock()
    store = a_store(database, clock=clock)
    facts = store.facts.known
    assert facts.in_certificate_log(b"aa") is None, "no CT log is followed"
    facts.certificate_logs = frozenset({"ct"})
    assert facts.in_certificate_log(b"aa") is None, "it was never read"
    store.health.went_well("ct", NOW, NOW)
    assert facts.in_certificate_log(b"aa") is False
    clock.advance(hours=1)
    assert facts.in_certificate_log(b"aa") is None, "it was read too long ago"
    store.baseline(a_position(0, head=9), "index 0")
    finding = a_finding(0, signing=a_signing(0, kind="certificate", issued=b"aa"))
    store.advance(a_position(0, head=9), a_position(1, head=9), a_batch(0, 1, [finding]), [])
    assert facts.in_certificate_log(b"aa") is True
    assert facts.in_signature_log(b"aa") is None


def test_an_absence_counts_only_when_every_tree_of_every_such_log_was_read(database: Database) -> None:
    clock = Clock()
    store = a_store(database, clock=clock)
    store.facts.known.signature_logs = frozenset({"v1", "v2"})
    store.health.went_well("v2", NOW, NOW)
    assert store.facts.known.in_signature_log(b"aa") is None
    store.health.went_well("v1/11", NOW, NOW)
    assert store.facts.known.in_signature_log(b"aa") is False
    store.health.went_wrong("v1/22", NOW, Owner.COULD_NOT_ASK, "timeout", "too slow")
    assert store.facts.known.in_signature_log(b"aa") is None


def test_a_rate_is_counted_without_reading_past_what_nobody_vouches_for(database: Database) -> None:
    """Fifty thousand self-made certificates in the time a rate looks at must not be fifty thousand rows to skip."""
    if not database.is_sqlite:
        pytest.skip("SQLite says which index it reads, PostgreSQL decides by how much there is")
    steps: list[str] = []

    def explain(_: Any, cursor: Any, statement: str, parameters: Any, *__: Any) -> None:
        if "finding.signed_at" in statement:
            plan = cursor.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            steps.extend(row[3] for row in plan)

    event.listen(database.engine, "before_cursor_execute", explain)
    a_store(database).facts.stored.past.signings(RULE, NOW - timedelta(hours=1), NOW, HERE)
    event.remove(database.engine, "before_cursor_execute", explain)
    assert [step for step in steps if "finding_rate (rule=? AND signed_at>? AND signed_at<?)" in step], steps
    with database.read() as connection:
        kept = connection.execute(text("SELECT sql FROM sqlite_master WHERE name = 'finding_rate'")).scalar_one()
    assert kept.endswith("WHERE counts IS 1 AND certificate_log IS 0")


def test_authorisations_hold_until_revoked(database: Database) -> None:
    store, given = a_store(database), Authorisations(database)
    leave = Authorisation(f"sha256:{DIGEST}", 1, NOW + timedelta(hours=1), "release 1.4.2")
    number = given.add(RULE, leave, NOW)
    assert store.facts.stored.authorised.authorisations(RULE, leave.digest) == [leave]
    assert store.facts.stored.authorised.authorisations("other", leave.digest) == []
    assert given.revoke(number, NOW)
    assert not given.revoke(number, NOW)
    assert store.facts.stored.authorised.authorisations(RULE, leave.digest) == []


def test_what_a_log_lacked_is_known_from_the_last_pass_that_read_all_of_it(database: Database) -> None:
    store, log = a_store(database), "rekor"
    first, later = EntryRef(log, 5), NOW + timedelta(hours=1)
    assert store.facts.stored.past.absent_at(first) is None, "it was never read"
    store.health.went_well(log, NOW, NOW, read=(5, NOW))
    store.health.went_well(log, later, None)
    store.health.went_wrong(log, later, Owner.COULD_NOT_ASK, "timeout", "too slow")
    assert store.facts.stored.past.absent_at(first) == NOW, "a pass that read a part, or none, changes nothing"
    assert store.facts.stored.past.absent_at(EntryRef(log, 4)) is None, "it was there"
    store.health.went_well(log, later, None, read=(6, later))
    assert store.facts.stored.past.absent_at(first) is None
