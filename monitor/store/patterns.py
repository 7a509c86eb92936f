"""Patterns that people acknowledged, in the database: made from an alert's own signing, listed, revoked."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from msgspec import Struct
from sqlalchemy import Connection, and_, select

from alerts.alert import rfc3339
from monitor.model.errors import OwnFault
from monitor.store.alert_life import ChangeAuthor, NoSuchAlert
from monitor.store.database import Database
from monitor.store.sql import change_sealed, sealed, table
from monitor.store.tables import AlertRow, FindingRow, PatternRow
from rules.acknowledged import NoPattern, SignerPattern, pattern_from, pattern_of
from sigstore_entries.signing import Name, NameForm, Signer, SignerForm

_PATTERN: Final = table(PatternRow)
_MAX_TEXT: Final = 2_000


class KeptPattern(Struct, frozen=True):
    """A pattern with its person, rule, alert, and the time of its revocation."""

    pattern: SignerPattern
    rule: str
    alert: str
    by: str
    note: str
    created_at: datetime
    revoked_at: datetime | None
    revoked_by: str | None

    @property
    def number(self) -> int:
        """Number by which the pattern is revoked."""
        return self.pattern.number

    def document(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {
            "number": self.number,
            "rule": self.rule,
            "alert": self.alert,
            "by": self.by,
            "note": self.note,
            "created_at": rfc3339(self.created_at),
            "revoked_at": None if self.revoked_at is None else rfc3339(self.revoked_at),
            "revoked_by": self.revoked_by,
            "expects": list(self.pattern.sentences()),
        }


class Patterns:
    """Patterns in the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def like(self, alert: str, ref_glob: str | None = None) -> tuple[str, SignerPattern]:
        """The rule and the pattern of this alert's signing, without storing them.

        Raises `NoPattern`, `NoSuchAlert`.
        """
        with self._database.read() as connection:
            return _like(connection, alert, ref_glob)

    def add(self, alert: str, ref_glob: str | None, who: ChangeAuthor, now: datetime) -> KeptPattern:
        """Expect signings equal to this alert's from now on; returns an equal pattern in force instead of a second one.

        Raises `NoPattern`, `NoSuchAlert`.
        """
        with self._database.write() as connection:
            rule, made = _like(connection, alert, ref_glob)
            document = json.dumps(made.document(), sort_keys=True)
            same = and_(_PATTERN.c.rule == rule, _PATTERN.c.document == document, _PATTERN.c.revoked_at.is_(None))
            row = connection.execute(select(_PATTERN).where(same)).mappings().first()
            if row is not None:
                return _kept(row)
            values = {
                "rule": rule,
                "alert": alert,
                "document": document,
                "made_by": who.name[:_MAX_TEXT],
                "note": who.note[:_MAX_TEXT],
                "created_at": now,
            }
            key = connection.execute(_PATTERN.insert().values(**sealed(_PATTERN, values))).inserted_primary_key
            if key is None:
                raise OwnFault("the database did not say which pattern it stored")
            return _kept({**values, "id": key[0], "revoked_at": None, "revoked_by": None})

    def revoke(self, number: int, who: ChangeAuthor, now: datetime, alert: str | None = None) -> bool:
        """End a pattern; false when none with this number (and, if given, of this alert) is in force."""
        here = and_(_PATTERN.c.id == number, _PATTERN.c.revoked_at.is_(None))
        if alert is not None:
            here = and_(here, _PATTERN.c.alert == alert)
        with self._database.write() as connection:
            values = {"revoked_at": now, "revoked_by": who.name[:_MAX_TEXT]}
            return change_sealed(connection, _PATTERN, here, values) > 0

    def all(self, *, rule: str | None = None, alert: str | None = None) -> list[KeptPattern]:
        """Every pattern, newest first, including revoked ones."""
        query = select(_PATTERN).order_by(_PATTERN.c.id.desc())
        for column, value in ((_PATTERN.c.rule, rule), (_PATTERN.c.alert, alert)):
            if value is not None:
                query = query.where(column == value)
        with self._database.read() as connection:
            return [_kept(row) for row in connection.execute(query).mappings()]


def pattern_note(note: str, number: int) -> str:
    """A note on an acknowledgement, with the number of its pattern."""
    return f"{note} (pattern {number})" if note else f"pattern {number}"


def _like(connection: Connection, alert: str, ref_glob: str | None) -> tuple[str, SignerPattern]:
    kept, found = table(AlertRow), table(FindingRow)
    about = connection.execute(select(kept.c.log, kept.c.entry, kept.c.rule).where(kept.c.id == alert)).first()
    if about is None:
        raise NoSuchAlert(f"there is no alert {alert!r:.80}")
    here = and_(found.c.log == about.log, found.c.entry == about.entry, found.c.rule == about.rule)
    row = connection.execute(select(found.c.signing, found.c.reasons, found.c.outcome).where(here)).first()
    if row is None or row.outcome != "unexpected":
        raise NoPattern("this alert is not about an unexpected signing: there is no pattern to expect")
    signers = json.loads(row.signing)["signers"]
    if len(signers) != 1:
        raise NoPattern("this entry has several signers, or none: extend the rule instead")
    reasons = {each["id"] for each in json.loads(row.reasons)}
    return str(about.rule), pattern_of(_signer(signers[0]), reasons, ref_glob)


def _signer(document: Mapping[str, Any]) -> Signer:
    return Signer(
        SignerForm(document["form"]),
        tuple(Name(NameForm(each["form"]), each["value"]) for each in document["names"]),
        document["issuer"],
        document["claims"],
        fingerprints=tuple(document["fingerprints"]),
        defects=tuple(document["defects"]),
    )


def _kept(row: Mapping[Any, Any]) -> KeptPattern:
    return KeptPattern(
        pattern_from(json.loads(row["document"]), int(row["id"])),
        row["rule"],
        row["alert"],
        row["made_by"],
        row["note"],
        row["created_at"],
        row["revoked_at"],
        row["revoked_by"],
    )
