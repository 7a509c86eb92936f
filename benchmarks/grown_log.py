"""A log in memory that grows as the clock goes on: what a simulation of months follows instead of a server."""

import json
from base64 import b64encode
from bisect import bisect_right
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from typing_extensions import override

from benchmarks.corpus import fixed_key
from log_lite.tree import Tree
from monitor.model.log_source import LogApi, LogEntry, LogIdentity, LogSource, SignedHead
from tlog.ct import tree_head_message
from tlog.merkle import Frontier, NodeHash, leaf_hash
from tlog.note import rekor_v1_key, tile_log_key

_EPOCH: Final = datetime.fromisoformat("1970-01-01T00:00:00Z")


class GrownLog(LogSource):
    """A log that grows with the clock. `entries` come with the time at which the log shows them, in order.

    Heads are signed as the protocol has it: a monitor that begins anew checks the one it stored.
    """

    def __init__(
        self, name: str, api: LogApi, entries: Sequence[tuple[datetime, LogEntry]], clock: Callable[[], datetime]
    ) -> None:
        self._key = fixed_key(f"log {name}")
        spki = self._key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self._identity = LogIdentity(name, api, name, name, spki)
        self._times = [at for at, _ in entries]
        self._entries = [entry for _, entry in entries]
        self._hashes = [leaf_hash(entry.leaf) for entry in self._entries]
        self._tree = Tree(self._hashes)
        self._clock = clock

    @property
    @override
    def identity(self) -> LogIdentity:
        return self._identity

    @override
    def latest(self) -> SignedHead:
        now, name = self._clock(), self.identity.log
        size = bisect_right(self._times, now)
        root = self._tree.root(size)
        signed = self._tree_head if self.identity.api is LogApi.CT_RFC6962 else self._checkpoint
        return SignedHead(name, size, root, signed(size, root, now), now)

    @override
    def consistency_proof(self, size1: int, size2: int) -> Sequence[NodeHash]:
        return self._tree.consistency_proof(size1, size2) if size1 else []

    @override
    def frontier(self, size: int, head: SignedHead) -> Frontier:
        return Frontier().extended(self._hashes[:size])

    @override
    def entries(self, start: int, end: int, head: SignedHead) -> Sequence[LogEntry]:
        return self._entries[start:end]

    @override
    def sightings(self) -> Sequence[SignedHead]:
        return ()

    def _sign(self, message: bytes) -> bytes:
        return self._key.sign(message, ec.ECDSA(SHA256()))

    def _checkpoint(self, size: int, root: bytes, now: datetime) -> bytes:
        name, api, spki = self.identity.log, self.identity.api, self.identity.spki
        text = f"{name}\n{size}\n{b64encode(root).decode()}\n"
        if api is LogApi.REKOR_V1:
            text += f"Timestamp: {_milliseconds(now)}000000\n"
        key = (rekor_v1_key if api is LogApi.REKOR_V1 else tile_log_key)(name, spki)
        signature = b64encode(key.key_id + self._sign(text.encode())).decode()
        return f"{text}\n— {name} {signature}\n".encode()

    def _tree_head(self, size: int, root: bytes, now: datetime) -> bytes:
        signature = self._sign(tree_head_message(size, _milliseconds(now), root))
        document = {
            "tree_size": size,
            "timestamp": _milliseconds(now),
            "sha256_root_hash": b64encode(root).decode(),
            "tree_head_signature": b64encode(b"\x04\x03" + len(signature).to_bytes(2, "big") + signature).decode(),
        }
        return json.dumps(document).encode()


def _milliseconds(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(milliseconds=1)
