"""What of a finding later judgements may ask about: digests signed, sightings of names, and how often that past grew.

All of it comes from the signers that the rule selected and that are vouched for (`Selected.vouched`).
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, and_, select, update

from monitor.model.errors import PastMoved
from monitor.model.state import Finding
from monitor.store.columns import text_key
from monitor.store.seals import change_sealed
from monitor.store.tables import AlertRow, FindingDigest, RulePast, SeenValue, Sighting, table
from monitor.store.writing import add_new, chunks
from rules.forges import repository_key
from rules.selection import digest_text
from rules.verdict import Outcome
from sigstore_entries.signing import EntryRef, Signing

_DIGEST: Final = table(FindingDigest)
_PAST: Final = table(RulePast)
_SIGHTING: Final = table(Sighting)
_VALUE: Final = table(SeenValue)


@dataclass(frozen=True, slots=True)
class Seen:
    """A subject seen with a value in a trusted certificate: an identity with an issuer, a repository with its id."""

    fact: str
    subject: str
    value: str
    certificate: bytes


def add_past(connection: Connection, findings: Sequence[Finding]) -> None:
    """Store what later judgements may ask about these findings; what is known already is left alone."""
    digests, values, sightings = list[dict[str, Any]](), list[dict[str, Any]](), list[dict[str, Any]]()
    for finding in findings:
        if not finding.selected.vouched:
            continue
        rule, where = finding.rule, finding.signing.where
        here = {"log": where.log, "entry": where.index}
        digests += [{"rule": rule, "digest_key": text_key(each), **here} for each in digests_of(finding.signing)]
        for seen in seen_in(finding):
            key = {"rule": rule, "fact": seen.fact, "subject_key": text_key(seen.subject)}
            key["value_key"] = text_key(seen.value)
            values.append({**key, "value": seen.value})
            sightings.append({**key, "certificate": seen.certificate, **here, "past": is_past(finding)})
    add_new(connection, _DIGEST, digests)
    add_new(connection, _VALUE, values)
    add_new(connection, _SIGHTING, sightings)


def set_past(connection: Connection, where: EntryRef, rule: str, *, past: bool) -> None:
    """Say whether the sightings of a finding are the past that later signings are compared with."""
    here = and_(_SIGHTING.c.log == where.log, _SIGHTING.c.entry == where.index, _SIGHTING.c.rule == rule)
    change_sealed(connection, _SIGHTING, here, {"past": past})


def is_past(finding: Finding) -> bool:
    """Whether what a finding shows of names is the past: an unexpected one is not, until an operator says so."""
    return finding.verdict.outcome is not Outcome.UNEXPECTED


def seen_in(finding: Finding) -> Iterator[Seen]:
    """What the vouched signers of a finding show about who vouches for whom."""
    for signer in finding.selected.vouched:
        if signer.issued is None:
            continue
        if signer.issuer is not None:
            for name in signer.names:
                yield Seen("issuer", name.value, signer.issuer, signer.issued)
        repository = repository_key(signer)
        identifier = signer.claims.get("source_repository_identifier")
        if repository is not None and identifier is not None:
            yield Seen("repository", repository, identifier, signer.issued)


def digests_of(signing: Signing) -> set[str]:
    """Digests as rules write them: `sha256:…`."""
    return {digest_text(digest) for digest in signing.digests}


def revisions(connection: Connection, rules: Collection[str]) -> dict[str, int]:
    """How often the past of each rule grew."""
    found = dict.fromkeys(rules, 0)
    for part in chunks(sorted(rules)):
        rows = connection.execute(select(_PAST.c.rule, _PAST.c.revision).where(_PAST.c.rule.in_(part)))
        found.update((row.rule, row.revision) for row in rows)
    return found


def claim_past(connection: Connection, findings: Sequence[Finding]) -> None:
    """Hold the past of these findings' rules until the transaction ends, and count that it grows.

    Raises `PastMoved` when a finding was judged by a past that has grown since: two logs' passes must not each spend
    the same leave.
    """
    judged: Mapping[str, int] = {each.rule: each.past for each in findings if each.past is not None}
    growing = {each.rule for each in findings if each.selected.vouched}
    for part in chunks(sorted(judged.keys() | growing)):
        add_new(connection, _PAST, [{"rule": rule, "revision": 0} for rule in part])
        # In the order of the keys, so that two who hold the same rows never wait for each other.
        held = select(_PAST.c.rule, _PAST.c.revision).where(_PAST.c.rule.in_(part)).order_by(_PAST.c.rule)
        found = {row.rule: row.revision for row in connection.execute(held.with_for_update())}
        moved = [rule for rule in part if judged.get(rule, found[rule]) != found[rule]]
        if moved:
            raise PastMoved(f"the past of rule {moved[0]} grew while its signings were judged; they are judged again")
        grows = update(_PAST).where(_PAST.c.rule.in_([rule for rule in part if rule in growing]))
        connection.execute(grows.values(revision=_PAST.c.revision + 1))


def set_past_of_alert(connection: Connection, alert_id: str, *, past: bool) -> None:
    """Say whether what the finding of an alert showed of names is the past that later signings are compared with."""
    kept = table(AlertRow)
    about = connection.execute(select(kept.c.log, kept.c.entry, kept.c.rule).where(kept.c.id == alert_id)).one()
    if about.log is not None and about.entry is not None and about.rule is not None:
        set_past(connection, EntryRef(about.log, about.entry), about.rule, past=past)
