"""A row that was overwritten on disk is noticed: the file stays a valid database, and its contents are others."""

import random
import sqlite3
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, update

from monitor.model.errors import OwnFault
from monitor.store.alert_life import AlertLife, ChangeAuthor
from monitor.store.authorisations import Authorisations
from monitor.store.database import Database, create, open_database
from monitor.store.fsck import fsck
from monitor.store.outbox import DatabaseOutbox, Silence
from monitor.store.patterns import Patterns
from monitor.store.reading import Reading
from monitor.store.sql import SEAL, Base, change_sealed, table
from monitor.store.tables import AlertRow, EvidenceRow, FindingRow
from rules.facts import Authorisation
from tests.support.alerts import NOW
from tests.support.parts import a_batch, a_finding, a_position, a_signing, a_store, alert_for, some_evidence

TIMES = 10
# Bytes that stand in one row of the table and nowhere else in the file, and belong to its contents.
CONTENTS = {
    "finding": b"The ref is not one the rule lists.",
    "unreadable": b"garbage",
    "alert": b'"summary": "',
    "evidence": b'"detail": "not its own"',
    "authorisation": b"note of the release manager",
    "seen_value": b"https://issuer-of-one-entry.example",
    "sighting": b"certificate that was sighted once",
    "alert_change": b"it was the release manager",
    "silence": b"the migration of this week",
    "pattern": b"what the release manager signs is expected",
}


def fill(database: Database) -> None:
    """One row in each table that is sealed."""
    store = a_store(database)
    store.baseline(a_position(0, head=4), "index 0")
    store.record_head(a_position(4).head.head)
    signing = a_signing(2, issuer=CONTENTS["seen_value"].decode(), issued=CONTENTS["sighting"])
    batch = a_batch(0, 4, [a_finding(2, signing=signing)], unreadable=[3])
    store.advance(a_position(0, head=4), a_position(4), batch, [alert_for(2)])
    store.keep_evidence(some_evidence(), [])
    life = AlertLife(database, ())
    life.acknowledge(alert_for(2).id, ChangeAuthor("maintainer", CONTENTS["alert_change"].decode()), NOW)
    life.silences.add(Silence(NOW + timedelta(days=1), "maintainer", CONTENTS["silence"].decode(), rule="quiet"), NOW)
    Patterns(database).add(alert_for(2).id, None, ChangeAuthor("maintainer", CONTENTS["pattern"].decode()), NOW)
    Authorisations(database).add(
        "acme-release", Authorisation("sha256:" + "ab" * 32, 1, NOW, CONTENTS["authorisation"].decode()), NOW
    )


def places(raw: bytes, contents: bytes) -> list[int]:
    """Offsets of every byte of the contents, wherever they stand in the file."""
    found: list[int] = []
    start = raw.find(contents)
    while start >= 0:
        found += range(start, start + len(contents))
        start = raw.find(contents, start + 1)
    return found


def noticed(path: Path) -> bool:
    """Whether opening the database or checking it says that something is wrong."""
    try:
        database = open_database(str(path), check=True)
    except OwnFault:
        return True
    try:
        return bool(fsck(database))
    except OwnFault:
        return True
    finally:
        database.close()


@pytest.mark.parametrize("name", CONTENTS)
def test_every_overwritten_row_is_noticed(name: str, tmp_path: Path) -> None:
    path = tmp_path / "signwatch.db"
    database = create(str(path), NOW, "test")
    fill(database)
    database.close()
    with sqlite3.connect(path) as plain:
        plain.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    plain.execute("VACUUM")
    plain.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    plain.close()
    assert not noticed(path), "control: untouched, it is sound"
    raw = path.read_bytes()
    offsets = places(raw, CONTENTS[name])
    assert offsets, "control: the contents stand in the file"
    for number in range(TIMES):
        dice = random.Random(f"{name} {number}")
        damaged = bytearray(raw)
        at, length = dice.choice(offsets), dice.choice([1, 1, 4, 40])
        for offset in range(at, min(at + length, len(raw))):
            damaged[offset] ^= dice.randrange(1, 256) if length > 1 else 1
        path.write_bytes(damaged)
        assert noticed(path), f"{length} bytes overwritten at {at} of {name}"


def test_each_sealed_table_is_tried() -> None:
    assert {each.name for each in Base.metadata.sorted_tables if SEAL in each.c} == set(CONTENTS)


def test_a_change_that_is_meant_is_sealed_and_one_behind_its_back_is_not(database: Database) -> None:
    fill(database)
    store, reading = a_store(database), Reading(database)
    [piece] = reading.open_evidence(9)
    assert store.close_evidence(piece.id, "dealt with")
    alerts = table(AlertRow)
    with database.write() as connection:
        assert (
            change_sealed(connection, alerts, alerts.c.id == alert_for(2).id, {"note": "seen", "acknowledged_at": NOW})
            == 1
        )
        assert change_sealed(connection, alerts, alerts.c.id == "no such alert", {"note": "seen"}) == 0
    assert Authorisations(database).revoke(1, NOW)
    assert fsck(database) == [], "control"
    for model, values in (
        (FindingRow, {"outcome": "expected"}),
        (AlertRow, {"acknowledged_at": NOW}),
        (EvidenceRow, {"closed_at": None}),
    ):
        row = table(model)
        with database.read() as connection:
            before = connection.execute(select(row)).mappings().one()
        with database.write() as connection:
            connection.execute(update(row).values(**values | {"note": "other"} if "note" in row.c else values))
        assert any(f"table {row.name}: the row of" in problem for problem in fsck(database))
        with database.write() as connection:
            connection.execute(update(row).values(**{key: before[key] for key in row.c.keys()}))  # noqa: SIM118
        assert fsck(database) == []
    assert DatabaseOutbox(database).backlog()
