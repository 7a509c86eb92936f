"""Inserts that both databases understand the same way."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Final

from sqlalchemy import Column, Connection, Table, select
from sqlalchemy.dialects import postgresql, sqlite

from monitor.store.seals import sealed

_CHUNK: Final = 500
# The two dialects spell ON CONFLICT alike but share no base class for it.
_INSERT: Final[Mapping[str, Callable[[Table], Any]]] = {"postgresql": postgresql.insert, "sqlite": sqlite.insert}


def add_new(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows, sealed where the table is; those whose key is already there are left as they are."""
    if rows:
        key = [column.name for column in table.primary_key if column.name in rows[0]]
        # PostgreSQL waits for another transaction that inserts the same key. In one order for all, two never wait for
        # each other.
        ordered = sorted((sealed(table, row) for row in rows), key=lambda row: [row[name] for name in key])
        connection.execute(_insert_new(connection.dialect.name, table), ordered)


def add_or_replace(connection: Connection, table: Table, row: Mapping[str, Any], keys: Sequence[str]) -> None:
    """Insert one row, or overwrite the named columns of the row with the same key."""
    fields = {name: value for name, value in row.items() if name not in keys}
    insert = _insert(connection, table)
    connection.execute(insert.values(**row).on_conflict_do_update(index_elements=list(keys), set_=fields))


def add_up(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]], key: Sequence[str]) -> None:
    """Insert rows of `key` columns plus `entries`; where the key is there, add the number to what stands there."""
    if rows:
        insert = _insert(connection, table)
        total = {"entries": table.c.entries + insert.excluded.entries}
        connection.execute(
            insert.on_conflict_do_update(index_elements=list(key), set_=total), [dict(row) for row in rows]
        )


def lock_rows(connection: Connection, key: Column[int], only: Any) -> list[int]:
    """Keys of the rows that `only` holds for, locked until the transaction ends; only PostgreSQL has a second writer.

    In the order of the keys, so that two who lock the same rows never wait for each other.
    """
    return list(connection.execute(select(key).where(only).order_by(key).with_for_update()).scalars())


def known_values(connection: Connection, column: Column[Any], values: Sequence[Any]) -> set[Any]:
    """Which of `values` stand in `column`, asked a bounded number at a time."""
    known: set[Any] = set()
    for part in chunks(values):
        known.update(connection.execute(select(column).where(column.in_(part))).scalars())
    return known


def chunks(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Cut a sequence into parts that fit a statement's parameters."""
    for start in range(0, len(values), _CHUNK):
        yield values[start : start + _CHUNK]


@cache
def _insert_new(dialect: str, table: Table) -> Any:
    """Made once for each table: working a statement out anew costs more than inserting a row."""
    return _INSERT[dialect](table).on_conflict_do_nothing()


def _insert(connection: Connection, table: Table) -> Any:
    return _INSERT[connection.dialect.name](table)
