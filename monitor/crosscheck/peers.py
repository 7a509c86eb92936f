"""Two installations put what a log signed for each of them side by side: a split view has nowhere to hide.

A peer may lie. Its word is only ever as good as the log's signature: an offered head that the log's key did not sign
says nothing, one that it did sign is held against what this installation was shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final, Protocol

from alerts.alert import Alert
from monitor.model.errors import Evidence, FetchFailed, LogMisbehaved, NotShown, OwnFault
from monitor.model.heads import Position, SignedHead, TrustedHead
from monitor.model.log_source import LogApi, LogIdentity, LogSource
from monitor.proof.evidence import read_head
from monitor.proof.verify import advance, contradicting_prefix, sizes_to_prove
from monitor.raising.log_alerts import alert_of_evidence
from tlog.note import MAX_NOTE_SIZE

MAX_HEAD_SIZE: Final = MAX_NOTE_SIZE


class Relation(StrEnum):
    """How an offered head stands to what this installation was shown."""

    SAME = "same"
    OLDER = "older-and-consistent"
    NEWER = "newer-not-yet-seen"
    CONTRADICTION = "contradiction"
    NOT_SIGNED = "not-signed-by-this-log"
    UNKNOWN_LOG = "unknown-log"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one offered head. `proof` is the consistency proof between the offered and the compared head.

    `compared` is our side. A newer head with a proof is consistent with what the log shows now; one without is not
    proven to be anything yet. `evidence` is there exactly for a contradiction.
    """

    relation: Relation
    detail: str
    offered: SignedHead | None = None
    compared: SignedHead | None = None
    proof: tuple[bytes, ...] = ()
    evidence: Evidence | None = None


class PeerState(Protocol):
    """What comparing needs of the state; see `monitor.model.state.State` for the guarantees."""

    def position(self, log: str) -> Position | None:
        """Where following this log stands."""

    def heads_at(self, log: str, size: int) -> Sequence[SignedHead]:
        """Every head of this size that the log ever signed for us."""

    def record_head(self, head: SignedHead) -> None:
        """Append a head to the history."""

    def keep_evidence(self, evidence: Evidence, alerts: Sequence[Alert]) -> bool:
        """Store evidence, then its alerts."""

    def evidence_of(self, log: str) -> Sequence[Evidence]:
        """Evidence against this log that convinces anybody, the newest first, at most a handful. Raises `OwnFault`."""


def read_offered(raw: bytes, identity: LogIdentity) -> SignedHead:
    """Read a head somebody offers as this log's. Raises `ValueError` unless the log's pinned key signed it as its own.

    Only what the signature covers is taken from it: Rekor v1's unsigned word that a shard is closed is not.
    """
    if len(raw) > MAX_HEAD_SIZE:
        raise ValueError(f"a tree head of {len(raw)} bytes is longer than {MAX_HEAD_SIZE}")
    statement = read_head(raw, identity.api, identity.key_name, identity.spki)
    # The JSON of an RFC 6962 log names no origin; there, key and log are one.
    if identity.api is not LogApi.CT_RFC6962 and statement.origin != identity.origin:
        raise ValueError(f"signed for origin {statement.origin!r:.120}, not {identity.origin!r}")
    return SignedHead(identity.log, statement.size, statement.root, raw, final=statement.frozen)


def compare(raw: bytes, source: LogSource, trusted: SignedHead, at_size: Sequence[SignedHead] = ()) -> Verdict:
    """Hold one offered head against the trusted head, asking the log itself for the proof between the two.

    `at_size` are heads of the same size in our own history. They prove nothing by themselves, but another root in one
    of them is a contradiction that needs no answer from the log, which may have its reasons to give none. Changes
    nothing; never raises for what a peer or the log sends, `OwnFault` when our own head is damaged.
    """
    identity = source.identity
    try:
        offered = read_offered(raw, identity)
    except ValueError as error:
        return Verdict(Relation.NOT_SIGNED, f"not a tree head that this log's key signed: {error}")
    trusted = _as_signed(trusted, identity)
    try:
        for known in (trusted, *at_size):
            if known.size == offered.size:
                advance(TrustedHead(known), offered, (), identity)
        if trusted.size == offered.size:
            return Verdict(Relation.SAME, "the same tree", offered, trusted)
        # Signed statements about a frozen log contradict each other without any proof.
        _check_final(trusted, offered, identity)
        return _prove(offered, source, trusted)
    except LogMisbehaved as contradiction:
        return _contradiction(offered, trusted, contradiction.evidence)


