"""Positions: stored with everything that proves them, moved only from the exact value that was read."""

import json
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, select, update

from monitor.model.errors import OwnFault, StateConflict
from monitor.model.log_source import Position, SignedHead, TimedEntry, TrustedHead
from monitor.store.sql import add_new, table
from monitor.store.tables import LogPosition
from tlog.frontier import Frontier, MalformedFrontier
from tlog.merkle import HASH_SIZE, RootHash

_LOG_POSITION = table(LogPosition)


def read_position(connection: Connection, log: str) -> Position | None:
    """Return the stored position. Raises `OwnFault` when the stored row cannot be one."""
    row = connection.execute(select(_LOG_POSITION).where(_LOG_POSITION.c.log == log)).mappings().first()
    return None if row is None else position_of(row)


def position_of(row: Any) -> Position:
    """Position in one row of the table."""
    try:
        frontier = Frontier.from_bytes(row["size"], bytes(row["frontier"]))
        cosigned = tuple(str(name) for name in json.loads(row["head_cosigned_by"]))
    except (MalformedFrontier, ValueError, TypeError) as error:
        raise OwnFault(
            f"{row['log']}: the stored position is damaged: {error}. Nothing is followed from it; restore the database."
        ) from error
    if len(row["head_root"]) != HASH_SIZE or frontier.size > row["head_size"]:
        raise OwnFault(f"{row['log']}: the stored position contradicts its head. Restore the database from a backup.")
    head = SignedHead(
        log=row["log"],
        size=row["head_size"],
        root=RootHash(bytes(row["head_root"])),
        raw=bytes(row["head_raw"]),
        timestamp=row["head_timestamp"],
        final=row["head_final"],
        cosigned_by=cosigned,
    )
    timed, at = row["timed_entry"], row["timed_at"]
    if (timed is None) != (at is None) or (timed is not None and not 0 <= timed < frontier.size):
        raise OwnFault(
            f"{row['log']}: the stored position names a time of no entry. Restore the database from a backup."
        )
    return Position(row["log"], frontier, TrustedHead(head), TimedEntry(timed, at) if timed is not None else None)


def first_position(connection: Connection, position: Position, how: str, now: datetime) -> None:
    """Store a baseline. Raises `StateConflict` if the log has a position."""
    if read_position(connection, position.log) is not None:
        raise StateConflict(f"{position.log} already has a position; a baseline is made once")
    row = _row(position) | {"baseline_size": position.frontier.size, "baseline_how": how, "baseline_at": now}
    add_new(connection, _LOG_POSITION, [{"log": position.log, **row}])
    if read_position(connection, position.log) != position:
        raise StateConflict(f"{position.log} got a position from another process meanwhile")


def move_position(connection: Connection, old: Position, new: Position) -> None:
    """Compare and swap. Raises `StateConflict` when the stored position is no longer exactly `old`."""
    if old.log != new.log or new.frontier.size > new.head.head.size or new.frontier.size < old.frontier.size:
        raise OwnFault(f"{old.log}: refused to store a position that goes back or beyond its head")
    expected = and_(*(_LOG_POSITION.c[name] == value for name, value in _row(old).items() if value is not None))
    done = connection.execute(update(_LOG_POSITION).where(_LOG_POSITION.c.log == old.log, expected).values(**_row(new)))
    if done.rowcount != 1:
        raise StateConflict(f"{old.log} is no longer at entry {old.frontier.size}: another process moved it")


def _row(position: Position) -> dict[str, Any]:
    head = position.head.head
    return {
        "size": position.frontier.size,
        "frontier": position.frontier.to_bytes(),
        "head_size": head.size,
        "head_root": bytes(head.root),
        "head_raw": head.raw,
        "head_timestamp": head.timestamp,
        "head_final": head.final,
        "head_cosigned_by": json.dumps(list(head.cosigned_by)),
        "timed_entry": position.last_timed.entry if position.last_timed else None,
        "timed_at": position.last_timed.at if position.last_timed else None,
    }
