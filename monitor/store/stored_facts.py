"""What judgements may ask about, from the database: one question at a time."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from sqlalchemy import and_, bindparam, exists, func, not_, select
from typing_extensions import override

from monitor.store.authorisations import in_force
from monitor.store.columns import text_key
from monitor.store.database import Database
from monitor.store.tables import (
    FindingCertificate,
    FindingDigest,
    FindingRow,
    LogHealth,
    SeenValue,
    Sighting,
    table,
)
from rules.facts import Authorisation, DigestSource, Known, Leave, Past
from sigstore_entries.signing import EntryRef

_FINDING = table(FindingRow)
_DIGEST = table(FindingDigest)
_CERTIFICATE = table(FindingCertificate)
_VALUE = table(SeenValue)
_SIGHTING = table(Sighting)
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


class StoredPast(Past):
    """The past from the findings in the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @override
    def times_signed(self, rule: str, digest: str, besides: EntryRef) -> int:
        wanted = (_DIGEST.c.rule == rule, _DIGEST.c.digest_key == text_key(digest))
        other = not_(and_(_DIGEST.c.log == besides.log, _DIGEST.c.entry == besides.index))
        with self._database.read() as connection:
            return connection.execute(select(func.count()).select_from(_DIGEST).where(*wanted, other)).scalar_one()

    @override
    def issuers_of(self, rule: str, identity: str, besides: frozenset[bytes]) -> frozenset[str] | None:
        return self._values(rule, "issuer", identity, besides)

    @override
    def repository_identifiers_of(self, rule: str, repository: str, besides: frozenset[bytes]) -> frozenset[str] | None:
        return self._values(rule, "repository", repository, besides)

    @override
    def signings(self, rule: str, after: datetime, up_to: datetime, besides: EntryRef) -> int:
        asked = {"rule": rule, "after": after, "up_to": up_to, "log": besides.log, "entry": besides.index}
        with self._database.read() as connection:
            return int(connection.execute(_SIGNINGS, asked).scalar_one())

    @override
    def absent_at(self, where: EntryRef) -> datetime | None:
        """From the last pass that read the whole tree."""
        read = select(_HEALTH.c.read_at).where(_HEALTH.c.log == where.log, _HEALTH.c.read_size <= where.index)
        with self._database.read() as connection:
            return connection.execute(read).scalar()

    def _values(self, rule: str, fact: str, subject: str, besides: frozenset[bytes]) -> frozenset[str]:
        shown = _SIGHTING.alias()
        same = (shown.c[name] == _VALUE.c[name] for name in ("rule", "fact", "subject_key", "value_key"))
        other = exists().where(*same, shown.c.past.is_(True), shown.c.certificate.not_in(sorted(besides)))
        subjects = (_VALUE.c.rule == rule, _VALUE.c.fact == fact, _VALUE.c.subject_key == text_key(subject))
        with self._database.read() as connection:
            return frozenset(connection.execute(select(_VALUE.c.value).where(*subjects, other)).scalars())


class StoredLeave(Leave):
    """Leave to sign from the authorisations in the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @override
    def authorisations(self, rule: str, digest: str) -> Sequence[Authorisation]:
        """Revoked ones are none."""
        with self._database.read() as connection:
            return in_force(connection, rule, [digest]).get(digest, [])


class StoredKnown(Known):
    """What other logs showed, from the findings in the database. `digests` answers for lists kept outside.

    `certificate_logs` and `signature_logs` say which logs show certificates and which show signatures, and
    `fresh_within` how long ago each must have been read to its end for an absence to mean something.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.digests: Callable[[DigestSource], frozenset[str] | None] = lambda _source: None
        self.certificate_logs: frozenset[str] = frozenset()
        self.signature_logs: frozenset[str] = frozenset()
        self.fresh_within = timedelta(minutes=15)
        self.clock: Callable[[], datetime] | None = None

    @override
    def digests_from(self, source: DigestSource) -> frozenset[str] | None:
        return self.digests(source)

    @override
    def in_certificate_log(self, certificate: bytes | None) -> bool | None:
        return self._shown(certificate, self.certificate_logs, in_ct=True)

    @override
    def in_signature_log(self, certificate: bytes | None) -> bool | None:
        return self._shown(certificate, self.signature_logs, in_ct=False)

    def were_read(self, logs: frozenset[str], since: datetime) -> bool:
        """Whether every tree of these logs was read to its end at or after a time."""
        with self._database.read() as connection:
            rows = connection.execute(select(_HEALTH.c.log, _HEALTH.c.last_success_at)).all()
        # A log of several trees is known by each tree's name.
        read = {row.log: row.last_success_at is not None and row.last_success_at >= since for row in rows}
        trees = [[is_read for name, is_read in read.items() if name.partition("/")[0] == log] for log in logs]
        return all(each and all(each) for each in trees)

    def _shown(self, certificate: bytes | None, logs: frozenset[str], *, in_ct: bool) -> bool | None:
        if certificate is None:
            return None
        same = and_(*(_CERTIFICATE.c[name] == _FINDING.c[name] for name in ("log", "entry", "rule")))
        query = select(_FINDING.c.rule).join(_CERTIFICATE, same).where(_CERTIFICATE.c.certificate == certificate)
        with self._database.read() as connection:
            if connection.execute(query.where(_FINDING.c.certificate_log.is_(in_ct)).limit(1)).first() is not None:
                return True
            if not logs or self.clock is None:
                return None
        return False if self.were_read(logs, self.clock() - self.fresh_within) else None
