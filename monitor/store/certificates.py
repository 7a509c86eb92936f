"""One event for one signing: a certificate in a CT log and, seconds later, the log entry made with it.

The alert for a certificate waits. When the entry comes, its alert takes the waiting one's place, in the transaction
that commits the entry; when none comes, the alert for the certificate goes out by itself. Only an entry that is alerted
itself takes another's place, so no event is ever left without an alert. One exception: a certificate names no artifact,
so where nothing else is held against it, an entry that is as expected answers the question it left open.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

from sqlalchemy import Connection, and_, bindparam, exists, or_, select, true, update

from alerts.alert import Alert
from monitor.model.state import Finding
from monitor.store.database import lock_name
from monitor.store.findings import is_certificate_only
from monitor.store.outbox import PENDING, WITHDRAWN
from monitor.store.sql import add_new, change_sealed, chunks, lock_rows, table
from monitor.store.tables import AlertRow, DeliveryRow, FindingCertificate, FindingRow
from rules.expectations.authorised import AuthorisedExpectation
from rules.expectations.digests import DigestsExpectation, DigestsFromExpectation
from rules.rule import Outcome
from sigstore_entries.signing import EntryRef

_ALERT: Final = table(AlertRow)
_CERTIFICATE: Final = table(FindingCertificate)
_DELIVERY: Final = table(DeliveryRow)
_FINDING: Final = table(FindingRow)
_MAX_SHOWN: Final = 10
_SAME: Final = and_(
    _FINDING.c.log == _CERTIFICATE.c.log,
    _FINDING.c.entry == _CERTIFICATE.c.entry,
    _FINDING.c.rule == _CERTIFICATE.c.rule,
)
# Made once. The answer for all rules and certificates of a batch also holds pairs that are not wanted.
_FOUND_WITH: Final = (
    select(*_CERTIFICATE.c["rule", "certificate", "log", "entry"], *_FINDING.c["certificate_log", "outcome", "reasons"])
    .join(_FINDING, _SAME)
    .where(
        _CERTIFICATE.c.rule.in_(bindparam("rules", expanding=True)),
        _CERTIFICATE.c.certificate.in_(bindparam("keys", expanding=True)),
    )
)
_ISSUED_WITH: Final = _FOUND_WITH.where(_FINDING.c.certificate_log.is_(True))
ANSWERED: Final = "The log entry made with this certificate is as expected."
_PAIRS: Final = 1_000  # each costs a look into an index
_NAMES_NO_ARTIFACT: Final = frozenset({DigestsExpectation.id, DigestsFromExpectation.id, AuthorisedExpectation.id})


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Dispatch of one alert: to these channels, not before `due`. `takes` are alerts that it replaces.

    With a `note` it is kept for the record only, and the note says why.
    """

    alert: Alert
    channels: Sequence[str]
    due: datetime
    takes: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True, order=True)
class _Entry:
    """A stored finding about a certificate. `is_open`: all that is held against it is that it names no artifact."""

    log: str
    index: int
    is_certificate: bool
    is_expected: bool
    is_open: bool


def add_certificates(connection: Connection, findings: Sequence[Finding]) -> dict[tuple[str, int, str], set[bytes]]:
    """Store which trusted certificates findings are about; return their keys by (log, index, rule).

    Only those of signers that the rule selected: an entry may carry other people's certificates.
    """
    found: dict[tuple[str, int, str], set[bytes]] = {}
    for finding in findings:
        where = finding.selected.signing.where
        keys = {signer.issued for signer in finding.selected.vouched if signer.issued is not None}
        if keys:
            found[where.log, where.index, finding.rule] = keys
    rows = [
        {"rule": rule, "certificate": key, "log": log, "entry": index}
        for (log, index, rule), keys in found.items()
        for key in keys
    ]
    add_new(connection, _CERTIFICATE, rows)
    return found


