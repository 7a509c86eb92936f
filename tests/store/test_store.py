"""What `monitor.model.state.State` guarantees, kept by the database on every engine."""

import json

import pytest
from msgspec.structs import replace
from sqlalchemy import func, select, update

from monitor.model.errors import Evidence, OwnFault, StateConflict
from monitor.store.database import Database, open_database
from monitor.store.findings import json_text
from monitor.store.fsck import fsck
from monitor.store.reading import Reading
from monitor.store.sql import Base, table
from monitor.store.tables import DeliveryRow, EvidenceRow, FindingRow, HeadRow, LogPosition
from rules.rule import Outcome, Reason, Verdict
from tests.support.parts import (
    LOG,
    Clock,
    a_batch,
    a_finding,
    a_head,
    a_position,
    a_signing,
    a_store,
    alert_for,
    some_evidence,
)


def count(database: Database, model: type[Base]) -> int:
    with database.read() as connection:
        return connection.execute(select(func.count()).select_from(table(model))).scalar_one()


def test_a_log_nobody_baselined_has_no_position(database: Database) -> None:
    assert a_store(database).position(LOG) is None


def test_a_position_comes_back_exactly_as_it_went_in(database: Database, where: str) -> None:
    position = a_position(7, head=11)
    a_store(database).baseline(position, "head 7 of 11")
    again = open_database(where)
    assert a_store(again).position(LOG) == position
    again.close()
    followed = Reading(database).followed()[LOG]
    assert (followed.baseline_size, followed.baseline_how) == (7, "head 7 of 11")


def test_a_log_is_baselined_once(database: Database) -> None:
    store = a_store(database)
    store.baseline(a_position(3), "head")
    with pytest.raises(StateConflict):
        store.baseline(a_position(5), "again")
    assert store.position(LOG) == a_position(3)


def test_findings_unreadable_outbox_and_position_commit_together(database: Database) -> None:
    store = a_store(database)
    store.baseline(a_position(0, head=9), "index 0")
    store.record_head(a_position(9).head.head)
    store.advance(a_position(0, head=9), a_position(4, head=9), a_batch(0, 4, [a_finding(2)], [3]), [alert_for(2)])
    assert store.position(LOG) == a_position(4, head=9)
    reading = Reading(database)
    assert [(f.index, f.rule, f.outcome) for f in reading.findings(10)] == [(2, "acme-release", "unexpected")]
    assert reading.unreadable() == {(LOG, "malformed-json"): 1}
    assert reading.kinds() == {(LOG, "hashedrekord"): 4}
    assert {channel: waiting.pending for channel, waiting in store.outbox.backlog().items()} == {"mail": 1, "hook": 1}
    assert fsck(database) == []


def test_nothing_of_a_conflicting_advance_is_kept(database: Database) -> None:
    store = a_store(database)
    store.baseline(a_position(0, head=9), "index 0")
    store.advance(a_position(0, head=9), a_position(4, head=9), a_batch(0, 4), [])
    with pytest.raises(StateConflict):
        store.advance(a_position(0, head=9), a_position(2, head=9), a_batch(0, 2, [a_finding(1)]), [alert_for(1)])
    assert (count(database, FindingRow), count(database, DeliveryRow)) == (0, 0)
    assert store.position(LOG) == a_position(4, head=9)


@pytest.mark.parametrize("other", [a_position(4, head=8), a_position(3, head=9), a_position(4, head=9, log="other")])
def test_only_the_very_position_that_was_read_can_be_moved(database: Database, other: object) -> None:
    store = a_store(database)
    store.baseline(a_position(4, head=9), "index 4")
    control = a_position(4, head=9)
    with pytest.raises((StateConflict, OwnFault, ValueError)):
        store.advance(other, a_position(6, head=9), a_batch(4, 6), [])  # type: ignore[arg-type]
    store.advance(control, a_position(6, head=9), a_batch(4, 6), [])


def test_a_position_never_goes_back_or_beyond_its_head(database: Database) -> None:
    store = a_store(database)
    store.baseline(a_position(4, head=9), "index 4")
    for wrong in (a_position(2, head=9), a_position(8, head=6)):
        with pytest.raises((OwnFault, ValueError)):
            store.advance(a_position(4, head=9), wrong, a_batch(4, wrong.frontier.size), [])


def test_a_finding_known_already_enqueues_no_second_alert(database: Database) -> None:
    store = a_store(database)
    store.baseline(a_position(0, head=9), "index 0")
    with database.write() as connection:
        from monitor.store.findings import add_findings  # noqa: PLC0415

        add_findings(connection, [a_finding(2)], Clock()())
    store.advance(a_position(0, head=9), a_position(4, head=9), a_batch(0, 4, [a_finding(2)]), [alert_for(2)])
    assert count(database, DeliveryRow) == 0


def test_an_alert_that_was_ever_enqueued_is_not_repeated(database: Database) -> None:
    store = a_store(database)
    store.enqueue([alert_for(1), alert_for(1)])
    store.enqueue([alert_for(1)])
    assert count(database, DeliveryRow) == 2
    later = a_store(database, ["pager"])
    later.enqueue([alert_for(1)])
    assert count(database, DeliveryRow) == 2, "not even when channels were added since"


