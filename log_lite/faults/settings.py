"""Settings of a fault, chosen and stored when it is switched on, so that it is the same after a restart."""

import json
from base64 import b64decode, b64encode
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict

from log_lite.chain import Submission
from log_lite.genesis import statement_ct, statement_v1, statement_v2
from log_lite.home import CT_KEY, V1_KEY, NotApplicable
from log_lite.keys import read_key
from log_lite.ledger import CT, KEYS, V1, Ledger, SealedLeaf
from log_lite.shard import Shard
from log_lite.store import Entry
from tlog.merkle import leaf_hash


class FaultSettings(Struct, frozen=True):
    """Target of a fault: the `tree`, the entry at `index` or a tree `size`, a `part` of the API.

    `body` and `extra` are a forged entry; `now_ms` is when the fault was switched on.
    """

    tree: str
    index: int = 0
    size: int = 0
    part: str = "reads"
    body: bytes = b""
    extra: bytes = b""
    now_ms: int = 0

    def dump(self) -> str:
        """Serialise as JSON."""
        values = asdict(self)
        return json.dumps({k: b64encode(v).decode() if isinstance(v, bytes) else v for k, v in values.items()})

    @classmethod
    def load(cls, text: str) -> "FaultSettings":
        """Parse the JSON that `dump` made."""
        values: dict[str, Any] = json.loads(text)
        values.update({name: b64decode(values[name]) for name in ("body", "extra")})
        return cls(**values)

    def forged(self, original: Entry) -> Entry:
        """Return the forged entry at the index and time of `original`."""
        return Entry(original.index, leaf_hash(self.body), original.time_ms, self.body, self.extra)


def choose(ledger: Ledger, log: str, mode: str, index: int | None, part: str) -> FaultSettings:
    """Fill in missing settings. Raises `NotApplicable` when the log has no entry to which this mode applies."""
    shard = _shard(ledger, log, mode)
    size = shard.published
    if mode == "rewind":
        place, shown = 0, index if index is not None else max(1, size // 2)
        if not 0 <= shown < size:
            raise NotApplicable(f"{shard.row.origin} has size {size}: rewind needs a smaller one, not {shown}")
    else:
        place, shown = index if index is not None else size - 1, size
        if mode == "duplicate-index" and index is None:
            place = size - 2
        if mode == "stale-replica":
            place, shown = 0, max(1, size - 1) if index is None else index
        if not 0 <= place < size:
            raise NotApplicable(
                f"{shard.row.origin} has {size} entries: there is no entry {place} that {mode} could take"
            )
    forged = _forge(ledger, shard, size if mode == "unfreeze" else place)
    now_ms = int(datetime.now(UTC).timestamp() * 1000)
    return FaultSettings(shard.row.name, place, shown, part, forged.body, forged.extra, now_ms)


def _shard(ledger: Ledger, log: str, mode: str) -> Shard:
    shards = ledger.of_log(log)
    if mode in {"inactive-shard-changed", "shard-vanished"}:
        inactive = [shard for shard in shards if shard.row.state == "inactive"]
        if not inactive:
            raise NotApplicable("there is no inactive shard: run `log-lite rotate --log v1` first")
        return inactive[0]
    if mode == "unfreeze":
        frozen = [shard for shard in shards if shard.row.state == "frozen"]
        if not frozen:
            raise NotApplicable("there is no frozen shard: run `log-lite freeze` or `log-lite rotate --log v2` first")
        return frozen[-1]
    return shards[-1]


def _forge(ledger: Ledger, shard: Shard, index: int) -> SealedLeaf:
    """Make a well-formed entry that no client submitted."""
    text = f"forged entry {index} of {shard.row.origin}"
    if shard.row.log == CT:
        now = datetime.now(UTC).replace(microsecond=0)
        submission: Submission = statement_ct(read_key(ledger.folder / KEYS / CT_KEY), text, now)
        return submission.draft().seal(index, int(now.timestamp() * 1000))
    key = read_key(ledger.folder / KEYS / V1_KEY)
    proposal = statement_v1(key, text) if shard.row.log == V1 else statement_v2(key, text)
    return SealedLeaf(proposal.body)
