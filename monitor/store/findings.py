"""Findings as rows: recorded, used as the past of later judgements, and judged again when due.

A finding waits for its time if an entry or certificate must follow the signing by then. A finding without a trusted
certificate waits until the trust root names another authority.
"""

import json
from bisect import bisect_right, insort
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from msgspec import Struct, to_builtins
from msgspec.json import encode
from sqlalchemy import ColumnElement, Connection, and_, delete, exists, func, select, update
from typing_extensions import override

from monitor.model.errors import PastMoved
from monitor.model.state import Batch, Finding
from monitor.store.database import Database
from monitor.store.sql import add_new, add_new_tuples, add_or_overwrite, add_up, change_sealed, chunks, table, text_key
from monitor.store.tables import (
    AlertRow,
    FindingDigest,
    FindingName,
    FindingRow,
    KindCount,
    Recheck,
    RulePast,
    SeenValue,
    Sighting,
    TrustRootRow,
    UnreadableRow,
)
from rules.facts import PastFacts
from rules.pattern import repository_key
from rules.rule import CT_KINDS, Outcome
from rules.selection import Selected, digest_text, names_of
from sigstore_entries.signing import ChainTrust, EntryRef, SignatureCheck, Signer, SignerForm, Signing

_NAME_COLUMNS: Final = ("name_key", "log", "entry", "vouched", "at")
_SAID_BY_AUTHORITY: Final = ("timestamp-response", "integrated-time", "ct-timestamp")


def add_findings(connection: Connection, findings: Sequence[Finding], now: datetime) -> None:
    """Store findings; known ones do not change."""
    documents: dict[int, str] = {}
    add_new(connection, table(FindingRow), [_row(finding, now, documents) for finding in findings])
    _add_names(connection, findings, now)
    add_past(connection, findings)


def vouched_for(connection: Connection, finding: Finding, now: datetime) -> None:
    """Replace the verdict of a finding that had no trusted certificate; the time of the finding stays."""
    row, found = _row(finding, now, {}), table(FindingRow).c
    here = and_(found.log == row["log"], found.entry == row["entry"], found.rule == row["rule"])
    changed = {name: value for name, value in row.items() if name not in {"log", "entry", "rule", "found_at"}}
    change_sealed(connection, table(FindingRow), here, changed)
    add_past(connection, [finding])
    set_past(connection, finding.selected.signing.where, finding.rule, past=is_past(finding))
    _add_names(connection, [finding], now)


def _add_names(connection: Connection, findings: Sequence[Finding], now: datetime) -> None:
    """Store signings under their names, for look-ups: each entry once, for any number of rules.

    An entry with a vouched signer is marked so, even if another rule found it before.
    """
    filed: dict[bool, dict[tuple[bytes, str, int], datetime]] = {False: {}, True: {}}
    keys: dict[str, bytes] = {}
    # Rules of equal requests share what they selected.
    for finding in {id(each.selected): each for each in findings}.values():
        where, vouched = finding.selected.signing.where, bool(finding.selected.vouched)
        at, log, index, here = signed_at(finding.selected, now), where.log, where.index, filed[vouched]
        for name in names_of(finding.selected.signing):
            key = keys.get(name)
            if key is None:
                key = keys[name] = text_key(name)
            here[key, log, index] = at
    others = [(*key, False, at) for key, at in filed[False].items() if key not in filed[True]]
    add_new_tuples(connection, table(FindingName), _NAME_COLUMNS, others)
    trusted = [dict(zip(_NAME_COLUMNS, (*key, True, at), strict=True)) for key, at in filed[True].items()]
    add_or_overwrite(connection, table(FindingName), trusted, ("vouched", "at"))


def add_unreadable(connection: Connection, batch: Batch, now: datetime) -> None:
    """Store undecodable entries, and count the kinds in the batch."""
    rows = [
        {
            "log": each.unreadable.where.log,
            "entry": each.unreadable.where.index,
            "code": each.unreadable.code,
            "reason": each.unreadable.reason,
            "leaf": each.leaf,
            "seen_at": now,
        }
        for each in batch.unreadable
    ]
    add_new(connection, table(UnreadableRow), rows)
    counts = [{"log": batch.log, "kind": kind, "entries": count} for kind, count in sorted(batch.kinds.items())]
    add_up(connection, table(KindCount), counts, ("log", "kind"))


