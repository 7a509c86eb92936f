"""Findings as people count them: all findings about one certificate are one event, across logs and rules.

A certificate is in a CT log, and each entry made with it in a Rekor log. Each entry without a trusted certificate is
an event of its own.
"""

from collections.abc import Iterable
from datetime import date, datetime, timedelta
from typing import Any, Final

from msgspec import Struct
from sqlalchemy import BigInteger, ColumnElement, and_, case, exists, false, func, or_, select, type_coerce

from monitor.store.database import Database
from monitor.store.reading import IS_NEWS, FoundSigning, found_signing
from monitor.store.sql import chunks, table, text_key
from monitor.store.tables import FindingCertificate, FindingName, FindingRow
from rules.rule import Outcome

_CERTIFICATE: Final = table(FindingCertificate)
_FINDING: Final = table(FindingRow)
_NAME: Final = table(FindingName)
_WORST_FIRST: Final = (Outcome.UNEXPECTED, Outcome.UNVERIFIED, Outcome.EXPECTED)
_RANK: Final = func.min(case({each.value: rank for rank, each in enumerate(_WORST_FIRST)}, value=_FINDING.c.outcome))
_SAME: Final = and_(
    _FINDING.c.log == _CERTIFICATE.c.log,
    _FINDING.c.entry == _CERTIFICATE.c.entry,
    _FINDING.c.rule == _CERTIFICATE.c.rule,
)
# Many rules may find one event: this bounds the findings that are read for each wanted event.
_FINDINGS_EACH: Final = 10
# Times are stored in microseconds.
_DAY: Final = 86_400_000_000


class Event(Struct, frozen=True):
    """Findings about one certificate, or about one entry without any; the worst first, then by log and index."""

    findings: tuple[FoundSigning, ...]

    @property
    def outcome(self) -> str:
        """The worst verdict."""
        return self.findings[0].outcome

    @property
    def worst(self) -> FoundSigning:
        """The finding with the worst verdict."""
        return self.findings[0]

    @property
    def entries(self) -> tuple[tuple[str, int], ...]:
        """Entries that show it, as (log, index)."""
        return tuple(dict.fromkeys((each.log, each.index) for each in self.findings))

    @property
    def rules(self) -> tuple[str, ...]:
        """Rules that found it."""
        return tuple(dict.fromkeys(each.rule for each in self.findings))


class FindingFilter(Struct, frozen=True):
    """Filter of findings: by rules, a log, an entry, a name that a signer carries, or the time found in `[begin, end)`.

    The canary's expected signings are given only for its rule or for an entry.
    """

    rule: str | None = None
    rules: tuple[str, ...] | None = None
    log: str | None = None
    index: int | None = None
    name: str | None = None
    begin: datetime | None = None
    end: datetime | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """As SQL."""
        row = _FINDING.c
        found: list[ColumnElement[bool]] = []
        for column, value in ((row.rule, self.rule), (row.log, self.log), (row.entry, self.index)):
            if value is not None:
                found.append(column == value)
        if self.rule is None and self.index is None:
            found.append(IS_NEWS)
        if self.rules is not None:
            found.append(or_(*(row.rule.in_(part) for part in chunks(self.rules)), false()))
        if self.begin is not None:
            found.append(row.found_at >= self.begin)
        if self.end is not None:
            found.append(row.found_at < self.end)
        if self.name is not None:
            same = and_(_NAME.c.log == row.log, _NAME.c.entry == row.entry, _NAME.c.name_key == text_key(self.name))
            found.append(exists().where(same))
        return found


EVERYTHING: Final = FindingFilter()


class Events:
    """Questions about findings, answered in events."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def newest(self, limit: int, wanted: FindingFilter = EVERYTHING) -> list[Event]:
        """Newest events, newest first; at most `limit`."""
        query = select(_FINDING).where(*wanted.conditions())
        query = query.order_by(_FINDING.c.found_at.desc(), _FINDING.c.entry.desc()).limit(limit * _FINDINGS_EACH)
        with self._database.read() as connection:
            rows = connection.execute(query).mappings().all()
            keys = {
                (row.log, row.entry, row.rule): bytes(row.certificate)
                for part in range(0, len(rows), 200)
                for row in connection.execute(
                    select(*_CERTIFICATE.c["log", "entry", "rule", "certificate"]).where(
                        _CERTIFICATE.c.entry.in_([each["entry"] for each in rows[part : part + 200]]),
                        _CERTIFICATE.c.log.in_({each["log"] for each in rows[part : part + 200]}),
                    )
                )
            }
        return _grouped(rows, keys)[:limit]

    def count(self, wanted: FindingFilter = EVERYTHING) -> dict[str, int]:
        """Number of events by their worst verdict."""
        conditions = wanted.conditions()
        of_certificates = (
            select(_RANK.label("rank")).join_from(_FINDING, _CERTIFICATE, _SAME).where(*conditions)
        ).group_by(_CERTIFICATE.c.certificate)
        alone = (
            select(_RANK.label("rank"))
            .where(~exists().where(_SAME), *conditions)
            .group_by(_FINDING.c.log, _FINDING.c.entry)
        )
        counts: dict[str, int] = {}
        with self._database.read() as connection:
            for each in (of_certificates, alone):
                ranks = each.subquery()
                query = select(ranks.c.rank, func.count()).group_by(ranks.c.rank)
                for rank, count in connection.execute(query):
                    name = _WORST_FIRST[rank].value
                    counts[name] = counts.get(name, 0) + int(count)
        return counts

    def by_rule(self) -> dict[str, dict[str, int]]:
        """Number of entries that each rule found, by verdict."""
        query = select(_FINDING.c.rule, _FINDING.c.outcome, func.count()).group_by(_FINDING.c.rule, _FINDING.c.outcome)
        found: dict[str, dict[str, int]] = {}
        with self._database.read() as connection:
            for rule, outcome, count in connection.execute(query):
                found.setdefault(rule, {})[outcome] = int(count)
        return found

    def per_day(self, wanted: FindingFilter) -> dict[date, int]:
        """Number of entries found on each UTC day."""
        when = type_coerce(_FINDING.c.found_at, BigInteger) // _DAY
        query = select(when, func.count()).where(*wanted.conditions()).group_by(when)
        with self._database.read() as connection:
            return {date(1970, 1, 1) + timedelta(days=int(day)): int(count) for day, count in connection.execute(query)}


def _grouped(rows: Iterable[Any], keys: dict[tuple[str, int, str], bytes]) -> list[Event]:
    groups: dict[object, list[FoundSigning]] = {}
    for row in rows:
        found = found_signing(row)
        key = keys.get((found.log, found.index, found.rule), (found.log, found.index))
        groups.setdefault(key, []).append(found)
    return [Event(tuple(sorted(group, key=_worst_first))) for group in groups.values()]


def _worst_first(found: FoundSigning) -> tuple[int, str, int, str]:
    return [each.value for each in _WORST_FIRST].index(found.outcome), found.log, found.index, found.rule
