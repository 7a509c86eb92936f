"""A certificate in a CT log and the log entry made with it are one event: one alert, whichever is read first."""

from datetime import timedelta

import pytest
from sqlalchemy import select

from alerts.outbox import Delivery
from monitor.judging.judge import RuleJudge
from monitor.model.state import Batch, Hit
from monitor.store.database import Database
from monitor.store.fsck import fsck
from monitor.store.reading import Reading
from monitor.store.sql import table
from monitor.store.store import Store
from monitor.store.tables import DeliveryRow
from rules.matching.matcher import compile_rules
from rules.rule_file import load_rules
from sigstore_entries.entry import decode_ct, decode_rekor
from sigstore_entries.signing import EntryRef, Signing
from sigstore_entries.trust import CertificateAuthorities, CertificateAuthority
from tests.support import entries as make
from tests.support.dying import die_before_each_statement
from tests.support.parts import Clock, a_position

CA = make.make_ca()
TRUSTED = CertificateAuthorities([CertificateAuthority("ca", CA.chain)])
CT_LOG = make.make_ct_log()
HOLD = timedelta(seconds=60)
SIZE = 9
RULES = """\
version: 1
rules:
  - {id: acme, select: {identity: dev@acme.example}}
  - {id: broad, select: {identity: {glob: "*@acme.example"}}}
  - {id: digest, select: {identity: dev@acme.example}, expect: {digests: ["sha256:%s"]}}
  - {id: both, select: {identity: dev@acme.example}, expect: {digests: ["sha256:%s"], issuer: "https://other.example"}}
"""
MATCHER = compile_rules(load_rules(RULES % (make.ARTIFACT, make.ARTIFACT)).rules)


class Site:
    """A store that follows a CT log and a Rekor log, read entry by entry in the order a test chooses."""

    def __init__(self, database: Database, channels: tuple[str, ...] = ("mail", "hook")) -> None:
        self.clock = Clock()
        self.store = Store(database, clock=self.clock, route=lambda _: channels, certificate_hold=HOLD)
        self.judge = RuleJudge(MATCHER, self.store.facts, lambda: (TRUSTED, ()))
        self.read = {"ct": 0, "rekor": 0}
        for log in self.read:
            self.store.record_head(a_position(SIZE, SIZE, log).head.head)
            self.store.baseline(a_position(0, SIZE, log), "index 0")

    def take(self, log: str, signing: Signing, leaf: bytes, only: str = "acme") -> None:
        """Commit one entry as the next of its log."""
        at = self.read[log]
        findings = tuple(self.judge.judge([Hit(signing, (only,), leaf)], self.clock()))
        alerts = self.judge.alerts(findings, self.clock())
        batch = Batch(log, at, at + 1, findings, (), {"any": 1})
        self.store.advance(a_position(at, SIZE, log), a_position(at + 1, SIZE, log), batch, alerts)
        self.read[log] = at + 1

    def issue(self, serial: int = 7, only: str = "acme") -> None:
        _, tbs = make.make_precertificate(CA, san="dev@acme.example", serial=serial)
        leaf = make.precert_leaf(CA, tbs)
        signing = decode_ct(leaf, EntryRef("ct", self.read["ct"]))
        assert isinstance(signing, Signing)
        self.take("ct", signing, leaf, only)

    def sign(self, serial: int = 7, only: str = "acme", *, forged: bool = False) -> None:
        certificate = make.make_certificate(CA, san="dev@acme.example", serial=serial, ct_log=CT_LOG)
        if forged:
            certificate = certificate[:-1] + bytes([certificate[-1] ^ 1])
        leaf = make.hashedrekord_v2(certificate)
        signing = decode_rekor(leaf, EntryRef("rekor", self.read["rekor"]))
        assert isinstance(signing, Signing)
        self.take("rekor", signing, leaf, only)

    def due(self, channel: str = "mail") -> list[Delivery]:
        return list(self.store.outbox.claim(channel, self.clock(), timedelta(seconds=1), 100))

    def told(self, after: float = 0, channel: str = "mail") -> list[tuple[str | None, int | None]]:
        """What is delivered to a channel once `after` seconds have passed."""
        self.clock.advance(seconds=after)
        found = self.due(channel)
        self.store.outbox.delivered(found, self.clock())
        return [(each.alert.log, each.alert.index) for each in found]


