"""Promises that wait: kept until they are settled, on every engine that can run here, bounded and counted."""

from datetime import datetime, timedelta

import pytest
from msgspec.structs import replace
from sqlalchemy import text

from alerts.alert import Owner, Severity
from monitor.crosscheck.promise_audit import PromiseRounds, Round
from monitor.following.follower import LogFollower, Timing, baseline
from monitor.model.errors import Evidence, FetchFailed
from monitor.model.inclusion_promise import InclusionPromise
from monitor.model.log_source import PromisingSource, SignedHead
from monitor.store import promises as room
from monitor.store.database import Database
from monitor.store.fsck import fsck
from monitor.store.promises import PromiseTally
from monitor.store.reading import Reading
from monitor.store.store import Store
from tests.proof.test_promises import PROMISING, promise_of, with_entries
from tests.support import alerts
from tests.support.database_fixtures import database, postgres_url, where
from tests.support.harness import NOW, EverythingIsNews, NumberScanner
from tests.support.misbehaving_log import CtRfc6962Log, MisbehavingLog, RekorV1Log, spki_of
from tests.support.parts import a_store
from tests.support.promises import promised, signed_sct, signed_set

__all__ = ["database", "postgres_url", "where"]

promising = pytest.mark.parametrize("kind", PROMISING, ids=lambda k: k.api)


class Died(BaseException):
    """The process was killed here."""


LATER = NOW + timedelta(days=2)
# When the store of these tests thinks it is.
SINCE = alerts.NOW


def follow(store: Store, log: MisbehavingLog) -> None:
    source = log.source()
    if store.position(source.identity.log) is None:
        baseline(source, store, 0)
    LogFollower(source, store, NumberScanner(), EverythingIsNews(), Timing(lambda: NOW, lambda _: None)).run_pass()


def tally(store: Store) -> PromiseTally:
    """Numbers without those overdue: the promises of logs in memory are years old."""
    return replace(store.promises.tally(NOW), overdue=0)


def a_round(
    store: Store,
    log: MisbehavingLog,
    now: datetime = NOW,
    signed_at: datetime | None = None,
    head: SignedHead | None = None,
) -> Round:
    source = log.source()
    assert isinstance(source, PromisingSource)
    position = store.position(source.identity.log)
    assert position is not None
    return PromiseRounds(store.promises, source, store.keep_evidence).run(head or position.head.head, signed_at, now)


@promising
def test_19_promises_are_settled_once_the_log_reaches_them(kind: type[MisbehavingLog], database: Database) -> None:
    store, log = a_store(database), with_entries(kind, 70)
    follow(store, log)
    wanted = [promise_of(log, index, index) for index in (3, 69, 70, 75)]
    assert store.promises.remember(wanted, NOW) == 4
    assert store.promises.remember(wanted, NOW) == 0, "known ones are left alone"
    assert a_round(store, log).kept == 2
    assert tally(store) == PromiseTally(pending=2, kept=2)
    more = with_entries(kind, 90)
    log.append(*more.leaves[70:])
    follow(store, log)
    assert a_round(store, log, NOW + timedelta(minutes=1)).kept == 2
    assert tally(store) == PromiseTally(kept=4)
    assert fsck(database) == []


def test_19_a_promise_of_a_log_that_is_not_followed_is_not_kept(database: Database) -> None:
    store, log = a_store(database), with_entries(RekorV1Log, 5)
    other = with_entries(CtRfc6962Log, 5)
    assert store.promises.remember([promise_of(log, 3, 3), promise_of(other, 3, 3)], NOW) == 0
    follow(store, log)
    # Both logs of this test sign with one key; what makes them two is what they sign.
    assert store.promises.remember([promise_of(log, 3, 3), promise_of(other, 3, 3)], NOW) == 1


def test_19_two_logs_under_one_key_keep_their_own_promises(database: Database) -> None:
    store, rekor, ct = a_store(database), with_entries(RekorV1Log, 60), with_entries(CtRfc6962Log, 60)
    assert spki_of(rekor.log_key) == spki_of(ct.log_key), "control"
    follow(store, rekor)
    follow(store, ct)
    store.promises.remember([promise_of(rekor, 5, 5), promise_of(ct, 5, 5), promise_of(ct, 6, 6)], NOW)
    assert (a_round(store, rekor).kept, a_round(store, ct).kept) == (1, 2)
    assert Reading(database).evidence(10) == []