def _as_signed(trusted: SignedHead, identity: LogIdentity) -> SignedHead:
    try:
        return replace(read_offered(trusted.raw, identity), timestamp=trusted.timestamp)
    except ValueError as error:
        raise OwnFault(
            f"{identity.log}: the stored head is not signed by the key now pinned to the log: {error}. Nothing can be "
            "compared with it; see `signwatch fsck`."
        ) from error


def _check_final(trusted: SignedHead, offered: SignedHead, identity: LogIdentity) -> None:
    try:
        advance(TrustedHead(trusted), offered, (), identity)
    except NotShown:
        # No proof was given here, so none held; `_prove` asks for one.
        return


def _prove(offered: SignedHead, source: LogSource, trusted: SignedHead) -> Verdict:
    compared = trusted
    if offered.size > trusted.size:
        try:
            # What the log shows now is as good a side to compare with: two signatures either agree or they do not.
            compared = source.latest()
        except FetchFailed as error:
            return Verdict(
                Relation.NEWER, f"newer than anything seen here; the log could not be asked: {error}", offered
            )
        if compared.size < offered.size:
            detail = f"newer than anything seen here: the log shows size {compared.size}"
            return Verdict(Relation.NEWER, detail, offered, compared)
    try:
        sizes = sizes_to_prove(TrustedHead(compared), offered)
        proof = tuple(source.consistency_proof(*sizes)) if sizes else ()
        advance(TrustedHead(compared), offered, proof, source.identity)
    except NotShown as unproven:
        return _undecided(offered, compared, source, unproven)
    except FetchFailed as error:
        return Verdict(Relation.UNDECIDED, f"the log gave no proof: {error}", offered, compared)
    if offered.size > trusted.size:
        return Verdict(Relation.NEWER, "newer, and consistent with what the log shows now", offered, compared, proof)
    return Verdict(Relation.OLDER, "an earlier state of the same tree", offered, compared, proof)


def _undecided(offered: SignedHead, compared: SignedHead, source: LogSource, unproven: NotShown) -> Verdict:
    """A proof that fails shows nothing yet: look for what stands in the larger tree in place of the smaller one."""
    smaller, larger = sorted((offered, compared), key=lambda head: head.size)
    try:
        frontier = source.frontier(smaller.size, larger)
        proof = source.consistency_proof(smaller.size, larger.size)
    except FetchFailed:
        return Verdict(Relation.UNDECIDED, f"the log's proof does not hold: {unproven}", offered, compared)
    shown = contradicting_prefix(smaller, larger, frontier, proof, source.identity)
    if shown is None:
        return Verdict(Relation.UNDECIDED, f"the log's proof does not hold: {unproven}", offered, compared)
    return _contradiction(offered, compared, shown.evidence)


def _contradiction(offered: SignedHead, compared: SignedHead, evidence: Evidence) -> Verdict:
    return Verdict(Relation.CONTRADICTION, evidence.detail, offered, compared, evidence.proof, evidence)


def judge(raw: bytes, source: LogSource, state: PeerState, now: datetime) -> Verdict:
    """Compare an offered head and act on it: a contradiction is kept and alerted, a newer head goes on record."""
    log = source.identity.log
    position = state.position(log)
    if position is None:
        return Verdict(Relation.UNKNOWN_LOG, "this log is not followed here yet")
    try:
        size = read_offered(raw, source.identity).size
    except ValueError as error:
        return Verdict(Relation.NOT_SIGNED, f"not a tree head that this log's key signed: {error}")
    verdict = compare(raw, source, position.head.head, state.heads_at(log, size))
    if verdict.evidence is not None:
        state.keep_evidence(verdict.evidence, [alert_of_evidence(verdict.evidence, now)])
    elif verdict.relation is Relation.NEWER and verdict.offered is not None:
        # Whatever the log signed is history, whoever brought it.
        state.record_head(verdict.offered)
    return verdict
