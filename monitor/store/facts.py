"""What judgements may ask about the past: `rules.facts.Facts` over the database."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from sqlalchemy import and_, bindparam, func, not_, or_, select
from typing_extensions import override

from monitor.model.errors import OwnFault
from monitor.model.state import FactStore, Hit
from monitor.store.columns import text_key
from monitor.store.database import Database
from monitor.store.facts_ahead import FactsAhead
from monitor.store.seals import change_sealed, sealed
from monitor.store.tables import AuthorisationRow, FindingDigest, FindingRow, LogHealth, Seen, table
from rules.facts import Authorisation, DigestSource, Facts
from sigstore_entries.signing import EntryRef

_FINDING = table(FindingRow)
_DIGEST = table(FindingDigest)
_SEEN = table(Seen)
_AUTHORISATION = table(AuthorisationRow)
_HEALTH = table(LogHealth)
# Made once: every hit of a rule with a rate asks this, and making it costs more than the answer.
_SIGNINGS = (
    select(func.count())
    .select_from(_FINDING)
    .where(
        _FINDING.c.rule == bindparam("rule"),
        _FINDING.c.signed_at > bindparam("after"),
        _FINDING.c.signed_at <= bindparam("up_to"),
        _FINDING.c.counts.is_(True),
        _FINDING.c.certificate_log.is_(False),
        not_(and_(_FINDING.c.log == bindparam("log"), _FINDING.c.entry == bindparam("entry"))),
    )
)


class DatabaseFacts(FactStore, Facts):
    """Facts from the database. `digests` answers for digest lists kept outside; without it none is known.

    `covers` says which logs show certificates and which show signatures, and how long ago each must have been read for
    an absence to mean something.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.digests: Callable[[DigestSource], frozenset[str] | None] = lambda _source: None
        self.certificate_logs: frozenset[str] = frozenset()
        self.signature_logs: frozenset[str] = frozenset()
        self.fresh_within = timedelta(minutes=15)
        self.clock: Callable[[], datetime] | None = None

    @override
    def ahead(self, hits: Sequence[Hit]) -> Facts:
        return FactsAhead(self, self._database, hits)

    @override
    def authorisations(self, rule: str, digest: str) -> Sequence[Authorisation]:
        """Revoked ones are none."""
        wanted = (
            _AUTHORISATION.c.rule == rule,
            _AUTHORISATION.c.digest == digest,
            _AUTHORISATION.c.revoked_at.is_(None),
        )
        with self._database.read() as connection:
            rows = (
                connection.execute(select(_AUTHORISATION).where(*wanted).order_by(_AUTHORISATION.c.id)).mappings().all()
            )
        # By name: a row has a method called `count`.
        return [Authorisation(each["digest"], each["count"], each["expires"], each["note"]) for each in rows]

    @override
    def times_signed(self, rule: str, digest: str, besides: EntryRef) -> int:
        wanted = (_DIGEST.c.rule == rule, _DIGEST.c.digest_key == text_key(digest))
        other = not_(and_(_DIGEST.c.log == besides.log, _DIGEST.c.entry == besides.index))
        with self._database.read() as connection:
            return connection.execute(select(func.count()).select_from(_DIGEST).where(*wanted, other)).scalar_one()

    @override
    def issuers_of(self, identity: str, besides: EntryRef) -> frozenset[str] | None:
        """, over entries some rule selected."""
        return self._values("issuer", identity, besides)

    @override
    def repository_identifiers_of(self, repository: str, besides: EntryRef) -> frozenset[str] | None:
        """, over entries some rule selected."""
        return self._values("repository", repository, besides)

    @override
    def signings(self, rule: str, after: datetime, up_to: datetime, besides: EntryRef) -> int:
        asked = {"rule": rule, "after": after, "up_to": up_to, "log": besides.log, "entry": besides.index}
        with self._database.read() as connection:
            return int(connection.execute(_SIGNINGS, asked).scalar_one())

    @override
    def digests_from(self, source: DigestSource) -> frozenset[str] | None:
        return self.digests(source)

    @override
    def in_certificate_log(self, fingerprints: Sequence[str]) -> bool | None:
        """, over entries some rule selected."""
        return self._shown("fingerprint-ct", fingerprints, self.certificate_logs)

    @override
    def in_signature_log(self, fingerprints: Sequence[str]) -> bool | None:
        """, over entries some rule selected."""
        return self._shown("fingerprint-rekor", fingerprints, self.signature_logs)

    def _values(self, fact: str, subject: str, besides: EntryRef) -> frozenset[str]:
        first_seen_elsewhere = not_(and_(_SEEN.c.log == besides.log, _SEEN.c.entry == besides.index))
        wanted = (_SEEN.c.fact == fact, _SEEN.c.subject_key == text_key(subject), first_seen_elsewhere)
        with self._database.read() as connection:
            return frozenset(connection.execute(select(_SEEN.c.value).where(*wanted)).scalars())

    def _shown(self, fact: str, fingerprints: Sequence[str], logs: frozenset[str]) -> bool | None:
        if not fingerprints:
            return None
        keys = [text_key(fingerprint) for fingerprint in fingerprints]
        with self._database.read() as connection:
            wanted = (_SEEN.c.fact == fact, or_(*(_SEEN.c.subject_key == key for key in keys)))
            if connection.execute(select(_SEEN.c.fact).where(*wanted).limit(1)).first() is not None:
                return True
            if not logs or self.clock is None:
                return None
        return False if self.were_read(logs, self.clock() - self.fresh_within) else None

    def were_read(self, logs: frozenset[str], since: datetime) -> bool:
        """Whether every tree of these logs was read to its end at or after a time."""
        with self._database.read() as connection:
            rows = connection.execute(select(_HEALTH.c.log, _HEALTH.c.last_success_at)).all()
        # A log of several trees is known by each tree's name.
        read = {row.log: row.last_success_at is not None and row.last_success_at >= since for row in rows}
        trees = [[is_read for name, is_read in read.items() if name.partition("/")[0] == log] for log in logs]
        return all(each and all(each) for each in trees)


class Authorisations:
    """Leave to sign, as people give and revoke it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, rule: str, authorisation: Authorisation, now: datetime) -> int:
        """Record one and return its number."""
        row = {
            "rule": rule,
            "digest": authorisation.digest,
            "count": authorisation.count,
            "expires": authorisation.expires,
            "note": authorisation.note,
            "created_at": now,
        }
        with self._database.write() as connection:
            key = connection.execute(_AUTHORISATION.insert().values(**sealed(_AUTHORISATION, row))).inserted_primary_key
        if key is None:
            raise OwnFault("the database did not say which authorisation it stored")
        return int(key[0])

    def revoke(self, number: int, now: datetime) -> bool:
        """End one; `False` when there is none of this number in force."""
        wanted = and_(_AUTHORISATION.c.id == number, _AUTHORISATION.c.revoked_at.is_(None))
        with self._database.write() as connection:
            return change_sealed(connection, _AUTHORISATION, wanted, {"revoked_at": now}) == 1