def test_19_killed_between_evidence_and_record_it_is_told_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, log = a_store(database), with_entries(RekorV1Log, 70)
    follow(store, log)
    store.promises.remember([promise_of(log, 4711, 40)], NOW)

    def die(*_: object) -> None:
        raise Died

    with monkeypatch.context() as dying:
        dying.setattr(store.promises, "broken", die)
        with pytest.raises(Died):
            a_round(store, log)
    assert len(Reading(database).evidence(10)) == 1, "evidence first"
    assert len(a_round(store, log).broken) == 1
    assert tally(store) == PromiseTally(broken=1)
    assert len(Reading(database).evidence(10)) == 1
    assert [each.alert.kind for each in Reading(database).alerts(1000)].count("log-promise-broken") == 1
    assert fsck(database) == []


@promising
def test_19_an_index_given_to_another_entry_is_told_at_once(kind: type[MisbehavingLog], database: Database) -> None:
    store, log = a_store(database), with_entries(kind, 70)
    follow(store, log)
    store.promises.remember([promise_of(log, 4711, 40), promise_of(log, 41, 41)], NOW)
    done = a_round(store, log)
    assert (done.kept, len(done.broken), done.unshown) == (1, 1, [])
    (kept,) = Reading(database).evidence(10)
    (alert,) = (each.alert for each in Reading(database).alerts(100) if each.alert.id == kept.id)
    assert (alert.kind, alert.owner, alert.severity) == ("log-promise-broken", Owner.LOG_MISBEHAVED, Severity.PAGE)
    assert dict(alert.facts)["Promised index"] == "40"
    assert kept.document["strength"] == "transferable"
    assert tally(store) == PromiseTally(kept=1, broken=1)
    assert a_round(store, log).broken == [], "told once"
    assert store.promises.remember([promise_of(log, 4711, 40)], NOW) == 0
    assert fsck(database) == []


def test_19_what_is_not_shown_is_held_against_the_log_in_the_third_round(database: Database) -> None:
    store, log = a_store(database), with_entries(RekorV1Log, 70)
    follow(store, log)
    store.promises.remember([promise_of(log, 40, 40)], NOW)
    log.hide_leaf(40)
    for _ in range(2):
        done = a_round(store, log)
        assert (len(done.unshown), done.broken) == (1, [])
    assert Reading(database).evidence(10) == []
    assert len(a_round(store, log).broken) == 1
    (kept,) = Reading(database).evidence(10)
    assert kept.document["strength"] == "record"


def test_19_an_entry_that_shows_up_late_is_kept_and_nobody_is_blamed(database: Database) -> None:
    store, log = a_store(database), with_entries(RekorV1Log, 70)
    follow(store, log)
    store.promises.remember([promise_of(log, 40, 40)], NOW)
    log.hide_leaf(40)
    for _ in range(2):
        a_round(store, log)
    log.honest()
    assert a_round(store, log).kept == 1
    assert Reading(database).evidence(10) == []


def test_19_a_replica_that_lags_does_not_page(database: Database) -> None:
    """Its heads are old: not one of them was signed after the promise was due."""
    store, log = a_store(database), with_entries(RekorV1Log, 70)
    follow(store, log)
    promise = promise_of(log, 80, 80)
    store.promises.remember([promise], NOW)
    for hour in range(10):
        done = a_round(store, log, NOW + timedelta(hours=hour), signed_at=promise.due(NOW))
        assert (done.unshown, done.broken) == ([], [])
    assert store.promises.tally(LATER) == PromiseTally(pending=1, overdue=1)


def test_19_a_tree_that_goes_on_and_never_reaches_the_index_is_blamed(database: Database) -> None:
    store, log = a_store(database), with_entries(RekorV1Log, 70)
    follow(store, log)
    store.promises.remember([promise_of(log, 80, 80)], NOW)
    rounds = [a_round(store, log, LATER, signed_at=LATER) for _ in range(3)]
    assert [len(done.broken) for done in rounds] == [0, 0, 1]


