"""SQL that SQLite and PostgreSQL both understand: column types, inserts, and the seals of permanent rows.

SQLite's pages carry no checksum: a flipped bit in a text gives a valid database with another text. A seal is a
checksum that finds such damage. It is no signature, so a person who may write to the database can change a row and
its seal.
"""

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from hashlib import sha256
from operator import itemgetter
from typing import Any, ClassVar, Final, TypeVar

from msgspec import Struct
from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Dialect,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    and_,
    bindparam,
    event,
    select,
    update,
)
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.types import TypeDecorator
from sqlmodel import SQLModel
from sqlmodel._compat import SQLModelConfig
from typing_extensions import override

from addresses.visible import inert_line

_Value = TypeVar("_Value", bound=Struct)
_WHERE: Final = "where"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# SQLite counts rows up by itself only in a plain INTEGER primary key; PostgreSQL's INTEGER ends at 2^31.
RowNumber = BigInteger().with_variant(Integer, "sqlite")
SEAL: Final = "seal"
_BYTES: Final = 16
_AT_ONCE: Final = 500
# An overwritten value may not even be a value of its column's type any more.
_UNREADABLE: Final = (SQLAlchemyError, ValueError, TypeError, OverflowError, RuntimeError)


_LONGEST_WORDS: Final = 500
_DATA_EXCEPTION: Final = "22"


def database_words(error: Exception) -> str:
    """The text of a database's error on one line, without values of rows.

    PostgreSQL repeats a failing row in the fields DETAIL and CONTEXT, which psycopg adds to the text, and the value
    itself in the first sentence of a data exception (SQLSTATE class 22).
    """
    found = getattr(error, "orig", None) or error
    state = getattr(found, "sqlstate", None)
    if state is None:
        return inert_line(str(found).strip(), _LONGEST_WORDS)
    first = getattr(getattr(found, "diag", None), "message_primary", None)
    if first is None or state.startswith(_DATA_EXCEPTION):
        first = type(found).__name__
    return inert_line(f"{first} (SQLSTATE {state})", _LONGEST_WORDS)


class UtcTime(TypeDecorator[datetime]):
    """A time with its zone, kept as whole microseconds since 1970: exact, sortable, the same in every database."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:  # noqa: ARG002
        """Refuse a naive time, which would be another moment on another machine."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"a time without a zone: {value!r}")
        return (value - _EPOCH) // timedelta(microseconds=1)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Return the time in UTC."""
        return None if value is None else _EPOCH + timedelta(microseconds=value)


