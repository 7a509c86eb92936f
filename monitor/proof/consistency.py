"""Two tree heads that one log signed, held against each other with the log's own proofs; damage of our own told apart.

`monitor.proof.verify` decides; this module asks the log for the hashes that the decision needs, asks again where a
replica may lag, and turns a proof that fails into evidence where the log's signatures contradict each other. Damage of
the stored state is never blamed on a log: what was stored is checked before anything is held against the log.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from monitor.model.errors import Evidence, FetchFailed, Lagging, LogMisbehaved, NotShown, OwnFault
from monitor.model.log_source import LogIdentity, LogSource, Position, SignedHead, TrustedHead
from monitor.model.state import State
from monitor.proof.evidence import read_head
from monitor.proof.verify import advance, check_frontier_in_head, contradicting_prefix, sizes_to_prove

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Seconds to wait before each further try when a log does not show what it signed; `pause` does the waiting."""

    pauses: tuple[float, ...]
    pause: Callable[[float], object]

    def call(self, ask: Callable[[], _T]) -> _T:
        """Call `ask` until it returns or the tries are used up. Only `NotShown` and `Lagging` are tried again.

        Replicas lag and caches are stale, so one unkept promise does not count as a broken one.
        """
        for seconds in self.pauses:
            try:
                return ask()
            except (NotShown, Lagging):
                self.pause(seconds)
        return ask()


class HeadRelation(StrEnum):
    """How an offered head relates to the one trusted here."""

    SAME = "same"
    OLDER = "older-and-consistent"
    NEWER = "newer-not-yet-seen"
    CONTRADICTION = "contradiction"
    UNPROVEN = "undecided"


@dataclass(frozen=True, slots=True)
class HeadComparison:
    """Result of `compare`.

    `compared` is the head on our side, `proof` the consistency proof between the two heads. A newer head with a proof
    is consistent with the tree that the log shows now. `evidence` is set exactly for a contradiction.
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
            # SPEC rekor tlog.go: a replica that lags refuses a proof up to a size it has not reached. The head is
            # on record; the refusal proves nothing against the log, and following goes on.
            return trusted
        raise
    except NotShown:
        contradiction = _contradiction(source, trusted.head, offered)
        if contradiction is not None:
            raise contradiction from None
        raise


def newest(source: LogSource, trusted: TrustedHead | None, record: Callable[[SignedHead], None]) -> TrustedHead:
    """Fetch the newest head, record it, and prove it consistent with `trusted`. Without one it is taken as it is.

    Raises `LogMisbehaved`, `NotShown`, `FetchFailed`.
    """
    offered = source.latest()
    # The log signed this head, consistent or not: it is on record before it is judged.
    record(offered)
    return _prove(source, trusted, offered)[0]


def prove_pair(source: LogSource, known: SignedHead, other: SignedHead) -> None:
    """Prove two signed heads consistent with each other, in either order of size.

    Raises `LogMisbehaved`, `NotShown`, `FetchFailed`.
    """
    _prove(source, TrustedHead(known), other)


def compare_sightings(source: LogSource, state: State, trusted: TrustedHead, retry: RetryPolicy) -> None:
    """Check heads that came with entries: the server that sent them may have shown us another view.

    Each costs at most one proof. A head without a proof now is on record all the same.
    """
    for head in source.sightings():
        state.record_head(head)
        try:
            check(source, trusted, head, retry)
        except Lagging:
            continue


def contradiction_of(known: Iterable[SignedHead], offered: SignedHead, identity: LogIdentity) -> Evidence | None:
    """Evidence that one of `known` and `offered` contradict each other by their signatures alone, else None.

    Heads of different sizes prove nothing without a proof between them, except where one declares the log frozen.
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
    """Compare an offered head with the trusted one; changes nothing and never raises for what a log answers.

    `same_size` are recorded heads of the offered size. Another root in one of them is a contradiction that needs no
    answer from the log.
    """
    evidence = contradiction_of((trusted, *same_size), offered, source.identity)
    if evidence is not None:
        return _contradicts(trusted, evidence)
    if trusted.size == offered.size:
        return HeadComparison(HeadRelation.SAME, "the same tree", trusted)
    if offered.size < trusted.size:
        return _with_proof(source, trusted, offered, HeadRelation.OLDER, "an earlier state of the same tree")
    try:
        # The head that the log shows now serves as well: two signatures either agree or contradict each other.
        compared = source.latest()
    except FetchFailed as error:
        told = f"newer than anything seen here; the log could not be asked: {error}"
        return HeadComparison(HeadRelation.NEWER, told, trusted)
    if compared.size < offered.size:
        told = f"newer than anything seen here: the log shows size {compared.size}"
        return HeadComparison(HeadRelation.NEWER, told, compared)
    return _with_proof(
        source, compared, offered, HeadRelation.NEWER, "newer, and consistent with what the log shows now"
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
        return HeadComparison(HeadRelation.UNPROVEN, f"the log's proof does not hold: {unproven}", compared)
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
    """Look for the part of the larger tree that differs from the smaller one, which the failing proof did not show."""
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
    """Check that what was stored is what the log signed. Raises `OwnFault`."""
    head, frontier = position.head.head, position.frontier
    try:
        signed = read_head(head.raw, identity.api, identity.key_name, identity.spki)
    except ValueError as error:
        raise _damaged(identity, f"the stored head is not signed by the key now pinned to the log: {error}") from error
    if (signed.size, signed.root) != (head.size, head.root):
        raise _damaged(identity, f"the stored head of size {head.size} is not what its own signed note says")
    if frontier.size > head.size or (frontier.size == head.size and frontier.root() != head.root):
        raise _damaged(identity, f"the stored frontier of size {frontier.size} does not belong to the stored head")


def check_frontier_undamaged(position: Position, source: LogSource) -> None:
    """Before entries are blamed: what they were appended to must itself still be a prefix of the signed tree.

    Raises `OwnFault` when it is none, `FetchFailed` when that cannot be asked.
    """
    frontier, head, identity = position.frontier, position.head.head, source.identity
    if not 0 < frontier.size < head.size:
        return
    proof = source.consistency_proof(frontier.size, head.size)
    try:
        check_frontier_in_head(frontier, head, proof, identity, event="")
    except NotShown as error:
        if is_wrong_entries(error):
            reason = f"the stored frontier of size {frontier.size} is no prefix of the tree the log signed"
            raise _damaged(identity, reason) from error


def is_wrong_entries(error: FetchFailed) -> bool:
    """Whether entries, hashed onto what was stored, are not what the log signed."""
    return isinstance(error, NotShown) and error.evidence.kind == "log-entries-not-in-tree"


def _damaged(identity: LogIdentity, reason: str) -> OwnFault:
    return OwnFault(
        f"{identity.log}: the stored position is damaged: {reason}. Nothing is being checked and nothing was changed. "
        "Restore the database from a backup: an older one is followed forward again."
    )