def known_findings(connection: Connection, batch: Batch) -> set[tuple[str, int, str]]:
    """Findings of the batch's range that are already stored, as (log, index, rule)."""
    if not batch.findings:
        return set()
    found = table(FindingRow)
    stored = select(found.c.log, found.c.entry, found.c.rule).where(
        found.c.log == batch.log, found.c.entry >= batch.start, found.c.entry < batch.end
    )
    return {(row.log, row.entry, row.rule) for row in connection.execute(stored)}


def is_certificate_only(signing: Signing) -> bool:
    """True if the entry is a certificate in a CT log: its holder may sign, and no signature is known yet."""
    return signing.kind in CT_KINDS


def signed_at(selected: Selected, otherwise: datetime) -> datetime:
    """Time of signing: from a vouched signer's certificate, else from an authority, else the time of the finding."""
    starts = [signer.not_before for signer in selected.vouched if signer.not_before is not None]
    times = selected.signing.times
    told = [time.at for source in _SAID_BY_AUTHORITY for time in times if time.source == source]
    return next(iter([*starts, *told]), otherwise)


def signing_document(signing: Signing) -> dict[str, Any]:
    """A signing for people and scripts, in plain JSON types. The entry itself is stored beside it."""
    return {
        "log": signing.where.log,
        "index": signing.where.index,
        "kind": signing.kind,
        "version": signing.version,
        "signers": [_signer_document(signer) for signer in signing.signers],
        "digests": [{"algorithm": each.algorithm, "value": each.value, "of": each.of} for each in signing.digests],
        "times": [{"source": time.source, "at": time.at.isoformat()} for time in signing.times],
    }


def _signer_document(signer: Signer) -> dict[str, Any]:
    return {
        "form": SignerForm(signer.form).value,
        "names": [{"form": name.form.value, "value": name.value} for name in signer.names],
        "issuer": signer.issuer,
        "claims": dict(signer.claims),
        "fingerprints": list(signer.fingerprints),
        "not_before": signer.not_before.isoformat() if signer.not_before else None,
        "trust": ChainTrust(signer.trust).value,
        "trusted_by": signer.trusted_by,
        "sct_verified": signer.sct_verified,
        "signature": SignatureCheck(signer.signature).value,
        "only_listed": list(signer.only_listed),
        "maybe_signed": list(signer.maybe_signed),
        "defects": list(signer.defects),
    }


def json_text(value: Any) -> str:
    """JSON of plain values and structs of msgspec."""
    try:
        return encode(value).decode()
    except UnicodeEncodeError:
        # A half of a surrogate pair in a name: UTF-8 has no form for it, JSON's escapes have.
        return json.dumps(to_builtins(value))


def _row(finding: Finding, now: datetime, documents: dict[int, str]) -> dict[str, Any]:
    """Row of a finding. `documents` holds the signings of the same findings as JSON: many rules select the same one."""
    signing = finding.selected.signing
    if id(signing) not in documents:
        documents[id(signing)] = json_text(signing_document(signing))
    return {
        "log": signing.where.log,
        "entry": signing.where.index,
        "rule": finding.rule,
        "outcome": finding.verdict.outcome.value,
        "reasons": json_text(finding.verdict.reasons),
        "kind": signing.kind,
        "signing": documents[id(signing)],
        "leaf": finding.leaf,
        "signed_at": signed_at(finding.selected, now),
        "counts": bool(finding.selected.vouched),
        "certificate_log": is_certificate_only(signing),
        "found_at": now,
    }


_DIGEST: Final = table(FindingDigest)
_PAST: Final = table(RulePast)
_SIGHTING: Final = table(Sighting)
_VALUE: Final = table(SeenValue)


class SeenFact(Struct, frozen=True):
    """A subject seen with a value in a trusted certificate: an identity with an issuer, a repository with its id."""

    fact: str
    subject: str
    value: str
    certificate: bytes


