"""Stored findings as the past of a name, and as the signings of one subscription."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, Final

from msgspec import Struct
from sqlalchemy import ColumnElement, Connection, Table, func, select, tuple_

from monitor.store.database import Database
from monitor.store.findings import is_certificate_only
from monitor.store.sql import table, text_key
from monitor.store.tables import FindingName, FindingRow, LogHealth, LogPosition
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
"""The same for signings without a trusted certificate."""
MAX_COUNTED: Final = 100_000
"""Greatest count of signings in one name: a name in half a log must not slow every page."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_MAX_DIGITS, _MAX_LOG = 19, 200
_LAST: Final = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
_LARGEST_INDEX: Final = 2**63 - 1
_NEWEST: Final = (_FINDING.c.signed_at.desc(), _FINDING.c.entry.desc(), _FINDING.c.log.desc())


class SigningCursor(Struct, frozen=True):
    """A signing's place in a list, newest first: the next page begins after it."""

    at: datetime
    index: int
    log: str

    def __str__(self) -> str:
        return f"{(self.at - _EPOCH) // _MICROSECOND}.{self.index}.{self.log}"

    def behind(self, other: "SigningCursor") -> bool:
        """True if it comes after the other one in a list, newest first."""
        return (self.at, self.index, self.log) < (other.at, other.index, other.log)

    @classmethod
    def read(cls, text: str) -> "SigningCursor | None":
        """The place that a link names; `None` for text that is none."""
        at, _, rest = text.partition(".")
        index, _, log = rest.partition(".")
        if not (at.isascii() and at.isdigit() and index.isascii() and index.isdigit()):
            return None
        if max(len(at), len(index)) > _MAX_DIGITS or len(log) > _MAX_LOG or not log.isprintable():
            return None
        microseconds, entry = int(at), int(index)
        # Neither a time nor an index that the database cannot compare with.
        if microseconds > _LAST or entry > _LARGEST_INDEX:
            return None
        return cls(_EPOCH + microseconds * _MICROSECOND, entry, log)


class PastSigning(Struct, frozen=True):
    """A signing that was found: the log's data, the time, and the verdict of a rule if one was given.

    `leaf_hash` (hexadecimal) is that of an entry of which only the archived row is known.
    """

    signing: Signing
    at: datetime
    verdict: Verdict
    leaf: bytes = b""
    leaf_hash: str = ""

    @property
    def place(self) -> SigningCursor:
        """Place of the signing in a list."""
        return SigningCursor(self.at, self.signing.where.index, self.signing.where.log)


def as_events(found: Sequence[PastSigning]) -> list[tuple[PastSigning, list[str]]]:
    """Each signing once, with its further entries: a certificate in a CT log and the entry made with it are one."""
    merged: list[tuple[PastSigning, list[str]]] = []
    by_certificate: dict[_Certificate, int] = {}
    entries = [each for each in found if not is_certificate_only(each.signing)]
    for each in entries:
        for key in _certificates(each.signing):
            by_certificate.setdefault(key, len(merged))
        merged.append((each, []))
    for each in found:
        if is_certificate_only(each.signing):
            place = next((by_certificate[key] for key in _certificates(each.signing) if key in by_certificate), None)
            if place is None:
                merged.append((each, []))
                for key in _certificates(each.signing):
                    by_certificate.setdefault(key, len(merged) - 1)
            else:
                merged[place][1].append(f"{each.signing.where.log} entry {each.signing.where.index}")
    return merged


def signings_once(found: Sequence[PastSigning]) -> list[Signing]:
    """Signings to learn from, each once, in however many logs it is.

    Entries of one certificate are as many signings as the log with most of them has.
    """
    once: list[Signing] = []
    of_certificate: Counter[_Certificate] = Counter()
    in_log: Counter[tuple[str, _Certificate]] = Counter()
    for each, _ in as_events(found):
        key = next(iter(_certificates(each.signing)), None)
        if key is not None:
            here = each.signing.where.log, key
            in_log[here] += 1
            if in_log[here] <= of_certificate[key]:
                continue
            of_certificate[key] += 1
        once.append(each.signing)
    return once


_Certificate = tuple[str, datetime, bool]


