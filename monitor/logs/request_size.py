"""Entries too large for one answer: requests get smaller, and the leaf hash replaces a single large entry.

An attacker can log large entries beside an entry to hide it, so a neighbour's size must not end the reading of a log.
"""

from collections.abc import Callable
from typing import Final, TypeVar

from monitor.http_fetcher import Refused, TimedOut, TooLarge, denied
from monitor.model.errors import FetchFailed, Lagging, NotShown
from monitor.model.log_source import LogEntry, LogSource, PromiseAnswer, SignedHead
from tlog.merkle import (
    Frontier,
    LeafHash,
    consistency_ranges,
    frontier_before,
    frontier_of_ranges,
    leaf_hash,
    root_of_ranges,
    size_beside,
)

_FEWER: Final = 8
_MORE: Final = 2
_T = TypeVar("_T")


class FewerAtOnce:
    """Number of entries in a request: fewer after an answer that was too large, more again after other answers."""

    def __init__(self, most: int) -> None:
        self._most = self._now = most

    def ask(self, wanted: int, ask: Callable[[int], _T]) -> _T:
        """Ask for `wanted` entries or fewer. Raises `TooLarge` for a single entry, and the errors of `ask`."""
        while True:
            count = min(wanted, self._now)
            try:
                answer = ask(count)
            except (TooLarge, TimedOut) as error:
                # An answer that is late may be large as well, so the next request is for fewer entries.
                self._now = max(1, count // _FEWER)
                if count == 1 or isinstance(error, TimedOut):
                    raise
            else:
                self._now = min(self._most, self._now * _MORE)
                return answer


def frontier_beside(size: int, source: LogSource, head: SignedHead, place: Callable[[int], PromiseAnswer]) -> Frontier:
    """Frontier of `[0, size)`, read off the proven path of the leaf before `size`, or off a consistency proof.

    The leaf before `size` may be beyond every cap, and so may the next one: an attacker who logs two such entries
    must not keep following or a back-scan from beginning between them. `place` gives a proven leaf of the tree.
    Raises `TooLarge` without a frontier, and the errors of `place`.
    """
    if size == 0:
        return Frontier()
    try:
        shown = place(size - 1)
    except TooLarge:
        if (frontier := _from_proof(size, source, head)) is not None:
            return frontier
        if size >= head.size:
            raise
        shown = place(size)
        return frontier_before(shown.index, shown.head.size, shown.proof)
    return frontier_before(shown.index, shown.head.size, shown.proof).extended([leaf_hash(shown.leaf)])


def _from_proof(size: int, source: LogSource, head: SignedHead) -> Frontier | None:
    """Frontier of `[0, size)` out of a consistency proof to the head, which holds no entry.

    `None` where the log gives no proof, or the tree is too small for one. Raises `NotShown` for a proof that does not
    lead to the head.
    """
    beside = size_beside(size, head.size)
    if beside is None:
        return None
    try:
        proof = source.consistency_proof(beside, head.size)
        held = dict(zip(consistency_ranges(beside, head.size), proof, strict=True))
    except (Lagging, Refused, ValueError):
        return None
    if root_of_ranges(0, head.size, held) != head.root:
        raise NotShown(
            source.identity.evidence(
                "log-inconsistent",
                f"the consistency proof from {beside} to {head.size} does not lead to the head the log signed",
                event=f"frontier {size}",
                heads=(head.raw,),
                sizes=(beside, head.size),
                proof=tuple(proof),
            )
        )
    return frontier_of_ranges(size, held)


def by_hash(index: int, source: LogSource, head: SignedHead, error: TooLarge) -> LogEntry:
    """The leaf hash of an entry beyond every cap, from the consistency proof over it.

    SPEC RFC 6962 2.1.2: PROOF(m, D[m+1]) holds the hash of leaf m. The hash is unverified: like any entry's bytes,
    it counts once its tree is the signed one. No proof leads over leaf 0; its hash is the whole frontier of leaf 1.
    Raises `TooLarge` where the log gives no such hash.
    """
    identity, refusal = source.identity, FetchFailed(str(error))
    if index == 0 and head.size > 1:
        try:
            return LogEntry(b"", unread=LeafHash(source.frontier(1, head).hashes[0]))
        except TooLarge as too_large:
            refusal = too_large
    if index > 0:
        try:
            hashes = source.consistency_proof(index, index + 1)
            return LogEntry(
                b"", unread=LeafHash(hashes[list(consistency_ranges(index, index + 1)).index((index, index + 1))])
            )
        except (Lagging, Refused) as refused:
            if isinstance(refused, Refused) and not denied(refused):
                raise
            refusal = refused
        except IndexError:
            refusal = FetchFailed(f"{identity.log}: the proof over entry {index} is too short")
    raise TooLarge(
        f"{identity.log}: entry {index} is larger than any entry may be here, and the log gives no hash to go on by: "
        "following stops before it. The log is at fault: it took in an entry that it cannot serve in bounds. Nothing "
        f"from there on is being checked; ask its operator. ({error})"
    ) from refusal
