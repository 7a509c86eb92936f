"""Facts for judgements (`rules.facts.Facts`), read from the database. `Stored…` answers one query at a time.

`…Ahead` queries the database once for all hits of a batch.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from msgspec import Struct
from sqlalchemy import Connection, and_, bindparam, exists, func, not_, select
from typing_extensions import override

from monitor.model.state import FactStore, Hit
from monitor.store.authorisations import in_force
from monitor.store.database import Database
from monitor.store.findings import digests_of, revisions
from monitor.store.sql import chunks, table, text_key
from monitor.store.tables import (
    FindingCertificate,
    FindingDigest,
    FindingRow,
    LogHealth,
    PatternRow,
    SeenValue,
    Sighting,
)
from rules.acknowledged import SignerPattern, pattern_from
from rules.facts import Authorisation, AuthorisationFacts, DigestSource, Facts, KnownFacts, PastFacts
from rules.pattern import repository_key
from sigstore_entries.signing import EntryRef, Signer, Signing

_FINDING = table(FindingRow)
_DIGEST = table(FindingDigest)
_CERTIFICATE = table(FindingCertificate)
_VALUE = table(SeenValue)
_SIGHTING = table(Sighting)
_HEALTH = table(LogHealth)
_PATTERN = table(PatternRow)
# Compiled once: every hit of a rule with a rate needs it, and compiling takes longer than the query.
_COUNTED = and_(
    _FINDING.c.signed_at > bindparam("after"),
    _FINDING.c.signed_at <= bindparam("up_to"),
    _FINDING.c.counts.is_(True),
    _FINDING.c.certificate_log.is_(False),
    not_(and_(_FINDING.c.log == bindparam("log"), _FINDING.c.entry == bindparam("entry"))),
)
_SIGNINGS = select(func.count()).select_from(_FINDING).where(_FINDING.c.rule == bindparam("rule"), _COUNTED)
_SIGNINGS_OF = (
    select(_FINDING.c.rule, func.count())
    .where(_FINDING.c.rule.in_(bindparam("rules", expanding=True)), _COUNTED)
    .group_by(_FINDING.c.rule)
)
_WINDOWS = 16
"""Spans of time about which all rules of an entry are asked together; asking for each of very many costs more."""


class StoredPastFacts(PastFacts):
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


class StoredAuthorisationFacts(AuthorisationFacts):
    """`AuthorisationFacts` from the authorisations in the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @override
    def authorisations(self, rule: str, digest: str) -> Sequence[Authorisation]:
        """Revoked ones are none."""
        with self._database.read() as connection:
            return in_force(connection, [rule], [digest]).get((rule, digest), [])

    @override
    def patterns(self, rule: str) -> Sequence[SignerPattern]:
        with self._database.read() as connection:
            return _patterns_in_force(connection, [rule])[rule]


ListedDigests = Callable[[DigestSource], frozenset[str] | None]
"""Digests of a list outside the rule file; `None` for a list that was never read."""


class StoredKnownFacts(KnownFacts):
    """`KnownFacts` from the findings of other logs in the database. `digests` answers for lists outside the rule file.

    `certificate_logs` and `signature_logs` are the logs that show certificates and signatures. An absence counts
    only if each was read to its end within `fresh_within`.
    """

    def __init__(self, database: Database, clock: Callable[[], datetime], digests: ListedDigests) -> None:
        self._database, self._clock, self._digests = database, clock, digests
        self.certificate_logs: frozenset[str] = frozenset()
        self.signature_logs: frozenset[str] = frozenset()
        self.fresh_within = timedelta(minutes=15)

    @override
    def digests_from(self, source: DigestSource) -> frozenset[str] | None:
        return self._digests(source)

    @override
    def in_certificate_log(self, certificate: bytes | None) -> bool | None:
        return self._shown(certificate, self.certificate_logs, in_ct=True)

    @override
    def in_signature_log(self, certificate: bytes | None) -> bool | None:
        return self._shown(certificate, self.signature_logs, in_ct=False)

    def were_read(self, logs: frozenset[str], since: datetime) -> bool:
        """True if every tree of these logs was read to its end at or after a time."""
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
        return False if logs and self.were_read(logs, self._clock() - self.fresh_within) else None


