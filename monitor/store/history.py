"""Position and history of each log: signed heads, the times it was watched, sums of each day, and trust roots.

A position is stored with everything that proves it, and moved only from the exact value that was read.

Signed heads are in the append-only `head` table, hash-chained so that a later change is noticed. Passes leave two
short records: a span while they succeed, and the sums of a day. Trust roots are numbered without a gap.
"""

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import Connection, and_, func, select, update

from alerts.alert import Owner
from monitor.model.errors import OwnFault, StateConflict
from monitor.model.log_source import Position, SignedHead, TimedEntry, TrustedHead
from monitor.store.database import Database, lock_name
from monitor.store.sql import add_new, table
from monitor.store.tables import HeadRow, LogDay, LogPosition, TrustRootRow, WatchedSpan
from tlog.merkle import HASH_SIZE, Frontier, MalformedFrontier, RootHash

_HEAD: Final = table(HeadRow)
_POSITION: Final = table(LogPosition)


def read_position(connection: Connection, log: str) -> Position | None:
    """Return the stored position. Raises `OwnFault` when the stored row cannot be one."""
    row = connection.execute(select(_POSITION).where(_POSITION.c.log == log)).mappings().first()
    return None if row is None else position_of(row)


def position_of(row: Any) -> Position:
    """Position in one row of the table."""
    try:
        frontier = Frontier.from_bytes(row["size"], bytes(row["frontier"]))
        cosigned = tuple(str(name) for name in json.loads(row["head_cosigned_by"]))
    except (MalformedFrontier, ValueError, TypeError) as error:
        raise OwnFault(
            f"{row['log']}: the stored position is damaged: {error}. Signwatch does not follow the log from it; "
            "restore the database."
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
    row = _position_row(position) | {"baseline_size": position.frontier.size, "baseline_how": how, "baseline_at": now}
    add_new(connection, _POSITION, [{"log": position.log, **row}])
    if read_position(connection, position.log) != position:
        raise StateConflict(f"{position.log} got a position from another process meanwhile")


def move_position(connection: Connection, old: Position, new: Position) -> None:
    """Compare and swap. Raises `StateConflict` when the stored position is not exactly `old` any more."""
    if old.log != new.log or new.frontier.size > new.head.head.size or new.frontier.size < old.frontier.size:
        raise OwnFault(f"{old.log}: refused to store a position that goes back or beyond its head")
    expected = and_(*(_POSITION.c[name] == value for name, value in _position_row(old).items() if value is not None))
    done = connection.execute(
        update(_POSITION).where(_POSITION.c.log == old.log, expected).values(**_position_row(new))
    )
    if done.rowcount != 1:
        raise StateConflict(f"{old.log} is no longer at entry {old.frontier.size}: another process moved it")


def _position_row(position: Position) -> dict[str, Any]:
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


def append_head(connection: Connection, head: SignedHead, now: datetime) -> bool:
    """Append a head; `False` when the log already made this very statement."""
    # A lock, because two writers would chain two rows to the same link.
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
    """Every recorded head of this size; more than one root is a fork."""
    rows = connection.execute(select(_HEAD).where(_HEAD.c.log == log, _HEAD.c.size == size)).mappings()
    return [SignedHead(log, size, RootHash(bytes(row["root"])), bytes(row["raw"]), final=row["final"]) for row in rows]


def first_seen(
    connection: Connection, log: str, heads: Sequence[tuple[int, bytes]]
) -> dict[tuple[int, bytes], datetime]:
    """Time of the first record of each of these heads, by size and root, without unrecorded ones."""
    found = {}
    for size, root in heads:
        here = (_HEAD.c.log == log, _HEAD.c.size == size, _HEAD.c.root == root)
        at = connection.execute(select(func.min(_HEAD.c.seen_at)).where(*here)).scalar()
        if at is not None:
            found[size, root] = at
    return found


def first_link(log: str) -> bytes:
    """The link that the first row of a log is chained to."""
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


_DAY: Final = table(LogDay)
_SPAN: Final = table(WatchedSpan)
# Bounds a page and a report for a log that fails every other pass for years.
_MOST_SPANS: Final = 20_000


class Pass(Struct, frozen=True):
    """A pass that succeeded: size of the position after it, and entries left unread below the head.

    After `longest_pause` without such a pass the log was not watched.
    """

    last: int
    lag: int
    longest_pause: timedelta


class Span(Struct, frozen=True):
    """A time in which a log was watched.

    `trouble` is the owner of the pause after it; `None` when Signwatch was not running.
    """

    began: datetime
    ended: datetime
    trouble: Owner | None = None


class Pause(Struct, frozen=True):
    """A time in which a log was not watched, with the owner of the trouble: `None` when no pass was tried."""

    began: datetime
    ended: datetime
    trouble: Owner | None = None

    @property
    def length(self) -> timedelta:
        """Length of the pause."""
        return self.ended - self.began


class DaySums(Struct, frozen=True):
    """One UTC day of one log: passes by result, the greatest lag after a pass, entries read `[first, last)`."""

    day: date
    passes: int
    failures: int
    lag: int
    first: int
    last: int


class SeenHead(Struct, frozen=True):
    """A head the log signed: `raw` as it was served, `seen_at` when it was first shown to us."""

    number: int
    size: int
    root: bytes
    seen_at: datetime
    final: bool
    raw: bytes = b""


def record_pass(connection: Connection, log: str, at: datetime, progress: Pass) -> None:
    """Record a pass that succeeded."""
    last = _last_span(connection, log)
    if last is None or at - last.ended_at > progress.longest_pause:
        add_new(connection, _SPAN, [{"log": log, "began_at": at, "ended_at": at, "trouble": None}])
    else:
        here = and_(_SPAN.c.log == log, _SPAN.c.began_at == last.began_at)
        connection.execute(update(_SPAN).where(here).values(ended_at=max(at, last.ended_at), trouble=None))
    day = _day_of(connection, log, at)
    sums = {"passes": _DAY.c.passes + 1, "last": progress.last}
    if day is None or progress.lag > day.lag:
        sums["lag"] = progress.lag
    connection.execute(update(_DAY).where(_DAY.c.log == log, _DAY.c.day == _key(at)).values(**sums))


def record_failure(connection: Connection, log: str, at: datetime, owner: Owner) -> None:
    """Record a failed pass: if no pass succeeds in time, `owner` becomes the owner of the pause."""
    last = _last_span(connection, log)
    if last is not None and last.trouble is None:
        here = and_(_SPAN.c.log == log, _SPAN.c.began_at == last.began_at)
        connection.execute(update(_SPAN).where(here).values(trouble=owner.value))
    _day_of(connection, log, at)
    here = and_(_DAY.c.log == log, _DAY.c.day == _key(at))
    connection.execute(update(_DAY).where(here).values(failures=_DAY.c.failures + 1))


class History:
    """Queries about the past of logs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def logs(self) -> list[str]:
        """Every log with a recorded head or pass."""
        with self._database.read() as connection:
            heads = connection.execute(select(_HEAD.c.log).distinct()).scalars()
            return sorted({*heads, *connection.execute(select(_DAY.c.log).distinct()).scalars()})

    def days(self, log: str, first: date, last: date) -> list[DaySums]:
        """Days of a log from `first` to `last`, both included, oldest first; a day without a pass is absent."""
        query = select(_DAY).where(_DAY.c.log == log, _DAY.c.day >= first.isoformat(), _DAY.c.day <= last.isoformat())
        with self._database.read() as connection:
            return [
                DaySums(date.fromisoformat(row.day), row.passes, row.failures, row.lag, row.first, row.last)
                for row in connection.execute(query.order_by(_DAY.c.day))
            ]

    def spans(self, log: str, begin: datetime, end: datetime, now: datetime, longest_pause: timedelta) -> list[Span]:
        """Times within `[begin, end)` in which a log was watched, oldest first, cut to it.

        The newest one lasts until `now` while a pass that succeeds now would extend it: a log is not unwatched between
        two polls.
        """
        # A pass before `begin` may still hold for it.
        query = select(_SPAN).where(
            _SPAN.c.log == log, _SPAN.c.ended_at >= begin - longest_pause, _SPAN.c.began_at < end
        )
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(_SPAN.c.began_at.desc()).limit(_MOST_SPANS)).all()[::-1]
        found = [Span(row.began_at, row.ended_at, Owner(row.trouble) if row.trouble else None) for row in rows]
        if found and now - found[-1].ended <= longest_pause:
            found[-1] = replace(found[-1], ended=max(found[-1].ended, now))
        return [
            replace(each, began=max(each.began, begin), ended=min(each.ended, end))
            for each in found
            if each.ended >= begin
        ]

    def trouble_before(self, log: str, at: datetime) -> Owner | None:
        """Owner of the trouble that kept passes from succeeding at a time; `None` when none was tried."""
        query = select(_SPAN.c.trouble).where(_SPAN.c.log == log, _SPAN.c.ended_at < at)
        with self._database.read() as connection:
            found = connection.execute(query.order_by(_SPAN.c.began_at.desc()).limit(1)).scalar()
        return Owner(found) if found else None

    def heads(self, log: str, limit: int) -> list[SeenHead]:
        """Newest heads of a log, newest first, whole."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(_HEAD).where(_HEAD.c.log == log).order_by(_HEAD.c.number.desc()).limit(limit)
            )
            return [_seen(row, bytes(row.raw)) for row in rows]

    def heads_between(self, log: str, begin: datetime, end: datetime) -> tuple[int, list[SeenHead]]:
        """Heads first seen in `[begin, end)`: their number, and the heads that a report needs whole, oldest first.

        Whole are the last one before `begin`, and in the range the first, the last of each UTC day, and every head
        that is not larger than an earlier one, because a fork has two heads of one size.
        """
        within = (_HEAD.c.log == log, _HEAD.c.seen_at >= begin, _HEAD.c.seen_at < end)
        columns = _HEAD.c["number", "size", "root", "seen_at", "final"]
        before = select(_HEAD).where(_HEAD.c.log == log, _HEAD.c.seen_at < begin).order_by(_HEAD.c.number.desc())
        with self._database.read() as connection:
            known = connection.execute(before.limit(1)).first()
            count, wanted = _wanted(connection.execute(select(*columns).where(*within).order_by(_HEAD.c.number)))
            found = [] if known is None else [_seen(known, bytes(known.raw))]
            for number in wanted:
                row = connection.execute(select(_HEAD).where(_HEAD.c.log == log, _HEAD.c.number == number)).one()
                found.append(_seen(row, bytes(row.raw)))
        return count, found

    def head_count(self, log: str) -> int:
        """Number of heads that a log signed for us."""
        with self._database.read() as connection:
            return int(connection.execute(select(func.count()).where(_HEAD.c.log == log)).scalar_one())


