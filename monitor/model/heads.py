"""Tree heads by the state of trust they are in.

A `SignedHead` carries a valid signature by the key pinned to this log and this log's origin: no more. A `TrustedHead`
has also been proven consistent with every head trusted before. Only `monitor.proof.verify` makes the latter.
"""

from dataclasses import dataclass, field
from datetime import datetime

from tlog.frontier import Frontier
from tlog.merkle import RootHash


@dataclass(frozen=True, slots=True)
class SignedHead:
    """A tree head signed by the log's pinned key. `raw` is the evidence: the note, or the STH's JSON, as served.

    `timestamp` is when the log says it signed, where the format has one. `final` means the operator declared the log
    frozen. `cosigned_by` names witnesses whose cosignatures verified, `cosigned_at` says for each when it signed.
    Signed anew by a witness, a head is still the same head.
    """

    log: str
    size: int
    root: RootHash
    raw: bytes
    timestamp: datetime | None = None
    final: bool = False
    cosigned_by: tuple[str, ...] = ()
    cosigned_at: tuple[datetime, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class TrustedHead:
    """A signed head proven consistent with all heads this monitor trusted before."""

    head: SignedHead


@dataclass(frozen=True, slots=True)
class Position:
    """How far a log was followed: every leaf below `frontier.size` was hashed into a tree that `head` extends.

    `frontier.size <= head.size`, and a consistency proof (or equality of roots) ties the two together.
    """

    log: str
    frontier: Frontier
    head: TrustedHead
