"""What people ask of the database."""

from datetime import timedelta
from pathlib import Path

from monitor.store.database import create
from monitor.store.reading import Reading
from tests.monitor_programs.parts import Clock, a_store, alert_for
from tests.support.alerts import NOW


def test_the_alerts_that_one_digest_stood_for_can_be_listed(tmp_path: Path) -> None:
    database = create(str(tmp_path / "signwatch.db"), NOW, "test")
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
    store.close()
