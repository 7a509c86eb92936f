"""The in-memory outbox keeps the outbox contract."""

import pytest

from alerts.alert import Alert
from alerts.outbox import Outbox
from tests.support.alerts import NOW
from tests.support.memory_outbox import MemoryOutbox, Outcome
from tests.support.outbox_contract import OutboxContract


class MemoryHarness:
    def __init__(self) -> None:
        self.memory = MemoryOutbox()

    @property
    def outbox(self) -> Outbox:
        return self.memory

    def enqueue(self, alert: Alert, channel: str) -> None:
        self.memory.enqueue(alert, channel, NOW)

    def given_up(self) -> list[tuple[str, str]]:
        rows = [row for row in self.memory.rows.values() if row.outcome is Outcome.GIVEN_UP]
        return [(row.delivery.alert.id, row.error) for row in rows]


@pytest.fixture
def harness() -> MemoryHarness:
    return MemoryHarness()


class TestMemoryOutbox(OutboxContract):
    """The contract of every outbox, kept by the one in memory."""