_OF_VALUE: Final = and_(
    _SIGHTING.c.past.is_(True),
    *(_SIGHTING.c[name] == _VALUE.c[name] for name in ("rule", "fact", "subject_key", "value_key")),
)
_SHOWING: Final = select(_SIGHTING.c.certificate).where(_OF_VALUE).correlate(_VALUE)
_SHOWN: Final = select(
    _VALUE.c.rule,
    _VALUE.c.subject_key,
    _VALUE.c.value,
    # Two look-ups in an index for any number of certificates.
    _SHOWING.order_by(_SIGHTING.c.certificate).limit(1).scalar_subquery().label("first"),
    _SHOWING.order_by(_SIGHTING.c.certificate.desc()).limit(1).scalar_subquery().label("last"),
)


class _Signed(Struct, frozen=True):
    """Number of entries that carry a digest, and the batch's own among them."""

    entries: int
    here: frozenset[EntryRef]


class _Value(Struct, frozen=True):
    """A value of the past, with the first and the last (by bytes) of the certificates that showed it."""

    value: str
    first: bytes
    last: bytes


class BatchHits:
    """The hits of one batch, grouped by the queries of expectations."""

    def __init__(self, hits: Sequence[Hit]) -> None:
        self.signings = {hit.signing.where: hit.signing for hit in hits}
        self._by_rule = defaultdict[str, list[Signing]](list)
        for hit in hits:
            for rule in hit.rules:
                self._by_rule[rule].append(hit.signing)
        self._alike = defaultdict[tuple[EntryRef, ...], list[str]](list)

    @property
    def rules(self) -> Collection[str]:
        """Rules that selected some hit."""
        return self._by_rule.keys()

    def alike(self, rule: str) -> Sequence[str]:
        """Rules that selected the same hits as this rule, including itself: they need the same facts."""
        if not self._alike:
            for each, signings in self._by_rule.items():
                self._alike[tuple(signing.where for signing in signings)].append(each)
        return self._alike.get(tuple(signing.where for signing in self._by_rule[rule])) or [rule]

    def signers(self, rule: str) -> Iterator[Signer]:
        """Signers of the hits of one rule."""
        for signing in self._by_rule[rule]:
            yield from signing.signers

    def digests(self, rule: str) -> Sequence[str]:
        """Digests of the hits of one rule, each once."""
        return sorted({digest for signing in self._by_rule[rule] for digest in digests_of(signing)})


class PrefetchedAuthorisationFacts(StoredAuthorisationFacts):
    """`AuthorisationFacts` for one batch of hits: one query for patterns, one for digests of alike rules."""

    def __init__(self, database: Database, about: BatchHits) -> None:
        super().__init__(database)
        self._about = about
        self._leaves: dict[str, Mapping[str, Sequence[Authorisation]]] = {}
        self._patterns: Mapping[str, Sequence[SignerPattern]] | None = None

    @override
    def authorisations(self, rule: str, digest: str) -> Sequence[Authorisation]:
        if rule not in self._leaves:
            self._leaves.update(self._fetch_authorisations(self._about.alike(rule)))
        known = self._leaves[rule].get(digest)
        return super().authorisations(rule, digest) if known is None else known

    @override
    def patterns(self, rule: str) -> Sequence[SignerPattern]:
        if self._patterns is None:
            with self._database.read() as connection:
                self._patterns = _patterns_in_force(connection, self._about.rules)
        known = self._patterns.get(rule)
        return super().patterns(rule) if known is None else known

    def _fetch_authorisations(self, rules: Sequence[str]) -> Mapping[str, Mapping[str, Sequence[Authorisation]]]:
        digests = self._about.digests(rules[0])
        with self._database.read() as connection:
            found = in_force(connection, rules, digests)
        return {rule: {digest: found.get((rule, digest), []) for digest in digests} for rule in rules}


