"""The only place that makes a trusted head: from the head signed before, the head signed now, and the proof between.

`LogMisbehaved` means two *signed* statements contradict each other. A failing proof is not signed, so it is
`NotShown`: the follower asks again, up to a bound. The log is not blamed for damage of the stored state:
`check_undamaged` checks the state before the first request.

The functions from `advance` on are pure and decide. The functions from `check` on ask the log for the hashes of a
decision, ask again where a replica may lag, and turn a failing proof into evidence where signatures contradict each
other.
"""

from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from typing import TypeVar

from msgspec import Struct
from msgspec.structs import replace

from monitor.model.errors import Evidence, FetchFailed, Lagging, LogMisbehaved, NotShown, OwnFault
from monitor.model.log_source import LogApi, LogIdentity, LogSource, Position, SignedHead, TrustedHead, read_head
from monitor.model.state import State
from tlog.merkle import Frontier, ProofInvalid, prefix_root, verify_consistency


def sizes_to_prove(trusted: TrustedHead | None, offered: SignedHead) -> tuple[int, int] | None:
    """Sizes `(smaller, larger)` of the consistency proof for `advance`, or `None` when it needs none."""
    if trusted is None or 0 in {trusted.head.size, offered.size} or trusted.head.size == offered.size:
        return None
    return min(trusted.head.size, offered.size), max(trusted.head.size, offered.size)


def advance(
    trusted: TrustedHead | None, offered: SignedHead, proof: Sequence[bytes], identity: LogIdentity
) -> TrustedHead:
    """The newest trusted head after `offered`, given the proof between the sizes of `sizes_to_prove`.

    Without a trusted head the offered one is trusted: this is a baseline, which the caller asked for. A smaller head
    that is proven to be a prefix comes from a lagging replica: the trusted head stays. Raises `LogMisbehaved`,
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
    """True if the known head of this size is final or has a later time than the offered one, perhaps from a cache."""
    if known.final != offered.final:
        return known.final
    return known.timestamp is not None and offered.timestamp is not None and known.timestamp > offered.timestamp


def check_frontier_in_head(
    frontier: Frontier, head: SignedHead, proof: Sequence[bytes], identity: LogIdentity, event: str
) -> None:
    """Check that the leaves of `frontier` are exactly the first leaves of `head`'s tree.

    Raises `NotShown`: entries are not signed, so a wrong entry may have been changed in transit.
    """
    if frontier.size == 0:
        return
    try:
        verify_consistency(frontier.size, head.size, proof, frontier.root(), head.root)
    except ProofInvalid as error:
        if _leads_to_head(frontier.size, head, proof):
            kind, detail = "log-entries-not-in-tree", "are not the entries that the log signed"
        else:
            kind, detail = "log-inconsistent", "may be the entries that the log signed, but no proof shows it"
        raise NotShown(
            identity.evidence(
                kind,
                f"the entries served below index {frontier.size} {detail}: {error}",
                event=event,
                heads=(head.raw,),
                sizes=(frontier.size, head.size),
                proof=proof,
                prefix=frontier.hashes,
            )
        ) from error


def _leads_to_head(size: int, head: SignedHead, proof: Sequence[bytes]) -> bool:
    """True if the proof itself belongs to the signed tree, so that a mismatch must be in the entries."""
    if size == head.size or size & (size - 1) == 0:
        # Undecidable: at a power of two the proof leaves out exactly the hash in question.
        return True
    try:
        prefix_root(size, head.size, proof, head.root)
    except ProofInvalid:
        return False
    return True


def contradicting_prefix(
    known: SignedHead, other: SignedHead, frontier: Frontier, proof: Sequence[bytes], identity: LogIdentity
) -> LogMisbehaved | None:
    """Contradiction if the first `known.size` leaves of `other` have another root than `known`, else `None`.

    `frontier` was authenticated against `other`; with `proof` any person can check that again.
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
    evidence = identity.evidence(
        "log-unfrozen",
        f"declared final at size {frozen.size}, but also signed size {other.size}",
        event=f"{frozen.size}:{frozen.root.hex()}",
        heads=(frozen.raw, other.raw),
        sizes=(frozen.size, other.size),
    )
    if identity.api is LogApi.REKOR_V1:
        # Rekor v1 says "inactive" in unsigned JSON only; the signed heads alone do not contradict each other.
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
    # A proof that leads to the larger signed root also fixes the root of that tree's prefix. If the log signed
    # another root for that size, its own two signatures contradict each other without a further request.
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
    return identity.evidence(
        "log-forked",
        detail,
        event=f"{smaller.size}:{smaller.root.hex()}",
        heads=(smaller.raw, larger.raw),
        sizes=(smaller.size, larger.size),
        proof=proof,
        prefix=prefix,
    )


