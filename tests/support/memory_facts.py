"""`rules.facts.Facts` kept in memory: what tests judge with, and the meaning a database has to reproduce."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from monitor.model.state import Hit
from rules.acknowledged import SignerPattern
from rules.facts import Authorisation, AuthorisationFacts, DigestSource, Facts, KnownFacts, PastFacts
from sigstore_entries.signing import EntryRef


@dataclass(frozen=True, slots=True)
class PastSigning:
    """One entry that a rule matched before."""

    rule: str
    where: EntryRef
    at: datetime
    digests: frozenset[str] = frozenset()


@dataclass
class MemoryFacts(PastFacts, AuthorisationFacts, KnownFacts):
    """Facts a test writes down. Sets left `None` stand for facts that were not kept."""

    past: list[PastSigning] = field(default_factory=list)
    recorded: list[tuple[str, Authorisation]] = field(default_factory=list)
    acknowledged: list[tuple[str, SignerPattern]] = field(default_factory=list)
    issuers: dict[str, dict[str, bytes]] | None = field(default_factory=dict)
    repository_identifiers: dict[str, dict[str, bytes]] | None = field(default_factory=dict)
    sources: dict[DigestSource, frozenset[str]] = field(default_factory=dict)
    certificate_log: set[bytes] | None = None
    signature_log: set[bytes] | None = None
    read_at: datetime | None = None

    @property
    def facts(self) -> Facts:
        return Facts(self, self, self)

    def ahead(self, hits: Sequence[Hit]) -> Facts:
        return self.facts

    def patterns(self, rule: str) -> Sequence[SignerPattern]:
        return [pattern for name, pattern in self.acknowledged if name == rule]

    def authorisations(self, rule: str, digest: str) -> Sequence[Authorisation]:
        return [each for owner, each in self.recorded if owner == rule and digest in each.digests]

    def times_signed(self, rule: str, digest: str, besides: EntryRef) -> int:
        return sum(1 for each in self.past if each.rule == rule and digest in each.digests and each.where != besides)

    def revisions(self, rules: Collection[str]) -> Mapping[str, int]:
        return dict.fromkeys(rules, 0)

    def issuers_of(self, rule: str, identity: str, besides: frozenset[bytes]) -> frozenset[str] | None:
        return _others(self.issuers, identity, besides)

    def repository_identifiers_of(
        self,
        rule: str,
        repository: str,
        besides: frozenset[bytes],
    ) -> frozenset[str] | None:
        return _others(self.repository_identifiers, repository, besides)

    def signings(self, rule: str, after: datetime, up_to: datetime, besides: EntryRef) -> int:
        return sum(1 for each in self.past if each.rule == rule and after < each.at <= up_to and each.where != besides)

    def digests_from(self, source: DigestSource) -> frozenset[str] | None:
        return self.sources.get(source)

    def in_certificate_log(self, certificate: bytes | None) -> bool | None:
        return None if self.certificate_log is None else certificate in self.certificate_log

    def in_signature_log(self, certificate: bytes | None) -> bool | None:
        return None if self.signature_log is None else certificate in self.signature_log

    def absent_at(self, where: EntryRef) -> datetime | None:
        return self.read_at


def _others(known: dict[str, dict[str, bytes]] | None, key: str, besides: frozenset[bytes]) -> frozenset[str] | None:
    if known is None:
        return None
    return frozenset(value for value, certificate in known.get(key, {}).items() if certificate not in besides)
