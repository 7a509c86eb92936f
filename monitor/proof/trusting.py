"""From a head that a log shows to one that is trusted: a proof that it goes on from the one trusted before.

A proof that fails is asked for again, and then looked into: what the larger tree holds in place of the smaller one is
evidence that anybody can check, and a failing proof alone is not.
"""

from monitor.model.errors import FetchFailed, Lagging, LogMisbehaved, NotShown
from monitor.model.heads import SignedHead, TrustedHead
from monitor.model.log_source import LogSource
from monitor.model.state import State
from monitor.proof.insisting import Patience
from monitor.proof.verify import advance, contradicting_prefix, sizes_to_prove


def consistent(source: LogSource, trusted: TrustedHead, offered: SignedHead, patience: Patience) -> TrustedHead:
    """Prove `offered` consistent with `trusted`; returns the newer of the two.

    Raises `LogMisbehaved` for a contradiction that is shown, `NotShown` for a proof that fails or is refused,
    `Lagging`, `FetchFailed`.
    """
    sizes = sizes_to_prove(trusted, offered)

    def proven() -> TrustedHead:
        proof = source.consistency_proof(*sizes) if sizes else ()
        return advance(trusted, offered, proof, source.identity)

    try:
        return patience.insist(proven)
    except Lagging:
        if offered.size < trusted.head.size:
            # SPEC rekor tlog.go: a replica that lags refuses a proof up to a size it has not reached. The head is
            # on record; there is nothing to hold against anybody, and nothing to stop for.
            return trusted
        raise
    except NotShown:
        contradiction = _contradiction(source, trusted.head, offered)
        if contradiction is not None:
            raise contradiction from None
        raise


def compare_sightings(source: LogSource, state: State, trusted: TrustedHead, patience: Patience) -> None:
    """Hold heads that came with entries against the trusted one: whoever answered may have another view.

    Each costs at most one proof. One that cannot be had now is no loss: the head is on record.
    """
    for head in source.sightings():
        state.record_head(head)
        try:
            consistent(source, trusted, head, patience)
        except Lagging:
            continue


def _contradiction(source: LogSource, known: SignedHead, offered: SignedHead) -> LogMisbehaved | None:
    """Look for what the failing proof could not show: what the larger tree holds in place of the smaller one."""
    smaller, larger = sorted((known, offered), key=lambda head: head.size)
    try:
        frontier = source.frontier(smaller.size, larger)
        proof = source.consistency_proof(smaller.size, larger.size)
    except FetchFailed:
        return None
    return contradicting_prefix(smaller, larger, frontier, proof, source.identity)