_T = TypeVar("_T")


class RetryPolicy(Struct, frozen=True):
    """Seconds before each further try when a log does not show a part of its signed tree; `pause` waits."""

    pauses: tuple[float, ...]
    pause: Callable[[float], object]

    def call(self, ask: Callable[[], _T]) -> _T:
        """Call `ask` until it returns or the tries are used up. Only `NotShown` and `Lagging` are tried again.

        Replicas lag and caches are stale, so a single failure does not count against the log.
        """
        for seconds in self.pauses:
            try:
                return ask()
            except (NotShown, Lagging):
                self.pause(seconds)
        return ask()


class HeadRelation(StrEnum):
    """Relation of an offered head to the trusted head."""

    SAME = "same"
    OLDER = "older-and-consistent"
    NEWER = "newer-not-yet-seen"
    CONTRADICTION = "contradiction"
    UNPROVEN = "undecided"


class HeadComparison(Struct, frozen=True):
    """Result of `compare`.

    `compared` is this monitor's head, `proof` the consistency proof between the two heads. A newer head with a proof
    is consistent with the log's present tree. `evidence` is set only for a contradiction.
    """

    relation: HeadRelation
    detail: str
    compared: SignedHead
    proof: tuple[bytes, ...] = ()
    evidence: Evidence | None = None


def check(source: LogSource, trusted: TrustedHead, offered: SignedHead, retry: RetryPolicy) -> TrustedHead:
    """Prove `offered` consistent with `trusted`; returns the newer of the two.

    Raises `LogMisbehaved` for a contradiction that is shown, `NotShown` for a proof that fails or is refused,
    `Lagging`, `FetchFailed`.
    """
    try:
        return retry.call(lambda: _prove(source, trusted, offered)[0])
    except Lagging:
        if offered.size < trusted.head.size:
            # SPEC rekor tlog.go: a replica that lags refuses a proof up to a size it has not reached. The head is on
            # record; the refusal does not accuse the log, and following continues.
            return trusted
        raise
    except NotShown:
        contradiction = _contradiction(source, trusted.head, offered)
        if contradiction is not None:
            raise contradiction from None
        raise


def newest(source: LogSource, trusted: TrustedHead | None, record: Callable[[SignedHead], None]) -> TrustedHead:
    """Fetch the newest head, record it, and prove it consistent with `trusted`.

    Without `trusted` it becomes the baseline.

    Raises `LogMisbehaved`, `NotShown`, `FetchFailed`.
    """
    offered = source.latest()
    # The log signed this head, so it is recorded before it is compared.
    record(offered)
    return _prove(source, trusted, offered)[0]


def prove_pair(source: LogSource, known: SignedHead, other: SignedHead) -> None:
    """Prove two signed heads consistent with each other, in either order of size.

    Raises `LogMisbehaved`, `NotShown`, `FetchFailed`.
    """
    _prove(source, TrustedHead(known), other)


def compare_sightings(source: LogSource, state: State, trusted: TrustedHead, retry: RetryPolicy) -> None:
    """Check heads that came with entries: the server of the entries may show another view.

    Each takes at most one proof. A head without a proof is recorded too.
    """
    for head in source.sightings():
        state.record_head(head)
        try:
            check(source, trusted, head, retry)
        except Lagging:
            continue


def contradiction_of(known: Iterable[SignedHead], offered: SignedHead, identity: LogIdentity) -> Evidence | None:
    """Evidence that one of `known` and `offered` contradict each other by their signatures alone, else None.

    Heads of different sizes contradict each other only with a proof between them, or if one declares the log frozen.
    """
    for head in known:
        try:
            advance(TrustedHead(head), offered, (), identity)
        except NotShown:
            continue
        except LogMisbehaved as misbehaved:
            return misbehaved.evidence
    return None


