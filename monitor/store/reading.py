"""Queries for status, web page, API and commands: read only, newest first, with a limit."""

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from msgspec import Struct
from sqlalchemy import ColumnElement, and_, func, or_, select

from alerts.alert import Alert, rfc3339
from monitor.model.log_source import Position
from monitor.raising.signing_alerts import SEEN
from monitor.store.alert_life import IS_OPEN
from monitor.store.database import Database
from monitor.store.history import position_of
from monitor.store.outbox import GIVEN_UP, PENDING
from monitor.store.sql import table, text_key
from monitor.store.tables import (
    AlertRow,
    AuthorisationRow,
    DeliveryRow,
    EvidenceRow,
    FindingDigest,
    FindingRow,
    Instance,
    KindCount,
    LogPosition,
    UnreadableRow,
)
from rules.canary import CANARY
from rules.rule import Outcome

_FOUND: Final = table(FindingRow)
IS_NEWS: Final = or_(_FOUND.c.rule != CANARY, _FOUND.c.outcome != Outcome.EXPECTED.value)
"""Every finding except the canary's own expected ones."""


class Followed(Struct, frozen=True):
    """A log with a baseline: its position and the beginning of following."""

    position: Position
    baseline_size: int
    baseline_how: str
    baseline_at: datetime


class FoundSigning(Struct, frozen=True):
    """One finding for display; `signing` and `reasons` are plain JSON types of untrusted text."""

    log: str
    index: int
    rule: str
    outcome: str
    reasons: Sequence[Mapping[str, str]]
    signing: Mapping[str, Any]
    found_at: datetime
    leaf: bytes = b""


def found_signing(row: Mapping[str, Any]) -> FoundSigning:
    """One row of the findings."""
    return FoundSigning(
        log=row["log"],
        index=row["entry"],
        rule=row["rule"],
        outcome=row["outcome"],
        reasons=json.loads(row["reasons"]),
        signing=json.loads(row["signing"]),
        found_at=row["found_at"],
        leaf=bytes(row["leaf"]),
    )


class KeptAlert(Struct, frozen=True):
    """One alert with the state of its deliveries per channel, and the last error."""

    alert: Alert
    enqueued_at: datetime
    acknowledged_at: datetime | None
    acknowledged_by: str | None
    note: str | None
    state: str
    silence: int | None
    deliveries: Mapping[str, str]
    errors: Mapping[str, str]


class KeptEvidence(Struct, frozen=True):
    """One piece of evidence, as the document that is exported; `closed_at` and `note` once an operator closed it."""

    id: str
    log: str
    kind: str
    kept_at: datetime
    document: Mapping[str, Any]
    closed_at: datetime | None = None
    note: str | None = None


class OpenEvidence(Struct, frozen=True):
    """One piece of evidence that no operator closed, without its document, which may hold megabytes."""

    id: str
    log: str
    kind: str
    kept_at: datetime

    @property
    def sentence(self) -> str:
        """The reason why the log is not green, and the command that ends it."""
        at = rfc3339(self.kept_at)
        short = self.id[:12]
        return (
            f"{self.log}: evidence {short} of {self.kind} from {at} is open; when the matter is settled: `signwatch "
            f"evidence close {short} --note TEXT`"
        )

    def document(self) -> dict[str, str]:
        """Plain JSON types."""
        at = rfc3339(self.kept_at)
        return {"id": self.id, "log": self.log, "kind": self.kind, "kept_at": at}


class AuthorisationUse(Struct, frozen=True):
    """One authorisation with its number and fate."""

    number: int
    rule: str
    what: str
    digests: tuple[str, ...]
    count: int
    used: int
    expires: datetime
    note: str
    revoked_at: datetime | None


class AlertsAbout(Struct, frozen=True):
    """Filter of alerts: by log, rule, entry, or the time they were put into the outbox in `[begin, end)`."""

    log: str | None = None
    rule: str | None = None
    index: int | None = None
    begin: datetime | None = None
    end: datetime | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """As SQL."""
        row = table(AlertRow).c
        found: list[ColumnElement[bool]] = []
        for column, value in ((row.log, self.log), (row.rule, self.rule), (row.entry, self.index)):
            if value is not None:
                found.append(column == value)
        if self.begin is not None:
            found.append(row.enqueued_at >= self.begin)
        if self.end is not None:
            found.append(row.enqueued_at < self.end)
        return found


ALL_ALERTS: Final = AlertsAbout()
_AT_ONCE: Final = 500  # values in one query