class PrefetchedPastFacts(StoredPastFacts):
    """The past of these hits with far fewer queries.

    A question about another signing is answered by a query of its own. Answers are as of the first query of their
    kind: make a new one for each batch.
    """

    def __init__(self, database: Database, about: BatchHits) -> None:
        super().__init__(database)
        self._about = about
        self._signed: dict[str, Mapping[str, _Signed]] = {}
        self._seen: dict[tuple[str, str], Mapping[str, Sequence[_Value]]] = {}
        self._absent: dict[str, datetime | None] = {}
        self._windows = set[tuple[datetime, datetime, EntryRef]]()
        self._counts: dict[tuple[str, datetime, datetime, EntryRef], int] = {}

    @override
    def times_signed(self, rule: str, digest: str, besides: EntryRef) -> int:
        if rule not in self._signed:
            self._signed.update(self._fetch_signed(self._about.alike(rule)))
        known = self._signed[rule].get(digest)
        if known is None or besides not in self._about.signings:
            return super().times_signed(rule, digest, besides)
        return known.entries - (besides in known.here)

    @override
    def issuers_of(self, rule: str, identity: str, besides: frozenset[bytes]) -> frozenset[str] | None:
        if (rule, "issuer") not in self._seen:
            names = {name.value for signer in self._about.signers(rule) for name in signer.names}
            self._fetch_seen(self._about.alike(rule), "issuer", names)
        known = self._besides(self._seen[rule, "issuer"].get(identity), besides)
        return super().issuers_of(rule, identity, besides) if known is None else known

    @override
    def repository_identifiers_of(self, rule: str, repository: str, besides: frozenset[bytes]) -> frozenset[str] | None:
        if (rule, "repository") not in self._seen:
            named = {repository_key(each) for each in self._about.signers(rule)}
            names = {name for name in named if name is not None}
            self._fetch_seen(self._about.alike(rule), "repository", names)
        known = self._besides(self._seen[rule, "repository"].get(repository), besides)
        return super().repository_identifiers_of(rule, repository, besides) if known is None else known

    @override
    def signings(self, rule: str, after: datetime, up_to: datetime, besides: EntryRef) -> int:
        window = after, up_to, besides
        if (known := self._counts.get((rule, *window))) is not None:
            return known
        alike = self._about.alike(rule)
        if len(alike) == 1 or (len(self._windows) >= _WINDOWS and window not in self._windows):
            return super().signings(rule, after, up_to, besides)
        self._windows.add(window)
        self._counts.update({(each, *window): number for each, number in self._count(alike, *window).items()})
        return self._counts[rule, *window]

    @override
    def absent_at(self, where: EntryRef) -> datetime | None:
        """One answer for each log of the batch, about its first entry."""
        if where.log not in self._absent:
            mine = [entry for entry in self._about.signings if entry.log == where.log]
            first = min(mine, key=lambda entry: entry.index, default=where)
            self._absent[where.log] = super().absent_at(first)
        return self._absent[where.log] if where in self._about.signings else super().absent_at(where)

    def _fetch_signed(self, rules: Sequence[str]) -> Mapping[str, Mapping[str, _Signed]]:
        by_key = {text_key(digest): digest for digest in self._about.digests(rules[0])}
        entries, here = dict[tuple[str, bytes], int](), defaultdict[tuple[str, bytes], set[EntryRef]](set)
        columns = _DIGEST.c.rule, _DIGEST.c.digest_key
        with self._database.read() as connection:
            for some in chunks(rules):
                for part in chunks(list(by_key)):
                    wanted = _DIGEST.c.rule.in_(some), _DIGEST.c.digest_key.in_(part)
                    counts = select(*columns, func.count()).where(*wanted).group_by(*columns)
                    entries.update(((rule, bytes(key)), count) for rule, key, count in connection.execute(counts))
                    for log, first, last in _ranges(self._about.signings):
                        near = _DIGEST.c.log == log, _DIGEST.c.entry >= first, _DIGEST.c.entry <= last
                        for row in connection.execute(select(*columns, _DIGEST.c.entry).where(*wanted, *near)):
                            here[row.rule, bytes(row.digest_key)].add(EntryRef(log, row.entry))
        return {
            rule: {
                digest: _Signed(entries.get((rule, key), 0), frozenset(here.get((rule, key), ())))
                for key, digest in by_key.items()
            }
            for rule in rules
        }

    def _count(self, rules: Sequence[str], after: datetime, up_to: datetime, besides: EntryRef) -> dict[str, int]:
        found = dict.fromkeys(rules, 0)
        asked = {"after": after, "up_to": up_to, "log": besides.log, "entry": besides.index}
        with self._database.read() as connection:
            for some in chunks(rules):
                rows = connection.execute(_SIGNINGS_OF, {"rules": some, **asked})
                found.update((row[0], int(row[1])) for row in rows)
        return found

    def _fetch_seen(self, rules: Sequence[str], fact: str, subjects: set[str]) -> None:
        by_key = {text_key(subject): subject for subject in subjects}
        found: dict[str, dict[str, list[_Value]]] = {rule: {subject: [] for subject in subjects} for rule in rules}
        with self._database.read() as connection:
            for some in chunks(rules):
                for part in chunks(sorted(by_key)):
                    wanted = _VALUE.c.rule.in_(some), _VALUE.c.fact == fact, _VALUE.c.subject_key.in_(part)
                    for row in connection.execute(_SHOWN.where(*wanted)):
                        if row.first is not None:
                            shown = _Value(row.value, bytes(row.first), bytes(row.last))
                            found[row.rule][by_key[bytes(row.subject_key)]].append(shown)
        self._seen.update({(rule, fact): known for rule, known in found.items()})

    def _besides(self, known: Sequence[_Value] | None, besides: frozenset[bytes]) -> frozenset[str] | None:
        """Values that other certificates showed; `None` if the first and the last do not decide it."""
        if known is None:
            return None
        # Two different certificates cannot both be the only own one.
        if len(besides) > 1 and any({each.first, each.last} <= besides for each in known):
            return None
        return frozenset(each.value for each in known if not {each.first, each.last} <= besides)


