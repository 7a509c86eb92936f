"""What must follow a signing is looked for when its time is over, once, after any events in between."""

import json
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from monitor.config import TrustConfig
from monitor.judging.active_rules import RuleKeeper
from monitor.judging.judge import RuleJudge
from monitor.judging.reevaluation import recheck
from monitor.model.state import Batch, Hit
from monitor.store.alert_life import AlertLife, ChangeAuthor
from monitor.store.database import Database
from monitor.store.fsck import fsck
from monitor.store.reading import Reading
from monitor.store.store import Store
from monitor.trust.provider import TrustKeeper
from sigstore_entries.entry import decode_ct, decode_rekor
from sigstore_entries.signing import EntryRef, Signing
from tests.support import entries as make
from tests.support.dying import die_before_each_statement
from tests.support.misbehaving_log import RekorV2Log
from tests.support.parts import Clock, a_position
from tests.support.served_log import CA, ServedLog

SIZE = 9
RULES = """\
version: 1
rules:
  - id: used
    select: {identity: dev@acme.example, kind: precertificate}
    expect: {issuer: "https://accounts.google.com", same_issuer: true, log_entry_within: 1h}
  - id: seen
    select: {identity: dev@acme.example, kind: hashedrekord}
    expect: {issuer: "https://accounts.google.com"}
  - {id: kept, select: {identity: dev@acme.example}, expect: {same_issuer: true}}
  - {id: anything, select: {any: [{kind: hashedrekord}, {kind: dsse}]}}
  - {id: named, select: {identity: dev@acme.example, kind: dsse}}
"""


