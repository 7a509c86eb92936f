"""What scans and bundles leave in the database, on every engine that can run here."""

from monitor.model.state import Batch
from monitor.store.coverage import Gap
from monitor.store.database import Database
from monitor.store.fsck import fsck
from monitor.store.reading import Reading
from monitor.store.views import KeptView, Views, tree_id
from tests.support.alerts import NOW
from tests.support.database_fixtures import database, postgres_url, where
from tests.support.parts import LOG, a_batch, a_finding, a_position, a_store, alert_for
from tlog.merkle import NodeHash, RootHash

__all__ = ["database", "postgres_url", "where"]


def test_ranges_that_follow_each_other_are_one_row(database: Database) -> None:
    store = a_store(database)
    store.record_head(a_position(200).head.head)
    store.baseline(a_position(200), "test")
    rules = {"new": "a", "newer": "b"}
    for first, last in ((0, 64), (64, 128), (128, 200)):
        store.record_scan(Batch(LOG, first, last), rules, ())
    assert store.coverage.of_rule(LOG, "new", "a").ranges == ((0, 200),)
    assert store.coverage.of_rule(LOG, "new", "b").ranges == ()
    with database.read() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM scanned_range").scalar_one() == 2
    assert fsck(database) == []


def test_gaps_are_told_per_set_of_rules_and_many_rules_cost_one_question(database: Database) -> None:
    store = a_store(database)
    store.record_head(a_position(200).head.head)
    store.baseline(a_position(200), "test")
    rules = {f"rule-{number}": "s" for number in range(2000)}
    store.coverage.activate(LOG, dict(list(rules.items())[:1000]))
    store.record_scan(Batch(LOG, 50, 80), rules, ())
    late = frozenset(list(rules)[1000:])
    assert store.coverage.gaps(LOG, rules, 0, 200) == [
        Gap(0, 50, frozenset(rules)),
        Gap(80, 200, frozenset(rules)),
    ]
    store.record_scan(Batch(LOG, 80, 200), {rule: "s" for rule in rules if rule not in late}, ())
    assert store.coverage.gaps(LOG, rules, 60, 150) == [Gap(80, 150, late)]


def test_a_back_scanned_batch_that_is_committed_twice_has_one_alert(database: Database) -> None:
    store = a_store(database)
    store.record_head(a_position(20).head.head)
    store.baseline(a_position(20), "test")
    batch = a_batch(0, 20, [a_finding(7)], unreadable=[3])
    for _ in range(2):
        store.record_scan(batch, {"acme-release": "s"}, [alert_for(7)])
    (alert,) = Reading(database).alerts(10)
    assert set(alert.deliveries) == {"mail", "hook"}
    assert Reading(database).kinds() == {}, "kinds are counted once, by following"
    assert sum(Reading(database).unreadable().values()) == 1


def a_view(index: int, root: bytes = b"r" * 32) -> KeptView:
    return KeptView(tree_id(b"key", "log.example"), 9, RootHash(root), b"note", index, b"leaf", (NodeHash(b"n" * 32),))


def test_a_node_keeps_its_first_witness_and_views_are_found_again(database: Database) -> None:
    views, first, second = Views(database), a_view(1), a_view(2, b"s" * 32)
    place, other = (3, 2**40), (0, 1)
    views.keep(first, {place: b"a" * 32}, NOW)
    views.keep(first, {place: b"a" * 32}, NOW)
    views.keep(second, {place: b"b" * 32, other: b"c" * 32}, NOW)
    assert views.known(first.tree, [place, other, (9, 9)]) == {
        place: (b"a" * 32, first.id),
        other: (b"c" * 32, second.id),
    }
    assert views.known("another tree", [place]) == {}
    assert views.view(second.id) == second
    assert views.view("nothing") is None
    assert {each.root for each in views.of_size(first.tree, 9)} == {b"r" * 32, b"s" * 32}
