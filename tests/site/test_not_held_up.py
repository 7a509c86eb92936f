"""Following is not held up by what is told: while messages by the thousand are written, passes commit in between."""

import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from monitor.model.state import Batch
from monitor.site.fan_out import FanOut
from monitor.store import notices
from monitor.store.database import Database, FairLock
from monitor.store.history import move_position
from monitor.store.notices import Notices
from monitor.store.site_tables import NoticeRow
from monitor.store.sql import table
from tests.site.scene import LOG, Scene, scene
from tests.site.test_flood import follow_by
from tests.site.test_queue import an_alert
from tests.support.parts import a_position
from tests.support.waiting import PATIENCE

FOLLOWERS = 10_000
NOTICE = table(NoticeRow)


@dataclass
class Passes:
    """Passes over a log, each begun while something else is being written, and the order in which all came to write."""

    acme: Scene
    order: list[str] = field(default_factory=list)
    size: int = 1000
    running: list[threading.Thread] = field(default_factory=list)

    def begin(self) -> None:
        """Begin a pass in another thread; returns when it has committed, or is next in turn to."""
        thread = threading.Thread(target=self._commit, daemon=True)
        self.running.append(thread)
        thread.start()
        turns, until = self.acme.store.database.turns, time.monotonic() + PATIENCE
        while thread.is_alive() and not turns.waiting:
            assert time.monotonic() < until, "the pass neither commits nor waits for its turn"
            time.sleep(0.001)

    def _commit(self) -> None:
        self.acme.store.advance(
            a_position(self.size), a_position(self.size + 1), Batch(LOG, self.size, self.size + 1), []
        )
        self.size += 1

    def watch(self, monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> None:
        """Note each call of a function that runs in a transaction, and begin a pass during it."""
        told: Callable[..., Any] = getattr(owner, name)

        def noted(*arguments: Any, **named: Any) -> Any:
            self.order.append(name)
            self.begin()
            return told(*arguments, **named)

        def moving(*arguments: Any) -> None:
            self.order.append("pass")
            move_position(*arguments)

        monkeypatch.setattr(owner, name, noted)
        monkeypatch.setattr("monitor.store.store.move_position", moving)

    def end(self) -> None:
        for thread in self.running:
            thread.join(PATIENCE)
            assert not thread.is_alive()


def test_a_pass_commits_between_any_two_parts_of_a_fan_out_to_ten_thousand(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with scene(tmp_path, database) as acme:
        acme.subscribe(acme.visitor(), "mia@acme.example")
        follow_by(acme, FOLLOWERS - 1, domains=50)
        alert, passes = an_alert(acme), Passes(acme)
        passes.watch(monkeypatch, Notices, "_add_alerts")
        FanOut(database).send(alert, alert.id, acme.clock())
        passes.end()
        parts = FOLLOWERS // 1_000
        # On SQLite a pass waits for the part that is being written, and for no other; on PostgreSQL for none.
        assert passes.order == ["_add_alerts", "pass"] * parts
        kept = acme.store.position(LOG)
        assert kept is not None
        assert kept.frontier.size == 1000 + parts
        assert acme.site.notices.backlog()[0] == FOLLOWERS


def test_a_pass_commits_between_any_two_parts_of_forgetting_old_messages(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with scene(tmp_path, database) as acme:
        acme.subscribe(acme.visitor(), "mia@acme.example")
        follow_by(acme, 2_500, domains=50)
        alert, passes = an_alert(acme), Passes(acme)
        FanOut(database).send(alert, alert.id, acme.clock())
        with database.write() as connection:
            connection.execute(update(NOTICE).values(state="delivered", finished_at=acme.clock()))
        passes.watch(monkeypatch, notices, "chunks")
        acme.site.notices.forget_old(acme.clock() + timedelta(days=1))
        passes.end()
        assert passes.order == ["chunks", "pass"] * 3
        with database.read() as connection:
            assert connection.execute(select(NOTICE.c.id)).first() is None


def test_writers_take_turns_in_the_order_they_came_and_one_that_waits_too_long_is_told() -> None:
    turns, order = FairLock(), list[int]()
    assert turns.take(1)

    def write(number: int) -> None:
        assert turns.take(PATIENCE)
        order.append(number)
        turns.give()

    threads = [threading.Thread(target=write, args=(number,)) for number in range(20)]
    for number, thread in enumerate(threads):
        thread.start()
        until = time.monotonic() + PATIENCE
        while turns.waiting <= number:
            assert time.monotonic() < until
            time.sleep(0.001)
    assert not turns.take(0.01), "one that gives up is no longer waited for"
    turns.give()
    for thread in threads:
        thread.join(PATIENCE)
    assert order == list(range(20))
    assert turns.take(0)


def test_a_writer_that_is_interrupted_while_it_waits_leaves_its_turn_to_the_next() -> None:
    """Ctrl-C in the main thread: what is written while the program ends must not wait for a turn that never ends."""
    turns, main = FairLock(), threading.main_thread().ident
    assert main == threading.get_ident()
    assert turns.take(1)

    def interrupt() -> None:
        until = time.monotonic() + PATIENCE
        while not turns.waiting and time.monotonic() < until:
            time.sleep(0.001)
        signal.pthread_kill(main, signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        thread = threading.Thread(target=interrupt, daemon=True)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            turns.take(PATIENCE)
        thread.join(PATIENCE)
    finally:
        signal.signal(signal.SIGINT, before)
    turns.give()
    assert turns.take(0)
