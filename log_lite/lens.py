"""Views of a log. The honest lens changes nothing; each fault for drills is another lens.

The API code asks its lens at a few points and knows nothing about faults. A lens never changes the stored log.
"""

from collections.abc import Sequence

from log_lite.ledger import PendingEntry
from log_lite.notes import HeadText, NoteSigner, assemble
from log_lite.shard import Shard, ShardEntry, TreeView
from log_lite.store import Entry
from tlog.merkle import NodeHash


class Lens:
    """The honest lens; each fault overrides some of its methods."""

    def view(self, view: TreeView) -> TreeView:
        """The tree that readers of the newest tree see."""
        return view

    def past_view(self, view: TreeView) -> TreeView:
        """The tree that readers of an inactive or older shard see."""
        return view

    def listed(self, shards: Sequence[Shard]) -> list[Shard]:
        """Trees of its own that a Rekor v1 log lists, oldest first."""
        return list(shards)

    def head(self, head: HeadText) -> HeadText:
        """Contents of the checkpoint, as signed."""
        return head

    def sign(self, signer: NoteSigner, head: HeadText, now_ms: int) -> bytes:
        """Sign the checkpoint."""
        return assemble(head.to_bytes(), signer.line(signer.blob(head, now_ms)))

    def tree_head_signer(self, signer: NoteSigner) -> NoteSigner:
        """The key that signs an RFC 6962 tree head."""
        return signer

    def tree_head_signature(self, signature: bytes) -> bytes:
        """Signature of an RFC 6962 tree head, as served."""
        return signature

    def proof(self, hashes: Sequence[NodeHash]) -> list[NodeHash]:
        """Hashes of an inclusion or consistency proof, as served."""
        return list(hashes)

    def tile(self, raw: bytes, width: int) -> bytes:  # noqa: ARG002  for lenses that treat partial tiles otherwise
        """Bytes of a hash tile, as served."""
        return raw

    def bundle(self, raw: bytes, width: int) -> bytes:  # noqa: ARG002  for lenses that treat partial tiles otherwise
        """Bytes of an entry bundle or data tile, as served."""
        return raw

    def retrieved(self, places: list[ShardEntry]) -> list[ShardEntry]:
        """Entries of a Rekor v1 retrieve answer, in the order of the answer."""
        return places

    def now_ms(self, now_ms: int) -> int:
        """Time the log claims, in milliseconds."""
        return now_ms

    def promise(self, view: TreeView, draft: PendingEntry, now_ms: int) -> tuple[TreeView, Entry] | None:  # noqa: ARG002  for lenses that lie
        """Tree and entry to show to the submitter alone, without adding the entry; `None` if the log is to add it."""
        return None


HONEST = Lens()
