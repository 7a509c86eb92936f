"""Faults in signed heads and in the bytes around them: wrong roots, keys, names, times, lengths."""

from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from msgspec.structs import replace

from log_lite.keys import LogKey, new_ed25519_key
from log_lite.lens import Lens
from log_lite.notes import HeadText, NoteSigner, assemble, rekor_v2_signer
from tlog.merkle import NodeHash

_DAY_MS: Final = 24 * 60 * 60 * 1000
_TREE_ID: Final = " - "


class SameSizeOtherRoot(Lens):
    """Signs a head of the right size whose root belongs to no tree."""

    def head(self, head: HeadText) -> HeadText:
        """Name another root."""
        return replace(head, root=sha256(b"other root" + head.root).digest())


class WrongOrigin(Lens):
    """A checkpoint under another log's origin, signed by this log."""

    def head(self, head: HeadText) -> HeadText:
        """Name another origin, in the form this log's clients expect."""
        _, separator, rest = head.origin.partition(_TREE_ID)
        return replace(head, origin=f"another.invalid{separator}{rest}")


class WrongKey(Lens):
    """Heads signed by a key that clients trust for another log."""

    def __init__(self, other: LogKey) -> None:
        self._other = other

    def sign(self, signer: NoteSigner, head: HeadText, now_ms: int) -> bytes:
        """Sign under this log's name with the other key and its id."""
        return super().sign(self.tree_head_signer(signer), head, now_ms)

    def tree_head_signer(self, signer: NoteSigner) -> NoteSigner:
        """Return a signer of the same form with the other key."""
        return signer.with_key(self._other)


class BrokenSignature(Lens):
    """Signatures that do not verify."""

    def sign(self, signer: NoteSigner, head: HeadText, now_ms: int) -> bytes:
        """Sign, then break the signature."""
        return assemble(head.to_bytes(), signer.line(_flip(signer.blob(head, now_ms))))

    def tree_head_signature(self, signature: bytes) -> bytes:
        """Break an RFC 6962 signature."""
        return _flip(signature)


def _flip(signature: bytes) -> bytes:
    return signature[:-1] + bytes([signature[-1] ^ 1])


class ExtraSignature(Lens):
    """A second signature by an unknown key, after the log's own."""

    def __init__(self) -> None:
        self._unknown = rekor_v2_signer(new_ed25519_key(), "unknown.invalid")

    def sign(self, signer: NoteSigner, head: HeadText, now_ms: int) -> bytes:
        """Sign twice."""
        return super().sign(signer, head, now_ms) + self._unknown.line(self._unknown.blob(head, now_ms))


class FutureTime(Lens):
    """A log whose clock is a day ahead."""

    def now_ms(self, now_ms: int) -> int:
        """Return the time one day ahead."""
        return now_ms + _DAY_MS


class TruncatedTile(Lens):
    """Hash tiles that end in the middle of a hash."""

    def tile(self, raw: bytes, width: int) -> bytes:  # noqa: ARG002  every tile
        """Cut half a hash off."""
        return raw[:-16]


class PaddedBundle(Lens):
    """Entry bundles that do not end where they should."""

    def bundle(self, raw: bytes, width: int) -> bytes:  # noqa: ARG002  every bundle
        """Add three bytes."""
        return raw + bytes(3)


class MalformedProof(Lens):
    """Proofs that are too long."""

    def proof(self, hashes: Sequence[NodeHash]) -> list[NodeHash]:
        """Add one hash."""
        return [*hashes, NodeHash(bytes(32))]
