"""Recompute derived values from the stored rows, and report each difference."""

import json
from collections.abc import Iterator
from typing import Final

from sqlalchemy import Connection, and_, func, not_, or_, select, text
from sqlalchemy.exc import SQLAlchemyError

from alerts.alert import counted
from monitor.model.errors import OwnFault
from monitor.proof.evidence import NotEvidence, event_id, from_document
from monitor.store import site_tables  # noqa: F401  its tables are checked too
from monitor.store.database import Database
from monitor.store.history import broken_links, position_of
from monitor.store.promises import broken_promises
from monitor.store.sql import broken_seals, database_words, table
from monitor.store.tables import (
    AlertRow,
    DeliveryRow,
    EvidenceRow,
    FindingRow,
    HeadRow,
    KindCount,
    LogPosition,
    ScannedRange,
    UnreadableRow,
)
from monitor.store.views import broken_views
from tlog.merkle import RootHash

_POSITION = table(LogPosition)
_ALERT = table(AlertRow)
_FINDING = table(FindingRow)


def fsck(database: Database) -> list[str]:
    """Run every check; returns one sentence for each fault. Changes no row."""
    with database.read() as connection:
        problems = list(_pages(connection)) if database.is_sqlite else []
        for check in _CHECKS:
            try:
                problems.extend(check(connection))
            except (SQLAlchemyError, ValueError, TypeError, OverflowError, RuntimeError) as error:
                # An overwritten value may not be a value of its column's type.
                what = check.__name__.strip("_")
                problems.append(
                    f"the check of {what} cannot be finished: {type(error).__name__}: {database_words(error):.200}"
                )
    return problems


def _pages(connection: Connection) -> Iterator[str]:
    for (found,) in connection.execute(text("PRAGMA integrity_check(20)")):
        if found != "ok":
            yield f"the file is damaged: {found}"
    for row in connection.execute(text("PRAGMA foreign_key_check")):
        yield f"a row of {row[0]} belongs to nothing"


def _positions(connection: Connection) -> Iterator[str]:
    heads = table(HeadRow)
    for row in connection.execute(select(_POSITION)).mappings():
        try:
            position = position_of(row)
        except OwnFault as fault:
            yield str(fault)
            continue
        log, head = row["log"], position.head.head
        if position.frontier.size == head.size and position.frontier.root() != RootHash(head.root):
            yield f"{log}: the entries read up to {head.size} do not hash to the root of the stored head"
        if position.frontier.size < row["baseline_size"]:
            yield f"{log}: the position {position.frontier.size} lies before its own baseline {row['baseline_size']}"
        stated = (heads.c.log == log, heads.c.size == head.size, heads.c.root == bytes(head.root))
        if connection.execute(select(heads.c.number).where(*stated)).first() is None:
            yield f"{log}: the stored head of size {head.size} is not in the history of heads"


def _findings(connection: Connection) -> Iterator[str]:
    for model, what in ((FindingRow, "finding"), (UnreadableRow, "unreadable entry")):
        rows = table(model)
        beyond = (
            select(rows.c.log, func.count())
            .join(_POSITION, _POSITION.c.log == rows.c.log, isouter=True)
            .where(or_(_POSITION.c.log.is_(None), rows.c.entry >= _POSITION.c.size))
            .group_by(rows.c.log)
        )
        for log, count in connection.execute(beyond):
            yield f"{log}: {counted(count, 'row')} ({what}) beyond the verified position"
    counts = table(KindCount)
    read = (
        select(counts.c.log, func.sum(counts.c.entries), _POSITION.c.size - _POSITION.c.baseline_size)
        .join(_POSITION, _POSITION.c.log == counts.c.log)
        .group_by(counts.c.log, _POSITION.c.size, _POSITION.c.baseline_size)
    )
    for log, by_kind, followed in connection.execute(read):
        if by_kind > followed:
            yield f"{log}: entries counted by kind: {by_kind}, followed: {followed}"


def _outbox(connection: Connection) -> Iterator[str]:
    same = and_(_ALERT.c.log == _FINDING.c.log, _ALERT.c.entry == _FINDING.c.entry, _ALERT.c.rule == _FINDING.c.rule)
    alerts = (
        select(_FINDING.c.log, _FINDING.c.entry, _FINDING.c.rule, func.count(_ALERT.c.id))
        .join(_ALERT, same, isouter=True)
        .where(_FINDING.c.outcome == "unexpected")
        .group_by(_FINDING.c.log, _FINDING.c.entry, _FINDING.c.rule)
        .having(func.count(_ALERT.c.id) != 1)
        .limit(20)
    )
    for log, index, rule, count in connection.execute(alerts):
        yield f"{log}: the unexpected signing at {index} under rule {rule} has {counted(count, 'alert')} instead of one"
    orphans = (
        select(func.count())
        .select_from(_ALERT)
        .where(
            _ALERT.c.rule.is_not(None),
            _ALERT.c.entry.is_not(None),
            not_(select(_FINDING.c.log).where(same).exists()),
        )
    )
    if count := connection.execute(orphans).scalar_one():
        yield f"{counted(count, 'alert')} of findings that are not stored"
    sent = table(DeliveryRow)
    finished = select(func.count()).where(sent.c.state != "pending", sent.c.finished_at.is_(None))
    if count := connection.execute(finished).scalar_one():
        yield f"{counted(count, 'delivery')} that ended at no time"


def _evidence(connection: Connection) -> Iterator[str]:
    for row in connection.execute(select(table(EvidenceRow))).mappings():
        try:
            evidence = from_document(json.loads(row["document"]))
        except (NotEvidence, ValueError) as error:
            yield f"evidence {row['id']} cannot be read: {error}"
            continue
        if event_id(evidence) != row["id"]:
            yield f"evidence {row['id']} changed since it was stored"


def _ranges(connection: Connection) -> Iterator[str]:
    ranges = table(ScannedRange)
    bad = (
        select(ranges.c.log, func.count())
        .join(_POSITION, _POSITION.c.log == ranges.c.log, isouter=True)
        .where(or_(ranges.c.last < ranges.c.first, func.coalesce(ranges.c.last, ranges.c.first) > _POSITION.c.size))
        .group_by(ranges.c.log)
    )
    for log, count in connection.execute(bad):
        yield f"{log}: {count} scanned ranges reach beyond the entries that were read"


_CHECKS: Final = (
    _positions,
    broken_links,
    broken_seals,
    _findings,
    _outbox,
    _evidence,
    _ranges,
    broken_views,
    broken_promises,
)
