"""Rekor v1 answers: entries, heads and proofs in the shapes of Rekor's OpenAPI description."""

import base64
from hashlib import sha256
from typing import Any

import rfc8785

from log_lite.ledger import V1
from log_lite.service import LogLiteService
from log_lite.shard import Shard, ShardEntry

_TREE_ID_DIGITS = 16
_LEAF_DIGITS = 64


class NotObservable(Exception):
    """A tree size larger than this replica's tree."""

    def __init__(self, observable: int) -> None:
        super().__init__(observable)
        self.observable = observable


class RekorV1:
    """Reads of the Rekor v1 log, over all its shards."""

    def __init__(self, service: LogLiteService) -> None:
        self._service = service

    def shards(self) -> list[Shard]:
        """Return all shards, the active one last."""
        return self._service.ledger.of_log(V1)

    def offset(self, shard: Shard) -> int:
        """Virtual index of a shard's first entry: the sizes of all shards before it."""
        return sum(s.published for s in self.shards() if s.row.position < shard.row.position)

    def _listed(self) -> list[Shard]:
        """Shards that the log shows to readers, oldest first."""
        shards = self.shards()
        return self._service.lens(shards[-1]).listed(shards)

    def log_info(self) -> dict[str, Any]:
        """GET /api/v1/log."""
        *inactive, active = self._listed()
        return {**self._head(active), "inactiveShards": [self._head(shard) for shard in inactive]}

    def _head(self, shard: Shard) -> dict[str, Any]:
        view = self._service.view(shard)
        head = self._service.lens(shard).head(view.head())
        note = self._service.note(shard, view)
        return {
            "rootHash": head.root.hex(),
            "treeSize": head.size,
            "signedTreeHead": note.decode(),
            "treeID": shard.row.tree_id,
        }

    def by_tree_id(self, tree_id: str | None) -> Shard | None:
        """Return the shard with a tree id; the active shard for `None`."""
        if tree_id is None:
            return self.shards()[-1]
        return next((shard for shard in self._listed() if shard.row.tree_id == tree_id), None)

    def by_virtual_index(self, index: int) -> ShardEntry | None:
        """Find an entry by its index over all shards."""
        for shard in reversed(self._listed()):
            offset = self.offset(shard)
            if index >= offset:
                view = self._service.view(shard)
                entry = view.entry(index - offset)
                return None if entry is None else ShardEntry(shard, view, entry)
        return None

    def by_uuid(self, uuid: str) -> ShardEntry | None:
        """Find an entry by tree id and leaf hash (80 hex digits), or by leaf hash alone: active shard first."""
        uuid = uuid.lower()
        leaf = bytes.fromhex(uuid[-_LEAF_DIGITS:])
        tree_id = str(int(uuid[:_TREE_ID_DIGITS], 16)) if len(uuid) > _LEAF_DIGITS else None
        for shard in reversed(self._listed()):
            if tree_id in (None, shard.row.tree_id):
                place = self.by_leaf(shard, leaf)
                if place is not None:
                    return place
        return None

    def by_leaf(self, shard: Shard, leaf: bytes) -> ShardEntry | None:
        """Find a leaf in one shard."""
        view = self._service.view(shard)
        entries = [view.entry(index) for index in view.find(leaf)]
        return next((ShardEntry(shard, view, e) for e in entries if e is not None), None)

    def uuid(self, place: ShardEntry) -> str:
        """Entry UUID: 16 hex digits of tree id, 64 of leaf hash."""
        return f"{int(place.shard.row.tree_id):016x}{place.entry.leaf_hash.hex()}"

    def log_entry(self, place: ShardEntry) -> dict[str, Any]:
        """One LogEntry map; outer logIndex counts over all shards, the proof's within its tree."""
        shard, view, entry = place.shard, place.view, place.entry
        lens = self._service.lens(shard)
        body = base64.b64encode(entry.body).decode()
        promised: dict[str, str | int] = {
            "body": body,
            "integratedTime": lens.now_ms(entry.time_ms) // 1000,
            "logID": sha256(shard.signer.key.spki).hexdigest(),
            "logIndex": self.offset(shard) + entry.index,
        }
        signature = shard.signer.key.sign(rfc8785.dumps(dict(promised)))
        proof = lens.proof(view.tree.inclusion_proof(entry.index, view.size))
        verification = {
            "signedEntryTimestamp": base64.b64encode(signature).decode(),
            "inclusionProof": {
                "logIndex": entry.index,
                "treeSize": view.size,
                "rootHash": view.tree.root(view.size).hex(),
                "hashes": [h.hex() for h in proof],
                "checkpoint": self._service.note(shard, view).decode(),
            },
        }
        attestation = {"attestation": {"data": base64.b64encode(entry.extra).decode()}} if entry.extra else {}
        return {self.uuid(place): {**promised, "verification": verification, **attestation}}

    def consistency(self, shard: Shard, first: int, last: int) -> dict[str, Any]:
        """GET /api/v1/log/proof; `rootHash` is the root of the latest tree, as in Rekor. Raises `NotObservable`."""
        view = self._service.view(shard)
        if last > view.size:
            raise NotObservable(view.size)
        hashes = self._service.lens(shard).proof(view.tree.consistency_proof(first, last))
        return {"rootHash": view.tree.root(view.size).hex(), "hashes": [h.hex() for h in hashes]}

    def search(self, key: str) -> list[str]:
        """UUIDs of the entries that the index has under a search key."""
        found = []
        names = {shard.row.name: shard for shard in self.shards()}
        for tree, index in self._service.ledger.store.search(key.lower()):
            if tree in names:
                leaf = names[tree].tree.leaf(index)
                found.append(f"{int(names[tree].row.tree_id):016x}{leaf.hex()}")
        return found