def add_past(connection: Connection, findings: Sequence[Finding]) -> None:
    """Store facts about these findings for later judgements; known facts do not change."""
    digests, values, sightings = list[dict[str, Any]](), list[dict[str, Any]](), list[dict[str, Any]]()
    known: dict[int, tuple[list[bytes], list[tuple[dict[str, Any], SeenFact]]]] = {}
    for finding in findings:
        if not finding.selected.vouched:
            continue
        rule, where = finding.rule, finding.selected.signing.where
        here = {"log": where.log, "entry": where.index}
        if id(finding.selected) not in known:
            keys = [text_key(each) for each in digests_of(finding.selected.signing)]
            known[id(finding.selected)] = keys, [(_value_key(seen), seen) for seen in seen_in(finding)]
        keys, shown = known[id(finding.selected)]
        digests += [{"rule": rule, "digest_key": key, **here} for key in keys]
        for key, seen in shown:
            values.append({"rule": rule, **key, "value": seen.value})
            sightings.append({"rule": rule, **key, "certificate": seen.certificate, **here, "past": is_past(finding)})
    add_new(connection, _DIGEST, digests)
    add_new(connection, _VALUE, values)
    add_new(connection, _SIGHTING, sightings)


def add_known(connection: Connection, rule: str, known: Sequence[tuple[EntryRef, SeenFact]]) -> None:
    """Store older entries that a new rule counts as its past: its owner saw them as expected."""
    for where, seen in known:
        key = {"rule": rule, **_value_key(seen)}
        place = {"log": where.log, "entry": where.index, "certificate": seen.certificate, "past": True}
        add_new(connection, _VALUE, [{**key, "value": seen.value}])
        add_new(connection, _SIGHTING, [{**key, **place}])


def _value_key(seen: SeenFact) -> dict[str, Any]:
    return {"fact": seen.fact, "subject_key": text_key(seen.subject), "value_key": text_key(seen.value)}


def set_past(connection: Connection, where: EntryRef, rule: str, *, past: bool) -> None:
    """Set whether the sightings of a finding count as the past."""
    here = and_(_SIGHTING.c.log == where.log, _SIGHTING.c.entry == where.index, _SIGHTING.c.rule == rule)
    change_sealed(connection, _SIGHTING, here, {"past": past})


def is_past(finding: Finding) -> bool:
    """True if the names in a finding count as the past: an unexpected one counts once an operator says so."""
    return finding.verdict.outcome is not Outcome.UNEXPECTED


def seen_in(finding: Finding) -> Iterator[SeenFact]:
    """Pairs of subject and value (issuer, repository identifier) that the vouched signers of a finding show."""
    for signer in finding.selected.vouched:
        if signer.issued is None:
            continue
        if signer.issuer is not None:
            for name in signer.names:
                yield SeenFact("issuer", name.value, signer.issuer, signer.issued)
        repository = repository_key(signer)
        identifier = signer.claims.get("source_repository_identifier")
        if repository is not None and identifier is not None:
            yield SeenFact("repository", repository, identifier, signer.issued)


def digests_of(signing: Signing) -> set[str]:
    """Digests as rules write them: `sha256:…`."""
    return {digest_text(digest) for digest in signing.digests}


def revisions(connection: Connection, rules: Collection[str]) -> dict[str, int]:
    """Number of times that the past of each rule grew."""
    found = dict.fromkeys(rules, 0)
    for part in chunks(sorted(rules)):
        rows = connection.execute(select(_PAST.c.rule, _PAST.c.revision).where(_PAST.c.rule.in_(part)))
        found.update((row.rule, row.revision) for row in rows)
    return found


def claim_past(connection: Connection, findings: Sequence[Finding]) -> None:
    """Lock the past of these findings' rules until the transaction ends, and count its growth.

    Raises `PastMoved` when a finding was judged by a past that has grown since: two logs' passes must not both use
    the same authorisation.
    """
    judged: Mapping[str, int] = {each.rule: each.past for each in findings if each.past is not None}
    growing = {each.rule for each in findings if each.selected.vouched}
    for part in chunks(sorted(judged.keys() | growing)):
        add_new(connection, _PAST, [{"rule": rule, "revision": 0} for rule in part])
        # In the order of the keys, so that two transactions on the same rows never wait for each other.
        held = select(_PAST.c.rule, _PAST.c.revision).where(_PAST.c.rule.in_(part)).order_by(_PAST.c.rule)
        found = {row.rule: row.revision for row in connection.execute(held.with_for_update())}
        moved = [rule for rule in part if judged.get(rule, found[rule]) != found[rule]]
        if moved:
            raise PastMoved(f"the past of rule {moved[0]} grew while its signings were judged; they are judged again")
        grows = update(_PAST).where(_PAST.c.rule.in_([rule for rule in part if rule in growing]))
        connection.execute(grows.values(revision=_PAST.c.revision + 1))


