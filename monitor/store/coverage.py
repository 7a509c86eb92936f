"""Coverage: the entries that each rule was offered, and the progress of back-scans.

Entries that were not offered are counted. While a rule is active on a log its range has no end: it grows with the
log's position, without a write per batch. Only a new, removed or changed rule causes a write, with the position at
that moment.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from itertools import pairwise
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import Connection, and_, case, delete, func, select, update

from alerts.alert import Owner
from monitor.store.database import Database, lock_name
from monitor.store.health import LogTrouble, trouble_of
from monitor.store.sql import add_or_replace, chunks, table
from monitor.store.tables import BackScanRow, LogPosition, ScannedRange

_RANGE = table(ScannedRange)
_MAX_DETAIL: Final = 2_000
_LOG_POSITION = table(LogPosition)


class RuleCoverage(Struct, frozen=True):
    """Entries of one log one rule was offered, as sorted ranges `[first, last)` that do not touch."""

    rule: str
    log: str
    selection: str
    ranges: tuple[tuple[int, int], ...]

    def missing(self, first: int, last: int) -> tuple[tuple[int, int], ...]:
        """Parts of `[first, last)` the rule was not offered."""
        gaps, at = [], first
        for start, end in self.ranges:
            if start > at:
                gaps.append((at, min(start, last)))
            at = max(at, end)
            if at >= last:
                break
        if at < last:
            gaps.append((at, last))
        return tuple(gap for gap in gaps if gap[0] < gap[1])


class Gap(Struct, frozen=True):
    """Entries `[first, last)` of a log that exactly these rules were not offered."""

    first: int
    last: int
    rules: frozenset[str]


class CoverageGroup(Struct, frozen=True):
    """Active rules of one log that were offered the same entries.

    They became active when the log had `began` entries, and are offered all later entries; `ranges` are sorted
    ranges `[first, last)` of earlier entries that they were offered. `rules` maps ids to selection ids.
    """

    began: int
    ranges: tuple[tuple[int, int], ...]
    rules: Mapping[str, str]

    def missing(self, first: int) -> tuple[tuple[int, int], ...]:
        """Ranges from `first` on that they were not offered."""
        return RuleCoverage("", "", "", self.ranges).missing(first, self.began)


class Coverage:
    """Scanned ranges of rules in the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def activate(self, log: str, rules: Mapping[str, str]) -> None:
        """Record the rules (id to selection id) that judge every entry of `log` from its present position on.

        Call it before following with changed rules, and never during a batch.
        """
        with self._database.write() as connection:
            lock_name(connection, f"coverage {log}")
            position = _position(connection, log)
            is_open = (_RANGE.c.log == log, _RANGE.c.last.is_(None))
            rows = connection.execute(select(_RANGE.c.id, _RANGE.c.rule, _RANGE.c.selection).where(*is_open)).all()
            gone = [row.id for row in rows if rules.get(row.rule) != row.selection]
            kept = {row.rule for row in rows if rules.get(row.rule) == row.selection}
            for part in chunks(gone):
                connection.execute(delete(_RANGE).where(_RANGE.c.id.in_(part), _RANGE.c.first >= position))
                connection.execute(update(_RANGE).where(_RANGE.c.id.in_(part)).values(last=position))
            self._add(
                connection,
                [
                    {"log": log, "rule": rule, "selection": selection, "first": position, "last": None}
                    for rule, selection in rules.items()
                    if rule not in kept
                ],
            )

    def offered(self, log: str, rules: Mapping[str, str], first: int, last: int) -> None:
        """Record that rules (id to selection id) were offered `[first, last)` outside of following."""
        with self._database.write() as connection:
            extend(connection, log, rules, first, last)

    def gaps(self, log: str, rules: Mapping[str, str], first: int, last: int) -> list[Gap]:
        """Parts of `[first, last)` that some of `rules` (id to selection id) were not offered, in order."""
        with self._database.read() as connection:
            position = _position(connection, log)
            rows = connection.execute(
                select(_RANGE.c.rule, _RANGE.c.selection, _RANGE.c.first, _RANGE.c.last).where(_RANGE.c.log == log)
            ).all()
        offered: dict[str, list[tuple[int, int]]] = {rule: [] for rule in rules}
        for row in rows:
            if rules.get(row.rule) == row.selection:
                offered[row.rule].append((row.first, position if row.last is None else row.last))
        # Rules that came together lack the same ranges, so there are few different answers however many rules.
        lacking: dict[tuple[int, int], set[str]] = {}
        for rule, ranges in offered.items():
            for missing in RuleCoverage(rule, log, rules[rule], merged(ranges)).missing(first, last):
                lacking.setdefault(missing, set()).add(rule)
        edges = sorted({edge for missing in lacking for edge in missing})
        parts = [
            Gap(start, end, frozenset().union(*(who for (a, b), who in lacking.items() if a <= start and end <= b)))
            for start, end in pairwise(edges)
        ]
        return [part for part in parts if part.rules]

    def of_rule(self, log: str, rule: str, selection: str) -> RuleCoverage:
        """Coverage of one rule in one log, for its present selection."""
        with self._database.read() as connection:
            position = _position(connection, log)
            wanted = (_RANGE.c.log == log, _RANGE.c.rule == rule, _RANGE.c.selection == selection)
            rows = connection.execute(select(_RANGE.c.first, _RANGE.c.last).where(*wanted)).all()
        ranges = [(row.first, position if row.last is None else row.last) for row in rows]
        return RuleCoverage(rule, log, selection, merged(ranges))

    def groups(self, log: str, after: int, limit: int | None = None) -> list[CoverageGroup]:
        """Active rules that began when the log had more than `after` entries, newest first, up to a limit.

        All other rules were offered every entry from `after` on.
        """
        is_open = (_RANGE.c.log == log, _RANGE.c.last.is_(None), _RANGE.c.first > after)
        chosen = select(_RANGE.c.rule, _RANGE.c.selection, _RANGE.c.first).where(*is_open)
        active = chosen.order_by(_RANGE.c.first.desc(), _RANGE.c.rule).limit(limit).subquery()
        before = and_(
            _RANGE.c.log == log,
            _RANGE.c.rule == active.c.rule,
            _RANGE.c.selection == active.c.selection,
            _RANGE.c.last.is_not(None),
        )
        columns = (active.c.rule, active.c.selection, active.c.first.label("began"), _RANGE.c.first, _RANGE.c.last)
        query = select(*columns).join_from(active, _RANGE, before, isouter=True)
        ranges: dict[tuple[str, str, int], list[tuple[int, int]]] = {}
        with self._database.read() as connection:
            for row in connection.execute(query):
                known = ranges.setdefault((row.rule, row.selection, row.began), [])
                if row.last is not None:
                    known.append((row.first, row.last))
        # Rules that came together were offered the same, so there are few different answers however many rules.
        alike: dict[tuple[int, tuple[tuple[int, int], ...]], dict[str, str]] = {}
        for (rule, selection, began), offered in ranges.items():
            alike.setdefault((began, merged(offered)), {})[rule] = selection
        return [CoverageGroup(began, offered, rules) for (began, offered), rules in alike.items()]

    def active(self) -> dict[str, tuple[int, int]]:
        """Per log, the number of active rules, and of those that began after following of the log did."""
        later = case((_RANGE.c.first > _LOG_POSITION.c.baseline_size, 1), else_=0)
        query = (
            select(_RANGE.c.log, func.count(), func.sum(later))
            .join(_LOG_POSITION, _LOG_POSITION.c.log == _RANGE.c.log)
            .where(_RANGE.c.last.is_(None))
            .group_by(_RANGE.c.log)
        )
        with self._database.read() as connection:
            return {log: (int(count), int(late)) for log, count, late in connection.execute(query)}

    @staticmethod
    def _add(connection: Connection, rows: list[dict[str, Any]]) -> None:
        if rows:
            connection.execute(_RANGE.insert(), rows)