def pauses(spans: Sequence[Span], begin: datetime, end: datetime, before: Owner | None) -> Iterator[Pause]:
    """Times in `[begin, end)` outside all spans; `before` is the owner of a pause that began earlier."""
    at, trouble = begin, before
    for span in spans:
        if span.began > at:
            yield Pause(at, span.began, trouble)
        at, trouble = max(at, span.ended), span.trouble
    if at < end:
        yield Pause(at, end, trouble)


def _wanted(rows: Any) -> tuple[int, list[int]]:
    """Count heads, and number those to show whole; rows come in the order in which the log signed them."""
    count, largest = 0, -1
    day: date | None = None
    wanted: dict[int, None] = {}
    last = None
    for row in rows:
        if count == 0 or row.size <= largest or row.final:
            wanted[row.number] = None
        if day is not None and row.seen_at.date() != day and last is not None:
            wanted[last] = None
        count, largest, day, last = count + 1, max(largest, row.size), row.seen_at.date(), row.number
    if last is not None:
        wanted[last] = None
    return count, sorted(wanted)


def _last_span(connection: Connection, log: str) -> Any:
    return connection.execute(
        select(_SPAN).where(_SPAN.c.log == log).order_by(_SPAN.c.began_at.desc()).limit(1)
    ).first()