def set_past_of_alert(connection: Connection, alert_id: str, *, past: bool) -> None:
    """Set whether the names in an alert's finding count as the past."""
    kept = table(AlertRow)
    about = connection.execute(select(kept.c.log, kept.c.entry, kept.c.rule).where(kept.c.id == alert_id)).one()
    if about.log is not None and about.entry is not None and about.rule is not None:
        set_past(connection, EntryRef(about.log, about.entry), about.rule, past=past)


_FINDING: Final = table(FindingRow)
_RECHECK: Final = table(Recheck)
# A time that never comes: only `wake` ends this wait.
_OTHER_AUTHORITY: Final = datetime(9999, 12, 31, tzinfo=UTC)
_SETTLING: Final = timedelta(minutes=15)


class DueFinding(Struct, frozen=True):
    """A finding with a due second judgement: the entry as hashed and as served, and its times."""

    where: EntryRef
    rule: str
    leaf: bytes
    extra: bytes
    is_certificate: bool
    integrated_time: datetime | None
    was: Outcome


def add_rechecks(connection: Connection, findings: Sequence[Finding], now: datetime) -> None:
    """Store the times of second judgements; none for an unexpected finding, which cannot get worse."""
    unverified = [each for each in findings if _may_be_vouched_for(each)]
    rows = [
        _recheck_row(finding, finding.recheck)
        for finding in findings
        if finding.recheck is not None and finding.verdict.outcome is Outcome.EXPECTED
    ]
    if unverified:
        rest = _rest(connection, now)
        rows += [_recheck_row(finding, rest) for finding in unverified]
    add_new(connection, _RECHECK, rows)


def _may_be_vouched_for(finding: Finding) -> bool:
    """True if a further authority could have issued its certificate; false for a bare key."""
    chains = {each.signer.trust for each in finding.selected.signers if each.signer is not None}
    return finding.verdict.outcome is Outcome.UNVERIFIED and ChainTrust.UNTRUSTED in chains


def wake(connection: Connection, now: datetime) -> None:
    """Make all findings due that wait for another authority; they are judged in the usual small steps."""
    found = _FINDING.c
    same = and_(found.log == _RECHECK.c.log, found.entry == _RECHECK.c.entry, found.rule == _RECHECK.c.rule)
    unverified = exists().where(same, found.outcome == Outcome.UNVERIFIED.value)
    connection.execute(update(_RECHECK).where(_RECHECK.c.due_at > now, unverified).values(due_at=now))


def rest(database: Database, due: Sequence[DueFinding], now: datetime) -> None:
    """Let findings still without a trusted certificate wait further, all in one transaction: there may be very many."""
    with database.write() as connection:
        until = _rest(connection, now)
        for each in due:
            connection.execute(update(_RECHECK).where(*_is(each)).values(due_at=until))


def _rest(connection: Connection, now: datetime) -> datetime:
    newest = connection.execute(select(func.max(table(TrustRootRow).c.seen_at))).scalar()
    if newest is not None and abs(now - newest) < _SETTLING:
        # A batch that was judged by the earlier root may commit after `wake`.
        return now + _SETTLING
    return _OTHER_AUTHORITY


def _recheck_row(finding: Finding, due_at: datetime) -> dict[str, object]:
    where = finding.selected.signing.where
    return {"log": where.log, "entry": where.index, "rule": finding.rule, "due_at": due_at, "extra": finding.extra}


def due_findings(database: Database, now: datetime, limit: int) -> list[DueFinding]:
    """Due findings, the longest due first."""
    same = and_(
        _FINDING.c.log == _RECHECK.c.log, _FINDING.c.entry == _RECHECK.c.entry, _FINDING.c.rule == _RECHECK.c.rule
    )
    columns = (_RECHECK.c.log, _RECHECK.c.entry, _RECHECK.c.rule, _RECHECK.c.extra)
    query = (
        select(*columns, _FINDING.c.leaf, _FINDING.c.certificate_log, _FINDING.c.signing, _FINDING.c.outcome)
        .join(_FINDING, same)
        .where(_RECHECK.c.due_at <= now)
        .order_by(_RECHECK.c.due_at)
        .limit(limit)
    )
    with database.read() as connection:
        rows = connection.execute(query).all()
    return [
        DueFinding(
            EntryRef(row.log, row.entry),
            row.rule,
            row.leaf,
            row.extra,
            row.certificate_log,
            _integrated(row.signing),
            Outcome(row.outcome),
        )
        for row in rows
    ]


