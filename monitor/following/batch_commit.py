"""One batch of entries, examined: proven, judged and committed, in this order. Nothing unproven is committed."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from monitor.following.scan_batch import Fetched, ScannedBatch
from monitor.judging.judge import Judge, without_times
from monitor.model.errors import Evidence, NotShown, PastMoved, SignedPromise
from monitor.model.inclusion_promise import BadPromise, unpack_timestamp
from monitor.model.log_source import LogEntry, LogIdentity, LogSource, Position, SignedHead
from monitor.model.state import Batch, Finding, State
from monitor.proof.evidence import WRONG_SIGNATURE as WRONG_SIGNATURE_KIND
from monitor.proof.trusted_head import check_frontier_in_head
from monitor.raising.entry_alerts import (
    alerts_of_dropped,
    alerts_of_unreadable,
    clock_alerts_of_entries,
    clock_alerts_of_findings,
    disordered,
)
from rules.judge import WRONG_SIGNATURE
from tlog.merkle import Frontier

# Each time another log's pass committed signings under the same rules in between, and so came further itself.
_JUDGEMENTS: Final = 8


@dataclass(frozen=True, slots=True)
class BatchCommitter:
    """Proves, judges and commits batches of one log. `source` gives the proofs, `state` keeps the results."""

    source: LogSource
    state: State
    judge: Judge
    clock: Callable[[], datetime]

    def commit(self, position: Position, fetched: Fetched, examined: ScannedBatch) -> tuple[Position, Batch]:
        """Prove, judge and commit one hashed batch; returns the new position, and the committed batch.

        Raises `NotShown` when the entries are not those the log signed: an only one is named in the evidence. Raises
        `StateConflict`, `FetchFailed`, `OwnFault`.
        """
        frontier = examined.extend(position.frontier)
        self._prove(frontier, position.head.head, fetched)
        timed = fetched.timed
        moved = replace(position, frontier=frontier, last_timed=timed[-1] if timed else position.last_timed)
        for _ in range(_JUDGEMENTS - 1):
            with suppress(PastMoved):
                return moved, self._commit(position, moved, fetched, examined)
        return moved, self._commit(position, moved, fetched, examined)

    def _commit(self, position: Position, moved: Position, fetched: Fetched, examined: ScannedBatch) -> Batch:
        """Judge a batch by the past as it is now, and commit it; `PastMoved` when that past grew meanwhile."""
        log, scan, now = self.source.identity.log, examined.scan, self.clock()
        before = position.last_timed
        timed = [*([before] if before is not None else ()), *fetched.timed]
        hits = without_times(scan.hits, disordered(timed))
        findings = tuple(self.judge.judge(hits, now))
        batch = Batch(log, examined.start, examined.end, findings, scan.unreadable, scan.kinds, scan.dropped)
        alerts = [
            *self.judge.alerts(findings, now),
            *alerts_of_unreadable(log, scan.unreadable, now),
            *alerts_of_dropped(log, scan.dropped, now),
            *clock_alerts_of_entries(log, timed, now),
            *clock_alerts_of_findings(log, findings, now),
        ]
        if (evidence := wrong_signature(self.source.identity, findings, position.head.head)) is not None:
            self.state.keep_evidence(evidence, ())
        # A crash before this commit reads the batch again; after it, the batch is never looked at again.
        self.state.advance(position, moved, batch, alerts)
        return batch

    def _prove(self, frontier: Frontier, head: SignedHead, fetched: Fetched) -> None:
        behind = frontier.size < head.size
        proof = self.source.consistency_proof(frontier.size, head.size) if behind else ()
        try:
            check_frontier_in_head(frontier, head, proof, self.source.identity, event=f"entry {fetched.start}")
        except NotShown as unproven:
            if fetched.end - fetched.start > 1:
                raise
            (entry,) = fetched.entries
            leaves = () if entry.unread else ((fetched.start, entry.leaf),)
            raise NotShown(replace(unproven.evidence, leaves=leaves, promises=self._promised(entry))) from unproven

    def _promised(self, entry: LogEntry) -> tuple[SignedPromise, ...]:
        """The log's signed promises of an entry that its tree does not hold."""
        try:
            return (unpack_timestamp(entry.timestamp, entry.leaf, self.source.identity.spki).signed,)
        except BadPromise:
            return ()


def wrong_signature(identity: LogIdentity, findings: Sequence[Finding], head: SignedHead) -> Evidence | None:
    """Evidence of the first entry of a batch that the log should not have taken; kept before its alert is committed.

    `head` is one that the entry is proven to be below.
    """
    wrong = next((each for each in findings if WRONG_SIGNATURE in each.verdict.reasons), None)
    if wrong is None:
        return None
    index = wrong.selected.signing.where.index
    return Evidence(
        log=identity.log,
        api=identity.api,
        kind=WRONG_SIGNATURE_KIND,
        detail=f"The log took entry {index}, whose signature is not that of the key in it.",
        spki=identity.spki,
        key_name=identity.key_name,
        heads=(head.raw,),
        sizes=(head.size,),
        leaves=((index, wrong.leaf),),
        trust_root=identity.trust_root,
        event=f"wrong signature in entry {index}",
    )