def extend(connection: Connection, log: str, rules: Mapping[str, str], first: int, last: int) -> None:
    """Record that rules (id to selection id) were offered `[first, last)`, joined to a range that ends at `first`."""
    if first >= last:
        return
    ends_here = select(_RANGE.c.id, _RANGE.c.rule, _RANGE.c.selection).where(
        _RANGE.c.log == log, _RANGE.c.last == first
    )
    joined: dict[str, int] = {}
    for row in connection.execute(ends_here):
        if rules.get(row.rule) == row.selection:
            joined[row.rule] = row.id
    for part in chunks(list(joined.values())):
        connection.execute(update(_RANGE).where(_RANGE.c.id.in_(part)).values(last=last))
    rows = [
        {"log": log, "rule": rule, "selection": selection, "first": first, "last": last}
        for rule, selection in rules.items()
        if rule not in joined
    ]
    if rows:
        connection.execute(_RANGE.insert(), rows)


def merged(ranges: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Sort ranges and join those that touch."""
    joined: list[tuple[int, int]] = []
    for first, last in sorted(each for each in ranges if each[0] < each[1]):
        if joined and first <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return tuple(joined)


def first_gap(lacking: Mapping[tuple[int, int], frozenset[str]]) -> Gap:
    """First run of entries that the same rules lack.

    `lacking` (at least one) are ranges with the rules that lack them.
    """
    begin = min(first for first, _ in lacking)
    here = {(first, last): rules for (first, last), rules in lacking.items() if first == begin}
    end = min([last for _, last in here], default=begin)
    end = min([end, *(first for first, _ in lacking if first > begin)])
    return Gap(begin, end, frozenset().union(*here.values()))


def without_first(
    lacking: Mapping[tuple[int, int], frozenset[str]], first: int, last: int
) -> dict[tuple[int, int], frozenset[str]]:
    """Gaps that remain once the rules that lack entries from `first` on were offered `[first, last)`."""
    left: dict[tuple[int, int], frozenset[str]] = {}
    for (begin, end), rules in lacking.items():
        now = (max(begin, last) if begin == first else begin, end)
        if now[0] < end:
            left[now] = left.get(now, frozenset()) | rules
    return left


def union_size(ranges: Iterable[tuple[int, int]]) -> int:
    """Number of entries that lie in at least one of the ranges."""
    return sum(last - first for first, last in merged(ranges))


def _position(connection: Connection, log: str) -> int:
    found = connection.execute(select(_LOG_POSITION.c.size).where(_LOG_POSITION.c.log == log)).scalar()
    return int(found or 0)


_BACK_SCAN: Final = table(BackScanRow)


class BackScan(Struct, frozen=True):
    """State of one log's back-scan at the time `at`: entries still to read, recent entries a second."""

    log: str
    at: datetime
    remaining: int
    rate: int = 0
    trouble: LogTrouble | None = None


class BackScans:
    """Running back-scans in the database; a finished one has no row."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> dict[str, BackScan]:
        """By log."""
        with self._database.read() as connection:
            return {row["log"]: _back_scan(row) for row in connection.execute(select(_BACK_SCAN)).mappings()}

    def got_on(self, now: BackScan) -> None:
        """Record progress; earlier trouble is over, and with nothing left the back-scan too."""
        with self._database.write() as connection:
            if now.remaining:
                add_or_replace(connection, _BACK_SCAN, _row(replace(now, trouble=None)), ("log",))
            else:
                connection.execute(delete(_BACK_SCAN).where(_BACK_SCAN.c.log == now.log))

    def went_wrong(self, now: BackScan, owner: Owner, reason: str, detail: str) -> BackScan:
        """Record trouble. `since` stays for as long as the same kind of trouble lasts."""
        known = self.all().get(now.log)
        before = known.trouble if known is not None else None
        since = before.since if before is not None and before.owner is owner else now.at
        now = replace(now, rate=0, trouble=LogTrouble(owner, reason, detail[:_MAX_DETAIL], since))
        with self._database.write() as connection:
            add_or_replace(connection, _BACK_SCAN, _row(now), ("log",))
        return now


def _row(scan: BackScan) -> dict[str, Any]:
    trouble = scan.trouble
    return {
        "log": scan.log,
        "at": scan.at,
        "remaining": scan.remaining,
        "rate": scan.rate,
        "trouble": trouble.owner.value if trouble else None,
        "reason": trouble.reason if trouble else None,
        "detail": trouble.detail if trouble else None,
        "since": trouble.since if trouble else None,
    }


def _back_scan(row: Any) -> BackScan:
    return BackScan(row["log"], row["at"], row["remaining"], row["rate"], trouble_of(row))
