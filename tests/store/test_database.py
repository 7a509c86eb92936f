"""A database is opened only when it is the one that was written, whole and of this version."""

import json
import os
import sqlite3
import subprocess
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, delete, insert, inspect, select, text
from sqlalchemy.exc import SQLAlchemyError

from monitor.model.errors import OwnFault
from monitor.store import schema
from monitor.store.database import DamagedDatabase, Database, NoDatabase, WrongSchema, create, open_database
from monitor.store.sql import Base, add_new, database_words, sealed, table
from monitor.store.tables import SCHEMA, FindingRow
from tests.support.alerts import NOW
from tests.support.database_fixtures import postgres_database
from tests.support.parts import a_position, a_store


def shape(connection: Connection) -> dict[str, list[str]]:
    """Columns, keys, indexes and constraints of each table."""
    found = inspect(connection)
    parts = (
        found.get_columns,
        found.get_foreign_keys,
        found.get_indexes,
        found.get_unique_constraints,
        found.get_check_constraints,
    )
    return {
        name: sorted(
            json.dumps(each, default=str, sort_keys=True)
            for each in (found.get_pk_constraint(name), *(each for part in parts for each in part(name)))
        )
        for name in found.get_table_names()
    }


def test_migrations_and_tables_say_the_same(database: Database) -> None:
    """A new database is made as the tables are declared, an older one comes to the same by migrations."""
    with database.write() as connection:
        made = shape(connection)
        assert MigrationContext.configure(connection).get_current_revision() == SCHEMA
        Base.metadata.drop_all(connection)
        connection.execute(text("DROP TABLE alembic_version"))
        assert shape(connection) == {}, "control: nothing of it is left"
        schema.upgrade(connection)
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
        assert shape(connection) == made


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_that_cannot_hold_every_name_is_refused(postgres_url: str, encoding: str) -> None:
    """A certificate names its holder in any script: one that cannot be stored would stop the following of its log."""
    where = postgres_database(postgres_url, f"ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    with pytest.raises(OwnFault, match=f"has the encoding {encoding}"):
        create(where, NOW, "test")
    with pytest.raises(OwnFault, match=f"has the encoding {encoding}"):
        open_database(where)


def test_making_it_again_changes_nothing(database: Database, where: str) -> None:
    a_store(database).baseline(a_position(3), "head")
    again = create(where, NOW, "test")
    assert a_store(again).position("rekor-v2") == a_position(3)
    again.close()


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("UPDATE alembic_version SET version_num = '9999'", "a newer one wrote it"),
        ("DELETE FROM alembic_version", "no Signwatch database"),
        ("DELETE FROM instance", "no Signwatch database"),
    ],
)
def test_another_versions_database_is_refused(database: Database, where: str, statement: str, error: str) -> None:
    open_database(where).close()  # control: untouched, it opens
    with database.write() as connection:
        connection.execute(text(statement))
    with pytest.raises((WrongSchema, NoDatabase), match=error):
        open_database(where)


def test_a_new_database_is_not_begun_beside_the_rest_of_an_old_one(tmp_path: Path) -> None:
    """A killed daemon leaves a write-ahead log, which SQLite would read into the new database."""
    path, wal = tmp_path / "signwatch.db", tmp_path / "signwatch.db-wal"
    wal.write_bytes(b"pages")
    with pytest.raises(OwnFault, match=r"signwatch\.db-wal: this is a part of another database: move it away"):
        create(str(path), NOW, "test")
    assert [each.name for each in tmp_path.iterdir()] == [wal.name]
    wal.unlink()
    create(str(path), NOW, "test").close()


def test_initialising_never_touches_a_newer_database(database: Database, where: str) -> None:
    with database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(WrongSchema, match="Nothing was changed"):
        create(where, NOW, "test")


def test_somebody_elses_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (id INTEGER)")
    connection.close()
    with pytest.raises(OwnFault, match="another program"):
        create(str(path), NOW, "test")