class Site:
    """A store that follows a CT log and a Rekor log with rules from a file and a trust root."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.clock = Clock()
        self.clock.now = make.NOT_BEFORE
        self.store = Store(database, clock=self.clock, route=lambda _: ("mail",))
        ServedLog(RekorV2Log(), "http://127.0.0.1:1", folder).write_files()
        (folder / "rules.yaml").write_text(RULES, encoding="utf-8")
        self.rules = RuleKeeper(folder / "rules.yaml", ["mail"])
        self.trust = TrustKeeper(TrustConfig(trusted_root=folder / "trusted_root.json"), self.clock)
        self.store.facts.known.signature_logs = frozenset({"rekor"})
        for log in ("ct", "rekor"):
            self.store.record_head(a_position(SIZE, SIZE, log).head.head)
            self.store.baseline(a_position(0, SIZE, log), "index 0")

    def take(self, log: str, rule: str, signing: object, leaf: bytes) -> None:
        assert isinstance(signing, Signing)
        at = signing.where.index
        judge = RuleJudge(self.rules.held.matcher, self.store.facts, self.trust.authorities)
        findings = tuple(judge.judge([Hit(signing, (rule,), leaf)], self.clock()))
        batch = Batch(log, at, at + 1, findings, (), {"any": 1})
        alerts = judge.alerts(findings, self.clock())
        self.store.advance(a_position(at, SIZE, log), a_position(at + 1, SIZE, log), batch, alerts)

    def issue(self) -> None:
        _, tbs = make.make_precertificate(CA, san="dev@acme.example", serial=7)
        leaf = make.precert_leaf(CA, tbs)
        self.take("ct", "used", decode_ct(leaf, EntryRef("ct", 0)), leaf)

    def sign(self, issuer: str = make.GOOGLE_ISSUER, index: int = 0) -> None:
        certificate = make.make_certificate(CA, san="dev@acme.example", serial=7, issuer=issuer)
        self.log(make.hashedrekord_v2(certificate), index)

    def log(self, leaf: bytes, index: int = 0, rule: str = "seen") -> None:
        self.take("rekor", rule, decode_rekor(leaf, EntryRef("rekor", index)), leaf)

    def recheck(self) -> int:
        return recheck(self.store, self.rules.held, self.trust, self.clock()).looked_at

    def read_everything(self) -> None:
        self.store.health.went_well("rekor", self.clock(), self.clock())

    def alerts(self) -> list[tuple[str | None, int | None]]:
        return [(each.alert.rule, each.alert.index) for each in Reading(self.store.database).alerts(9)]


@pytest.fixture
def site(database: Database, tmp_path: Path) -> Site:
    return Site(database, tmp_path)


def test_a_certificate_that_no_entry_follows_is_told_once_its_time_is_over(site: Site) -> None:
    site.issue()
    assert (site.recheck(), site.alerts()) == (0, []), "control: there is an hour for it"
    site.clock.advance(hours=1)
    site.read_everything()
    assert (site.recheck(), site.alerts()) == (1, [("used", 0)])
    assert (site.recheck(), site.alerts()) == (0, [("used", 0)])
    [found] = Reading(site.store.database).findings(9)
    assert (found.outcome, [reason["id"] for reason in found.reasons]) == ("unexpected", ["certificate-without-entry"])
    assert fsck(site.store.database) == []
    assert json.dumps(found.signing), "what was found stays"


def test_an_entry_that_came_in_time_is_the_end_of_it(site: Site) -> None:
    site.issue()
    site.sign()
    site.clock.advance(hours=1)
    site.read_everything()
    assert (site.recheck(), site.recheck(), site.alerts()) == (1, 0, [])


def test_what_a_stranger_signed_since_is_not_held_against_it(site: Site) -> None:
    site.issue()
    site.sign()
    site.sign(issuer="https://stranger.example", index=1)
    site.clock.advance(hours=1)
    site.read_everything()
    assert (site.recheck(), site.alerts()) == (1, [("seen", 1)]), "the stranger's entry is news, the first one is not"
    outcomes = {(found.log, found.index): found.outcome for found in Reading(site.store.database).findings(9)}
    assert outcomes == {("ct", 0): "expected", ("rekor", 0): "expected", ("rekor", 1): "unexpected"}


@pytest.mark.parametrize("rule", ["named", "anything"])
def test_a_stranger_cannot_answer_an_awaited_certificate(site: Site, rule: str) -> None:
    """A bare key, a self-made certificate and a trusted one of another person: none is the entry that is awaited."""
    site.issue()
    mine = make.make_certificate(CA, san="dev@acme.example", serial=7, issuer=make.GOOGLE_ISSUER)
    key = (
        x509.load_der_x509_certificate(mine).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    )
    forged = make.make_certificate(make.make_ca("stranger"), san="dev@acme.example", serial=7)
    theirs = make.make_certificate(CA, san="thief@acme.example", serial=7)
    site.log(make.dsse_v1(forged, key, theirs), rule=rule)
    site.clock.advance(hours=1)
    site.read_everything()
    site.recheck()
    told = [alert for alert in site.alerts() if alert[0] == "used"]
    assert told == [("used", 0)], "the certificate is still without an entry"


def test_the_entry_made_with_the_awaited_certificate_answers_whichever_rule_selects_it(site: Site) -> None:
    site.issue()
    mine = make.make_certificate(CA, san="dev@acme.example", serial=7, issuer=make.GOOGLE_ISSUER)
    site.log(make.hashedrekord_v2(mine), rule="anything")
    site.clock.advance(hours=1)
    site.read_everything()
    site.recheck()
    assert ("used", 0) not in site.alerts()


def test_a_second_theft_is_as_unexpected_as_the_first_until_it_is_acknowledged(site: Site) -> None:
    """Also when the certificate was met first in a CT log: it is not the past of its own entry."""
    for index, issuer in enumerate((make.GOOGLE_ISSUER, "https://thief.example")):
        certificate = make.make_certificate(CA, san="dev@acme.example", serial=index, issuer=issuer)
        site.log(make.hashedrekord_v2(certificate), index, "kept")
    stolen = make.make_certificate(CA, san="dev@acme.example", serial=8, issuer="https://thief.example")
    site.take("ct", "kept", decode_ct(make.x509_leaf(stolen), EntryRef("ct", 0)), make.x509_leaf(stolen))
    site.log(make.hashedrekord_v2(stolen), 2, "kept")
    outcomes = [found.outcome for found in Reading(site.store.database).findings(9) if found.outcome != "expected"]
    assert outcomes == ["unexpected"] * 3
    [alert, *_] = [each for each in Reading(site.store.database).alerts(9) if each.alert.index == 1]
    AlertLife(site.store.database, []).acknowledge(
        alert.alert.id, ChangeAuthor("a", "moved to another provider"), site.clock()
    )
    later = make.make_certificate(CA, san="dev@acme.example", serial=9, issuer="https://thief.example")
    site.log(make.hashedrekord_v2(later), 3, "kept")
    assert {found.outcome for found in Reading(site.store.database).findings(9) if found.index == 3} == {"expected"}


def test_an_outage_of_the_other_log_is_not_held_against_a_signing(site: Site) -> None:
    site.issue()
    site.clock.advance(hours=3)
    assert (site.recheck(), site.alerts()) == (1, []), "what the log shows is unknown"
    site.clock.advance(minutes=2)
    site.read_everything()
    assert (site.recheck(), site.alerts()) == (1, [("used", 0)])


def test_a_rule_that_is_gone_asks_no_more(site: Site, tmp_path: Path) -> None:
    site.issue()
    (tmp_path / "rules.yaml").write_text(RULES.replace("id: used", "id: other"), encoding="utf-8")
    site.rules.reload()
    site.clock.advance(hours=2)
    site.read_everything()
    assert (site.recheck(), site.recheck(), site.alerts()) == (1, 0, [])


def test_a_certificate_met_late_waits_until_the_other_log_was_read_too(site: Site) -> None:
    """After an outage of ours the certificate log may be read to its end before the log that shows the entry."""
    site.read_everything()
    site.clock.advance(hours=5)
    site.issue()
    assert site.alerts() == [], "what the other log shows is not known yet"
    assert (site.recheck(), site.alerts()) == (1, [])
    site.sign()
    site.read_everything()
    site.clock.advance(minutes=2)
    assert (site.recheck(), site.recheck(), site.alerts()) == (1, 0, [])


def test_a_log_read_before_the_time_was_over_says_nothing_of_what_came_since(site: Site) -> None:
    site.issue()
    site.clock.advance(minutes=55)
    site.read_everything()
    site.clock.advance(minutes=5)
    assert (site.recheck(), site.alerts()) == (1, []), "it was read five minutes ago, and there are five more to read"
    site.clock.advance(minutes=2)
    site.read_everything()
    assert (site.recheck(), site.alerts()) == (1, [("used", 0)])


def test_a_second_judgement_is_kept_with_its_alert_or_not_at_all(site: Site) -> None:
    site.issue()
    site.clock.advance(hours=1)
    site.read_everything()
    deaths = die_before_each_statement(site.store.database, site.recheck)
    assert deaths > 5, "there are steps to die at"
    assert (site.recheck(), site.alerts()) == (0, [("used", 0)])
    assert fsck(site.store.database) == []