def _certificates(signing: Signing) -> list[_Certificate]:
    """Certificates that an entry and the certificate's own log entry share: name, begin, and if it is vouched for.

    Any person can log a self-made certificate with the name and the begin of a trusted one, or the trusted one beside
    a signature of another key. Neither may hide the trusted one.
    """
    return [
        (name.value, signer.not_before, _is_vouched(signer))
        for signer in signing.signers
        if signer.not_before
        for name in signer.names
    ]


def _is_vouched(signer: Signer) -> bool:
    is_signer = not (signer.only_listed or signer.maybe_signed or signer.signature is SignatureCheck.WRONG)
    return is_signer and signer.trust is ChainTrust.TRUSTED


class ArchivedEntry(Struct, frozen=True):
    """An entry of which the archive holds the row, with its leaf hash in hexadecimal."""

    where: EntryRef
    leaf_hash: str


class Unread(Struct, frozen=True):
    """An entry that was not read, with the reason as a clause for people."""

    why: str


ReadEntries = Callable[[Sequence[ArchivedEntry], str, Callable[[], bool]], Mapping[EntryRef, Signing | Unread]]
"""Reads entries whole for a client, as a judge sees them, in bounded time.

The function that is handed over counts each entry that a log is asked for, or refuses it.
"""


class Mark(Struct, frozen=True):
    """One finding without its signing, for counting and drawing. `certificate_log`: a certificate, no entry yet."""

    at: datetime
    outcome: str
    log: str
    index: int
    certificate_log: bool


class Signings(Struct, frozen=True):
    """Signings in one name, newest first, those that are vouched for before the others; and how many of each exist.

    `lacks` are sentences about entries that were not searched. Where `is_part`, the numbers are least numbers.
    """

    shown: tuple[PastSigning, ...]
    vouched: int
    unverified: int
    lacks: tuple[str, ...] = ()
    is_part: bool = False


class LogRead(Struct, frozen=True):
    """The part of a log that was read: entries `[first, last)`, hashed into a signed head, last asked at `at`."""

    log: str
    first: int
    last: int
    head: int
    at: datetime | None
    trouble: bool


