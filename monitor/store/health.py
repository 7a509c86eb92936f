"""State of following that outlives a restart: trouble with each log, its witnesses, the load of the rules."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import Connection, and_, delete, func, select

from alerts.alert import Owner, alert_id
from monitor.model.errors import OwnFault
from monitor.model.state import LeftOut
from monitor.model.witness_policy import WitnessStatus
from monitor.store.database import Database
from monitor.store.history import Pass, record_failure, record_pass
from monitor.store.sql import add_or_replace, table
from monitor.store.tables import DroppedMatch, HeadRow, LogHealth, LogPosition, RulesInForce, WitnessStatusRow

_HEALTH = table(LogHealth)
_MAX_DETAIL = 2_000
_GROWTH = 5_000


class LogTrouble(Struct, frozen=True):
    """Present trouble with a log: its owner, a fixed word, a sentence, and its beginning."""

    owner: Owner
    reason: str
    detail: str
    since: datetime


class LogCondition(Struct, frozen=True):
    """A log's condition. `fresh_at` is the time of its last new head.

    `read` is the size of the newest tree that was read to its end, and the start of that pass. `behind_since`: every
    later pass got a smaller tree than the trusted one.
    """

    log: str
    last_pass_at: datetime | None = None
    last_success_at: datetime | None = None
    fresh_at: datetime | None = None
    trouble: LogTrouble | None = None
    read: tuple[int, datetime] | None = None
    behind_since: datetime | None = None


class Health:
    """Conditions of all logs in the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, log: str) -> LogCondition:
        """Condition of one log; an empty one when it was never asked."""
        return self.all().get(log, LogCondition(log))

    def all(self) -> dict[str, LogCondition]:
        """Conditions by log."""
        with self._database.read() as connection:
            return {row["log"]: _condition(row) for row in connection.execute(select(_HEALTH)).mappings()}

    def went_well(
        self,
        log: str,
        at: datetime,
        fresh_at: datetime | None,
        *,
        read: tuple[int, datetime] | None = None,
        progress: Pass | None = None,
        behind: bool = False,
    ) -> LogCondition:
        """Record a successful pass; `fresh_at` is the time of its head, `None` without a new head.

        `read` is the size of the newest tree and the start of the pass, if it read that tree to its end. `progress`
        goes into the history of the log. Earlier trouble ends. `behind` means that the log showed a smaller tree than
        the trusted one.
        """
        before = self.of(log)
        if fresh_at is None:
            # A pass that was killed after it stored a new head did not record its time here; the history has the time.
            known = (before.fresh_at, self._newest_head(log))
            # A clock that was ahead once left times in the future, which would hide a frozen log until then.
            fresh_at = max((each for each in known if each is not None and each <= at), default=None)
        # A clock that was ahead once must neither shorten nor extend the wait.
        since = min(before.behind_since or at, at) if behind else None
        fresh = min(fresh_at or at, at)
        condition = LogCondition(log, at, at, fresh, read=read or before.read, behind_since=since)
        with self._database.write() as connection:
            if progress is not None:
                record_pass(connection, log, at, progress)
            return _keep(connection, condition)

    def went_wrong(self, log: str, at: datetime, owner: Owner, reason: str, detail: str) -> LogCondition:
        """Record a pass that failed. `since` stays for as long as the same kind of trouble lasts."""
        before = self.of(log)
        since = before.trouble.since if before.trouble is not None and before.trouble.owner is owner else at
        trouble = LogTrouble(owner, reason, detail[:_MAX_DETAIL], since)
        condition = replace(before, last_pass_at=at, trouble=trouble)
        with self._database.write() as connection:
            record_failure(connection, log, at, owner)
            return _keep(connection, condition)

    def growth(self, log: str) -> list[tuple[datetime, int]]:
        """When the newest heads of a log were first seen, and their sizes, oldest first; at most a few thousand."""
        head = table(HeadRow).c
        query = select(head.seen_at, head.size).where(head.log == log).order_by(head.number.desc()).limit(_GROWTH)
        with self._database.read() as connection:
            return [(row.seen_at, row.size) for row in connection.execute(query)][::-1]

    def forget(self, log: str) -> None:
        """Delete the health of a name that no log has any more."""
        with self._database.write() as connection:
            connection.execute(delete(_HEALTH).where(_HEALTH.c.log == log))

    def _newest_head(self, log: str) -> datetime | None:
        """Time of the trusted head: its signed time if it has one, but not later than its first sighting."""
        at, seen = table(LogPosition).c, table(HeadRow).c
        same = and_(seen.log == at.log, seen.size == at.head_size, seen.root == at.head_root)
        query = select(func.min(seen.seen_at), at.head_timestamp).join_from(table(LogPosition), table(HeadRow), same)
        with self._database.read() as connection:
            row = connection.execute(query.where(at.log == log).group_by(at.head_timestamp)).first()
        return None if row is None else min(filter(None, row))


