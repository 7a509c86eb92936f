"""Damage of our own is never blamed on a log: what was stored is checked before anything is held against it."""

from monitor.model.errors import FetchFailed, NotShown, OwnFault
from monitor.model.heads import Position
from monitor.model.log_source import LogIdentity, LogSource
from monitor.proof.evidence import read_head
from monitor.proof.verify import check_frontier_in_head


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