class AnyText(TypeDecorator[str]):
    r"""Text that may hold anything a Python string can, NUL and lone surrogates included, without loss.

    PostgreSQL can store neither, and an entry that cannot be stored would stop following of its log. So both are
    written as escapes, and a backslash is doubled.
    """

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        """Escape what a database may refuse."""
        return None if value is None else escape(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        """Undo the escapes."""
        return None if value is None else unescape(value)


def escape(text: str) -> str:
    """Text any database keeps."""
    plain = text.replace("\\", "\\\\").replace("\x00", "\\0")
    if plain.isascii():
        return plain
    return "".join(f"\\u{ord(char):04x}" if "\ud800" <= char <= "\udfff" else char for char in plain)


def unescape(kept: str) -> str:
    """Reverse of `escape`."""
    if "\\" not in kept:
        return kept
    parts: list[str] = []
    rest = iter(kept)
    for char in rest:
        if char != "\\":
            parts.append(char)
            continue
        code = next(rest)
        parts.append({"\\": "\\", "0": "\x00"}.get(code) or chr(int("".join(next(rest) for _ in range(4)), 16)))
    return "".join(parts)


def text_key(text: str) -> bytes:
    """SHA-256 that stands for a text in an index: PostgreSQL refuses index rows of more than about 2,700 bytes."""
    return sha256(text.encode("utf-8", "surrogatepass")).digest()


class Base(SQLModel):
    """Tables of the monitor: metadata of their own, apart from any other program's in the same process.

    Rows are read and written through `table(…)`, without the object mapper. So pydantic's validators are left unmade,
    and a class is abstract for SQLAlchemy, which would look for mapped attributes longer than the rest of it takes.
    """

    metadata: ClassVar[MetaData] = MetaData()
    model_config = SQLModelConfig(defer_build=True, protected_namespaces=())

    @classmethod
    @override
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        """Make the table of a class from its fields and `__table_args__`."""
        super().__pydantic_init_subclass__(**options)
        cls.__abstract__ = True
        fields: Mapping[str, Any] = cls.model_fields
        for name, field in fields.items():
            column = field.sa_column
            column.name, column.key = column.name or name, column.key or name
        arguments = cls.__dict__.get("__table_args__", ())
        indexes = [each for each in arguments if isinstance(each, Index)]
        settings = {name: value for each in arguments if isinstance(each, dict) for name, value in each.items()}
        columns = [field.sa_column for field in fields.values()]
        Table(str(cls.__tablename__), cls.metadata, *columns, *indexes, **settings)


def partial_index(name: str, *columns: str, where: ColumnElement[bool]) -> Index:
    """An index of the rows for which `where` holds."""
    return Index(name, *columns, sqlite_where=where, info={_WHERE: where})


@event.listens_for(Base.metadata, "before_create")
def _tell_postgresql(metadata: MetaData, connection: Connection, **_: object) -> None:
    # An index with `postgresql_where` would import that dialect with its drivers: a tenth of a second for each
    # command, even with SQLite.
    if connection.dialect.name == "postgresql":
        for index in (each for kept in metadata.tables.values() for each in kept.indexes if _WHERE in each.info):
            index.dialect_options["postgresql"]["where"] = index.info[_WHERE]


def table(model: type[Base]) -> Table:
    """SQLAlchemy Core table of a model."""
    return Base.metadata.tables[str(model.__tablename__)]


def sealed(table: Table, row: Mapping[str, Any]) -> dict[str, Any]:
    """Row of a sealed table with its seal; columns left out are NULL. A row of another table stays as it is."""
    return {**row, SEAL: _seal(table, row)} if SEAL in table.c else dict(row)


def change_sealed(connection: Connection, table: Table, where: ColumnElement[bool], values: Mapping[str, Any]) -> int:
    """Change the rows of a sealed table that meet `where`, and seal them anew; returns their number."""
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
    """One sentence for each sealed row that was changed."""
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
            words = f"{type(error).__name__}: {database_words(error):.200}"
            yield f"table {table.name}: a row cannot be read any more: {words}"


def _seal(table: Table, row: Mapping[str, Any]) -> bytes:
    """Checksum over the names and values of a row's columns, as the database gives them back."""
    parts = [table.name.encode()]
    for name, written in _sealed_columns(table):
        given = row.get(name)
        # Most values are texts.
        value = b"t" + given.encode("utf-8", "surrogatepass") if type(given) is str else _plain(given)
        parts += (b"%s %d " % (written, len(value)), value)
    return sha256(b"".join(parts)).digest()[:_BYTES]


@cache
def _sealed_columns(table: Table) -> tuple[tuple[str, bytes], ...]:
    """Names of the columns under a seal, with their bytes.

    The database gives the numbered column its value after the row was sealed.
    """
    numbered = table.autoincrement_column
    names = [column.name for column in table.c if column.name != SEAL and column is not numbered]
    return tuple((name, name.encode()) for name in names)


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


_CHUNK: Final = 500


def add_new(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows, sealed if the table is; rows with existing keys do not change."""
    if rows:
        made = [sealed(table, row) for row in rows] if SEAL in table.c else rows
        _add_all(connection, table, _insert_new(connection.dialect, table, tuple(made[0])), made)


def add_new_tuples(
    connection: Connection, table: Table, columns: tuple[str, ...], rows: Sequence[tuple[Any, ...]]
) -> None:
    """Insert rows, given as their values in the order of `columns`; rows with existing keys do not change.

    For tables without a seal.
    """
    if rows:
        insert = _insert_new(connection.dialect, table, columns)
        order = [columns.index(name) for name in insert.columns]
        _add_tuples(connection, table, insert, list(map(itemgetter(*order), rows)))


def add_or_replace(connection: Connection, table: Table, row: Mapping[str, Any], keys: Sequence[str]) -> None:
    """Insert one row, or overwrite the named columns of the row with the same key."""
    fields = {name: value for name, value in row.items() if name not in keys}
    insert = _insert(connection, table)
    connection.execute(insert.values(**row).on_conflict_do_update(index_elements=list(keys), set_=fields))


def add_or_overwrite(
    connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]], fields: Sequence[str]
) -> None:
    """Insert rows; for an existing primary key, overwrite `fields` with the new row's."""
    if rows:
        insert = _insert_or_overwrite(connection.dialect, table, tuple(rows[0]), tuple(fields))
        _add_all(connection, table, insert, rows)


def add_up(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]], key: Sequence[str]) -> None:
    """Insert rows of `key` columns plus `entries`; for an existing key, add the number to the stored one."""
    if rows:
        insert = _insert(connection, table)
        total = {"entries": table.c.entries + insert.excluded.entries}
        connection.execute(
            insert.on_conflict_do_update(index_elements=list(key), set_=total), [dict(row) for row in rows]
        )