class Reading:
    """Queries about the stored state."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begun_at(self) -> datetime:
        """When this database was made."""
        at: datetime = self._all(select(table(Instance)))[0]["created_at"]
        return at

    def followed(self) -> dict[str, Followed]:
        """Every log that was baselined."""
        rows = self._all(select(table(LogPosition)))
        return {
            row["log"]: Followed(position_of(row), row["baseline_size"], row["baseline_how"], row["baseline_at"])
            for row in rows
        }

    def findings(self, limit: int, *, outcome: str | None = None) -> list[FoundSigning]:
        """Newest findings."""
        found = table(FindingRow)
        query = select(found).where(IS_NEWS).order_by(found.c.found_at.desc(), found.c.entry.desc()).limit(limit)
        rows = self._all(query if outcome is None else query.where(found.c.outcome == outcome))
        return [found_signing(row) for row in rows]

    def signings_of(
        self, rules: Collection[str], digests: Collection[str], limit: int, leaves: Collection[bytes] | None = None
    ) -> list[FoundSigning]:
        """Findings of these rules whose entry has one of the digests (`sha256:…`), oldest first; only of `leaves`."""
        found, shown = table(FindingRow), table(FindingDigest)
        keys = [text_key(each) for each in digests]
        same = and_(*(found.c[name] == shown.c[name] for name in ("rule", "log", "entry")))
        wanted = [shown.c.rule.in_(sorted(rules)), shown.c.digest_key.in_(keys)]
        if leaves is not None:
            wanted.append(found.c.leaf.in_(leaves))
        query = select(found).join(shown, same).where(*wanted).distinct().order_by(found.c.log, found.c.entry)
        return [found_signing(row) for row in self._all(query.limit(limit))]

    def leaf(self, log: str, index: int) -> bytes | None:
        """The bytes of an entry that some rule selected; otherwise `None`."""
        row = table(FindingRow).c
        found = self._all(select(row.leaf).where(row.log == log, row.entry == index).limit(1))
        return next((bytes(each["leaf"]) for each in found), None)

    def verdicts(self, log: str, indexes: Sequence[int]) -> dict[int, dict[str, str]]:
        """Outcomes by rule of these entries of one log, for each entry that some rule selected."""
        found: dict[int, dict[str, str]] = {}
        row = table(FindingRow).c
        for at in range(0, len(indexes), _AT_ONCE):
            here = indexes[at : at + _AT_ONCE]
            query = select(row.entry, row.rule, row.outcome).where(row.log == log, row.entry.in_(here))
            for each in self._all(query):
                found.setdefault(each["entry"], {})[each["rule"]] = each["outcome"]
        return found

    def outcomes(self) -> dict[str, int]:
        """Number of findings by outcome; expected ones of the canary are not counted."""
        found = table(FindingRow)
        return self._counts(select(found.c.outcome, func.count()).where(IS_NEWS).group_by(found.c.outcome))

    def unreadable(self) -> dict[tuple[str, str], int]:
        """Number of unreadable entries of each log, by reason code."""
        kept = table(UnreadableRow)
        rows = self._all(select(kept.c.log, kept.c.code, func.count().label("n")).group_by(kept.c.log, kept.c.code))
        return {(row["log"], row["code"]): row["n"] for row in rows}

    def kinds(self) -> dict[tuple[str, str], int]:
        """Number of entries of each kind that were read from each log."""
        return {(row["log"], row["kind"]): row["entries"] for row in self._all(select(table(KindCount)))}

    def alerts(
        self,
        limit: int,
        *,
        open_only: bool = False,
        ids: Sequence[str] = (),
        digest: str | None = None,
        prefix: str = "",
        about: AlertsAbout = ALL_ALERTS,
        silence: int | None = None,
    ) -> list[KeptAlert]:
        """Newest alerts; `open_only` leaves out acknowledged ones, `digest` gives only the alerts of that digest.

        Alerts about the canary's own signings are given only by their id.
        """
        kept, sent = table(AlertRow), table(DeliveryRow)
        query = select(kept).order_by(kept.c.enqueued_at.desc(), kept.c.id).limit(limit)
        query = query.where(*about.conditions())
        if prefix:
            query = query.where(kept.c.id.startswith(prefix, autoescape=True))
        elif not ids:
            query = query.where(kept.c.kind != SEEN)
        if open_only:
            query = query.where(IS_OPEN, kept.c.silence.is_(None))
        if ids:
            query = query.where(kept.c.id.in_(ids))
        if digest is not None:
            query = query.where(kept.c.id.in_(select(sent.c.alert).where(sent.c.digest == digest)))
        if silence is not None:
            query = query.where(kept.c.silence == silence)
        rows = self._all(query)
        deliveries = self._all(select(sent).where(sent.c.alert.in_([row["id"] for row in rows])).order_by(sent.c.id))
        told = [each for each in deliveries if not each["news"]]
        return [
            KeptAlert(
                alert=Alert.from_json(json.loads(row["document"])),
                enqueued_at=row["enqueued_at"],
                acknowledged_at=row["acknowledged_at"],
                acknowledged_by=row["acknowledged_by"],
                note=row["note"],
                state=_state(row),
                silence=row["silence"],
                deliveries={each["channel"]: each["state"] for each in told if each["alert"] == row["id"]},
                errors={e["channel"]: e["error"] for e in deliveries if e["alert"] == row["id"] and e["error"]},
            )
            for row in rows
        ]

    def given_up(self) -> dict[str, int]:
        """Number of deliveries that each channel gave up."""
        return self._deliveries(GIVEN_UP)

    def pending(self) -> dict[str, int]:
        """Number of deliveries that wait for each channel."""
        return self._deliveries(PENDING)

    def open_alerts(self) -> dict[str, int]:
        """Number of unacknowledged alerts of each severity."""
        kept = table(AlertRow)
        query = select(kept.c.severity, func.count()).where(IS_OPEN, kept.c.silence.is_(None))
        return self._counts(query.group_by(kept.c.severity))

    def open_alerts_of(self, kind: str) -> dict[str, int]:
        """Number of unacknowledged alerts of one kind, by log; silenced ones too."""
        kept = table(AlertRow)
        query = select(kept.c.log, func.count()).where(IS_OPEN, kept.c.kind == kind)
        return self._counts(query.group_by(kept.c.log))

    def evidence(self, limit: int, *, prefix: str = "", open_only: bool = False) -> list[KeptEvidence]:
        """Newest evidence whose id begins with `prefix`; `open_only` leaves out closed pieces."""
        kept = table(EvidenceRow)
        query = select(kept).order_by(kept.c.kept_at.desc(), kept.c.id).limit(limit)
        if open_only:
            query = query.where(kept.c.closed_at.is_(None))
        rows = self._all(query.where(kept.c.id.startswith(prefix, autoescape=True)) if prefix else query)
        return [
            KeptEvidence(
                id=row["id"],
                log=row["log"],
                kind=row["kind"],
                kept_at=row["kept_at"],
                document=json.loads(row["document"]),
                closed_at=row["closed_at"],
                note=row["note"],
            )
            for row in rows
        ]

    def open_evidence(self, limit: int) -> list[OpenEvidence]:
        """Newest evidence that no operator closed."""
        kept = table(EvidenceRow)
        query = select(kept.c.id, kept.c.log, kept.c.kind, kept.c.kept_at).where(kept.c.closed_at.is_(None))
        rows = self._all(query.order_by(kept.c.kept_at.desc(), kept.c.id).limit(limit))
        return [OpenEvidence(row["id"], row["log"], row["kind"], row["kept_at"]) for row in rows]

    def open_evidence_counts(self) -> dict[str, int]:
        """Number of pieces of evidence that are open against each log."""
        kept = table(EvidenceRow)
        return self._counts(select(kept.c.log, func.count()).where(kept.c.closed_at.is_(None)).group_by(kept.c.log))

    def authorisations(self, used: Any) -> list[AuthorisationUse]:
        """Every authorisation, including ended ones; `used(rule, digest)` counts the signings."""
        given = table(AuthorisationRow)
        rows = self._all(select(given).order_by(given.c.id))
        digests: dict[int, list[str]] = {}
        for row in rows:
            digests.setdefault(row["id"] if row["together"] is None else row["together"], []).append(row["digest"])
        return [
            AuthorisationUse(
                number=row["id"],
                rule=row["rule"],
                what=row["what"] or row["digest"],
                digests=tuple(digests[row["id"]]),
                count=row["count"],
                used=sum(used(row["rule"], digest) for digest in digests[row["id"]]),
                expires=row["expires"],
                note=row["note"],
                revoked_at=row["revoked_at"],
            )
            for row in rows
            if row["together"] is None
        ]

    def _deliveries(self, state: str) -> dict[str, int]:
        sent = table(DeliveryRow)
        return self._counts(select(sent.c.channel, func.count()).where(sent.c.state == state).group_by(sent.c.channel))

    def _counts(self, query: Any) -> dict[str, int]:
        with self._database.read() as connection:
            return {str(name): int(count) for name, count in connection.execute(query)}

    def _all(self, query: Any) -> Sequence[Any]:
        with self._database.read() as connection:
            return connection.execute(query).mappings().all()


def _state(row: Any) -> str:
    """State of an alert: open, silenced, acknowledged or resolved."""
    if row["resolved_at"] is not None:
        return "resolved"
    if row["acknowledged_at"] is not None:
        return "acknowledged"
    return "open" if row["silence"] is None else "silenced"
