"""The ledger of one scan: a small database of its own, so that a killed scan continues at its last proven position.

It holds the scan's frontier, the head that proves it, and every finding so far. The code that keeps the monitor's own
state commits these together, batch by batch.
"""

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import asdict
from sqlalchemy import select
from typing_extensions import override

from alerts.alert import Alert
from monitor.backscan.progress import Progress
from monitor.model.errors import OwnFault
from monitor.model.log_source import Position
from monitor.model.state import Batch
from monitor.program import VERSION
from monitor.store.database import open_database, write_draft
from monitor.store.facts import ListedDigests
from monitor.store.reading import Reading
from monitor.store.sql import table
from monitor.store.store import Store
from monitor.store.tables import FindingRow, LogPosition

_FOUND: Final = table(FindingRow)
_POSITION: Final = table(LogPosition)


class Unfinished(OwnFault):
    """The ledger of an unfinished run exists, and the caller does not ask to resume it."""


class Scope(Struct, frozen=True):
    """Subject of a scan: the tree and its key, the range as asked for, and a digest of the rules it runs."""

    log: str
    key: str
    first: int
    last: int | None
    rules: str

    def id(self) -> str:
        """Stable name of a scan: equal arguments on the command line name the same scan, for any rules."""
        asked = [self.log, self.key, self.first, self.last]
        return sha256(json.dumps(asked).encode()).hexdigest()[:16]


class LedgerFinding(Struct, frozen=True):
    """One finding of a scan; `signing` and `reasons` are plain JSON types of untrusted text."""

    log: str
    index: int
    rule: str
    outcome: str
    reasons: Sequence[Mapping[str, str]]
    signing: Mapping[str, Any]


class ScanLedger(Progress):
    """An open ledger. Implements `monitor.backscan.progress.Progress`; the scan ends before entry `last`."""

    def __init__(self, path: Path, store: Store, log: str, last: int) -> None:
        self.path, self.store, self.last = path, store, last
        self._log = log

    @override
    def position(self, log: str) -> Position | None:
        return self.store.position(log)

    @override
    def baseline(self, position: Position, how: str) -> None:
        self.store.baseline(position, how)

    @override
    def advance(self, old: Position, new: Position, batch: Batch, alerts: Sequence[Alert]) -> None:
        self.store.advance(old, new, batch, alerts)

    def outcomes(self) -> dict[str, int]:
        """Number of findings by outcome."""
        return Reading(self.store.database).outcomes()

    def unreadable(self) -> dict[str, int]:
        """Number of unreadable entries by reason code."""
        return {code: count for (_, code), count in Reading(self.store.database).unreadable().items()}

    def dropped(self) -> int:
        """Number of matches left out, because more rules select an entry than are judged."""
        return sum(each.matches for each in self.store.rule_load.dropped().values())

    def kinds(self) -> dict[str, int]:
        """Number of entries by kind."""
        return {kind: count for (_, kind), count in Reading(self.store.database).kinds().items()}

    def findings(self) -> Iterator[LedgerFinding]:
        """Every finding in the order of the log, a few at a time."""
        query = select(_FOUND).order_by(_FOUND.c.entry, _FOUND.c.rule).execution_options(yield_per=200)
        with self.store.database.read() as connection:
            for row in connection.execute(query).mappings():
                yield LedgerFinding(
                    row["log"],
                    row["entry"],
                    row["rule"],
                    row["outcome"],
                    json.loads(row["reasons"]),
                    json.loads(row["signing"]),
                )


@contextmanager
def open_ledger(
    folder: Path,
    scope: Scope,
    begin: Callable[[], tuple[Position, int]],
    clock: Callable[[], datetime],
    digests: ListedDigests,
    *,
    resume: bool,
) -> Iterator[ScanLedger]:
    """Open the ledger of this scan, or `begin` a new one.

    The ledger is removed when the block ends without an error, because its findings were shown then.
    Raises `Unfinished`, `OwnFault`.
    """
    path = folder / f"{scope.id()}.db"
    with _alone(path):
        if path.exists() and not resume:
            raise Unfinished(
                f"{path}: there is an unfinished scan of this range. Go on with --resume, or remove the file to begin "
                "anew."
            )
        if not path.exists():
            _make(path, scope, *begin(), clock)
        store = Store(open_database(str(path), check=True), clock=clock, route=lambda _: (), digests=digests)
        try:
            yield ScanLedger(path, store, scope.log, _asked(store, path, scope))
        finally:
            store.close()
        _remove(path)


def _make(path: Path, scope: Scope, position: Position, last: int, clock: Callable[[], datetime]) -> None:
    """Make the ledger under another name and rename it, so that a crash leaves no incomplete ledger at its place."""
    new = path.with_suffix(".new")
    _remove(new)
    try:
        write_draft(new, clock(), VERSION, with_site=False)
        store = Store(open_database(str(new)), clock=clock, route=lambda _: ())
        try:
            store.baseline(position, json.dumps({**asdict(scope), "end": last}))
        finally:
            # Closing the last connection folds SQLite's write-ahead log into the file that is renamed.
            store.close()
        # A killed scan leaves its write-ahead log, which SQLite would read into the new ledger.
        _remove(path)
        os.replace(new, path)  # noqa: PTH105  the rename that makes it so
    finally:
        _remove(new)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _asked(store: Store, path: Path, scope: Scope) -> int:
    with store.database.read() as connection:
        how = connection.execute(select(_POSITION.c.baseline_how).where(_POSITION.c.log == scope.log)).scalar()
    try:
        kept = json.loads(how or "")
        begun_with, last = str(kept["rules"]), int(kept["end"])
    except (ValueError, KeyError, TypeError) as error:
        raise OwnFault(f"{path}: this is no ledger of a scan of {scope.log}; remove the file to begin anew.") from error
    if begun_with != scope.rules:
        raise Unfinished(
            f"{path}: this scan was begun with other rules, and its findings would be by both. Give it the rules it "
            "was begun with, or remove the file to begin anew."
        )
    return last


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold the lock of a ledger, in a folder that is made if it is absent. Lock and new folder go at the end.

    Raises `OwnFault`.
    """
    lock, running = _lock_of(path), OwnFault(f"{path}: this very scan is running already.")
    descriptor, is_made = _lock_file(lock)
    is_held = False
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A scan that ended meanwhile removed this file: the next one makes and locks another.
            is_held = os.path.samestat(os.fstat(descriptor), lock.stat())
        except OSError as error:
            raise running from error
        if not is_held:
            raise running
        yield
    finally:
        if is_held:
            lock.unlink(missing_ok=True)
        os.close(descriptor)
        if is_made:
            with suppress(OSError):  # it holds an unfinished scan, or evidence
                path.parent.rmdir()


def _lock_file(lock: Path, tries: int = 3) -> tuple[int, bool]:
    """Descriptor of the lock file, and true if its folder was made for it. Raises `OwnFault`."""
    folder = lock.parent
    is_made = not folder.exists()
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        return os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), is_made
    except OSError as error:
        # Another scan that ended may have removed the folder in between.
        if tries > 1 and isinstance(error, FileNotFoundError):
            return _lock_file(lock, tries - 1)
        raise OwnFault(
            f"{folder}: the ledger of the scan cannot be kept here: {error.strerror}. Make the folder writable."
        ) from error


def _lock_of(path: Path) -> Path:
    return path.with_suffix(".lock")


def _remove(path: Path) -> None:
    for each in (path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
        with suppress(FileNotFoundError):
            each.unlink()