def test_a_folder_of_any_name_holds_a_database(tmp_path: Path) -> None:
    folder = tmp_path / "Ordner, ü 署名 100%20 #1?mode=memory&x"
    folder.mkdir()
    create(str(folder / "signwatch.db"), NOW, "test").close()
    open_database(str(folder / "signwatch.db"), check=True).close()
    assert [path.name for path in tmp_path.rglob("*.db")] == ["signwatch.db"]


def test_a_missing_file_is_never_a_first_run(tmp_path: Path) -> None:
    with pytest.raises(NoDatabase, match="signwatch init"):
        open_database(str(tmp_path / "signwatch.db"))
    assert list(tmp_path.iterdir()) == []


def _empty(raw: bytes) -> bytes:
    return raw[:0]


def _half(raw: bytes) -> bytes:
    return raw[: len(raw) // 2]


def _one_page_short(raw: bytes) -> bytes:
    return raw[:-4096]


def _other(raw: bytes) -> bytes:
    return b"not a database at all" + raw[21:]


def _scribbled(raw: bytes) -> bytes:
    return raw[:4096] + os.urandom(0) + b"\xff" * 8192 + raw[12288:]


@pytest.mark.parametrize("damage", [_empty, _half, _one_page_short, _other, _scribbled])
def test_a_damaged_file_is_an_error_and_never_a_first_run(tmp_path: Path, damage: object) -> None:
    path = tmp_path / "signwatch.db"
    database = create(str(path), NOW, "test")
    a_store(database).baseline(a_position(3), "head")
    database.close()
    open_database(str(path), check=True).close()  # control: whole, it opens
    for leftover in tmp_path.glob("*-wal"):
        leftover.unlink()
    assert callable(damage)
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged)
    with pytest.raises(DamagedDatabase, match="restore the file"):
        open_database(str(path), check=True)
    with pytest.raises(OwnFault):
        create(str(path), NOW, "test")
    assert path.read_bytes() == damaged, "nothing was repaired in place"


def test_commits_survive_a_power_cut(tmp_path: Path) -> None:
    database = create(str(tmp_path / "signwatch.db"), NOW, "test")
    with database.read() as connection:
        settings = [connection.execute(text(f"PRAGMA {name}")).scalar() for name in ("journal_mode", "synchronous")]
        assert settings == ["wal", 2]
        assert connection.execute(text("PRAGMA foreign_keys")).scalar() == 1
    database.close()
    assert (tmp_path / "signwatch.db").stat().st_mode & 0o077 == 0, "no other user may read it"


def test_a_database_that_this_user_may_only_read_is_told_with_the_way_out(tmp_path: Path) -> None:
    database = create(str(tmp_path / "signwatch.db"), NOW, "test")

    def change() -> None:
        with database.write() as connection:
            # SQLite says the same of a file without the right to write, which a test as root always has.
            connection.execute(text("PRAGMA query_only = 1"))
            connection.execute(text("DELETE FROM alembic_version"))

    with pytest.raises(OwnFault, match="Run the command as the user of the daemon"):
        change()
    database.close()


@pytest.mark.parametrize("where", ["sqlite://", "mysql://host/db", "nonsense://x"])
def test_a_database_that_cannot_be_used_is_refused(where: str) -> None:
    with pytest.raises(OwnFault, match="database"):
        open_database(where)


def test_a_password_is_never_shown() -> None:
    with pytest.raises(OwnFault) as caught:
        open_database("postgresql+psycopg://user:hunter2@127.0.0.1:1/db?connect_timeout=1")
    assert "hunter2" not in str(caught.value)


def test_the_schema_that_is_opened_without_alembic_is_its_newest(tmp_path: Path) -> None:
    newest, known = schema.revisions()
    assert newest == SCHEMA
    assert newest in known


