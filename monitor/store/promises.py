"""Promises of followed logs that are not shown to be kept yet, and counts of the settled ones."""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Final

from msgspec import Struct
from sqlalchemy import ColumnElement, Connection, and_, case, delete, func, or_, select, update

from monitor.model.errors import OwnFault, PromiseKind, PromiseStatement
from monitor.model.inclusion_promise import BadPromise, InclusionPromise, Overdue, read_promise
from monitor.model.log_source import LogApi, PromisedRange, read_head
from monitor.store.database import Database
from monitor.store.sql import add_new, add_up, known_values, table
from monitor.store.tables import EvidenceRow, LogPosition, PromiseCount, PromiseRow

PENDING: Final = "pending"
BROKEN: Final = "broken"
# Ends of a promise beside broken: shown to be kept, never decided, or refused because too many wait.
KEPT: Final = "kept"
UNDECIDED: Final = "undecided"
REFUSED: Final = "refused"
# Beginning of the detail of a promise about which the log did not answer.
UNASKED: Final = "the log could not be asked: "
MAX_PENDING: Final = 10_000
_AT_ONCE: Final = 20
_FEW: Final = 4
_MAX_DETAIL: Final = 2_000
# Longer than any merge delay or outage: a promise still undecided by then stays undecided.
_GIVE_UP_AFTER: Final = timedelta(days=30)

_PROMISE = table(PromiseRow)
_COUNT = table(PromiseCount)


class KeptPromise(Struct, frozen=True):
    """A waiting promise.

    `due` is the time by which it must be kept, `tries` counts passes in which the log did not show it.
    """

    promise: InclusionPromise
    seen_at: datetime
    due: datetime
    tries: int


class PromiseTally(Struct, frozen=True):
    """Numbers of promises: waiting, of these overdue, and settled ones by result."""

    pending: int = 0
    overdue: int = 0
    kept: int = 0
    broken: int = 0
    undecided: int = 0
    refused: int = 0


