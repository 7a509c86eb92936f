"""The outbox in the database keeps what every outbox must."""

from dataclasses import dataclass

import pytest
from sqlalchemy import select

from alerts.alert import Alert
from monitor.store.database import Database
from monitor.store.outbox import GIVEN_UP, DatabaseOutbox, QueuedAlert, put
from monitor.store.sql import table
from monitor.store.tables import DeliveryRow
from tests.support.alerts import NOW, an_alert
from tests.support.outbox_contract import LEASE, OutboxContract


@dataclass
class Harness:
    database: Database
    outbox: DatabaseOutbox

    def enqueue(self, alert: Alert, channel: str) -> None:
        with self.database.write() as connection:
            put(connection, [QueuedAlert(alert, [channel], NOW)], NOW)

    def given_up(self) -> list[tuple[str, str]]:
        sent = table(DeliveryRow)
        with self.database.read() as connection:
            rows = connection.execute(select(sent.c.alert, sent.c.error).where(sent.c.state == GIVEN_UP))
            return [(row.alert, row.error) for row in rows]


@pytest.fixture
def harness(database: Database) -> Harness:
    return Harness(database, DatabaseOutbox(database))


class TestDatabaseOutbox(OutboxContract):
    """Every promise of `alerts.outbox.Outbox`, on every database."""

    def test_a_given_up_delivery_can_be_replayed(self, harness: Harness) -> None:
        harness.enqueue(an_alert(1), "mail")
        harness.enqueue(an_alert(2), "mail")
        harness.outbox.give_up(harness.outbox.claim("mail", NOW, LEASE, 10), NOW, "no such mailbox")
        assert harness.outbox.replay(NOW, alert=an_alert(2).id) == 1
        assert [item.alert.index for item in harness.outbox.claim("mail", NOW, LEASE, 10)] == [2]

    def test_what_a_dead_daemon_had_claimed_is_due_again_once_its_leases_are_released(self, harness: Harness) -> None:
        harness.enqueue(an_alert(1), "mail")
        assert len(harness.outbox.claim("mail", NOW, LEASE, 10)) == 1
        assert harness.outbox.claim("mail", NOW, LEASE, 10) == [], "claimed by a process that may yet deliver it"
        harness.outbox.release()
        assert len(harness.outbox.claim("mail", NOW, LEASE, 10)) == 1