def postpone(database: Database, due: DueFinding, until: datetime) -> None:
    """Judge a finding again later than planned."""
    with database.write() as connection:
        connection.execute(update(_RECHECK).where(*_is(due)).values(due_at=until))


def settle_recheck(connection: Connection, due: DueFinding, worse: Finding | None) -> bool:
    """End the wait of a finding; false when another process did. `worse` is its new verdict, if there is one."""
    if connection.execute(delete(_RECHECK).where(*_is(due))).rowcount != 1:
        return False
    if worse is not None:
        found = and_(_FINDING.c.log == due.where.log, _FINDING.c.entry == due.where.index, _FINDING.c.rule == due.rule)
        reasons = json_text(worse.verdict.reasons)
        values = {"outcome": worse.verdict.outcome.value, "reasons": reasons}
        change_sealed(connection, _FINDING, found, values)
        set_past(connection, due.where, due.rule, past=is_past(worse))
    return True


def _is(due: DueFinding) -> tuple[ColumnElement[bool], ...]:
    at = _RECHECK.c
    return at.log == due.where.log, at.entry == due.where.index, at.rule == due.rule


def _integrated(signing: str) -> datetime | None:
    times = (time["at"] for time in json.loads(signing)["times"] if time["source"] == "integrated-time")
    return next((datetime.fromisoformat(at) for at in times), None)


class BatchPastFacts(PastFacts):
    """The stored past plus the findings remembered here, as if they had been stored at `now`."""

    def __init__(self, stored: PastFacts, now: datetime) -> None:
        self._stored, self._now = stored, now
        self._digests = defaultdict[tuple[str, str], set[EntryRef]](set)
        self._seen = defaultdict[tuple[str, str, str], dict[str, set[bytes]]](dict)
        self._times = defaultdict[str, list[datetime]](list)
        self._time_of: dict[tuple[str, EntryRef], datetime] = {}

    def remember(self, finding: Finding) -> None:
        """Add a finding to the past of later judgements of this batch. Only vouched signers count."""
        signing, rule = finding.selected.signing, finding.rule
        if not finding.selected.vouched:
            return
        for digest in digests_of(signing):
            self._digests[rule, digest].add(signing.where)
        for seen in seen_in(finding) if is_past(finding) else ():
            self._seen[rule, seen.fact, seen.subject].setdefault(seen.value, set()).add(seen.certificate)
        if not is_certificate_only(signing) and (rule, signing.where) not in self._time_of:
            self._time_of[rule, signing.where] = at = signed_at(finding.selected, self._now)
            insort(self._times[rule], at)

    @override
    def times_signed(self, rule: str, digest: str, besides: EntryRef) -> int:
        here = self._digests.get((rule, digest), set())
        return self._stored.times_signed(rule, digest, besides) + len(here) - (besides in here)

    @override
    def issuers_of(self, rule: str, identity: str, besides: frozenset[bytes]) -> frozenset[str] | None:
        stored = self._stored.issuers_of(rule, identity, besides)
        return self._with_seen(stored, (rule, "issuer", identity), besides)

    @override
    def repository_identifiers_of(self, rule: str, repository: str, besides: frozenset[bytes]) -> frozenset[str] | None:
        stored = self._stored.repository_identifiers_of(rule, repository, besides)
        return self._with_seen(stored, (rule, "repository", repository), besides)

    @override
    def signings(self, rule: str, after: datetime, up_to: datetime, besides: EntryRef) -> int:
        times = self._times.get(rule, ())
        own = self._time_of.get((rule, besides))
        here = bisect_right(times, up_to) - bisect_right(times, after) - (own is not None and after < own <= up_to)
        return self._stored.signings(rule, after, up_to, besides) + here

    @override
    def absent_at(self, where: EntryRef) -> datetime | None:
        """`None`: the pass that read the entry has not ended."""
        return self._stored.absent_at(where)

    def _with_seen(
        self, stored: frozenset[str] | None, key: tuple[str, str, str], besides: frozenset[bytes]
    ) -> frozenset[str] | None:
        if stored is None:
            return None
        seen = self._seen.get(key, {})
        return stored | {value for value, certificates in seen.items() if certificates - besides}