def test_evidence_is_kept_once_with_its_alerts(database: Database) -> None:
    store = a_store(database)
    assert store.keep_evidence(some_evidence(), [alert_for(1)])
    assert not store.keep_evidence(some_evidence(), [alert_for(2)])
    assert store.keep_evidence(some_evidence("size 4"), [alert_for(3)])
    assert count(database, EvidenceRow) == 2
    assert [each.alert.index for each in Reading(database).alerts(10)] == [1, 3]


def test_heads_are_kept_for_ever_and_chained(database: Database) -> None:
    store = a_store(database)
    for head in (a_head(1), a_head(2), a_head(1), a_head(2, b"x" * 32), a_head(2, final=True), a_head(1, log="ct")):
        store.record_head(head)
    assert count(database, HeadRow) == 5, "a repeated statement adds nothing; another root or the freeze does"
    assert fsck(database) == []


@pytest.mark.parametrize(
    ("model", "values", "told"),
    [
        (HeadRow, {"raw": b"another note"}, "not the one that was recorded"),
        (HeadRow, {"number": 7}, "is missing"),
        (LogPosition, {"frontier": b""}, "damaged"),
        (LogPosition, {"head_root": b"y" * 32}, "do not hash to the root"),
        (EvidenceRow, {"document": "{}"}, "cannot be read"),
        (DeliveryRow, {"state": "delivered"}, "ended at no time"),
        (FindingRow, {"entry": 99}, "beyond the verified position"),
        (FindingRow, {"rule": "another"}, "0 alerts instead of one"),
    ],
)
def test_fsck_notices_what_was_changed_behind_its_back(
    database: Database, model: type[Base], values: dict[str, object], told: str
) -> None:
    store = a_store(database)
    store.baseline(a_position(0, head=4), "index 0")
    store.record_head(a_position(4).head.head)
    store.advance(a_position(0, head=4), a_position(4), a_batch(0, 4, [a_finding(2)]), [alert_for(2)])
    store.keep_evidence(some_evidence(), [])
    assert fsck(database) == [], "control: untouched, it is sound"
    with database.write() as connection:
        connection.execute(update(table(model)).values(**values))
    assert any(told in problem for problem in fsck(database))


def test_what_an_attacker_wrote_is_stored_whatever_it_is(database: Database) -> None:
    """A text that a database refuses would stop a log from being followed for ever."""
    store = a_store(database)
    hostile = "\x00\\0\ud800\u202e" + "x" * 100_000
    store.baseline(a_position(0, head=2), "index 0")
    signing = a_signing(0, identity=hostile, issuer=hostile, repository=hostile, kind=hostile)
    finding = replace(a_finding(0, signing=signing), verdict=Verdict(Outcome.EXPECTED))
    store.advance(a_position(0, head=2), a_position(1, head=2), a_batch(0, 1, [finding]), [])
    found = Reading(database).findings(1)[0]
    assert found.signing["signers"][0]["names"][0]["value"] == hostile
    assert store.facts.stored.past.issuers_of("acme-release", hostile, frozenset()) == frozenset({hostile})


def test_rules_know_what_they_were_offered(database: Database) -> None:
    store = a_store(database)
    store.baseline(a_position(2, head=9), "index 2")
    store.coverage.activate(LOG, {"old": "s1"})
    store.advance(a_position(2, head=9), a_position(5, head=9), a_batch(2, 5), [])
    store.coverage.activate(LOG, {"old": "s1", "new": "s2"})
    store.advance(a_position(5, head=9), a_position(8, head=9), a_batch(5, 8), [])
    assert store.coverage.of_rule(LOG, "old", "s1").ranges == ((2, 8),)
    new = store.coverage.of_rule(LOG, "new", "s2")
    assert (new.ranges, new.missing(2, 8)) == (((5, 8),), ((2, 5),))
    assert store.coverage.active() == {LOG: (2, 1)}
    store.coverage.offered(LOG, {"new": "s2"}, 2, 5)
    assert store.coverage.of_rule(LOG, "new", "s2").missing(2, 8) == ()
    store.coverage.activate(LOG, {"old": "changed"})
    store.advance(a_position(8, head=9), a_position(9), a_batch(8, 9), [])
    assert store.coverage.of_rule(LOG, "old", "s1").ranges == ((2, 8),)
    assert store.coverage.of_rule(LOG, "old", "changed").ranges == ((8, 9),)
    assert fsck(database) == [f"{LOG}: the stored head of size 9 is not in the history of heads"]


def test_evidence_nobody_can_conclude_from_is_kept_all_the_same(database: Database) -> None:
    store = a_store(database)
    odd = Evidence(LOG, "rekor-v2", "log-forked", "odd", b"no key", "log.example", (b"no note", b"at all"))
    assert store.keep_evidence(odd, [alert_for(1)])
    assert Reading(database).evidence(10)[0].document["strength"] == "record"


@pytest.mark.parametrize("text", ["plain", "\x00nul", "\ud800 half a pair", "\u2028line", 'quote " and \\'])
def test_any_name_is_kept_in_a_document_as_it_was(text: str) -> None:
    assert json.loads(json_text((Reason("id", text), {"claims": {text: [text, None]}}))) == [
        {"id": "id", "sentence": text, "expected": "", "found": ""},
        {"claims": {text: [text, None]}},
    ]