def _ranges(entries: Iterable[EntryRef]) -> Iterable[tuple[str, int, int]]:
    """For each log its lowest and highest entry among these."""
    by_log = defaultdict[str, list[int]](list)
    for entry in entries:
        by_log[entry.log].append(entry.index)
    return [(log, min(indexes), max(indexes)) for log, indexes in by_log.items()]


class DatabaseFacts(FactStore):
    """Facts from the database: `stored` answers one query at a time, `ahead` all queries of a batch at once."""

    def __init__(
        self, database: Database, clock: Callable[[], datetime], digests: ListedDigests = lambda _source: None
    ) -> None:
        self._database = database
        self.known = StoredKnownFacts(database, clock, digests)
        self.stored = Facts(StoredPastFacts(database), StoredAuthorisationFacts(database), self.known)

    @override
    def ahead(self, hits: Sequence[Hit]) -> Facts:
        about = BatchHits(hits)
        return Facts(
            PrefetchedPastFacts(self._database, about), PrefetchedAuthorisationFacts(self._database, about), self.known
        )

    @override
    def revisions(self, rules: Collection[str]) -> Mapping[str, int]:
        if not rules:
            return {}
        with self._database.read() as connection:
            return revisions(connection, rules)


def _patterns_in_force(connection: Connection, rules: Collection[str]) -> dict[str, list[SignerPattern]]:
    """Patterns of each of these rules that were not revoked, oldest first; empty for a rule without any."""
    found: dict[str, list[SignerPattern]] = {rule: [] for rule in rules}
    for part in chunks(sorted(found)):
        here = _PATTERN.c.rule.in_(part), _PATTERN.c.revoked_at.is_(None)
        wanted = select(_PATTERN.c.id, _PATTERN.c.rule, _PATTERN.c.document).where(*here).order_by(_PATTERN.c.id)
        for row in connection.execute(wanted):
            found[row.rule].append(pattern_from(json.loads(row.document), row.id))
    return found
