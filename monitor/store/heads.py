"""The append-only history of every head a log signed for us, hash-chained so that a later change shows."""

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection, func, select

from monitor.model.heads import SignedHead
from monitor.store.database import lock_name
from monitor.store.tables import Head, table
from tlog.merkle import RootHash

_HEAD = table(Head)


def append_head(connection: Connection, head: SignedHead, now: datetime) -> bool:
    """Append a head; `False` when the log already made this very statement."""
    # Two writers would otherwise chain two rows to the same link.
    lock_name(connection, f"heads {head.log}")
    same = (_HEAD.c.log == head.log, _HEAD.c.size == head.size, _HEAD.c.root == head.root, _HEAD.c.final == head.final)
    if connection.execute(select(_HEAD.c.number).where(*same)).first() is not None:
        return False
    last = connection.execute(
        select(_HEAD.c.number, _HEAD.c.link).where(_HEAD.c.log == head.log).order_by(_HEAD.c.number.desc()).limit(1)
    ).first()
    row = {
        "log": head.log,
        "number": 0 if last is None else last.number + 1,
        "size": head.size,
        "root": bytes(head.root),
        "final": head.final,
        "raw": head.raw,
        "seen_at": now,
    }
    row["link"] = link(first_link(head.log) if last is None else bytes(last.link), row)
    connection.execute(_HEAD.insert(), row)
    return True


def heads_at(connection: Connection, log: str, size: int) -> list[SignedHead]:
    """Every head of this size that the log ever signed for us; more than one root is a fork."""
    rows = connection.execute(select(_HEAD).where(_HEAD.c.log == log, _HEAD.c.size == size)).mappings()
    return [SignedHead(log, size, RootHash(bytes(row["root"])), bytes(row["raw"]), final=row["final"]) for row in rows]


def first_seen(
    connection: Connection, log: str, heads: Sequence[tuple[int, bytes]]
) -> dict[tuple[int, bytes], datetime]:
    """When each of these heads, by size and root, was first recorded; those never recorded are left out."""
    found = {}
    for size, root in heads:
        here = (_HEAD.c.log == log, _HEAD.c.size == size, _HEAD.c.root == root)
        at = connection.execute(select(func.min(_HEAD.c.seen_at)).where(*here)).scalar()
        if at is not None:
            found[size, root] = at
    return found


def first_link(log: str) -> bytes:
    """What the first row of a log is chained to."""
    return sha256(f"signwatch head history\n{log}".encode()).digest()


def link(previous: bytes, row: Any) -> bytes:
    """SHA-256 over the previous link and everything in this row."""
    told = [row["log"], row["number"], row["size"], bytes(row["root"]).hex(), bool(row["final"])]
    told += [bytes(row["raw"]).hex(), row["seen_at"].isoformat()]
    return sha256(previous + json.dumps(told, separators=(",", ":")).encode()).digest()


def broken_links(connection: Connection) -> Iterator[str]:
    """Recompute every chain; one sentence for each row that does not follow from the one before."""
    last: str | None = None
    previous, number = b"", 0
    rows = connection.execute(select(_HEAD).order_by(_HEAD.c.log, _HEAD.c.number)).mappings()
    for row in rows:
        if row["log"] != last:
            last, previous, number = row["log"], first_link(row["log"]), 0
        if row["number"] != number:
            yield f"{last}: head {number} of the history is missing"
        elif link(previous, row) != bytes(row["link"]):
            yield f"{last}: head {number} of the history (size {row['size']}) is not the one that was recorded"
        previous, number = bytes(row["link"]), row["number"] + 1
