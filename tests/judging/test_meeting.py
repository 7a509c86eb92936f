"""On a server several processes meet: a withdrawal and a claim of one delivery, and batches of two logs.

Every test uses connections of its own for each party, as processes would, and runs on the real server.
"""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event, text

from alerts.outbox import Delivery
from monitor.judging.judge import RuleJudge
from monitor.model.state import Batch, Hit
from monitor.store.database import Database, create, open_database
from monitor.store.fsck import fsck
from monitor.store.reading import Reading
from monitor.store.store import Store
from sigstore_entries.entry import decode_ct, decode_rekor
from sigstore_entries.signing import EntryRef, Signing
from tests.judging.test_one_event import CA, CT_LOG, MATCHER, TRUSTED, Site
from tests.support import entries as make
from tests.support.alerts import NOW
from tests.support.parts import Clock, a_position

PATIENCE = 20.0
BATCHES, PER_BATCH = 8, 8
CHANNELS = ("mail", "hook")


@pytest.fixture
def shared(postgres_url: str) -> Iterator[Callable[[], Database]]:
    """One database on the server; each call opens it anew."""
    name = f"meeting_{random.randrange(1 << 40):x}"
    engine = create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    url = postgres_url.replace("/postgres?", f"/{name}?")
    create(url, NOW, "test").close()
    opened: list[Database] = []

    def another() -> Database:
        opened.append(open_database(url))
        return opened[-1]

    yield another
    for each in opened:
        each.close()


