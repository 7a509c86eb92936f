"""The guarantees of state that following relies on. `monitor.store` implements them in a database."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from msgspec import Struct, field

from alerts.alert import Alert
from monitor.model.errors import Evidence
from monitor.model.inclusion_promise import InclusionPromise
from monitor.model.log_source import Position, SignedHead
from rules.facts import Facts
from rules.rule import Verdict
from rules.selection import Selected
from sigstore_entries.signing import Signing, Unreadable


class Hit(Struct, frozen=True):
    """Rules that select this signing, by id; not judged yet. `leaf` is the entry as hashed, `extra` as served."""

    signing: Signing
    rules: tuple[str, ...]
    leaf: bytes
    extra: bytes = b""


class Finding(Struct, frozen=True):
    """A rule matched an entry. Identified by (log, index, rule): a second pass over the entry adds no finding.

    `selected` are the signers the rule selected. `past` is the revision of the rule's past that the verdict depends on,
    `None` if it depends on no past. `recheck` is the time of the second judgement, if an entry or certificate must
    follow; `extra` was served beside the leaf. `promises` are the promises of CT logs in its certificate.
    """

    rule: str
    selected: Selected
    verdict: Verdict
    leaf: bytes
    extra: bytes = b""
    recheck: datetime | None = None
    promises: tuple[InclusionPromise, ...] = ()
    past: int | None = None


class UnreadableEntry(Struct, frozen=True):
    """An entry that could not be decoded, kept whole: counted, reported, tried again after an upgrade."""

    unreadable: Unreadable
    leaf: bytes


class LeftOut(Struct, frozen=True):
    """An entry that more rules select than are judged: number of `matches` left out, inert readable part."""

    index: int
    matches: int
    readable: str


class Batch(Struct, frozen=True):
    """Findings and unreadable entries in leaves `[start, end)` of one log.

    `dropped` are entries that more rules select than are judged.
    """

    log: str
    start: int
    end: int
    findings: tuple[Finding, ...] = ()
    unreadable: tuple[UnreadableEntry, ...] = ()
    kinds: Mapping[str, int] = field(default_factory=dict)
    dropped: tuple[LeftOut, ...] = ()

    @property
    def matches_dropped(self) -> int:
        """Number of matches left out, of all its entries."""
        return sum(each.matches for each in self.dropped)


class State(Protocol):
    """Durable state of following. A method that returned has made its effect durable."""

    def position(self, log: str) -> Position | None:
        """Position of this log; `None` when the log was never baselined."""

    def baseline(self, position: Position, how: str) -> None:
        """Record the explicit first position of a log and the way it was chosen.

        Raises `StateConflict` if it has a position.
        """

    def advance(self, old: Position, new: Position, batch: Batch, alerts: Sequence[Alert]) -> None:
        """Commit findings, unreadable entries, outbox rows and the new position in one transaction, or nothing.

        Raises `StateConflict` when the stored position is no longer `old`, `PastMoved` when findings were judged by a
        past that another pass changed since. Findings already known are left alone and
        enqueue no second alert.
        """

    def record_head(self, head: SignedHead) -> None:
        """Append a head to the hash-chained history of the log's signed heads; a known head adds no row."""

    def keep_evidence(self, evidence: Evidence, alerts: Sequence[Alert]) -> bool:
        """Store evidence and enqueue its alerts, evidence first. False when this very event is already known."""

    def enqueue(self, alerts: Sequence[Alert]) -> None:
        """Put alerts into the outbox of each of their channels. An alert id is enqueued only once."""


class FactStore(Protocol):
    """Store of the past. One query about many hits takes less time than many queries about one hit."""

    def ahead(self, hits: Sequence[Hit]) -> Facts:
        """Facts for judging these hits of one batch, as stored now."""

    def revisions(self, rules: Collection[str]) -> Mapping[str, int]:
        """Number of times that the past of each rule grew, as stored now (`Finding.past`)."""
