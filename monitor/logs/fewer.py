"""Entries too large to come together, or at all: fewer are asked for, down to one, and that one is taken by its hash.

Anyone can log large entries beside one that they want hidden, so a neighbour's size must not end the reading of a log.
"""

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from monitor.http_fetcher import Refused, TimedOut, TooLarge, denied
from monitor.model.errors import FetchFailed, Lagging
from monitor.model.log_source import LogEntry, LogIdentity
from tlog.merkle import LeafHash, NodeHash
from tlog.proof_ranges import consistency_ranges

_FEWER: Final = 8
_MORE: Final = 2
_T = TypeVar("_T")


class FewerAtOnce:
    """How many entries to ask for: fewer after an answer that was too large, more again after others."""

    def __init__(self, most: int) -> None:
        self._most = self._now = most

    def ask(self, wanted: int, ask: Callable[[int], _T]) -> _T:
        """Ask for `wanted` entries or fewer. Raises `TooLarge` when a single entry is, and what `ask` raises."""
        while True:
            count = min(wanted, self._now)
            try:
                answer = ask(count)
            except (TooLarge, TimedOut) as error:
                # What is not there in time may be large as well: the next question is for fewer.
                self._now = max(1, count // _FEWER)
                if count == 1 or isinstance(error, TimedOut):
                    raise
            else:
                self._now = min(self._most, self._now * _MORE)
                return answer


def by_hash(
    index: int, proof: Callable[[int, int], Sequence[NodeHash]], identity: LogIdentity, error: TooLarge
) -> LogEntry:
    """Take an entry beyond every cap by its leaf hash, from the consistency proof that leads over it.

    SPEC RFC 6962 2.1.2: PROOF(m, D[m+1]) holds the hash of leaf m. It is as served: like any entry's bytes, it counts
    once the tree it is hashed into is the signed one. Raises `TooLarge` where the log gives no such proof.
    """
    refusal: FetchFailed = error
    if index > 0:
        try:
            hashes = proof(index, index + 1)
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
