"""Authorisations to sign, as people give and revoke them."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from msgspec import Struct
from sqlalchemy import Connection, func, or_, select

from monitor.model.errors import OwnFault
from monitor.store.database import Database
from monitor.store.sql import change_sealed, chunks, sealed, table
from monitor.store.tables import AuthorisationRow
from rules.facts import Authorisation

_GIVEN: Final = table(AuthorisationRow)
_GROUP: Final = func.coalesce(_GIVEN.c.together, _GIVEN.c.id)


class NumberedAuthorisation(Struct, frozen=True):
    """An authorisation, by its number."""

    number: int
    authorisation: Authorisation


class Authorisations:
    """Authorisations in the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, rule: str, authorisation: Authorisation, now: datetime) -> int:
        """Record an authorisation with every digest that it allows, and return its number."""
        number: int | None = None
        with self._database.write() as connection:
            for digest in authorisation.digests:
                row = {
                    "rule": rule,
                    "digest": digest,
                    "count": authorisation.count,
                    "expires": authorisation.expires,
                    "note": authorisation.note,
                    "what": authorisation.what,
                    "together": number,
                    "created_at": now,
                }
                key = connection.execute(_GIVEN.insert().values(**sealed(_GIVEN, row))).inserted_primary_key
                if key is None:
                    raise OwnFault("the database did not say which authorisation it stored")
                number = int(key[0]) if number is None else number
        if number is None:
            raise OwnFault("an authorisation of no digest was to be stored")
        return number

    def of_rule(self, rule: str) -> list[NumberedAuthorisation]:
        """Every authorisation of a rule that was not revoked, oldest first, including expired and used up ones."""
        first = (_GIVEN.c.rule == rule, _GIVEN.c.revoked_at.is_(None), _GIVEN.c.together.is_(None))
        with self._database.read() as connection:
            rows = connection.execute(select(_GIVEN).where(*first).order_by(_GIVEN.c.id)).mappings().all()
        return [
            NumberedAuthorisation(
                row["id"], Authorisation(row["digest"], row["count"], row["expires"], row["note"], row["what"])
            )
            for row in rows
        ]

    def revoke(self, number: int, now: datetime) -> bool:
        """End one; `False` when there is none of this number in force."""
        mine = or_(_GIVEN.c.id == number, _GIVEN.c.together == number)
        with self._database.write() as connection:
            return change_sealed(connection, _GIVEN, mine & _GIVEN.c.revoked_at.is_(None), {"revoked_at": now}) > 0


def in_force(
    connection: Connection, rules: Sequence[str], digests: Sequence[str]
) -> Mapping[tuple[str, str], list[Authorisation]]:
    """Authorisations that were not revoked, in order, by rule and digest; expired ones included."""
    query = select(_GIVEN).where(_GIVEN.c.revoked_at.is_(None)).order_by(_GIVEN.c.id)
    rows: list[Any] = []
    for some in chunks(rules):
        for part in chunks(list(digests)):
            wanted = _GIVEN.c.rule.in_(some), _GIVEN.c.digest.in_(part)
            rows += connection.execute(query.where(*wanted)).mappings().all()
    together = _together(connection, {_group(each) for each in rows})
    found = defaultdict[tuple[str, str], list[Authorisation]](list)
    for each in rows:
        # By name: a row has a method called `count`.
        authorisation = Authorisation(
            each["digest"], each["count"], each["expires"], each["note"], each["what"], together[_group(each)]
        )
        found[each["rule"], authorisation.digest].append(authorisation)
    return found


def _group(row: Mapping[str, Any]) -> int:
    return int(row["id"] if row["together"] is None else row["together"])


def _together(connection: Connection, groups: set[int]) -> Mapping[int, tuple[str, ...]]:
    found = defaultdict[int, list[str]](list)
    for part in chunks(sorted(groups)):
        wanted = or_(_GIVEN.c.id.in_(part), _GIVEN.c.together.in_(part))
        rows = connection.execute(select(_GROUP, _GIVEN.c.digest).where(wanted).order_by(_GIVEN.c.id))
        for number, digest in rows:
            found[int(number)].append(str(digest))
    return {number: tuple(digests) if len(digests) > 1 else () for number, digests in found.items()}