class FindingsHistory:
    """The past as far as rules or subscriptions selected it."""

    source: Final = "findings"
    deepest: Final = None

    def __init__(self, database: Database) -> None:
        self._database = database

    def signings(self, subject: Subject, limit: int = MAX_READ) -> Signings:
        """Signings filed under a name.

        Signings with a trusted certificate come first, so that self-made certificates cannot hide them.
        """
        with self._database.read() as connection:
            vouched, many = self._newest(connection, subject.key, limit, vouched=True)
            others, more = self._newest(connection, subject.key, min(limit, MAX_UNVERIFIED), vouched=False)
        return Signings((*vouched, *others), many, more)

    def older(self, subject: Subject, after: SigningCursor, limit: int) -> list[PastSigning]:
        """Signings filed under a name that are vouched for, behind a place, newest first."""
        with self._database.read() as connection:
            return self._page(connection, subject.key, limit, vouched=True, after=after)

    def entry(self, subject: Subject, log: str, index: int) -> PastSigning | None:
        """One signing that is filed under a name, as some rule found it; a vouched finding before others."""
        filed = select(_NAME.c.entry).where(_NAME.c.name_key == text_key(subject.key), *_at(_NAME, log, index))
        found = select(_FINDING).where(*_at(_FINDING, log, index)).order_by(_FINDING.c.counts.desc(), _FINDING.c.rule)
        with self._database.read() as connection:
            row = connection.execute(found.limit(1)).first() if connection.execute(filed).first() is not None else None
        return None if row is None else _past(row)

    @staticmethod
    def _page(
        connection: Connection, key: str, limit: int, *, vouched: bool, after: SigningCursor | None = None
    ) -> list[PastSigning]:
        filed = (_NAME.c.name_key == text_key(key), _NAME.c.vouched.is_(vouched))
        order = (_NAME.c.at.desc(), _NAME.c.entry.desc(), _NAME.c.log.desc())
        newest = select(_NAME.c.log, _NAME.c.entry, _NAME.c.at).where(*filed).order_by(*order).limit(limit)
        if after is not None:
            newest = newest.where(tuple_(_NAME.c.at, _NAME.c.entry, _NAME.c.log) < (after.at, after.index, after.log))
        page = newest.subquery()
        # Several rules may have found one entry: one row is given, without a verdict.
        other = _FINDING.alias()
        one = select(func.min(other.c.rule)).where(
            other.c.log == page.c.log, other.c.entry == page.c.entry, other.c.counts.is_(vouched)
        )
        here = (_FINDING.c.log == page.c.log) & (_FINDING.c.entry == page.c.entry)
        rows = select(_FINDING).join(page, here & (_FINDING.c.rule == one.scalar_subquery()))
        ordered = rows.order_by(page.c.at.desc(), page.c.entry.desc(), page.c.log.desc())
        return [_past(row) for row in connection.execute(ordered)]

    @classmethod
    def _newest(cls, connection: Connection, key: str, limit: int, *, vouched: bool) -> tuple[list[PastSigning], int]:
        found = cls._page(connection, key, limit, vouched=vouched)
        if len(found) < limit:
            return found, len(found)
        filed = (_NAME.c.name_key == text_key(key), _NAME.c.vouched.is_(vouched))
        some = select(_NAME.c.entry).where(*filed).limit(MAX_COUNTED).subquery()
        return found, int(connection.execute(select(func.count()).select_from(some)).scalar_one())

    def of_rule(
        self,
        rule: str,
        since: datetime,
        until: datetime | None = None,
        *,
        limit: int = MAX_READ,
        after: SigningCursor | None = None,
        outcome: str | None = None,
    ) -> list[PastSigning]:
        """Newest findings of one rule that were found in a time, with its verdicts; behind a place, if one is given."""
        chosen = select(_FINDING).where(*_seen(rule, since, until, after))
        if outcome is not None:
            chosen = chosen.where(_FINDING.c.outcome == outcome)
        with self._database.read() as connection:
            return [_past(row) for row in connection.execute(chosen.order_by(*_NEWEST).limit(limit))]

    def behind(self, rule: str, since: datetime, until: datetime | None, after: SigningCursor) -> int:
        """Number of findings that `of_rule` gives behind a place, at most `MAX_COUNTED`."""
        some = select(_FINDING.c.entry).where(*_seen(rule, since, until, after)).limit(MAX_COUNTED).subquery()
        with self._database.read() as connection:
            return int(connection.execute(select(func.count()).select_from(some)).scalar_one())

    def marks(self, rule: str, since: datetime, until: datetime | None, limit: int) -> list[Mark]:
        """Marks of the signings that `of_rule` gives."""
        names = ("signed_at", "outcome", "log", "entry", "certificate_log")
        chosen = select(*(_FINDING.c[name] for name in names)).where(*_seen(rule, since, until, None))
        with self._database.read() as connection:
            return [Mark(*row) for row in connection.execute(chosen.order_by(*_NEWEST).limit(limit))]

    def one(self, rule: str, log: str, index: int) -> PastSigning | None:
        """One finding."""
        here = (_FINDING.c.rule == rule, _FINDING.c.log == log, _FINDING.c.entry == index)
        with self._database.read() as connection:
            row = connection.execute(select(_FINDING).where(*here)).first()
        return None if row is None else _past(row)

    def outcomes(self, rules: Sequence[str], since: datetime) -> dict[str, dict[str, int]]:
        """Number of findings of each rule by outcome since a moment."""
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
        """The part of each log that was read."""
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


def _at(table: Table, log: str, index: int) -> tuple[ColumnElement[bool], ...]:
    return table.c.log == log, table.c.entry == index


def _seen(rule: str, since: datetime, until: datetime | None, after: SigningCursor | None) -> list[ColumnElement[bool]]:
    """Findings of a rule that were found in a time, behind a place."""
    chosen = [_FINDING.c.rule == rule, _FINDING.c.found_at >= since]
    if until is not None:
        chosen.append(_FINDING.c.found_at < until)
    if after is not None:
        place = tuple_(_FINDING.c.signed_at, _FINDING.c.entry, _FINDING.c.log)
        chosen.append(place < (after.at, after.index, after.log))
    return chosen


def signing_of(document: Mapping[str, Any]) -> Signing:
    """The signing in a document of `monitor.store.findings.signing_document`, without the fields that it leaves out."""
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
