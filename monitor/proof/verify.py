"""The one place that calls a tree head trusted: what a log signed before, what it signs now, and the proof between.

Pure. `LogMisbehaved` means two *signed* statements contradict each other. A proof that fails is not signed, so it is
`NotShown`: the follower asks again and decides when enough is enough.
"""

from collections.abc import Sequence
from dataclasses import replace

from monitor.model.errors import Evidence, LogMisbehaved, NotShown
from monitor.model.log_source import LogApi, LogIdentity, SignedHead, TrustedHead
from tlog.frontier import Frontier
from tlog.merkle import ProofInvalid, prefix_root, verify_consistency


def sizes_to_prove(trusted: TrustedHead | None, offered: SignedHead) -> tuple[int, int] | None:
    """Sizes `(smaller, larger)` that `advance` needs a consistency proof between, or `None` when it needs none."""
    if trusted is None or 0 in {trusted.head.size, offered.size} or trusted.head.size == offered.size:
        return None
    return min(trusted.head.size, offered.size), max(trusted.head.size, offered.size)


def advance(
    trusted: TrustedHead | None, offered: SignedHead, proof: Sequence[bytes], identity: LogIdentity
) -> TrustedHead:
    """Return the newest head to trust after seeing `offered`, proven by the hashes asked for by `sizes_to_prove`.

    Without a trusted head the offered one is taken as it is: that is a baseline, and the caller asked for one. A
    smaller head that is proven to be a prefix is a lagging replica: the trusted head stays. Raises `LogMisbehaved`,
    `NotShown`.
    """
    if trusted is None:
        return TrustedHead(offered)
    known = trusted.head
    _check_final(known, offered, identity)
    if offered.size == known.size:
        # SPEC RFC 6962 2.1.2, 3: a log commits to one tree per size; two roots for one size is a split view.
        if offered.root != known.root:
            raise LogMisbehaved(_fork(identity, known, offered, f"two roots for size {known.size}"))
        return trusted if _says_more(known, offered) else TrustedHead(offered)
    if offered.size < known.size:
        if offered.size:
            _check_prefix(offered, known, proof, identity)
        return trusted
    if known.size:
        # SPEC RFC 6962 2.1.2: the earlier tree must be a prefix of the later. Everything extends the empty tree.
        _check_prefix(known, offered, proof, identity)
    return TrustedHead(offered)


def _says_more(known: SignedHead, offered: SignedHead) -> bool:
    """Whether a head known for this size says more than the offered one, which may have sat in a cache."""
    if known.final != offered.final:
        return known.final
    return known.timestamp is not None and offered.timestamp is not None and known.timestamp > offered.timestamp


def check_frontier_in_head(
    frontier: Frontier, head: SignedHead, proof: Sequence[bytes], identity: LogIdentity, event: str
) -> None:
    """Check that exactly the leaves behind `frontier` are the first ones of the tree `head` commits to.

    Raises `NotShown`: entries are not signed, so a wrong one shows only that it was changed on the way.
    """
    if frontier.size == 0:
        return
    try:
        verify_consistency(frontier.size, head.size, proof, frontier.root(), head.root)
    except ProofInvalid as error:
        if _leads_to_head(frontier.size, head, proof):
            kind, detail = "log-entries-not-in-tree", "are not those the log signed"
        else:
            kind, detail = "log-inconsistent", "may be those the log signed, but no proof shows it"
        raise NotShown(
            Evidence(
                log=identity.log,
                api=identity.api,
                kind=kind,
                detail=f"the entries served below index {frontier.size} {detail}: {error}",
                spki=identity.spki,
                key_name=identity.key_name,
                heads=(head.raw,),
                sizes=(frontier.size, head.size),
                proof=tuple(proof),
                prefix=frontier.hashes,
                trust_root=identity.trust_root,
                event=event,
            )
        ) from error


def _leads_to_head(size: int, head: SignedHead, proof: Sequence[bytes]) -> bool:
    """Whether the proof itself is of the signed tree, so that a mismatch must lie in the entries."""
    if size == head.size or size & (size - 1) == 0:
        # Nothing to tell by: at a power of two the proof leaves the very hash in question out.
        return True
    try:
        prefix_root(size, head.size, proof, head.root)
    except ProofInvalid:
        return False
    return True


