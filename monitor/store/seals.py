"""A checksum in each row that is kept for ever, so that a row that was overwritten on disk is noticed.

SQLite's pages carry no checksum: a flipped bit in a text is a valid database with another text. The seal finds damage;
it is no signature and stops no person who may write to the database.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final

from sqlalchemy import Column, ColumnElement, Connection, Table, and_, bindparam, select, update
from sqlalchemy.exc import SQLAlchemyError

from monitor.store.tables import Base

SEAL: Final = "seal"
_BYTES: Final = 16
_AT_ONCE: Final = 500
# An overwritten value may not even be a value of its column's type any more.
_UNREADABLE: Final = (SQLAlchemyError, ValueError, TypeError, OverflowError, RuntimeError)


def sealed(table: Table, row: Mapping[str, Any]) -> dict[str, Any]:
    """Row of a sealed table with its seal; columns left out are NULL. A row of another table stays as it is."""
    return {**row, SEAL: _seal(table, row)} if SEAL in table.c else dict(row)


def change_sealed(connection: Connection, table: Table, where: ColumnElement[bool], values: Mapping[str, Any]) -> int:
    """Change the rows of a sealed table that `where` holds for, and seal them anew; returns how many there were."""
    rows = (
        connection.execute(select(table).where(where).order_by(*table.primary_key).with_for_update()).mappings().all()
    )
    if rows:
        keys = list(table.primary_key)
        here = and_(*(key == bindparam(f"key_{key.name}") for key in keys))
        changed = [sealed(table, {**row, **values}) for row in rows]
        fresh = [
            {f"key_{key.name}": row[key.name] for key in keys} | {name: new[name] for name in (*values, SEAL)}
            for row, new in zip(rows, changed, strict=True)
        ]
        connection.execute(update(table).where(here), fresh)
    return len(rows)


def broken_seals(connection: Connection) -> Iterator[str]:
    """One sentence for each sealed row that is not what was stored."""
    for table in Base.metadata.sorted_tables:
        if SEAL not in table.c:
            continue
        keys = [column.name for column in table.primary_key]
        found = connection.execution_options(yield_per=_AT_ONCE).execute(select(table)).mappings()
        try:
            for row in found:
                if bytes(row[SEAL]) != _seal(table, dict(row)):
                    named = ", ".join(f"{key} {row[key]!r:.100}" for key in keys)
                    yield f"table {table.name}: the row of {named} is not what was stored"
        except _UNREADABLE as error:
            yield f"table {table.name}: a row cannot be read any more: {type(error).__name__}: {error!s:.200}"


def _seal(table: Table, row: Mapping[str, Any]) -> bytes:
    """Checksum over the names and values of a row's columns, as the database gives them back."""
    digest = sha256(table.name.encode())
    for column in table.c:
        if column.name == SEAL or _is_numbered(table, column):
            continue
        value = _plain(row.get(column.name))
        digest.update(b"%s %d " % (column.name.encode(), len(value)))
        digest.update(value)
    return digest.digest()[:_BYTES]


def _is_numbered(table: Table, column: Column[Any]) -> bool:
    """Whether the database gives the column its value, after the row was sealed."""
    return column is table.autoincrement_column


def _plain(value: Any) -> bytes:
    match value:
        case None:
            return b"-"
        case bool() | int():
            return b"n%d" % int(value)
        case str():
            return b"t" + value.encode("utf-8", "surrogatepass")
        case datetime():
            return b"d" + value.astimezone(UTC).isoformat(timespec="microseconds").encode()
        case _:
            return b"b" + bytes(value)