def _keep(connection: Connection, now: LogCondition) -> LogCondition:
    trouble = now.trouble
    row = {
        "log": now.log,
        "last_pass_at": now.last_pass_at,
        "last_success_at": now.last_success_at,
        "fresh_at": now.fresh_at,
        "read_size": now.read[0] if now.read else None,
        "read_at": now.read[1] if now.read else None,
        "behind_since": now.behind_since,
        "trouble": trouble.owner.value if trouble else None,
        "reason": trouble.reason if trouble else None,
        "detail": trouble.detail if trouble else None,
        "since": trouble.since if trouble else None,
    }
    add_or_replace(connection, _HEALTH, row, ("log",))
    return now


def trouble_of(row: Any) -> LogTrouble | None:
    """Trouble in a row with the columns `trouble`, `reason`, `detail` and `since`."""
    if row["trouble"] is None or row["since"] is None:
        return None
    return LogTrouble(Owner(row["trouble"]), row["reason"] or "", row["detail"] or "", row["since"])


def _condition(row: Any) -> LogCondition:
    read = None if row["read_size"] is None or row["read_at"] is None else (row["read_size"], row["read_at"])
    return LogCondition(
        row["log"],
        row["last_pass_at"],
        row["last_success_at"],
        row["fresh_at"],
        trouble_of(row),
        read,
        row["behind_since"],
    )


def ids_of_condition(condition: LogCondition) -> list[str]:
    """Ids of the alerts about a log's present lasting trouble, raised or not."""
    found = []
    if condition.fresh_at is not None:
        found.append(alert_id("log-stale", condition.log, condition.fresh_at.isoformat()))
    if condition.trouble is not None:
        since = condition.trouble.since.isoformat()
        found.append(alert_id("log-unreachable", condition.log, since))
        found.append(alert_id("signwatch-ill", f"following {condition.log}", since))
    return found


_WITNESS_STATUS = table(WitnessStatusRow)


class WitnessStatuses:
    """Witness statuses of all logs in the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def status(self, log: str) -> WitnessStatus:
        """Status of a log when its witnesses were last counted. Raises `OwnFault` when the stored status is damaged."""
        with self._database.read() as connection:
            row = connection.execute(select(_WITNESS_STATUS).where(_WITNESS_STATUS.c.log == log)).mappings().first()
        if row is None:
            return WitnessStatus()
        try:
            missing = tuple((str(name), datetime.fromisoformat(at)) for name, at in json.loads(row["missing"]))
        except (ValueError, TypeError) as error:
            raise OwnFault(
                f"{log}: the stored state of its witnesses is damaged: {error}. Restore the database from a backup."
            ) from error
        return WitnessStatus(missing, row["short_since"])

    def keep(self, log: str, status: WitnessStatus) -> None:
        """Replace the status of a log."""
        missing = json.dumps([(name, at.isoformat()) for name, at in status.missing_since])
        row = {"log": log, "short_since": status.short_since, "missing": missing}
        with self._database.write() as connection:
            add_or_replace(connection, _WITNESS_STATUS, row, ("log",))

    def forget(self, log: str) -> None:
        """Delete the status of a log without required witnesses."""
        with self._database.read() as connection:
            if connection.execute(select(_WITNESS_STATUS.c.log).where(_WITNESS_STATUS.c.log == log)).first() is None:
                return
        with self._database.write() as connection:
            connection.execute(delete(_WITNESS_STATUS).where(_WITNESS_STATUS.c.log == log))


_DROPPED: Final = table(DroppedMatch)
_IN_FORCE: Final = table(RulesInForce)
_NAMED: Final = 20


class InForce(Struct, frozen=True):
    """The rules last put in force. `names` are the first few ids of the `unindexed` rules."""

    at: datetime
    rules: int
    unindexed: int
    names: tuple[str, ...] = ()


class DroppedCount(Struct, frozen=True):
    """Number of matches of one log that were not judged; `index` is the newest such entry."""

    matches: int
    index: int
    at: datetime


class RuleLoad:
    """Both in the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put_in_force(self, rules: int, unindexed: Sequence[str], at: datetime) -> None:
        """Record the number of rules in force; `unindexed` are the ids of rules without a literal."""
        row = {"id": 1, "at": at, "rules": rules, "unindexed": len(unindexed), "names": json.dumps(unindexed[:_NAMED])}
        with self._database.write() as connection:
            add_or_replace(connection, _IN_FORCE, row, ("id",))

    def in_force(self) -> InForce | None:
        """The rules last put in force; `None` before anything was followed."""
        with self._database.read() as connection:
            row = connection.execute(select(_IN_FORCE)).first()
        return None if row is None else InForce(row.at, row.rules, row.unindexed, tuple(json.loads(row.names)))

    def dropped(self) -> dict[str, DroppedCount]:
        """Matches that were left out, by log."""
        with self._database.read() as connection:
            return {
                row.log: DroppedCount(row.matches, row.entry, row.at)
                for row in connection.execute(select(_DROPPED)).all()
            }


def add_dropped(connection: Connection, log: str, dropped: Sequence[LeftOut], at: datetime) -> None:
    """Add entries, as (index, matches left out), to the counts."""
    if not dropped:
        return
    before = connection.execute(select(_DROPPED.c.matches).where(_DROPPED.c.log == log)).scalar() or 0
    matches = before + sum(each.matches for each in dropped)
    add_or_replace(
        connection, _DROPPED, {"log": log, "matches": matches, "entry": dropped[-1].index, "at": at}, ("log",)
    )