def test_the_indexes_of_some_rows_only_are_so_in_each_database(database: Database) -> None:
    asked = (
        "select indexname, indexdef from pg_indexes"
        if database.engine.dialect.name == "postgresql"
        else "select name, sql from sqlite_master where type = 'index' and sql is not null"
    )
    with database.read() as connection:
        partial = {name for name, sql in connection.execute(text(asked)) if " where " in sql.lower()}
    assert partial == {"finding_rate", "sighting_past", "ask_owner", "ask_ended"}


def test_a_file_is_opened_without_the_other_database(tmp_path: Path) -> None:
    """The drivers of PostgreSQL cost a tenth of a second, whether or not there is one."""
    kept = str(tmp_path / "a.db")
    create(kept, NOW, "test").close()
    program = (
        f"import sys; from monitor.store.database import open_database; open_database({kept!r}).close();"
        "print('sqlalchemy.dialects.postgresql' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "False", done.stderr


def test_rows_added_together_are_as_sqlalchemy_writes_them(database: Database) -> None:
    """Each type with its hardest values, in columns that the row's mapping names in another order."""
    rows: list[dict[str, Any]] = [
        {"kind": "\x00\\\ud800", "log": "b", "entry": 2, "rule": "r", "outcome": "expected", "reasons": "[]"},
        {"kind": "%s ? :x", "log": "a", "entry": 1 << 60, "rule": "r", "outcome": "expected", "reasons": "é\U0001f600"},
    ]
    same = {"signing": "{}", "leaf": b"\x00\xff", "counts": True, "certificate_log": False, "found_at": NOW}
    rows = [{**same, **row, "signed_at": NOW if row["log"] == "a" else None} for row in rows]
    found = table(FindingRow)
    read = select(found).order_by(found.c.log)
    with database.write() as connection:
        add_new(connection, found, rows)
        added = [dict(row) for row in connection.execute(read).mappings()]
        connection.execute(delete(found))
        connection.execute(insert(found), [sealed(found, row) for row in rows])
        assert added == [dict(row) for row in connection.execute(read).mappings()]
        add_new(connection, found, [row | {"kind": "another"} for row in rows])
        assert [row["kind"] for row in connection.execute(read).mappings()] == [row["kind"] for row in rows[::-1]]


SECRET_VALUE = "mia-s-address@acme.example"
FAILING = {
    "a key twice": "INSERT INTO alembic_version SELECT :value UNION ALL SELECT :value",
    "no value for a column": "INSERT INTO instance SELECT * FROM (SELECT CAST(:value AS text) AS a) AS one",
    "no number": "SELECT CAST(CAST(:value AS text) AS integer)",
    "no time": "SELECT CAST(CAST(:value AS text) AS timestamp)",
    "a number in a sentence of a function": "SELECT to_date(CAST(:value AS text), 'YYYY-MM-DD')",
}


@pytest.mark.parametrize("name", FAILING)
def test_an_error_of_postgresql_tells_no_value_of_a_row(postgres_url: str, name: str) -> None:
    """PostgreSQL's DETAIL repeats the failing row, a data exception the value: logs and alerts would keep them."""
    database = create(postgres_database(postgres_url), NOW, "test")
    told = r"the database failed: .+\(SQLSTATE [0-9A-Z]{5}\)"
    with pytest.raises(OwnFault, match=told) as caught, database.write() as to:
        to.execute(text(FAILING[name]), {"value": SECRET_VALUE})
    printed = "".join(traceback.format_exception(caught.value))
    assert "DETAIL" not in printed
    assert SECRET_VALUE not in printed
    assert "mia" not in printed
    assert "\n" not in str(caught.value)
    database.close()


def test_a_row_that_cannot_be_read_is_told_without_its_values(postgres_url: str) -> None:
    database = create(postgres_database(postgres_url), NOW, "test")
    words = []
    with suppress(OwnFault), database.read() as connection:
        try:
            connection.execute(text(FAILING["no number"]), {"value": SECRET_VALUE})
        except SQLAlchemyError as error:
            words.append(database_words(error))
    assert words == ["InvalidTextRepresentation (SQLSTATE 22P02)"]
    database.close()