def test_19_a_certificate_is_looked_for_until_its_merge_delay_is_over(database: Database) -> None:
    store, log = a_store(database), CtRfc6962Log()
    log.grow(70)
    follow(store, log)
    promise = promised(log, signed_sct(log.log_key, log.leaf(80)))
    store.promises.remember([promise], NOW)
    for _ in range(5):
        done = a_round(store, log, NOW, signed_at=promise.at)
        assert (done.unshown, done.broken) == ([], [])
    assert len(log.asked) - len(set(log.asked)) < 40, "it is not asked for in every round"
    log.timestamp = int(LATER.timestamp() * 1000)
    rounds = [a_round(store, log, LATER, signed_at=LATER) for _ in range(3)]
    assert [len(done.broken) for done in rounds] == [0, 0, 1]


def test_19_an_outage_decides_nothing_and_is_not_a_try(database: Database) -> None:
    store, log = a_store(database), with_entries(RekorV1Log, 70)
    follow(store, log)
    store.promises.remember([promise_of(log, 40, 40), promise_of(log, 41, 41)], NOW)
    log.fail("retrieve", FetchFailed("down"))
    for minutes in range(0, 10, 2):
        done = a_round(store, log, NOW + timedelta(minutes=minutes))
        assert (done.kept, done.broken, done.unshown, done.unasked) == (0, [], [], "down")
    log.failures.clear()
    assert a_round(store, log, LATER).kept == 2


def test_19_a_fork_met_on_the_way_is_told_as_the_fork_it_is(database: Database) -> None:
    store, log = a_store(database), with_entries(RekorV1Log, 70)
    follow(store, log)
    store.promises.remember([promise_of(log, 10, 10)], NOW)
    log.rewrite_from(30)
    (evidence,) = a_round(store, log).broken
    assert evidence.kind == "log-forked"
    assert tally(store).pending == 1


def test_more_than_there_is_room_for_is_counted(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MAX_PENDING", 5)
    store, log = a_store(database), with_entries(RekorV1Log, 70)
    follow(store, log)
    many = [promise_of(log, 100 + n, 100 + n) for n in range(8)]
    assert store.promises.remember(many[:3], NOW) == 3
    assert store.promises.remember(many, NOW) == 2
    assert tally(store) == PromiseTally(pending=5, refused=3)
    assert fsck(database) == []


def test_what_stays_undecided_for_a_month_is_counted_and_let_go(database: Database) -> None:
    store, log = a_store(database), with_entries(RekorV1Log, 70)
    follow(store, log)
    store.promises.remember([promise_of(log, 100, 100)], NOW)
    a_round(store, log, NOW + timedelta(days=30))
    assert store.promises.tally(LATER) == PromiseTally(pending=1, overdue=1), "made years ago, known for a month"
    a_round(store, log, NOW + timedelta(days=30, seconds=1))
    assert store.promises.tally(LATER) == PromiseTally(undecided=1)


def test_fsck_verifies_every_promise_again(database: Database) -> None:
    store, log = a_store(database), with_entries(RekorV1Log, 70)
    follow(store, log)
    store.promises.remember([promise_of(log, 100, 100), promise_of(log, 101, 101)], NOW)
    assert fsck(database) == []
    (first, second) = sorted(promise_of(log, n, n).id for n in (100, 101))
    with database.write() as connection:
        connection.execute(text("UPDATE promise SET signature = statement WHERE id = :id"), {"id": first})
        connection.execute(
            text("UPDATE promise SET state = 'broken', evidence = 'none' WHERE id = :id"), {"id": second}
        )
    problems = fsck(database)
    assert [problem.split()[1] for problem in problems] == [first, second]
    assert "not what was kept" in problems[0]
    assert "no evidence" in problems[1]
    with database.write() as connection:
        connection.execute(
            text("UPDATE promise SET entry = 7, evidence = NULL, state = 'pending' WHERE id = :id"), {"id": second}
        )
    assert "another name" in fsck(database)[1]


def test_evidence_that_holds_a_promise_makes_it_one_to_be_asked_for(database: Database) -> None:
    """An entry was served, with the log's promise of it, that the tree does not hold."""
    store, log = a_store(database), with_entries(RekorV1Log, 70)
    follow(store, log)
    swapped: InclusionPromise = promised(log, signed_set(log.log_key, b"swapped", 30))
    source = log.source().identity
    bare = Evidence("v1", source.api, "log-entries-not-in-tree", "d", source.spki, source.key_name, (), event="e")
    store.keep_evidence(bare, ())
    assert tally(store) == PromiseTally()
    store.keep_evidence(replace(bare, event="f", promises=(swapped.signed,)), ())
    assert tally(store) == PromiseTally(pending=1)
    assert len(a_round(store, log, SINCE).broken) == 1
