"""Stored findings as the past of a name, and as what one subscription saw."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy import Connection, func, select

from monitor.store.database import Database
from monitor.store.site_tables import FindingName
from monitor.store.tables import FindingRow, LogHealth, LogPosition, table, text_key
from rules.rule import Outcome, Reason, Verdict
from rules.subject import Subject
from sigstore_entries.signing import (
    ChainTrust,
    Digest,
    EntryRef,
    KnownTime,
    Name,
    NameForm,
    SignatureCheck,
    Signer,
    SignerForm,
    Signing,
)

_NAME = table(FindingName)
_FINDING = table(FindingRow)
_POSITION = table(LogPosition)
_HEALTH = table(LogHealth)
MAX_READ: Final = 300
"""Signings read for one page; a page says when there are more."""
MAX_UNVERIFIED: Final = 50
"""Of those that no authority vouches for."""


@dataclass(frozen=True, slots=True)
class PastSigning:
    """A signing that was found: what the log says, when, and what a rule said of it where one was asked."""

    signing: Signing
    at: datetime
    verdict: Verdict
    leaf: bytes = b""


@dataclass(frozen=True, slots=True)
class Signings:
    """Signings in one name, newest first, those that are vouched for before the others; and how many of each exist.

    `lacks` are sentences about entries that were not looked at.
    """

    shown: tuple[PastSigning, ...]
    vouched: int
    unverified: int
    lacks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LogRead:
    """How far a log was read: entries `[first, last)`, hashed into a signed head, last asked at `at`."""

    log: str
    first: int
    last: int
    head: int
    at: datetime | None
    trouble: bool


class FoundPast:
    """The past as far as rules or subscriptions selected it."""

    source: Final = "findings"

    def __init__(self, database: Database) -> None:
        self._database = database

    def signings(self, subject: Subject, limit: int = MAX_READ) -> Signings:
        """Signings filed under a name.

        Those that an authority vouches for come first: any number of self-made certificates hides none of them.
        """
        with self._database.read() as connection:
            vouched, many = self._newest(connection, subject.key, limit, vouched=True)
            others, more = self._newest(connection, subject.key, min(limit, MAX_UNVERIFIED), vouched=False)
        return Signings((*vouched, *others), many, more)

    @staticmethod
    def _newest(connection: Connection, key: str, limit: int, *, vouched: bool) -> tuple[list[PastSigning], int]:
        here = (_NAME.c.log == _FINDING.c.log) & (_NAME.c.entry == _FINDING.c.entry)
        wanted = (_NAME.c.name_key == text_key(key), _FINDING.c.counts.is_(vouched))
        # Several rules may have found one entry: one of their rows stands for it, and no verdict of theirs is shown.
        one = (
            select(_FINDING.c.log, _FINDING.c.entry, func.min(_FINDING.c.rule).label("rule"))
            .join(_NAME, here)
            .where(*wanted)
            .group_by(_FINDING.c.log, _FINDING.c.entry)
            .order_by(func.max(_FINDING.c.signed_at).desc(), _FINDING.c.entry.desc())
        )
        newest = one.limit(limit).subquery()
        rows = select(_FINDING).join(
            newest,
            (newest.c.log == _FINDING.c.log)
            & (newest.c.entry == _FINDING.c.entry)
            & (newest.c.rule == _FINDING.c.rule),
        )
        ordered = rows.order_by(_FINDING.c.signed_at.desc(), _FINDING.c.entry.desc())
        found = [_past(row) for row in connection.execute(ordered)]
        if len(found) < limit:
            return found, len(found)
        return found, int(connection.execute(select(func.count()).select_from(one.subquery())).scalar_one())

    def of_rule(
        self, rule: str, since: datetime, until: datetime | None = None, limit: int = MAX_READ
    ) -> list[PastSigning]:
        """Newest findings of one rule that were found in a time, with its verdicts."""
        chosen = select(_FINDING).where(_FINDING.c.rule == rule, _FINDING.c.found_at >= since)
        if until is not None:
            chosen = chosen.where(_FINDING.c.found_at < until)
        ordered = chosen.order_by(_FINDING.c.signed_at.desc(), _FINDING.c.entry.desc()).limit(limit)
        with self._database.read() as connection:
            return [_past(row) for row in connection.execute(ordered)]

    def one(self, rule: str, log: str, index: int) -> PastSigning | None:
        """One finding."""
        here = (_FINDING.c.rule == rule, _FINDING.c.log == log, _FINDING.c.entry == index)
        with self._database.read() as connection:
            row = connection.execute(select(_FINDING).where(*here)).first()
        return None if row is None else _past(row)

    def outcomes(self, rules: Sequence[str], since: datetime) -> dict[str, dict[str, int]]:
        """How many findings of each outcome each rule had since a moment."""
        chosen = (
            select(_FINDING.c.rule, _FINDING.c.outcome, func.count())
            .where(_FINDING.c.rule.in_(list(rules)), _FINDING.c.found_at >= since)
            .group_by(_FINDING.c.rule, _FINDING.c.outcome)
        )
        found: dict[str, dict[str, int]] = {}
        with self._database.read() as connection:
            for rule, outcome, number in connection.execute(chosen):
                found.setdefault(rule, {})[outcome] = int(number)
        return found

    def logs(self) -> list[LogRead]:
        """How far each log was read."""
        joined = select(_POSITION, _HEALTH.c.last_success_at, _HEALTH.c.trouble).join(
            _HEALTH, _HEALTH.c.log == _POSITION.c.log, isouter=True
        )
        with self._database.read() as connection:
            return [
                LogRead(
                    row.log, row.baseline_size, row.size, row.head_size, row.last_success_at, row.trouble is not None
                )
                for row in connection.execute(joined.order_by(_POSITION.c.log))
            ]


def signing_of(document: Mapping[str, Any]) -> Signing:
    """The signing that `monitor.store.findings.signing_document` wrote, without what it leaves out."""
    return Signing(
        where=EntryRef(document["log"], document["index"]),
        kind=document["kind"],
        version=document["version"],
        signers=tuple(_signer(each) for each in document["signers"]),
        digests=tuple(Digest(each["algorithm"], each["value"], each["of"]) for each in document["digests"]),
        times=tuple(KnownTime(each["source"], datetime.fromisoformat(each["at"])) for each in document["times"]),
    )


def _signer(document: Mapping[str, Any]) -> Signer:
    not_before = document["not_before"]
    return Signer(
        form=SignerForm(document["form"]),
        names=tuple(Name(NameForm(each["form"]), each["value"]) for each in document["names"]),
        issuer=document["issuer"],
        claims=MappingProxyType(dict(document["claims"])),
        fingerprints=tuple(document["fingerprints"]),
        not_before=datetime.fromisoformat(not_before) if not_before else None,
        trust=ChainTrust(document["trust"]),
        trusted_by=document["trusted_by"],
        sct_verified=document["sct_verified"],
        signature=SignatureCheck(document["signature"]),
        only_listed=tuple(document["only_listed"]),
        maybe_signed=tuple(document["maybe_signed"]),
        defects=tuple(document["defects"]),
    )


def _past(row: Any) -> PastSigning:
    reasons = tuple(Reason(**reason) for reason in json.loads(row.reasons))
    verdict = Verdict(Outcome(row.outcome), reasons)
    return PastSigning(signing_of(json.loads(row.signing)), row.signed_at or row.found_at, verdict, row.leaf)
