"""Trouble of our own is told as ours: a clock that was ahead, a database that vanished, a name that is no log."""

import dataclasses
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from alerts.alert import Owner
from monitor.config import parse_config
from monitor.daemon.status import read_status
from monitor.model.errors import FetchFailed
from monitor.model.log_source import TrustedHead
from monitor.store.database import VanishedDatabase, create
from monitor.store.store import Store
from tests.support.alerts import NOW
from tests.support.parts import LOG, Clock, a_batch, a_position, a_store
from tests.threats.site import watch

CONFIG = "version: 1\ndatabase: signwatch.db\ntrust: {trusted_root: root.json}\nrules: rules.yaml\n"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[Store]:
    opened = a_store(create(str(tmp_path / "signwatch.db"), NOW, "test"), clock=clock)
    yield opened
    opened.close()


def follow(store: Store, log: str = LOG, *, timed: bool = True) -> None:
    position = a_position(0, head=9, log=log)
    head = position.head.head if timed else dataclasses.replace(position.head.head, timestamp=None)
    store.record_head(head)
    store.baseline(replace(position, head=TrustedHead(head)), "index 0")


BUSY = "logs: [{name: rekor-v2, url: 'http://localhost:1', busy: true}]\n"


def reasons(store: Store, clock: Clock, folder: Path, logs: str = "") -> str:
    return " ".join(read_status(parse_config(CONFIG + logs, folder / "signwatch.yaml"), store, clock.now).reasons)


@pytest.mark.parametrize("timed", [True, False], ids=["signed time", "no signed time"])
def test_a_clock_that_was_ahead_once_hides_no_frozen_log(
    store: Store, clock: Clock, tmp_path: Path, *, timed: bool
) -> None:
    clock.advance(days=30)
    follow(store, timed=timed)
    store.health.went_well(LOG, clock.now, clock.now)
    assert "earlier" not in reasons(store, clock, tmp_path), "control"
    clock.advance(days=-30)
    assert "ourselves: the database holds the time" in reasons(store, clock, tmp_path), "before a pass puts it right"
    assert store.health.went_well(LOG, clock.now, None).fresh_at == clock.now, "the log answers, with the head it had"
    assert "earlier" not in reasons(store, clock, tmp_path)
    began = clock.now
    for _ in range(5):
        clock.advance(minutes=30)
        assert store.health.went_well(LOG, clock.now, None).fresh_at == began
    assert "no newer tree head" in reasons(store, clock, tmp_path, BUSY)


def test_a_time_in_the_future_is_never_how_young_a_head_is(store: Store, clock: Clock) -> None:
    assert store.health.went_well(LOG, clock.now, clock.now + timedelta(days=1)).fresh_at == clock.now


@pytest.mark.parametrize("replaced", [False, True])
def test_a_database_that_vanished_is_told_and_takes_nothing_more(
    store: Store, tmp_path: Path, *, replaced: bool
) -> None:
    follow(store)
    assert store.position(LOG) is not None, "control"
    path = tmp_path / "signwatch.db"
    path.rename(tmp_path / "elsewhere.db")
    if replaced:
        other = tmp_path / "other.db"
        create(str(other), NOW, "test").close()
        other.rename(path)  # `init` itself refuses: parts of the other database are still there
    with pytest.raises(VanishedDatabase, match="deleted or replaced"):
        store.position(LOG)
    with pytest.raises(VanishedDatabase):
        store.advance(a_position(0, head=9), a_position(9), a_batch(0, 9), [])
    if replaced:
        return
    (tmp_path / "elsewhere.db").rename(path)
    assert store.position(LOG) == a_position(0, head=9), "put back, nothing was lost"


def test_an_outage_met_by_an_audit_leaves_no_log_that_nobody_follows(
    store: Store, clock: Clock, tmp_path: Path
) -> None:
    trees = ("shards/11", "shards/22")
    for tree in trees:
        follow(store, tree)
        store.health.went_well(tree, NOW, NOW)

    def cannot_be_opened() -> list[object]:
        raise FetchFailed("HTTP 503")

    audit = watch("shards", store, cannot_be_opened, b"{}", clock)  # type: ignore[arg-type]
    outcomes = audit.run_pass()
    assert [(each.log, each.owner) for each in outcomes] == [(tree, Owner.COULD_NOT_ASK) for tree in trees]
    assert set(store.health.all()) == set(trees)
    assert "HTTP 503" in reasons(store, clock, tmp_path)
    for tree in trees:
        store.health.went_well(tree, NOW, NOW)
    assert reasons(store, clock, tmp_path) == "", "the daemon's next passes end it"


def test_trouble_under_a_name_that_stands_for_trees_is_no_log(store: Store, clock: Clock, tmp_path: Path) -> None:
    store.health.went_wrong("shards", NOW, Owner.COULD_NOT_ASK, "refused", "HTTP 503")
    assert "HTTP 503" in reasons(store, clock, tmp_path), "control: nothing of it is followed"
    follow(store, "shards/11")
    store.health.went_well("shards/11", NOW, NOW)
    assert reasons(store, clock, tmp_path) == ""