def contradicting_prefix(
    known: SignedHead, other: SignedHead, frontier: Frontier, proof: Sequence[bytes], identity: LogIdentity
) -> LogMisbehaved | None:
    """Turn a suspicion into proof: the first `known.size` leaves of `other`'s tree have another root than `known`.

    `frontier` was authenticated against `other`; with `proof` anybody can check that again. `None` when it does not
    contradict after all.
    """
    if frontier.size != known.size or frontier.root() == known.root:
        return None
    try:
        verify_consistency(known.size, other.size, proof, frontier.root(), other.root)
    except ProofInvalid:
        return None
    detail = f"the tree of size {other.size} does not begin with the tree of size {known.size} signed before"
    return LogMisbehaved(_fork(identity, known, other, detail, proof=proof, prefix=frontier.hashes))


def _check_final(known: SignedHead, offered: SignedHead, identity: LogIdentity) -> None:
    grew_after_freeze = known.final and offered.size > known.size
    froze_in_the_past = offered.final and offered.size < known.size
    if not grew_after_freeze and not froze_in_the_past:
        return
    frozen, other = (known, offered) if known.final else (offered, known)
    evidence = Evidence(
        log=identity.log,
        api=identity.api,
        kind="log-unfrozen",
        detail=f"declared final at size {frozen.size}, but also signed size {other.size}",
        spki=identity.spki,
        key_name=identity.key_name,
        heads=(frozen.raw, other.raw),
        sizes=(frozen.size, other.size),
        trust_root=identity.trust_root,
        event=f"{frozen.size}:{frozen.root.hex()}",
    )
    if identity.api is LogApi.REKOR_V1:
        # Rekor v1 says "inactive" in unsigned JSON only; the signed heads alone do not contradict.
        if grew_after_freeze:
            raise NotShown(evidence)
        return
    raise LogMisbehaved(evidence)


def _check_prefix(smaller: SignedHead, larger: SignedHead, proof: Sequence[bytes], identity: LogIdentity) -> None:
    try:
        verify_consistency(smaller.size, larger.size, proof, smaller.root, larger.root)
    except ProofInvalid as error:
        _raise_fork_if_proven(smaller, larger, proof, identity)
        detail = f"no proof that the tree of size {larger.size} extends the one of size {smaller.size}: {error}"
        evidence = _fork(identity, smaller, larger, detail, proof=proof)
        raise NotShown(replace(evidence, kind="log-inconsistent")) from error


def _raise_fork_if_proven(
    smaller: SignedHead, larger: SignedHead, proof: Sequence[bytes], identity: LogIdentity
) -> None:
    # A proof that does lead to the larger signed root also fixes the root of that tree's prefix. If the log signed
    # another one for that size, its own two signatures contradict each other: no need to ask again.
    try:
        shown = prefix_root(smaller.size, larger.size, proof, larger.root)
    except ProofInvalid:
        return
    detail = (
        f"the tree of size {larger.size} begins with a tree of size {smaller.size} and root {shown.hex()}, "
        f"but the log signed root {smaller.root.hex()} for that size"
    )
    raise LogMisbehaved(_fork(identity, smaller, larger, detail, proof=proof))


def _fork(
    identity: LogIdentity,
    first: SignedHead,
    second: SignedHead,
    detail: str,
    *,
    proof: Sequence[bytes] = (),
    prefix: tuple[bytes, ...] = (),
) -> Evidence:
    smaller, larger = sorted((first, second), key=lambda head: head.size)
    return Evidence(
        log=identity.log,
        api=identity.api,
        kind="log-forked",
        detail=detail,
        spki=identity.spki,
        key_name=identity.key_name,
        heads=(smaller.raw, larger.raw),
        sizes=(smaller.size, larger.size),
        proof=tuple(proof),
        prefix=prefix,
        trust_root=identity.trust_root,
        event=f"{smaller.size}:{smaller.root.hex()}",
    )