@pytest.fixture
def site(database: Database) -> Site:
    return Site(database)


def test_a_certificate_nobody_used_is_alerted_once_the_hold_is_over(site: Site) -> None:
    site.issue()
    assert site.told(after=59) == []
    site.clock.advance(seconds=1)
    [delivery] = site.due()
    assert (delivery.alert.log, delivery.alert.index) == ("ct", 0)
    assert "No log entry has used it yet" in delivery.alert.summary
    assert delivery.enqueued_at == site.clock(), "it has not been waiting longer than it should"


def test_the_entry_made_with_a_certificate_takes_its_place_and_names_both_logs(site: Site) -> None:
    site.issue()
    site.clock.advance(seconds=20)
    site.sign()
    [delivery] = site.due()
    assert (delivery.alert.log, delivery.alert.index) == ("rekor", 0)
    assert delivery.alert.facts[-1] == ("Backed by", "rekor #0, ct #0")
    site.store.outbox.delivered([delivery], site.clock())
    assert site.told(after=3600) == []
    assert site.told(channel="hook") == [("rekor", 0)]
    assert site.store.outbox.backlog() == {}


def test_a_certificate_read_after_its_entry_is_told_to_nobody(site: Site) -> None:
    site.sign()
    site.issue()
    assert [kept.alert.log for kept in Reading(site.store.database).alerts(9, open_only=True)] == ["rekor"]
    assert fsck(site.store.database) == [], "each finding has its alert on record"
    assert site.told(after=3600) == [("rekor", 0)]
    found = Reading(site.store.database).findings(9)
    assert sorted((each.log, each.outcome) for each in found) == [("ct", "unexpected"), ("rekor", "unexpected")]


def test_a_withdrawn_alert_stays_on_record_and_asks_for_nothing(site: Site) -> None:
    site.issue()
    site.sign()
    reading = Reading(site.store.database)
    assert [kept.alert.log for kept in reading.alerts(9, open_only=True)] == ["rekor"]
    [withdrawn] = [kept for kept in reading.alerts(9) if kept.alert.log == "ct"]
    assert withdrawn.deliveries == {"mail": "withdrawn", "hook": "withdrawn"}
    assert withdrawn.note is not None
    assert site.store.outbox.replay(site.clock()) == 0
    assert fsck(site.store.database) == []


def test_only_the_same_certificate_under_the_same_rule_is_one_event(site: Site) -> None:
    site.issue(serial=7)
    site.sign(serial=8)
    site.sign(serial=7, only="broad")
    assert site.told() == [("rekor", 0), ("rekor", 1)]
    assert site.told(after=60) == [("ct", 0)]


def test_a_certificate_of_nobody_takes_no_place(site: Site) -> None:
    """Anybody can make a certificate whose contents, and so whose key, are those of a real one."""
    site.issue()
    site.sign(forged=True)
    assert site.told() == [("rekor", None)], "one line for the digest"
    assert site.told(after=60) == [("ct", 0)]


def test_what_was_told_before_the_entry_came_is_not_taken_back(site: Site) -> None:
    site.issue()
    assert site.told(after=61) == [("ct", 0)]
    site.sign()
    assert site.told(after=1) == [("rekor", 0)], "that it was used is news"
    with site.store.database.read() as connection:
        sent = table(DeliveryRow)
        states = connection.execute(select(sent.c.channel, sent.c.state).order_by(sent.c.id)).all()
    assert [tuple(row) for row in states] == [
        ("mail", "delivered"),
        ("hook", "withdrawn"),
        ("mail", "delivered"),
        ("hook", "pending"),
    ]


