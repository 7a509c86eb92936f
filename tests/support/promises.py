"""Promises as logs in memory sign them: entry timestamps of Rekor v1, certificate timestamps of CT."""

from hashlib import sha256

from msgspec.structs import replace

from monitor.model.errors import PromiseKind, PromiseStatement
from monitor.model.inclusion_promise import InclusionPromise, read_promise, set_of
from tests.support.misbehaving_log import MisbehavingLog, PrivateKey, ct_leaf, merkle_tree_leaf, sign, spki_of


def signed_set(key: PrivateKey, leaf: bytes, index: int, at: int = 1_700_000_000) -> PromiseStatement:
    """A signed entry timestamp; `index` counts through all trees of the log."""
    unsigned = set_of(leaf, at, sha256(spki_of(key)).digest(), index, b"")
    return replace(unsigned, signature=sign(key, unsigned.statement))


def signed_sct(key: PrivateKey, leaf: bytes) -> PromiseStatement:
    """A signed certificate timestamp of a CT leaf."""
    signature = sign(key, leaf)
    blob = b"\x04\x03" + len(signature).to_bytes(2, "big") + signature
    return PromiseStatement(PromiseKind.SCT, leaf, blob)


def indexed_leaf(number: int, index: int) -> bytes:
    """A CT leaf that promises its own index, as those of static CT do."""
    return merkle_tree_leaf(replace(ct_leaf(number), extensions=b"\x00\x00\x05" + index.to_bytes(5, "big")))


def promised(log: MisbehavingLog, signed: PromiseStatement) -> InclusionPromise:
    """The promise, read as the monitor reads it."""
    return read_promise(signed, spki_of(log.log_key))
