"""Evidence that a peer sends: kept only where the log's own signatures in it contradict each other, in our own words.

Three shapes show a fork: two heads by themselves, two heads and a proof between their trees, and two heads with two
proofs that give one full subtree two hashes. A broken promise is shown by the promise, and by what the log signed about
the place it named. Of what a peer sends, only what the plainest of them needs is kept.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from monitor.crosscheck.peers import PeerState, read_offered
from monitor.model.errors import Evidence
from monitor.model.heads import SignedHead
from monitor.model.inclusion_promise import BadPromise, read_promise
from monitor.model.log_source import LogIdentity, LogSource
from monitor.proof.evidence import BROKEN_PROMISE, NotEvidence, conclude
from monitor.raising.log_alerts import alert_of_evidence

_LEAVES: Final = 2


def judge_evidence(evidence: Evidence, source: LogSource, state: PeerState, now: datetime) -> Evidence | None:
    """Keep evidence that a peer offers if the log's own signatures in it contradict each other, told in our words.

    Returns what was kept, `None` when it shows nothing about this log. Nothing a peer wrote beside signatures and
    hashes is used: the event is named after the heads, so one fork offered in many disguises is one event.
    """
    try:
        heads = [read_offered(raw, source.identity) for raw in evidence.heads]
        readings = _of_promise(evidence, heads, source.identity)
        if not readings:
            first, second = heads
            readings = list(_readings(evidence, first, second, source.identity))
    except (ValueError, BadPromise):
        return None
    for told in readings:
        if _convinces(told):
            state.keep_evidence(told, [alert_of_evidence(told, now)])
            return told
    return None


def _of_promise(evidence: Evidence, heads: Sequence[SignedHead], identity: LogIdentity) -> list[Evidence]:
    """What a broken promise in the offered evidence comes to. Raises `BadPromise`."""
    if evidence.kind != BROKEN_PROMISE or not evidence.promises:
        return []
    promise = read_promise(evidence.promises[0], identity.spki)
    told = Evidence(
        log=identity.log,
        api=identity.api,
        kind=BROKEN_PROMISE,
        detail=f"another installation was shown that index {promise.index} was promised to two entries",
        spki=identity.spki,
        key_name=identity.key_name,
        heads=evidence.heads,
        sizes=tuple(head.size for head in heads),
        proof=evidence.proof,
        leaves=evidence.leaves,
        trust_root=identity.trust_root,
        promises=evidence.promises,
        event=promise.id,
    )
    return [told]


def _readings(evidence: Evidence, first: SignedHead, second: SignedHead, identity: LogIdentity) -> Iterator[Evidence]:
    """What the offered evidence may come to, the plainest first."""
    smaller, larger = sorted((first, second), key=lambda head: head.size)
    if smaller.final and larger.size > smaller.size:
        yield replace(
            _told(identity, smaller, larger),
            kind="log-unfrozen",
            detail=f"declared final at size {smaller.size}, but another installation was shown size {larger.size}",
        )
    bare = _told(identity, smaller, larger)
    yield bare
    yield replace(bare, proof=evidence.proof, prefix=evidence.prefix)
    leaves = evidence.leaves[-1:] if evidence.prefix else evidence.leaves
    if 0 < len(leaves) <= _LEAVES:
        # The proofs belong to the heads in the order given; a frontier has a size of its own.
        yield replace(
            bare,
            event=f"node {bare.event}",
            heads=(first.raw, second.raw),
            sizes=(evidence.sizes[0] if evidence.prefix and evidence.sizes else first.size, second.size),
            proof=evidence.proof,
            prefix=evidence.prefix,
            leaves=leaves,
            second_proof=evidence.second_proof,
        )


def _told(identity: LogIdentity, first: SignedHead, second: SignedHead) -> Evidence:
    return Evidence(
        log=identity.log,
        api=identity.api,
        kind="log-forked",
        detail=f"another installation was shown size {second.size} of a history that size {first.size} is not part of",
        spki=identity.spki,
        key_name=identity.key_name,
        heads=(first.raw, second.raw),
        sizes=(first.size, second.size),
        trust_root=identity.trust_root,
        event=f"{first.size}:{first.root.hex()}",
    )


def _convinces(evidence: Evidence) -> bool:
    try:
        return conclude(evidence).transferable
    except NotEvidence:
        return False
