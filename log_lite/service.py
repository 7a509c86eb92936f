"""Shared by the three APIs: the ledger, the writer, the lenses, and the certificates a CT log accepts."""

from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import Final

from cryptography import x509
from msgspec import Struct, field
from msgspec.structs import replace

from log_lite.ledger import V2, Ledger, PendingEntry, TreeClosed
from log_lite.lens import HONEST, Lens
from log_lite.notes import CtNoteSigner, HeadText
from log_lite.sequencer import Sequencer, wall_clock_ms
from log_lite.shard import Shard, TreeView
from log_lite.store import Entry

# Cache of full bundles, at most 32 MiB; the oldest is dropped first.
_KEPT: Final = 64
_KEPT_BYTES: Final = 512 * 1024


class AcceptedSubmission(Struct, frozen=True):
    """A submission's place, and the view for its submitter. `duplicate`: the tree already held the entry."""

    shard: Shard
    view: TreeView
    entry: Entry
    duplicate: bool = False


class LogLiteService(Struct):
    """One running log. `lenses` and `fault_modes` (by log) are replaced as a whole when a fault is switched."""

    ledger: Ledger
    sequencer: Sequencer
    anchors: Sequence[x509.Certificate] = ()
    lenses: Mapping[str, Lens] = field(default_factory=dict)
    fault_modes: Mapping[str, str] = field(default_factory=dict)
    clock: Callable[[], int] = wall_clock_ms
    # The checkpoint signed last, by tree. Submissions of one commit share one signature.
    _notes: dict[str, tuple[HeadText, bytes]] = field(default_factory=dict)
    _bundles: dict[tuple[str, int], bytes] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def lens(self, shard: Shard) -> Lens:
        """Return the lens that applies to readers of this shard's log."""
        return self.lenses.get(shard.row.log, HONEST)

    def view(self, shard: Shard) -> TreeView:
        """Return the view of a shard that readers get now."""
        lens, view = self.lens(shard), shard.view()
        return lens.view(view) if shard is self.ledger.active(shard.row.log) else lens.past_view(view)

    def view_with(self, shard: Shard, index: int) -> TreeView:
        """Return a view that holds the entry at `index`, for its submitter."""
        view = self.view(shard)
        return view if view.size > index else shard.view()

    def now_ms(self, shard: Shard) -> int:
        """Time that this log claims, in milliseconds since the epoch."""
        return self.lens(shard).now_ms(self.clock())

    def note(self, shard: Shard, view: TreeView) -> bytes:
        """Signed checkpoint of a view. Reuses the last one for an unchanged head in a format without a timestamp."""
        lens, head = self.lens(shard), view.head()
        if lens is not HONEST or isinstance(shard.signer, CtNoteSigner):
            return lens.sign(shard.signer, lens.head(head), self.now_ms(shard))
        known = self._notes.get(shard.row.name)
        if known is None or known[0] != head:
            known = head, lens.sign(shard.signer, head, self.now_ms(shard))
            self._notes[shard.row.name] = known
        return known[1]

    def full_bundle(self, shard: Shard, index: int, make: Callable[[], bytes]) -> bytes:
        """Bytes of a full entry bundle or data tile of an honest log; cached, because they never change."""
        if self.lens(shard) is not HONEST:
            return make()
        key = shard.row.name, index
        found = self._bundles.get(key)
        if found is None:
            found = make()
            if len(found) <= _KEPT_BYTES:
                with self._lock:
                    self._bundles[key] = found
                    if len(self._bundles) > _KEPT:
                        self._bundles.pop(next(iter(self._bundles)))
        return found

    def note_by_url(self, shard: Shard, view: TreeView) -> bytes:
        """Sign a checkpoint of a Rekor v2 view under the shard's whole address, port and path included.

        rekor-monitor takes a log's URL without its scheme as its origin, and looks the key up by the id of the first
        signature; cosign takes the host alone. So the first signature is under the name in the trust root.
        """
        lens, named, now_ms = self.lens(shard), shard.signer_by_url(), self.now_ms(shard)
        head = lens.head(replace(view.head(), origin=named.name))
        known, own = (lens.sign(signer, head, now_ms) for signer in (shard.signer, named))
        return known + own.removeprefix(head.to_bytes() + b"\n")

    def submit(self, shard: Shard, draft: PendingEntry) -> AcceptedSubmission | TreeClosed:
        """Add a draft through the sequencer. Raises `Pushback`, `NotStored`."""
        promised = self.lens(shard).promise(shard.view(), draft, self.clock())
        if promised is not None:
            return AcceptedSubmission(shard, *promised)
        receipt = self.sequencer.submit(draft)
        if isinstance(receipt, TreeClosed):
            return receipt
        # A rotation may have come before the draft: the receipt says which tree took the entry.
        shard = self.ledger.shards[receipt.tree]
        return AcceptedSubmission(shard, self.view_with(shard, receipt.entry.index), receipt.entry, receipt.duplicate)

    def v2_shard(self, host: str) -> Shard:
        """Return the Rekor v2 shard with this host name; the first shard for any other name."""
        shards = self.ledger.of_log(V2)
        return next((shard for shard in shards if shard.row.origin == host), shards[0])
