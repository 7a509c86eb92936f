"""The signed tree head of an RFC 6962 log, as its JSON says it (RFC 6962 4.3)."""

import msgspec

from tlog.ct import MalformedCt, TreeHead, decode_base64, verify_tree_head
from tlog.merkle import EMPTY_ROOT, MAX_TREE_SIZE

_MAX_TIMESTAMP = (1 << 64) - 1


class _Sth(msgspec.Struct):
    tree_size: int
    timestamp: int
    sha256_root_hash: str
    tree_head_signature: str


def read_sth(raw: bytes, spki: bytes) -> TreeHead:
    """Read a get-sth answer and verify its signature.

    Raises `tlog.ct.MalformedCt` when it is no tree head, `tlog.note.BadSignature` when `spki` did not sign it.
    """
    try:
        sth = msgspec.json.decode(raw, type=_Sth)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise MalformedCt(f"not a signed tree head: {error}") from error
    if not (0 <= sth.tree_size <= MAX_TREE_SIZE and 0 <= sth.timestamp <= _MAX_TIMESTAMP):
        raise MalformedCt(f"impossible tree size {sth.tree_size} or timestamp {sth.timestamp}")
    head = verify_tree_head(
        spki,
        sth.tree_size,
        sth.timestamp,
        decode_base64(sth.sha256_root_hash, "sha256_root_hash"),
        decode_base64(sth.tree_head_signature, "tree_head_signature"),
    )
    if head.size == 0 and head.root != EMPTY_ROOT:
        raise MalformedCt("a tree of size 0 has the hash of the empty string as its root")
    return head