def compare(
    source: LogSource, trusted: SignedHead, offered: SignedHead, same_size: Iterable[SignedHead] = ()
) -> HeadComparison:
    """Compare an offered head with the trusted one. Changes no state, and raises for no answer of a log.

    `same_size` are recorded heads of the offered size. Another root in one of them is a contradiction without a
    request to the log.
    """
    evidence = contradiction_of((trusted, *same_size), offered, source.identity)
    if evidence is not None:
        return _contradicts(trusted, evidence)
    if trusted.size == offered.size:
        return HeadComparison(HeadRelation.SAME, "the same tree", trusted)
    if offered.size < trusted.size:
        return _with_proof(source, trusted, offered, HeadRelation.OLDER, "an earlier state of the same tree")
    try:
        # The log's present head can be used too: two signatures either agree or contradict each other.
        compared = source.latest()
    except FetchFailed as error:
        told = f"newer than every head seen here; the log did not answer: {error}"
        return HeadComparison(HeadRelation.NEWER, told, trusted)
    if compared.size < offered.size:
        told = f"newer than every head seen here: the log shows size {compared.size}"
        return HeadComparison(HeadRelation.NEWER, told, compared)
    return _with_proof(
        source, compared, offered, HeadRelation.NEWER, "newer, and consistent with the log's present tree"
    )


def _with_proof(
    source: LogSource, compared: SignedHead, offered: SignedHead, proven: HeadRelation, detail: str
) -> HeadComparison:
    try:
        proof = _prove(source, TrustedHead(compared), offered)[1]
    except LogMisbehaved as contradiction:
        return _contradicts(compared, contradiction.evidence)
    except NotShown as unproven:
        shown = _contradiction(source, compared, offered)
        if shown is not None:
            return _contradicts(compared, shown.evidence)
        return HeadComparison(HeadRelation.UNPROVEN, f"the log's proof does not verify: {unproven}", compared)
    except FetchFailed as error:
        return HeadComparison(HeadRelation.UNPROVEN, f"the log gave no proof: {error}", compared)
    return HeadComparison(proven, detail, compared, proof)


def _prove(
    source: LogSource, trusted: TrustedHead | None, offered: SignedHead
) -> tuple[TrustedHead, tuple[bytes, ...]]:
    sizes = sizes_to_prove(trusted, offered)
    proof = tuple(source.consistency_proof(*sizes)) if sizes else ()
    return advance(trusted, offered, proof, source.identity), proof


def _contradiction(source: LogSource, known: SignedHead, offered: SignedHead) -> LogMisbehaved | None:
    """Look for the subtree that differs between the two trees, which the failing proof did not show."""
    smaller, larger = sorted((known, offered), key=lambda head: head.size)
    try:
        frontier = source.frontier(smaller.size, larger)
        proof = source.consistency_proof(smaller.size, larger.size)
    except FetchFailed:
        return None
    return contradicting_prefix(smaller, larger, frontier, proof, source.identity)


def _contradicts(compared: SignedHead, evidence: Evidence) -> HeadComparison:
    return HeadComparison(HeadRelation.CONTRADICTION, evidence.detail, compared, evidence.proof, evidence)


def check_undamaged(position: Position, identity: LogIdentity) -> None:
    """Check that the log signed the stored head. Raises `OwnFault`."""
    head, frontier = position.head.head, position.frontier
    try:
        signed = read_head(head.raw, identity.api, identity.key_name, identity.spki)
    except ValueError as error:
        raise _damaged(identity, f"the stored head is not signed by the key now pinned to the log: {error}") from error
    if (signed.size, signed.root) != (head.size, head.root):
        raise _damaged(identity, f"the stored head of size {head.size} differs from its own signed note")
    if frontier.size > head.size or (frontier.size == head.size and frontier.root() != head.root):
        raise _damaged(identity, f"the stored frontier of size {frontier.size} does not belong to the stored head")


def check_frontier_undamaged(position: Position, source: LogSource) -> None:
    """Check that the stored frontier is a prefix of the signed tree, before entries count as wrong.

    Raises `OwnFault` when it is none, `FetchFailed` without an answer.
    """
    frontier, head, identity = position.frontier, position.head.head, source.identity
    if not 0 < frontier.size < head.size:
        return
    proof = source.consistency_proof(frontier.size, head.size)
    try:
        check_frontier_in_head(frontier, head, proof, identity, event="")
    except NotShown as error:
        if is_wrong_entries(error):
            reason = f"the stored frontier of size {frontier.size} is no prefix of the tree that the log signed"
            raise _damaged(identity, reason) from error


def is_wrong_entries(error: FetchFailed) -> bool:
    """True if entries, hashed onto the stored frontier, lead to another tree than the log signed."""
    return isinstance(error, NotShown) and error.evidence.kind == "log-entries-not-in-tree"


def _damaged(identity: LogIdentity, reason: str) -> OwnFault:
    return OwnFault(
        f"{identity.log}: the stored position is damaged: {reason}. The log is not being checked, and the database "
        "was not changed. Restore the database from a backup: Signwatch follows the log from an older position again."
    )
