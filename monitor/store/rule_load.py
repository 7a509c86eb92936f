"""What the rules in force cost, and what they missed: rules asked about every entry, matches beyond the cap."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, select

from monitor.store.database import Database
from monitor.store.tables import DroppedMatch, RulesInForce, table
from monitor.store.writing import add_or_replace

_DROPPED: Final = table(DroppedMatch)
_IN_FORCE: Final = table(RulesInForce)
_NAMED: Final = 20


@dataclass(frozen=True, slots=True)
class InForce:
    """The rules last put in force. `names` are the first few of the `unindexed` ones."""

    at: datetime
    rules: int
    unindexed: int
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Dropped:
    """Matches of one log that were not judged, so far; `index` is the newest entry they were of."""

    matches: int
    index: int
    at: datetime


class RuleLoad:
    """Both in the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put_in_force(self, rules: int, unindexed: Sequence[str], at: datetime) -> None:
        """Record that these many rules judge from now on; `unindexed` are the ids of those without a literal."""
        row = {"id": 1, "at": at, "rules": rules, "unindexed": len(unindexed), "names": json.dumps(unindexed[:_NAMED])}
        with self._database.write() as connection:
            add_or_replace(connection, _IN_FORCE, row, ("id",))

    def in_force(self) -> InForce | None:
        """What was last put in force; `None` before anything was followed."""
        with self._database.read() as connection:
            row = connection.execute(select(_IN_FORCE)).first()
        return None if row is None else InForce(row.at, row.rules, row.unindexed, tuple(json.loads(row.names)))

    def dropped(self) -> dict[str, Dropped]:
        """What was left out, by log."""
        with self._database.read() as connection:
            return {
                row.log: Dropped(row.matches, row.entry, row.at) for row in connection.execute(select(_DROPPED)).all()
            }


def add_dropped(connection: Connection, log: str, dropped: Sequence[tuple[int, int]], at: datetime) -> None:
    """Add entries, as (index, matches left out), to what was left out before."""
    if not dropped:
        return
    before = connection.execute(select(_DROPPED.c.matches).where(_DROPPED.c.log == log)).scalar() or 0
    matches = before + sum(count for _, count in dropped)
    add_or_replace(connection, _DROPPED, {"log": log, "matches": matches, "entry": dropped[-1][0], "at": at}, ("log",))