def lock_rows(connection: Connection, key: Column[int], only: Any) -> list[int]:
    """Keys of the rows that meet `only`, locked until the transaction ends; only PostgreSQL has a second writer.

    In the order of the keys, so that two transactions that lock the same rows never wait for each other.
    """
    return list(connection.execute(select(key).where(only).order_by(key).with_for_update()).scalars())


def known_values(connection: Connection, column: Column[Any], values: Sequence[Any]) -> set[Any]:
    """The `values` that `column` holds, with a bounded number for each query."""
    known: set[Any] = set()
    for part in chunks(values):
        known.update(connection.execute(select(column).where(column.in_(part))).scalars())
    return known


def chunks(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Cut a sequence into parts that fit a statement's parameters."""
    for start in range(0, len(values), _CHUNK):
        yield values[start : start + _CHUNK]


class _PreparedInsert(Struct, frozen=True):
    """An insert as the driver takes it: its columns in order, and how the values of some of them are written."""

    sql: str
    columns: tuple[str, ...]
    writers: tuple[tuple[int, Callable[[Any], Any]], ...]
    is_positional: bool


def _add_all(connection: Connection, table: Table, insert: _PreparedInsert, rows: Sequence[Mapping[str, Any]]) -> None:
    """Run an insert over rows of the same columns.

    Column by column: SQLAlchemy works out the parameters of each row anew, which takes longer than inserting it.
    """
    _add_tuples(connection, table, insert, [tuple(map(row.__getitem__, insert.columns)) for row in rows])


def _add_tuples(connection: Connection, table: Table, insert: _PreparedInsert, made: list[tuple[Any, ...]]) -> None:
    # PostgreSQL waits for another transaction that inserts the same key. In one order for all, two never wait for each
    # other.
    if key := [insert.columns.index(each.name) for each in table.primary_key if each.name in insert.columns]:
        made.sort(key=itemgetter(*key))
    columns: list[Iterable[Any]] = list(zip(*made, strict=True))
    for place, write in insert.writers:
        columns[place] = map(write, columns[place])
    values = list(zip(*columns, strict=True))
    if insert.is_positional:
        connection.exec_driver_sql(insert.sql, values)
    else:
        connection.exec_driver_sql(insert.sql, [dict(zip(insert.columns, each, strict=True)) for each in values])


_PREPARED: Final = 256  # statements: some tables, with few choices of columns


@lru_cache(maxsize=_PREPARED)
def _insert_new(dialect: Dialect, table: Table, columns: tuple[str, ...]) -> _PreparedInsert:
    return _prepared(dialect, table, _insert_into(dialect.name, table).on_conflict_do_nothing(), columns)


@lru_cache(maxsize=_PREPARED)
def _insert_or_overwrite(
    dialect: Dialect, table: Table, columns: tuple[str, ...], fields: tuple[str, ...]
) -> _PreparedInsert:
    insert = _insert_into(dialect.name, table)
    key = [column.name for column in table.primary_key]
    overwrites = insert.on_conflict_do_update(index_elements=key, set_={name: insert.excluded[name] for name in fields})
    return _prepared(dialect, table, overwrites, columns)


def _prepared(dialect: Dialect, table: Table, insert: Any, columns: tuple[str, ...]) -> _PreparedInsert:
    compiled = insert.inline().compile(dialect=dialect, column_keys=columns)
    ordered = tuple(compiled.positiontup) if compiled.positional else columns
    # Both drivers take bytes as they are. SQLAlchemy would make a `memoryview` of each, which takes longer than a row.
    made = [
        None if isinstance(kind, LargeBinary) else kind.dialect_impl(dialect).bind_processor(dialect)
        for kind in (table.c[name].type for name in ordered)
    ]
    writers = tuple((place, write) for place, write in enumerate(made) if write is not None)
    return _PreparedInsert(compiled.string, ordered, writers, compiled.positional)


def _insert(connection: Connection, table: Table) -> Any:
    return _insert_into(connection.dialect.name, table)


def _insert_into(dialect: str, table: Table) -> Any:
    # The two dialects spell ON CONFLICT alike but share no base class for it. Each is imported where it is in use.
    if dialect == "postgresql":
        from sqlalchemy.dialects import postgresql  # noqa: PLC0415

        return postgresql.insert(table)
    from sqlalchemy.dialects import sqlite  # noqa: PLC0415

    return sqlite.insert(table)


def new_id() -> str:
    """A random id of 96 bits."""
    return secrets.token_hex(12)


def value_of(kind: type[_Value], row: Any) -> _Value:
    """The struct whose fields are the columns of these names in a row."""
    return kind(**{name: getattr(row, name) for name in kind.__struct_fields__})
