"""One event for one signing: a certificate in a CT log and, seconds later, the log entry made with it.

The alert for a certificate waits. When the entry comes, its alert replaces the waiting one, in the transaction that
commits the entry; when none comes, the alert for the certificate is sent. Only an entry with an alert of its own
replaces another alert, so no event is left without an alert. There is one exception: a certificate names no artifact,
so if this is the only reason against it, an expected entry withdraws its alert.
"""

import json
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace
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
# Compiled once. The answer for all rules and certificates of a batch also holds other pairs.
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
_PAIRS: Final = 1_000  # each takes one look-up in an index
_NAMES_NO_ARTIFACT: Final = frozenset({DigestsExpectation.id, DigestsFromExpectation.id, AuthorisedExpectation.id})


class Dispatch(Struct, frozen=True):
    """Dispatch of one alert: to these channels, not before `due`. `takes` are alerts that it replaces.

    With a `note` the alert is only recorded, for the reason in the note.
    """

    alert: Alert
    channels: Sequence[str]
    due: datetime
    takes: tuple[str, ...] = ()
    note: str = ""


class _StoredEntry(Struct, frozen=True, order=True):
    """A stored finding about a certificate. `is_open`: the only reason against it is the missing artifact."""

    log: str
    index: int
    is_certificate: bool
    is_expected: bool
    is_open: bool


def add_certificates(connection: Connection, findings: Sequence[Finding]) -> dict[tuple[str, int, str], set[bytes]]:
    """Store which trusted certificates findings are about; return their keys by (log, index, rule).

    Only the certificates of selected signers: an entry may hold other people's certificates.
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


class EventDispatcher:
    """Decides, within one transaction, which alerts of new findings are sent and which belong to a known event."""

    def __init__(self, connection: Connection, findings: Sequence[Finding], now: datetime, hold: timedelta) -> None:
        """Store the certificates of `findings`, which must be stored already."""
        self._connection, self._now, self._hold = connection, now, hold
        if any(finding.selected.vouched for finding in findings):
            # Two logs' batches must see each other's findings.
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
        """True if some finding is about a CT entry: its alert depends on the stored findings."""
        return bool(self._issued)

    def dispatch(self, alert: Alert, channels: Sequence[str]) -> Dispatch:
        """Decide the channels of one alert, given those of its rule."""
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
        """Alerts whose only reason was a certificate without an entry, and whose expected entry is in this batch."""
        return [
            alert
            for where, rule in self._expected
            for other in self._others(where, rule)
            if other.is_certificate and other.is_open
            for alert in self._alerts_of(other, rule)
        ]

    def _certificate(self, at_once: Dispatch, rule: str, others: Sequence[_StoredEntry]) -> Dispatch:
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

    def _others(self, where: EntryRef, rule: str) -> list[_StoredEntry]:
        keys = self._keys.get((where.log, where.index, rule), ())
        found = {entry for key in keys for entry in self._entries.get((rule, key), ())}
        return sorted(each for each in found if (each.log, each.index) != (where.log, where.index))

    def _alerts_of(self, entry: _StoredEntry, rule: str) -> list[str]:
        about = (_ALERT.c.log == entry.log, _ALERT.c.entry == entry.index, _ALERT.c.rule == rule)
        return list(self._connection.execute(select(_ALERT.c.id).where(*about)).scalars())

    def _told_by(self, entry: _StoredEntry, rule: str) -> str | None:
        """The alert that reports a finding; `None` without one."""
        about = (_ALERT.c.log == entry.log, _ALERT.c.entry == entry.index, _ALERT.c.rule == rule)
        on_its_way = exists().where(_DELIVERY.c.alert == _ALERT.c.id, _DELIVERY.c.state != WITHDRAWN)
        return self._connection.execute(select(_ALERT.c.id).where(*about, on_its_way).limit(1)).scalar()


def settle(connection: Connection, sent: Dispatch) -> None:
    """Withdraw the alerts that `sent` replaces, once `sent` is in the outbox.

    This withdraws their deliveries, except those being sent and those to other channels. An alert without a channel
    is marked as acknowledged and stays on record.
    """
    if sent.note:
        _mark_seen(connection, [sent.alert.id], sent.note, sent.due)
    if sent.takes:
        withdraw(connection, sent.takes, _told(sent.alert.id), sent.due, _DELIVERY.c.channel.in_(sent.channels))


def withdraw(connection: Connection, alerts: Sequence[str], note: str, now: datetime, only: Any = None) -> None:
    """Withdraw deliveries that are not being sent, if `only` holds.

    A delivery in a digest stays: the receiver may have the digest, and the same key must not have another content.
    """
    waiting = and_(
        _DELIVERY.c.state == PENDING,
        or_(_DELIVERY.c.digest.is_(None), _DELIVERY.c.digest == _DELIVERY.c.alert),
        or_(_DELIVERY.c.leased_until.is_(None), _DELIVERY.c.leased_until <= now),
        true() if only is None else only,
    )
    gone = {"state": WITHDRAWN, "finished_at": now, "leased_until": None, "error": ""}
    for part in chunks(alerts):
        # Waits for a process that claims one of them at this moment; that delivery is then being sent, and not
        # locked here.
        chosen = lock_rows(connection, _DELIVERY.c.id, and_(_DELIVERY.c.alert.in_(part), waiting))
        for ids in chunks(chosen):
            connection.execute(update(_DELIVERY).where(_DELIVERY.c.id.in_(ids)).values(**gone))
        _mark_seen(connection, part, note, now)


def _mark_seen(connection: Connection, alerts: Sequence[str], note: str, now: datetime) -> None:
    remains = exists().where(_DELIVERY.c.alert == _ALERT.c.id, _DELIVERY.c.state != WITHDRAWN)
    silent = and_(_ALERT.c.id.in_(alerts), _ALERT.c.acknowledged_at.is_(None), ~remains)
    change_sealed(connection, _ALERT, silent, {"acknowledged_at": now, "acknowledged_by": "signwatch", "note": note})


def _told(by: str) -> str:
    return f"The same certificate: reported by alert {by}."


def _entries_with(
    connection: Connection, wanted: set[tuple[str, bytes]], *, certificates_only: bool
) -> dict[tuple[str, bytes], list[_StoredEntry]]:
    """By rule and certificate, the findings about it.

    `certificates_only` leaves out all but those in CT logs: one certificate may be used for any number of entries.
    """
    known: dict[tuple[str, bytes], list[_StoredEntry]] = {}
    query = _ISSUED_WITH if certificates_only else _FOUND_WITH
    for rules, keys in _asked_together(wanted):
        for row in connection.execute(query, {"rules": rules, "keys": keys}):
            if (pair := (row.rule, bytes(row.certificate))) not in wanted:
                continue
            reasons = frozenset(reason["id"] for reason in json.loads(row.reasons))
            unexpected = row.outcome == Outcome.UNEXPECTED.value
            entry = _StoredEntry(
                row.log,
                row.entry,
                is_certificate=row.certificate_log,
                is_expected=row.outcome == Outcome.EXPECTED.value,
                is_open=unexpected and reasons <= _NAMES_NO_ARTIFACT,
            )
            known.setdefault(pair, []).append(entry)
    return known


def _asked_together(wanted: set[tuple[str, bytes]]) -> Iterator[tuple[list[str], list[bytes]]]:
    """Cut pairs of rule and certificate into queries of at most `_PAIRS` pairs, including unwanted combinations."""
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