@pytest.mark.parametrize("only", ["acme", "digest"])
def test_a_withdrawal_is_made_with_the_entry_or_not_at_all(site: Site, only: str) -> None:
    """An entry that is alerted takes the place, one that is as expected answers: both in the entry's transaction."""
    site.issue(only=only)
    site.clock.advance(seconds=20)
    deaths = die_before_each_statement(site.store.database, lambda: site.sign(only=only))
    assert deaths > 10, "there are steps to die at"
    states = {kept.alert.log: kept.deliveries["mail"] for kept in Reading(site.store.database).alerts(9)}
    assert states == {"ct": "withdrawn"} | ({"rekor": "pending"} if only == "acme" else {})
    assert fsck(site.store.database) == []


def test_a_delivery_under_way_is_left_to_end(site: Site) -> None:
    site.issue()
    site.clock.advance(seconds=61)
    [under_way] = site.due()
    site.sign()
    site.store.outbox.delivered([under_way], site.clock())
    assert {each.deliveries["mail"] for each in Reading(site.store.database).alerts(9)} == {"delivered", "pending"}


def test_what_was_put_into_a_digest_stays_in_it(site: Site) -> None:
    """The receiver may have the digest already: the same key must not come with another content."""
    site.issue()
    site.issue(serial=8)
    site.clock.advance(seconds=61)
    together = site.due()
    site.store.outbox.bundle(together, "digest-1")
    site.store.outbox.failed(together, attempts=1, retry_at=site.clock(), error="no answer in time")
    site.sign()
    site.clock.advance(seconds=2)
    assert [(each.alert.log, each.alert.index, each.digest) for each in site.due()] == [
        ("ct", 0, "digest-1"),
        ("ct", 1, "digest-1"),
    ]


def test_one_certificate_in_two_places_of_a_ct_log_is_one_event(site: Site) -> None:
    site.issue()
    site.issue()
    assert site.told(after=61) == [("ct", 0)]


def test_signing_twice_with_one_certificate_is_two_events(site: Site) -> None:
    site.issue()
    site.sign()
    site.sign()
    assert site.told(after=61) == [("rekor", 0), ("rekor", 1)]


def test_findings_that_nobody_is_told_of_take_no_place(site: Site) -> None:
    """A scan that only records must not silence what following found."""
    site.issue()
    site.sign()
    database = site.store.database
    silent = Store(database, clock=site.clock, route=lambda _: ())
    other = RuleJudge(MATCHER, silent.facts, lambda: (TRUSTED, ()))
    certificate = make.make_certificate(CA, san="dev@acme.example", serial=9, ct_log=CT_LOG)
    leaf = make.hashedrekord_v2(certificate)
    signing = decode_rekor(leaf, EntryRef("rekor", 0))
    assert isinstance(signing, Signing)
    findings = tuple(other.judge([Hit(signing, ("broad",), leaf)], site.clock()))
    batch = Batch("rekor", 0, 1, findings)
    silent.record_scan(batch, {"broad": "x"}, other.alerts(findings, site.clock()))
    site.issue(serial=9, only="broad")
    assert site.told() == [("rekor", 0)]
    assert site.told(after=61) == [("ct", 1)]


@pytest.mark.parametrize("first", ["ct", "rekor"])
def test_an_expected_entry_answers_what_its_certificate_left_open_and_nothing_else(site: Site, first: str) -> None:
    """A certificate names no artifact, so a rule that lists digests cannot know before the entry comes."""
    for rule in ("digest", "both"):
        both = [lambda rule=rule: site.issue(only=rule), lambda rule=rule: site.sign(only=rule)]
        for step in both if first == "ct" else reversed(both):
            step()
    outcomes = {(each.log, each.rule): each.outcome for each in Reading(site.store.database).findings(9)}
    assert outcomes["rekor", "digest"] == "expected"
    assert outcomes["ct", "digest"] == outcomes["rekor", "both"] == "unexpected"
    assert site.told(after=61) == [("rekor", 1)]
    assert fsck(site.store.database) == []


def test_a_certificate_that_lacks_only_a_digest_is_told_when_no_entry_follows(site: Site) -> None:
    site.issue(only="digest")
    assert site.told(after=61) == [("ct", 0)]