class Held:
    """Holds one party between two of its statements until it is told to go on."""

    def __init__(self, engine: Engine, at: str) -> None:
        self._reached, self._go_on, self._at = threading.Event(), threading.Event(), at
        event.listen(engine, "before_cursor_execute", self._before)

    def _before(self, _connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith(self._at) and not self._reached.is_set():
            self._reached.set()
            assert self._go_on.wait(PATIENCE), "no thread let it go on"

    def wait(self) -> None:
        assert self._reached.wait(PATIENCE), f"it never came to {self._at!r}"

    def go_on(self) -> None:
        self._go_on.set()


class Party(threading.Thread):
    """Does one thing in a thread of its own; `result` waits for its end and raises what it raised."""

    def __init__(self, work: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self._work, self._result = work, None
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._result = self._work()
        except BaseException as error:  # noqa: BLE001
            self._error = error

    def result(self) -> Any:
        self.join(PATIENCE)
        assert not self.is_alive(), "it waits for ever"
        if self._error is not None:
            raise self._error
        return self._result


def until_somebody_waits(database: Database) -> None:
    """Wait until a backend of this database waits for a lock."""
    waiting = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    deadline = time.monotonic() + PATIENCE
    while True:
        with database.read() as connection:
            if connection.execute(waiting).scalar_one():
                return
        assert time.monotonic() < deadline, "no thread waits"
        time.sleep(0.01)


def claim(store: Store, clock: Clock, channel: str = "mail") -> list[Delivery]:
    return list(store.outbox.claim(channel, clock(), timedelta(minutes=15), 100))


def who(deliveries: list[Delivery]) -> list[tuple[str | None, int | None]]:
    return [(each.alert.log, each.alert.index) for each in deliveries]


def test_a_claim_that_comes_first_is_left_alone_by_the_withdrawal(shared: Callable[[], Database]) -> None:
    """Between choosing what to send and marking it, no pass takes it back: it is sent, and stays recorded as sent."""
    site = Site(shared())
    site.issue()
    site.clock.advance(seconds=61)
    sender = Store(shared(), clock=site.clock, route=lambda _: CHANNELS)
    held = Held(sender.database.engine, "UPDATE delivery")
    claiming = Party(lambda: claim(sender, site.clock))
    held.wait()
    signing = Party(site.sign)
    until_somebody_waits(shared())
    held.go_on()
    claimed = claiming.result()
    signing.result()
    assert who(claimed) == [("ct", 0)]
    sender.outbox.delivered(claimed, site.clock())
    states = {kept.alert.log: kept.deliveries["mail"] for kept in Reading(site.store.database).alerts(9)}
    assert states == {"ct": "delivered", "rekor": "pending"}
    assert who(claim(sender, site.clock)) == [("rekor", 0)], "that it was used is news"
    assert fsck(site.store.database) == []


def test_a_claim_during_a_withdrawal_gets_what_is_withdrawn_neither_then_nor_later(
    shared: Callable[[], Database],
) -> None:
    site = Site(shared())
    site.issue()
    site.clock.advance(seconds=61)
    sender = Store(shared(), clock=site.clock, route=lambda _: CHANNELS)
    # Marking the alert comes after its deliveries were taken back, in the same transaction.
    held = Held(site.store.database.engine, "UPDATE alert")
    signing = Party(site.sign)
    held.wait()
    claimed = Party(lambda: claim(sender, site.clock)).result()
    held.go_on()
    signing.result()
    assert claimed == [], "neither the old alert nor, before it is committed, the new one"
    assert who(claim(sender, site.clock)) == [("rekor", 0)]
    states = {kept.alert.log: kept.deliveries for kept in Reading(site.store.database).alerts(9)}
    assert states["ct"] == {"mail": "withdrawn", "hook": "withdrawn"}
    assert fsck(site.store.database) == []


def test_many_at_once_lose_nothing_send_nothing_twice_and_never_wait_for_each_other(
    shared: Callable[[], Database],
) -> None:
    """Two logs tell of the same certificates in different orders while two senders per channel claim, fail and send.

    PostgreSQL ends one of two transactions that wait for each other: that would raise here.
    """
    numbers = list(range(BATCHES * PER_BATCH))
    together = threading.Barrier(2, timeout=PATIENCE)
    followed = threading.Event()
    senders = [Sender(shared(), channel, seed) for seed, channel in enumerate(CHANNELS * 2)]
    parties = [Party(partial(follow, Follower(shared(), log), numbers, together)) for log in ("ct", "rekor")]
    sending = [Party(partial(sender.send_until, followed)) for sender in senders]
    try:
        for party in parties:
            party.result()
    finally:
        followed.set()
    for party in sending:
        party.result()
    database = shared()
    last = {channel: Sender(database, channel, 9, failures=0.0) for channel in CHANNELS}
    for sender in last.values():
        sender.clock.advance(hours=1)
        sender.send_all()
    for channel in CHANNELS:
        sent = Counter(
            alert for sender in [*senders, last[channel]] if sender.channel == channel for alert in sender.sent
        )
        assert set(sent.values()) == {1}, "no lease ran out, so nothing is sent twice"
        states = {
            kept.alert.id: kept.deliveries[channel] for kept in Reading(database).alerts(10_000) if kept.deliveries
        }
        assert {alert for alert, state in states.items() if state == "delivered"} == set(sent)
        assert set(states.values()) <= {"delivered", "withdrawn"}
        signed = {index for log, index in map(_place, Reading(database).alerts(10_000)) if log == "rekor"}
        assert len(signed) == len(numbers), "each entry has its alert"
    assert {"delivered", "withdrawn"} <= {
        state for kept in Reading(database).alerts(10_000) for state in kept.deliveries.values()
    }
    assert fsck(database) == []


def _place(kept: Any) -> tuple[str | None, int | None]:
    return kept.alert.log, kept.alert.index


def follow(follower: "Follower", numbers: list[int], together: threading.Barrier) -> None:
    chance = random.Random(follower.log)
    parts = [numbers[start : start + PER_BATCH] for start in range(0, len(numbers), PER_BATCH)]
    for part in parts:
        chance.shuffle(part)
    hits = follower.hits([each for part in parts for each in part])
    for start in range(0, len(hits), PER_BATCH):
        together.wait()
        follower.take(hits[start : start + PER_BATCH])


class Sender:
    """Claims and delivers, now and then without success, on a connection of its own."""

    def __init__(self, database: Database, channel: str, seed: int, failures: float = 0.3) -> None:
        self.clock, self.channel, self.failures = Clock(), channel, failures
        self.outbox = Store(database, clock=self.clock, route=lambda _: CHANNELS).outbox
        self.sent: list[str] = []
        self._chance = random.Random(seed)

    def send_until(self, over: threading.Event) -> None:
        while not over.wait(0.005):
            self.send_all()

    def send_all(self) -> None:
        while claimed := self.outbox.claim(self.channel, self.clock(), timedelta(minutes=15), 5):
            later = claimed[3:]
            for each in claimed[:3]:
                if self._chance.random() < self.failures:
                    self.outbox.failed([each], attempts=each.attempts + 1, retry_at=self.clock(), error="no answer")
                else:
                    self.sent.append(each.alert.id)
                    self.outbox.delivered([each], self.clock())
            if later:
                self.outbox.postpone(later, self.clock())


class Follower:
    """Follows one log by numbers: entry `n` of either log is about certificate `n`."""

    def __init__(self, database: Database, log: str) -> None:
        self.clock, self.log, self.read = Clock(), log, 0
        self.store = Store(database, clock=self.clock, route=lambda _: CHANNELS, certificate_hold=timedelta(0))
        self.judge = RuleJudge(MATCHER, self.store.facts, lambda: (TRUSTED, ()))
        self.store.record_head(a_position(1000, 1000, log).head.head)
        self.store.baseline(a_position(0, 1000, log), "index 0")

    def hits(self, numbers: list[int]) -> list[Hit]:
        return [self._hit(number, self.read + at) for at, number in enumerate(numbers)]

    def take(self, hits: list[Hit]) -> None:
        findings = tuple(self.judge.judge(hits, self.clock()))
        alerts = self.judge.alerts(findings, self.clock())
        end = self.read + len(hits)
        batch = Batch(self.log, self.read, end, findings, (), {"any": len(hits)})
        self.store.advance(a_position(self.read, 1000, self.log), a_position(end, 1000, self.log), batch, alerts)
        self.read = end

    def _hit(self, number: int, index: int) -> Hit:
        san, where = f"dev{number}@acme.example", EntryRef(self.log, index)
        if self.log == "ct":
            _, tbs = make.make_precertificate(CA, san=san, serial=number)
            leaf = make.precert_leaf(CA, tbs)
            signing = decode_ct(leaf, where)
        else:
            leaf = make.hashedrekord_v2(make.make_certificate(CA, san=san, serial=number, ct_log=CT_LOG))
            signing = decode_rekor(leaf, where)
        assert isinstance(signing, Signing)
        return Hit(signing, ("broad",), leaf)
