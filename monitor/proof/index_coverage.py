"""Entries that a search index covers: the root of the log's tree over them, and its proof to a head the log signed.

An index root names no log (docs/search-index.md). The coverage names the tree from which it was made.
"""

from collections.abc import Sequence
from typing import Any, Final

from msgspec import Struct

from monitor.model.log_source import HeadStatement, LogApi, LogIdentity, read_head
from monitor.proof.evidence import NotEvidence, as_base64, from_base64
from tlog.merkle import HASH_SIZE, ProofInvalid, RootHash, verify_consistency

MAX_STEPS: Final = 4
_MAX_NODES: Final = 128
_LARGEST: Final = 1 << 63


class CoverageInvalid(ValueError):
    """The claim about an index's entries does not lead to a head that the log signed."""


class ConsistencyStep(Struct, frozen=True):
    """A consistency proof to a larger tree of the log."""

    size: int
    root: bytes
    proof: tuple[bytes, ...]


class IndexCoverage(Struct, frozen=True):
    """Entries `[first, size)`; `root` is of the log's tree of `size` entries, `steps` lead to the signed `head`."""

    size: int
    root: bytes
    steps: tuple[ConsistencyStep, ...]
    head: bytes
    first: int = 0

    def document(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "first": self.first,
            "size": self.size,
            "root": self.root.hex(),
            "steps": [
                {"size": each.size, "root": each.root.hex(), "proof": [node.hex() for node in each.proof]}
                for each in self.steps
            ],
            "head": as_base64(self.head),
        }

    def check(self, identity: LogIdentity) -> HeadStatement:
        """Verify the head's signature and every step. Raises `CoverageInvalid`."""
        try:
            head = read_head(self.head, identity.api, identity.key_name, identity.spki)
        except ValueError as error:
            raise CoverageInvalid(f"its head is not signed by the log's key: {error}") from error
        if identity.api is not LogApi.CT_RFC6962 and head.origin != identity.origin:
            raise CoverageInvalid(f"its head is of origin {head.origin!r:.120}")
        at, root = self.size, self.root
        try:
            for step in self.steps:
                verify_consistency(at, step.size, step.proof, RootHash(root), RootHash(step.root))
                at, root = step.size, step.root
        except ProofInvalid as error:
            raise CoverageInvalid(f"no consistency from {at} to {step.size} entries: {error}") from error
        if (at, root) != (head.size, head.root):
            raise CoverageInvalid(f"it leads to a tree of {at} entries that is not the signed one of {head.size}")
        return head


def read_coverage(document: Any) -> IndexCoverage:
    """Read the output of `IndexCoverage.document`, without verification. Raises `CoverageInvalid`."""
    try:
        steps = document["steps"]
        if len(steps) > MAX_STEPS or any(len(each["proof"]) > _MAX_NODES for each in steps):
            raise CoverageInvalid("its proof is too long")
        return IndexCoverage(
            _number(document["size"]),
            _hash(document["root"]),
            tuple(
                ConsistencyStep(_number(each["size"]), _hash(each["root"]), _hashes(each["proof"])) for each in steps
            ),
            from_base64(document["head"]),
            _number(document["first"]),
        )
    except (NotEvidence, KeyError, TypeError, ValueError, AttributeError) as error:
        raise CoverageInvalid(f"it lacks or garbles a field: {error!s:.120}") from error


def _hashes(values: Sequence[Any]) -> tuple[bytes, ...]:
    return tuple(map(_hash, values))


def _hash(value: Any) -> bytes:
    if not isinstance(value, str) or len(value) != 2 * HASH_SIZE:
        raise ValueError("a hash is 64 hexadecimal digits")
    return bytes.fromhex(value)


def _number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _LARGEST:
        raise ValueError("a size is a whole number from 0 to 2^63-1")
    return value