class Promises:
    """Promises in the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def remember(self, promises: Iterable[InclusionPromise], now: datetime) -> int:
        """Store promises of followed logs until they are settled; returns the number of new ones."""
        with self._database.write() as connection:
            return add_promises(connection, promises, now)

    def waiting(
        self, log_id: str, kind: PromiseKind, places: PromisedRange, size: int, now: datetime
    ) -> list[KeptPromise]:
        """Promises of a tree to check now, the longest waiting first, at most some dozens.

        `places` are the promised indexes of the tree (`PromisingSource.promised_range`), `size` its number of
        entries: a promise beyond it is checked when it is due.
        """
        at = _PROMISE.c
        reached = at.entry < places.start + size
        before_stop = [] if places.stop is None else [at.entry < places.stop]
        mine = and_(at.entry >= places.start, or_(reached, at.due_at < now), *before_stop)
        query = (
            select(_PROMISE)
            .where(at.log_id == log_id, at.kind == kind.value, at.state == PENDING, at.next_at <= now)
            .where(or_(at.entry.is_(None), mine))
            .order_by(at.next_at, at.id)
            .limit(_AT_ONCE)
        )
        with self._database.read() as connection:
            rows = connection.execute(query).mappings().all()
        return [KeptPromise(_promise(row), row["seen_at"], row["due_at"], row["tries"]) for row in rows]

    def of_index(self, promise: InclusionPromise) -> list[InclusionPromise]:
        """Known promises of other entries for the same index: at most a handful."""
        if promise.index is None:
            return []
        at = _PROMISE.c
        same = (at.log_id == promise.log_id, at.kind == promise.kind.value, at.entry == promise.index)
        with self._database.read() as connection:
            query = select(_PROMISE).where(*same, at.id != promise.id).order_by(at.seen_at, at.id).limit(_FEW)
            return [_promise(row) for row in connection.execute(query).mappings()]

    def is_pending(self, promise: InclusionPromise) -> bool:
        """True if a promise is stored and not settled."""
        here = (_PROMISE.c.id == promise.id, _PROMISE.c.state == PENDING)
        with self._database.read() as connection:
            return connection.execute(select(_PROMISE.c.id).where(*here)).first() is not None

    def look_again(self, waiting: KeptPromise, at: datetime, detail: str, *, unshown: bool = False) -> None:
        """Check a promise again at `at`; `unshown` counts one more pass in which it was due and not shown."""
        values = {"next_at": at, "detail": detail[:_MAX_DETAIL], "tries": waiting.tries + unshown}
        with self._database.write() as connection:
            connection.execute(update(_PROMISE).where(_PROMISE.c.id == waiting.promise.id).values(**values))

    def kept(self, promise: InclusionPromise) -> None:
        """Delete a promise that was shown to be kept, and count it."""
        with self._database.write() as connection:
            if connection.execute(delete(_PROMISE).where(_PROMISE.c.id == promise.id)).rowcount:
                _count(connection, promise.log_id, KEPT, 1)

    def broken(self, promise: InclusionPromise, evidence: str) -> None:
        """Mark a promise as broken, with its stored `evidence`; it stays on record."""
        with self._database.write() as connection:
            here = _PROMISE.c.id == promise.id
            connection.execute(update(_PROMISE).where(here).values(state=BROKEN, evidence=evidence))

    def unasked(self, now: datetime) -> list[Overdue]:
        """Overdue promises about which the log did not answer at the last try, by log."""
        at = _PROMISE.c
        return self._overdue(and_(at.state == PENDING, at.due_at < now, at.detail.startswith(UNASKED)))

    def to_give_up(self, now: datetime) -> list[Overdue]:
        """The promises that `give_up` would delete, by log."""
        return self._overdue(_given_up(now))

    def _overdue(self, which: ColumnElement[bool]) -> list[Overdue]:
        at = _PROMISE.c
        counts = select(at.log_id, func.count(), func.max(at.detail)).where(which).group_by(at.log_id)
        # A promise waits from its first sighting here, for a bundle of any age.
        since = case((at.due_at > at.seen_at, at.due_at), else_=at.seen_at)
        with self._database.read() as connection:
            found = connection.execute(counts.add_columns(func.min(since)).order_by(at.log_id)).all()
        return [Overdue(log_id, int(count), oldest, detail) for log_id, count, detail, oldest in found]

    def give_up(self, now: datetime) -> None:
        """Delete and count promises that were due and known for a month without a decision."""
        old = _given_up(now)
        with self._database.read() as connection:
            if connection.execute(select(_PROMISE.c.id).where(old).limit(1)).first() is None:
                return
        with self._database.write() as connection:
            given_up = select(_PROMISE.c.log_id, func.count().label("n")).where(old).group_by(_PROMISE.c.log_id)
            for log_id, number in connection.execute(given_up).all():
                _count(connection, log_id, UNDECIDED, number)
            connection.execute(delete(_PROMISE).where(old))

    def tally(self, now: datetime) -> PromiseTally:
        """Numbers over all logs."""
        at = _PROMISE.c
        with self._database.read() as connection:
            by_state = connection.execute(select(at.state, func.count()).group_by(at.state))
            states = {state: int(number) for state, number in by_state}
            late = select(func.count()).select_from(_PROMISE).where(at.state == PENDING, at.due_at < now)
            overdue = connection.execute(late).scalar_one()
            counted = select(_COUNT.c.outcome, func.sum(_COUNT.c.entries)).group_by(_COUNT.c.outcome)
            ended = {outcome: int(number) for outcome, number in connection.execute(counted)}
        return PromiseTally(
            pending=states.get(PENDING, 0),
            overdue=overdue,
            kept=ended.get(KEPT, 0),
            broken=states.get(BROKEN, 0),
            undecided=ended.get(UNDECIDED, 0),
            refused=ended.get(REFUSED, 0),
        )


def _given_up(now: datetime) -> ColumnElement[bool]:
    before, at = now - _GIVE_UP_AFTER, _PROMISE.c
    # A bundle may be years old: only the time since its first sighting here counts.
    return and_(at.state == PENDING, at.due_at < before, at.seen_at < before)


def add_promises(connection: Connection, promises: Iterable[InclusionPromise], now: datetime) -> int:
    """Store the promises of followed logs, within the caller's transaction; returns the number of new ones.

    Promises of other logs are not stored, because they cannot be checked here. At most `MAX_PENDING` of one log are
    stored; the others are counted.
    """
    by_log: dict[tuple[bytes, PromiseKind], dict[str, InclusionPromise]] = {}
    for promise in promises:
        by_log.setdefault((promise.spki, promise.kind), {})[promise.id] = promise
    added = 0
    for (spki, kind), wanted in by_log.items():
        if not _is_followed(connection, spki, kind):
            continue
        log_id = sha256(spki).hexdigest()
        known = known_values(connection, _PROMISE.c.id, list(wanted))
        waiting = and_(_PROMISE.c.log_id == log_id, _PROMISE.c.state == PENDING)
        room = MAX_PENDING - connection.execute(select(func.count()).select_from(_PROMISE).where(waiting)).scalar_one()
        new = [each for each in wanted.values() if each.id not in known]
        add_new(connection, _PROMISE, [_row(each, now) for each in new[: max(0, room)]])
        if len(new) > room:
            _count(connection, log_id, REFUSED, len(new) - max(0, room))
        added += min(len(new), max(0, room))
    return added


def broken_promises(connection: Connection) -> Iterator[str]:
    """Verify every promise again; one sentence for each that was changed or has no evidence."""
    evidence = set(connection.execute(select(table(EvidenceRow).c.id)).scalars())
    for row in connection.execute(select(_PROMISE).order_by(_PROMISE.c.id)).mappings():
        try:
            promise = _promise(row)
        except OwnFault as fault:
            yield str(fault)
            continue
        if (promise.id, promise.log_id, promise.index) != (row["id"], row["log_id"], row["entry"]):
            yield f"promise {row['id']} is filed under another name than its own"
        if row["state"] == BROKEN and row["evidence"] not in evidence:
            yield f"promise {row['id']} is told to be broken, and there is no evidence of it"
    for row in connection.execute(select(_COUNT).where(_COUNT.c.entries < 0)).mappings():
        yield f"promises of log {row['log_id']} counted as {row['outcome']}: {row['entries']}"


def _is_followed(connection: Connection, spki: bytes, kind: PromiseKind) -> bool:
    """True if this key signed the stored head of some followed log."""
    apis = [api for api in LogApi if api.promise is kind]
    raws = [bytes(raw) for raw in connection.execute(select(table(LogPosition).c.head_raw)).scalars()]
    return any(_signed(raw, api, spki) for raw in raws for api in apis)


def _signed(raw: bytes, api: LogApi, spki: bytes) -> bool:
    # SPEC rekor checkpoint.go: the origin is "<host> - <tree ID>", the key's name the host. Elsewhere both are one.
    name = raw.split(b"\n", 1)[0].decode(errors="replace").partition(" - ")[0]
    try:
        read_head(raw, api, name, spki)
    except ValueError:
        return False
    return True


def _row(promise: InclusionPromise, now: datetime) -> dict[str, object]:
    return {
        "id": promise.id,
        "log_id": promise.log_id,
        "kind": promise.kind.value,
        "entry": promise.index,
        "spki": promise.spki,
        "statement": promise.signed.statement,
        "signature": promise.signed.signature,
        "seen_at": now,
        "due_at": promise.due(now),
        "next_at": now,
        "tries": 0,
        "state": PENDING,
        "detail": "",
        "evidence": None,
    }


def _promise(row: Any) -> InclusionPromise:
    signed = PromiseStatement(row["kind"], bytes(row["statement"]), bytes(row["signature"]))
    try:
        return read_promise(signed, bytes(row["spki"]))
    except BadPromise as error:
        raise OwnFault(
            f"promise {row['id']} is not what was kept: {error}. Restore the database from a backup."
        ) from error


def _count(connection: Connection, log_id: str, outcome: str, number: int) -> None:
    add_up(connection, _COUNT, [{"log_id": log_id, "outcome": outcome, "entries": number}], ("log_id", "outcome"))
