"""Findings that wait to be judged again, and what a second judgement changes.

One waits for its time: something must follow a signing by then. One without a trusted certificate waits for the trust
root to name another authority.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import ColumnElement, Connection, and_, delete, exists, func, select, update

from monitor.model.state import Finding
from monitor.store.database import Database
from monitor.store.past import is_past, set_past
from monitor.store.seals import change_sealed
from monitor.store.tables import FindingRow, Recheck, TrustRootRow, table
from monitor.store.writing import add_new
from rules.verdict import Outcome
from sigstore_entries.signing import ChainTrust, EntryRef

_FINDING: Final = table(FindingRow)
_RECHECK: Final = table(Recheck)
# No such time comes: only `wake` ends this wait.
_OTHER_AUTHORITY: Final = datetime(9999, 12, 31, tzinfo=UTC)
_SETTLING: Final = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class DueFinding:
    """A finding whose second judgement is due: the entry as hashed and as served, and the times it told."""

    where: EntryRef
    rule: str
    leaf: bytes
    extra: bytes
    is_certificate: bool
    integrated_time: datetime | None
    was: Outcome


def add_rechecks(connection: Connection, findings: Sequence[Finding], now: datetime) -> None:
    """Store when to judge findings again. One that is unexpected already cannot get worse."""
    unverified = [each for each in findings if _may_be_vouched_for(each)]
    rows = [
        _row(finding, finding.recheck)
        for finding in findings
        if finding.recheck is not None and finding.verdict.outcome is Outcome.EXPECTED
    ]
    if unverified:
        rest = _rest(connection, now)
        rows += [_row(finding, rest) for finding in unverified]
    add_new(connection, _RECHECK, rows)


def _may_be_vouched_for(finding: Finding) -> bool:
    """Whether another authority could vouch for it: none ever does for a bare key."""
    chains = {each.signer.trust for each in finding.selected.signers if each.signer is not None}
    return finding.verdict.outcome is Outcome.UNVERIFIED and ChainTrust.UNTRUSTED in chains


def wake(connection: Connection, now: datetime) -> None:
    """Make everything due that waits for another authority; it is judged in the usual small steps."""
    found = _FINDING.c
    same = and_(found.log == _RECHECK.c.log, found.entry == _RECHECK.c.entry, found.rule == _RECHECK.c.rule)
    unverified = exists().where(same, found.outcome == Outcome.UNVERIFIED.value)
    connection.execute(update(_RECHECK).where(_RECHECK.c.due_at > now, unverified).values(due_at=now))


def rest(database: Database, due: Sequence[DueFinding], now: datetime) -> None:
    """Let findings still without a trusted certificate wait on, all in one transaction: there may be very many."""
    with database.write() as connection:
        until = _rest(connection, now)
        for each in due:
            connection.execute(update(_RECHECK).where(*_is(each)).values(due_at=until))


def _rest(connection: Connection, now: datetime) -> datetime:
    newest = connection.execute(select(func.max(table(TrustRootRow).c.seen_at))).scalar()
    if newest is not None and abs(now - newest) < _SETTLING:
        # A batch judged by the root before it may commit after those that waited were woken.
        return now + _SETTLING
    return _OTHER_AUTHORITY


def _row(finding: Finding, due_at: datetime) -> dict[str, object]:
    where = finding.signing.where
    return {"log": where.log, "entry": where.index, "rule": finding.rule, "due_at": due_at, "extra": finding.extra}


def due_findings(database: Database, now: datetime, limit: int) -> list[DueFinding]:
    """The longest due first."""
    same = and_(
        _FINDING.c.log == _RECHECK.c.log, _FINDING.c.entry == _RECHECK.c.entry, _FINDING.c.rule == _RECHECK.c.rule
    )
    columns = (_RECHECK.c.log, _RECHECK.c.entry, _RECHECK.c.rule, _RECHECK.c.extra)
    query = (
        select(*columns, _FINDING.c.leaf, _FINDING.c.certificate_log, _FINDING.c.signing, _FINDING.c.outcome)
        .join(_FINDING, same)
        .where(_RECHECK.c.due_at <= now)
        .order_by(_RECHECK.c.due_at)
        .limit(limit)
    )
    with database.read() as connection:
        rows = connection.execute(query).all()
    return [
        DueFinding(
            EntryRef(row.log, row.entry),
            row.rule,
            row.leaf,
            row.extra,
            row.certificate_log,
            _integrated(row.signing),
            Outcome(row.outcome),
        )
        for row in rows
    ]


def postpone(database: Database, due: DueFinding, until: datetime) -> None:
    """Judge a finding again later than planned."""
    with database.write() as connection:
        connection.execute(update(_RECHECK).where(*_is(due)).values(due_at=until))


def settle_recheck(connection: Connection, due: DueFinding, worse: Finding | None) -> bool:
    """End the wait of a finding; false when another process did. `worse` is what it turned out to be, if it did."""
    if connection.execute(delete(_RECHECK).where(*_is(due))).rowcount != 1:
        return False
    if worse is not None:
        found = and_(_FINDING.c.log == due.where.log, _FINDING.c.entry == due.where.index, _FINDING.c.rule == due.rule)
        reasons = json.dumps([asdict(reason) for reason in worse.verdict.reasons])
        values = {"outcome": worse.verdict.outcome.value, "reasons": reasons}
        change_sealed(connection, _FINDING, found, values)
        set_past(connection, due.where, due.rule, past=is_past(worse))
    return True


def _is(due: DueFinding) -> tuple[ColumnElement[bool], ...]:
    at = _RECHECK.c
    return at.log == due.where.log, at.entry == due.where.index, at.rule == due.rule


def _integrated(signing: str) -> datetime | None:
    times = (time["at"] for time in json.loads(signing)["times"] if time["source"] == "integrated-time")
    return next((datetime.fromisoformat(at) for at in times), None)