def _day_of(connection: Connection, log: str, at: datetime) -> Any:
    """The row of a day, made where it is missing.

    A day begins at the end of the day before, or at the log's baseline. So the sums hold all entries even if a
    process dies between a commit and this record.
    """
    here = select(_DAY).where(_DAY.c.log == log, _DAY.c.day == _key(at))
    row = connection.execute(here).first()
    if row is None:
        newest = select(_DAY.c.last).where(_DAY.c.log == log).order_by(_DAY.c.day.desc()).limit(1)
        size = connection.execute(newest).scalar()
        if size is None:
            size = connection.execute(select(_POSITION.c.baseline_size).where(_POSITION.c.log == log)).scalar() or 0
        sums = {"passes": 0, "failures": 0, "lag": 0, "first": size, "last": size}
        add_new(connection, _DAY, [{"log": log, "day": _key(at), **sums}])
    return row


def _key(at: datetime) -> str:
    return at.astimezone(UTC).date().isoformat()


def _seen(row: Any, raw: bytes) -> SeenHead:
    return SeenHead(row.number, row.size, bytes(row.root), row.seen_at, bool(row.final), raw)


_ROOT = table(TrustRootRow)


class KeptRoot(Struct, frozen=True):
    """A trust root file as it was read, `number` counting from 0; `fingerprint` is the hex SHA-256 of `document`."""

    number: int
    fingerprint: str
    document: bytes
    seen_at: datetime


def kept_roots(connection: Connection) -> list[KeptRoot]:
    """Every root, oldest first."""
    rows = connection.execute(select(_ROOT).order_by(_ROOT.c.number)).mappings()
    return [KeptRoot(row["number"], row["fingerprint"], bytes(row["document"]), row["seen_at"]) for row in rows]


def add_root(connection: Connection, root: KeptRoot) -> bool:
    """Add a root; false when its number is taken."""
    row = {
        "number": root.number,
        "fingerprint": root.fingerprint,
        "document": root.document,
        "seen_at": root.seen_at,
    }
    add_new(connection, _ROOT, [row])
    query = select(_ROOT.c.fingerprint, _ROOT.c.seen_at).where(_ROOT.c.number == root.number)
    return tuple(connection.execute(query).one()) == (root.fingerprint, root.seen_at)
