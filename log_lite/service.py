"""Shared by the three APIs: the ledger, the writer, the lenses, and the certificates a CT log accepts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from cryptography import x509

from log_lite.ledger import V2, Draft, Ledger, Refused
from log_lite.lens import HONEST, Lens
from log_lite.sequencer import Sequencer, wall_clock_ms
from log_lite.shard import Shard, View
from log_lite.store import Entry


@dataclass(frozen=True, slots=True)
class Accepted:
    """A submission's place, and the view its submitter is shown. `duplicate`: it was there before."""

    shard: Shard
    view: View
    entry: Entry
    duplicate: bool = False


@dataclass(slots=True)
class Service:
    """One running log. `lenses` and `fault_modes` (by log) are replaced as a whole when a fault is switched."""

    ledger: Ledger
    sequencer: Sequencer
    anchors: Sequence[x509.Certificate] = ()
    lenses: Mapping[str, Lens] = field(default_factory=dict)
    fault_modes: Mapping[str, str] = field(default_factory=dict)
    clock: Callable[[], int] = wall_clock_ms

    def lens(self, shard: Shard) -> Lens:
        """Return the lens readers of this shard's log look through."""
        return self.lenses.get(shard.row.log, HONEST)

    def view(self, shard: Shard) -> View:
        """Return what readers see of a shard now."""
        lens, view = self.lens(shard), shard.view()
        return lens.view(view) if shard is self.ledger.active(shard.row.log) else lens.past_view(view)

    def view_with(self, shard: Shard, index: int) -> View:
        """Return what the submitter of the entry at `index` sees: a tree that holds it."""
        view = self.view(shard)
        return view if view.size > index else shard.view()

    def now_ms(self, shard: Shard) -> int:
        """Time as this log tells it."""
        return self.lens(shard).now_ms(self.clock())

    def note(self, shard: Shard, view: View) -> bytes:
        """Sign a checkpoint of a view."""
        lens = self.lens(shard)
        return lens.sign(shard.signer, lens.head(view.head()), self.now_ms(shard))

    def note_by_url(self, shard: Shard, view: View) -> bytes:
        """Sign a checkpoint of a Rekor v2 view under the shard's whole address, port and path included.

        rekor-monitor takes a log's URL without its scheme as its origin, and looks the key up by the id of the first
        signature; cosign takes the host alone. So the first signature is by the name that the trust root knows.
        """
        lens, named, now_ms = self.lens(shard), shard.signer_by_url(), self.now_ms(shard)
        head = lens.head(replace(view.head(), origin=named.name))
        known, own = (lens.sign(signer, head, now_ms) for signer in (shard.signer, named))
        return known + own.removeprefix(head.to_bytes() + b"\n")

    def submit(self, shard: Shard, draft: Draft) -> Accepted | Refused:
        """Have a draft sequenced. Raises `Pushback`, `NotStored`."""
        promised = self.lens(shard).promise(shard.view(), draft, self.clock())
        if promised is not None:
            return Accepted(shard, *promised)
        receipt = self.sequencer.submit(draft)
        if isinstance(receipt, Refused):
            return receipt
        # A rotation may have come first: the receipt says which tree took the entry.
        shard = self.ledger.shards[receipt.tree]
        return Accepted(shard, self.view_with(shard, receipt.entry.index), receipt.entry, receipt.duplicate)

    def v2_shard(self, host: str) -> Shard:
        """Return the Rekor v2 shard that lives under this host name; the first one for any other name."""
        shards = self.ledger.of_log(V2)
        return next((shard for shard in shards if shard.row.origin == host), shards[0])
