"""Column types that mean the same in SQLite and PostgreSQL, for hostile values too."""

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Final

from sqlalchemy import BigInteger, Dialect, Integer, Text
from sqlalchemy.types import TypeDecorator

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

# SQLite counts rows up by itself only in a plain INTEGER primary key; PostgreSQL's INTEGER ends at 2^31.
RowNumber = BigInteger().with_variant(Integer, "sqlite")


class UtcTime(TypeDecorator[datetime]):
    """A time with its zone, kept as whole microseconds since 1970: exact, sortable, the same in every database."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:  # noqa: ARG002
        """Refuse a naive time: it means another moment on another machine."""
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

    PostgreSQL keeps neither, and an entry that cannot be stored would stop a log from being followed for ever. So both
    are written as escapes, and the backslash that introduces them is doubled.
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