class Events:
    """Decides, within one transaction, which alerts of new findings are news and which belong to an event known."""

    def __init__(self, connection: Connection, findings: Sequence[Finding], now: datetime, hold: timedelta) -> None:
        """Store the certificates of `findings`, which must be stored already."""
        self._connection, self._now, self._hold = connection, now, hold
        if any(finding.selected.vouched for finding in findings):
            # Two logs' batches must not each miss what the other is about to commit.
            lock_name(connection, "certificates")
        self._keys = add_certificates(connection, findings)
        self._issued = {f.selected.signing.where for f in findings if is_certificate_only(f.selected.signing)}
        wanted = {(rule, key) for (_, _, rule), keys in self._keys.items() for key in keys}
        self._entries = _entries_with(connection, wanted, certificates_only=not self._issued)
        self._expected = [
            (finding.selected.signing.where, finding.rule)
            for finding in findings
            if finding.verdict.outcome is Outcome.EXPECTED and finding.selected.signing.where not in self._issued
        ]

    @property
    def of_certificates(self) -> bool:
        """True if some finding is about a CT entry: its alert depends on the findings that stand already."""
        return bool(self._issued)

    def dispatch(self, alert: Alert, channels: Sequence[str]) -> Dispatch:
        """Decide where one alert goes, given the channels of its rule."""
        at_once = Dispatch(alert, channels, self._now)
        if alert.log is None or alert.index is None or alert.rule is None or not channels:
            return at_once
        where = EntryRef(alert.log, alert.index)
        others = self._others(where, alert.rule)
        if where in self._issued:
            return (
                self._certificate(at_once, alert.rule, others)
                if (alert.log, alert.index, alert.rule) in self._keys
                else at_once
            )
        certificates = [each for each in others if each.is_certificate]
        if not certificates:
            return at_once
        takes = tuple(each for other in certificates for each in self._alerts_of(other, alert.rule))
        sources = [
            f"{log} #{index}"
            for log, index in [(where.log, where.index), *((c.log, c.index) for c in certificates[:_MAX_SHOWN])]
        ]
        named = replace(alert, facts=(*alert.facts, ("Backed by", ", ".join(sources))))
        return Dispatch(named, channels, self._now, takes)

    def answered(self) -> list[str]:
        """Alerts for certificates whose only question an entry of this batch answered: it is as expected."""
        return [
            alert
            for where, rule in self._expected
            for other in self._others(where, rule)
            if other.is_certificate and other.is_open
            for alert in self._alerts_of(other, rule)
        ]

    def _certificate(self, at_once: Dispatch, rule: str, others: Sequence[_Entry]) -> Dispatch:
        told = (self._told_by(other, rule) for other in others)
        if (known := next(filter(None, told), None)) is not None:
            return replace(at_once, channels=(), note=_told(known))
        where = EntryRef(at_once.alert.log or "", at_once.alert.index or 0)
        keys = self._keys[where.log, where.index, rule]
        is_open = any(
            each.is_open
            for key in keys
            for each in self._entries[rule, key]
            if (each.log, each.index) == (where.log, where.index)
        )
        if is_open and any(other.is_expected and not other.is_certificate for other in others):
            return replace(at_once, channels=(), note=ANSWERED)
        return replace(at_once, due=self._now + self._hold)

    def _others(self, where: EntryRef, rule: str) -> list[_Entry]:
        keys = self._keys.get((where.log, where.index, rule), ())
        found = {entry for key in keys for entry in self._entries.get((rule, key), ())}
        return sorted(each for each in found if (each.log, each.index) != (where.log, where.index))

    def _alerts_of(self, entry: _Entry, rule: str) -> list[str]:
        about = (_ALERT.c.log == entry.log, _ALERT.c.entry == entry.index, _ALERT.c.rule == rule)
        return list(self._connection.execute(select(_ALERT.c.id).where(*about)).scalars())

    def _told_by(self, entry: _Entry, rule: str) -> str | None:
        """The alert by which anybody was or will be told of a finding."""
        about = (_ALERT.c.log == entry.log, _ALERT.c.entry == entry.index, _ALERT.c.rule == rule)
        on_its_way = exists().where(_DELIVERY.c.alert == _ALERT.c.id, _DELIVERY.c.state != WITHDRAWN)
        return self._connection.execute(select(_ALERT.c.id).where(*about, on_its_way).limit(1)).scalar()


