"""Findings that wait to be judged again, and what a second judgement changes."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, and_, delete, select, update

from monitor.state import Finding
from monitor.store.database import Database
from monitor.store.tables import FindingRow, Recheck, table
from monitor.store.writing import add_new
from rules.verdict import Outcome
from sigstore_entries.signing import EntryRef

_FINDING: Final = table(FindingRow)
_RECHECK: Final = table(Recheck)


@dataclass(frozen=True, slots=True)
class DueFinding:
    """A finding whose second judgement is due: the entry as hashed and as served, and the times it told."""

    where: EntryRef
    rule: str
    leaf: bytes
    extra: bytes
    is_certificate: bool
    integrated_time: datetime | None


def add_rechecks(connection: Connection, findings: Sequence[Finding]) -> None:
    """Store when to judge findings again. One that is unexpected already cannot get worse."""
    rows = [
        {
            "log": finding.signing.where.log,
            "entry": finding.signing.where.index,
            "rule": finding.rule,
            "due_at": finding.recheck,
            "extra": finding.extra,
        }
        for finding in findings
        if finding.recheck is not None and finding.verdict.outcome is Outcome.EXPECTED
    ]
    add_new(connection, _RECHECK, rows)


def due_findings(database: Database, now: datetime, limit: int) -> list[DueFinding]:
    """The longest due first."""
    same = and_(
        _FINDING.c.log == _RECHECK.c.log, _FINDING.c.entry == _RECHECK.c.entry, _FINDING.c.rule == _RECHECK.c.rule
    )
    columns = (_RECHECK.c.log, _RECHECK.c.entry, _RECHECK.c.rule, _RECHECK.c.extra)
    query = (
        select(*columns, _FINDING.c.leaf, _FINDING.c.certificate_log, _FINDING.c.signing)
        .join(_FINDING, same)
        .where(_RECHECK.c.due_at <= now)
        .order_by(_RECHECK.c.due_at)
        .limit(limit)
    )
    with database.read() as connection:
        rows = connection.execute(query).all()
    return [
        DueFinding(
            EntryRef(row.log, row.entry), row.rule, row.leaf, row.extra, row.certificate_log, _integrated(row.signing)
        )
        for row in rows
    ]


def postpone(database: Database, due: DueFinding, until: datetime) -> None:
    """Judge a finding again later than planned."""
    here = (_RECHECK.c.log == due.where.log, _RECHECK.c.entry == due.where.index, _RECHECK.c.rule == due.rule)
    with database.write() as connection:
        connection.execute(update(_RECHECK).where(*here).values(due_at=until))


def settle_recheck(connection: Connection, due: DueFinding, worse: Finding | None) -> bool:
    """End the wait of a finding; false when somebody else did. `worse` is what it turned out to be, if it did."""
    here = (_RECHECK.c.log == due.where.log, _RECHECK.c.entry == due.where.index, _RECHECK.c.rule == due.rule)
    if connection.execute(delete(_RECHECK).where(*here)).rowcount != 1:
        return False
    if worse is not None:
        found = (_FINDING.c.log == due.where.log, _FINDING.c.entry == due.where.index, _FINDING.c.rule == due.rule)
        reasons = json.dumps([asdict(reason) for reason in worse.verdict.reasons])
        values = {"outcome": worse.verdict.outcome.value, "reasons": reasons}
        connection.execute(update(_FINDING).where(*found).values(**values))
    return True


def _integrated(signing: str) -> datetime | None:
    times = (time["at"] for time in json.loads(signing)["times"] if time["source"] == "integrated-time")
    return next((datetime.fromisoformat(at) for at in times), None)
