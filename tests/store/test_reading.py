"""What people ask of the database, on every engine."""

from datetime import timedelta

from monitor.store.authorisations import Authorisations
from monitor.store.database import Database
from monitor.store.history import KeptRoot
from monitor.store.outbox import PENDING
from monitor.store.reading import Reading
from rules.facts import Authorisation
from tests.support.alerts import NOW
from tests.support.parts import (
    DIGEST,
    LOG,
    Clock,
    a_batch,
    a_finding,
    a_position,
    a_store,
    alert_for,
    some_evidence,
)


def test_the_alerts_that_one_digest_stood_for_can_be_listed(database: Database) -> None:
    store = a_store(database, ["mail"], Clock())
    store.enqueue([alert_for(index) for index in range(4)])
    claimed = store.outbox.claim("mail", NOW, timedelta(minutes=1), 3)
    store.outbox.bundle(claimed, "digest-1")
    reading = Reading(database)
    assert len(reading.alerts(10)) == 4, "control"
    told = reading.alerts(10, digest="digest-1")
    assert {each.alert.id for each in told} == {each.alert.id for each in claimed}
    assert len(told) == 3
    assert reading.alerts(10, digest="digest-2") == []


def test_every_question_has_the_same_answer_on_every_engine(database: Database) -> None:
    store = a_store(database, ["mail"], Clock())
    reading = Reading(database)
    store.record_head(a_position(9).head.head)
    store.baseline(a_position(0, 9), "index 0")
    store.advance(a_position(0, 9), a_position(3, 9), a_batch(0, 3, [a_finding(1)], [2]), [alert_for(1)])
    store.keep_evidence(some_evidence(), [])
    [sent] = store.outbox.claim("mail", NOW, timedelta(minutes=1), 3)
    store.outbox.give_up([sent], NOW, "no such address")
    given = Authorisations(database)
    number = given.add("acme-release", Authorisation(f"sha256:{DIGEST}", 2, NOW + timedelta(days=1), "1.4"), NOW)
    root = KeptRoot(0, "f0" * 32, b"{}", NOW)

    assert {log: each.baseline_how for log, each in reading.followed().items()} == {LOG: "index 0"}
    assert [(each.index, each.outcome) for each in reading.findings(9, outcome="unexpected")] == [(1, "unexpected")]
    assert reading.findings(9, outcome="expected") == []
    assert reading.outcomes() == {"unexpected": 1}
    assert reading.unreadable() == {(LOG, "malformed-json"): 1}
    assert reading.kinds() == {(LOG, "hashedrekord"): 3}
    assert [each.deliveries for each in reading.alerts(9, open_only=True)] == [{"mail": "given-up"}]
    assert [each.errors for each in reading.alerts(9, ids=[sent.alert.id])] == [{"mail": "no such address"}]
    assert (reading.given_up(), reading.pending()) == ({"mail": 1}, {})
    assert store.outbox.replay(NOW) == 1
    assert (reading.given_up(), reading.pending()) == ({}, {"mail": 1})
    assert reading.alerts(9)[0].deliveries == {"mail": PENDING}
    [kept] = reading.evidence(9)
    assert reading.evidence(9, prefix=kept.id[:8]) == [kept]
    assert reading.evidence(9, prefix="%") == []
    assert [(each.number, each.used) for each in reading.authorisations(lambda _rule, _digest: 7)] == [(number, 7)]
    assert (given.revoke(number, NOW), given.revoke(number, NOW)) == (True, False)
    assert store.record_trust_root(root, [])
    assert store.trust_roots() == [root]