def settle(connection: Connection, sent: Dispatch) -> None:
    """Bring the alerts of one event in line once `sent` is in the outbox.

    Deliveries of alerts whose place it takes are taken back, except those under way and those to other channels. An
    alert without a channel is marked as seen: it stays on record and asks for nothing.
    """
    if sent.note:
        _mark_seen(connection, [sent.alert.id], sent.note, sent.due)
    if sent.takes:
        withdraw(connection, sent.takes, _told(sent.alert.id), sent.due, _DELIVERY.c.channel.in_(sent.channels))


def withdraw(connection: Connection, alerts: Sequence[str], note: str, now: datetime, only: Any = None) -> None:
    """Take back deliveries that are not under way, where `only` holds.

    A delivery in a digest stays: the receiver may have it, and the same key must not come with another content.
    """
    waiting = and_(
        _DELIVERY.c.state == PENDING,
        or_(_DELIVERY.c.digest.is_(None), _DELIVERY.c.digest == _DELIVERY.c.alert),
        or_(_DELIVERY.c.leased_until.is_(None), _DELIVERY.c.leased_until <= now),
        true() if only is None else only,
    )
    gone = {"state": WITHDRAWN, "finished_at": now, "leased_until": None, "error": ""}
    for part in chunks(alerts):
        # Who is claiming one of them at this moment is waited for; it is under way then, and not among those locked.
        chosen = lock_rows(connection, _DELIVERY.c.id, and_(_DELIVERY.c.alert.in_(part), waiting))
        for ids in chunks(chosen):
            connection.execute(update(_DELIVERY).where(_DELIVERY.c.id.in_(ids)).values(**gone))
        _mark_seen(connection, part, note, now)


def _mark_seen(connection: Connection, alerts: Sequence[str], note: str, now: datetime) -> None:
    remains = exists().where(_DELIVERY.c.alert == _ALERT.c.id, _DELIVERY.c.state != WITHDRAWN)
    silent = and_(_ALERT.c.id.in_(alerts), _ALERT.c.acknowledged_at.is_(None), ~remains)
    change_sealed(connection, _ALERT, silent, {"acknowledged_at": now, "acknowledged_by": "signwatch", "note": note})


def _told(by: str) -> str:
    return f"The same certificate: told by alert {by}."


def _entries_with(
    connection: Connection, wanted: set[tuple[str, bytes]], *, certificates_only: bool
) -> dict[tuple[str, bytes], list[_Entry]]:
    """By rule and certificate, the findings about it.

    `certificates_only` leaves out all but those in CT logs: one certificate may be used for any number of entries.
    """
    known: dict[tuple[str, bytes], list[_Entry]] = {}
    query = _ISSUED_WITH if certificates_only else _FOUND_WITH
    for rules, keys in _asked_together(wanted):
        for row in connection.execute(query, {"rules": rules, "keys": keys}):
            if (pair := (row.rule, bytes(row.certificate))) not in wanted:
                continue
            reasons = frozenset(reason["id"] for reason in json.loads(row.reasons))
            unexpected = row.outcome == Outcome.UNEXPECTED.value
            entry = _Entry(
                row.log,
                row.entry,
                is_certificate=row.certificate_log,
                is_expected=row.outcome == Outcome.EXPECTED.value,
                is_open=unexpected and reasons <= _NAMES_NO_ARTIFACT,
            )
            known.setdefault(pair, []).append(entry)
    return known


def _asked_together(wanted: set[tuple[str, bytes]]) -> Iterator[tuple[list[str], list[bytes]]]:
    """Cut pairs of rule and certificate into questions that name at most `_PAIRS` of them, wanted or not."""
    rules: list[str] = []
    keys: dict[bytes, None] = {}
    for rule, pairs in groupby(sorted(wanted), key=itemgetter(0)):
        for part in chunks([key for _, key in pairs]):
            together = {**keys, **dict.fromkeys(part)}
            if rules and (len(rules) + 1) * len(together) > _PAIRS:
                yield rules, list(keys)
                rules, together = [], dict.fromkeys(part)
            rules, keys = [*rules, rule], together
    if rules:
        yield rules, list(keys)
