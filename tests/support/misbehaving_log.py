"""Logs in memory behind the `Fetcher` seam: honest by default, every attack a named method.

What a log *signs* comes from `leaves`; what it *serves* may differ. One class per protocol, each answering the paths
its real counterpart answers.
"""

import base64
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from monitor.http_fetcher import Expect, NotFound, Refused, TooLarge
from monitor.logs.ct_rfc6962 import CtRfc6962Source
from monitor.logs.ct_static import CtStaticSource
from monitor.logs.rekor_v1 import RekorV1Source
from monitor.logs.rekor_v2 import RekorV2Source
from monitor.model.log_source import LogApi, LogIdentity, LogSource
from tests.support.rfc6962_oracle import TreeOracle
from tlog.ct import CtLeaf, EntryType, leaf_timestamped_entry, tree_head_message
from tlog.note import rekor_v1_key, tile_log_key
from tlog.static_ct import static_ct_key
from tlog.tiles import TILE_WIDTH

PrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey


def ed25519_key(seed: int) -> ed25519.Ed25519PrivateKey:
    return ed25519.Ed25519PrivateKey.from_private_bytes(seed.to_bytes(32, "big"))


def ecdsa_key(seed: int) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(seed, ec.SECP256R1())


def spki_of(key: PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def sign(key: PrivateKey, message: bytes) -> bytes:
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(message)
    return key.sign(message, ec.ECDSA(SHA256()))


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


class MisbehavingLog(ABC):
    """What all protocols share: leaves, what is shown of them, and the attacks."""

    api: LogApi

    def __init__(self, leaves: Sequence[bytes] = ()) -> None:
        self.leaves: list[bytes] = list(leaves)
        self.shown_size: int | None = None
        self.served: dict[int, bytes] = {}
        self.hidden: set[int] = set()
        self.edits: list[tuple[re.Pattern[str], Callable[[bytes], bytes]]] = []
        self.failures: list[tuple[re.Pattern[str], Exception, int]] = []
        self.asked: list[str] = []
        self.signing_key: PrivateKey = self.log_key
        self.signed_origin: str | None = None
        self.final = False
        self.timestamp = 1_700_000_000_000
        self.answer_cap: int | None = None
        self._oracle: TreeOracle | None = None

    # -- the honest log

    @property
    def log_key(self) -> PrivateKey:
        return ecdsa_key(7)

    @property
    def size(self) -> int:
        return len(self.leaves) if self.shown_size is None else self.shown_size

    def append(self, *leaves: bytes) -> None:
        self.leaves.extend(leaves)
        self.timestamp += 1000

    def oracle(self) -> TreeOracle:
        if self._oracle is None or self._oracle.leaves != tuple(self.leaves):
            self._oracle = TreeOracle(self.leaves)
        return self._oracle

    def entry(self, index: int) -> bytes:
        """What is served at `index`."""
        return self.served.get(index, self.leaves[index])

    @staticmethod
    def leaf(number: int) -> bytes:
        """An entry of this log's kind, another for every number."""
        return b'{"kind":"test","number":%d}' % number

    def grow(self, count: int) -> None:
        """Append this many ordinary entries."""
        self.append(*(self.leaf(len(self.leaves) + i) for i in range(count)))

    @abstractmethod
    def source(self) -> LogSource:
        """Adapter that follows this log."""

    @abstractmethod
    def answer(self, path: str, query: dict[str, str], document: Any) -> bytes:
        """Bytes served at a path; raises as a fetcher does."""

    # -- attacks and faults

    def rewind_to(self, size: int) -> None:
        """Show an older head again."""
        self.shown_size = size

    def rewrite_from(self, index: int) -> None:
        """Change every leaf from `index` on, and sign the new tree as if nothing had happened."""
        self.leaves[index:] = [self.leaf(1_000_000 + i) for i in range(index, len(self.leaves))]

    def swap_leaf(self, index: int, leaf: bytes) -> None:
        """Serve another entry than the one signed."""
        self.served[index] = leaf

    def hide_leaf(self, index: int) -> None:
        """Leave an entry out of every answer."""
        self.hidden.add(index)

    def sign_with(self, key: PrivateKey) -> None:
        """Sign with a key that is not this log's."""
        self.signing_key = key

    def wrong_origin(self, origin: str) -> None:
        """Sign a head that names another log."""
        self.signed_origin = origin

    def freeze(self) -> None:
        """Declare the log final at its present size."""
        self.final = True

    def edit(self, path: str, change: Callable[[bytes], bytes]) -> None:
        """Change the bytes of every answer whose path matches the pattern."""
        self.edits.append((re.compile(path), change))

    def fail(self, path: str, error: Exception, times: int = 1_000_000) -> None:
        """Fail the next `times` requests whose path matches the pattern."""
        self.failures.append((re.compile(path), error, times))

    def honest(self) -> None:
        """Stop every edit, failure, swap and hiding; what was signed stays signed."""
        self.edits, self.failures, self.served, self.hidden, self.shown_size = [], [], {}, set(), None
        self.signing_key, self.signed_origin = self.log_key, None

    # -- monitor.http_fetcher.Fetcher

    def get(self, path: str, *, max_bytes: int, expect: Expect) -> bytes:
        return self._ask(path, None, max_bytes)

    def post_json(self, path: str, document: Any, *, max_bytes: int) -> bytes:
        return self._ask(path, json.loads(json.dumps(document)), max_bytes)

    def _ask(self, path: str, document: Any, max_bytes: int) -> bytes:
        self.asked.append(path)
        for place, (pattern, error, times) in enumerate(self.failures):
            if times and pattern.search(path):
                self.failures[place] = (pattern, error, times - 1)
                raise error
        parts = urlsplit(path)
        raw = self.answer(parts.path, {k: v[0] for k, v in parse_qs(parts.query).items()}, document)
        for pattern, change in self.edits:
            if pattern.search(path):
                raw = change(raw)
        if len(raw) > min(max_bytes, self.answer_cap or max_bytes):
            raise TooLarge(f"{path}: more than {max_bytes} bytes", raw[: min(max_bytes, self.answer_cap or max_bytes)])
        return raw

    # -- shared pieces

    def note(self, origin: str, name: str, key_id: bytes, size: int, extensions: Sequence[str] = ()) -> bytes:
        text = self.note_text(origin, size, extensions)
        line = f"— {name} {b64(key_id + sign(self.signing_key, text))}\n"
        return text + b"\n" + line.encode()

    def note_text(self, origin: str, size: int, extensions: Sequence[str] = ()) -> bytes:
        lines = [self.signed_origin or origin, str(size), b64(self.oracle().root(size)), *extensions]
        return "".join(line + "\n" for line in lines).encode()

    def hash_tile(self, path: str) -> bytes:
        """Answer `tile/<level>/<index>[.p/<width>]` from what was signed."""
        match = re.fullmatch(r"tile/(\d+)/((?:x\d{3}/)*\d{3})(?:\.p/(\d+))?", path)
        if not match:
            raise not_found(path)
        level, index, width = int(match[1]), _tile_index(match[2]), int(match[3] or TILE_WIDTH)
        span = TILE_WIDTH**level
        first = index * TILE_WIDTH
        if (first + width) * span > len(self.leaves):
            raise not_found(path)
        tree = self.oracle()
        return b"".join(tree.range_root(i * span, (i + 1) * span) for i in range(first, first + width))

    def bundle_range(self, path: str, kind: str) -> range:
        """Indexes of the entries in `tile/<kind>/<index>[.p/<width>]`."""
        match = re.fullmatch(rf"tile/{kind}/((?:x\d{{3}}/)*\d{{3}})(?:\.p/(\d+))?", path)
        if not match:
            raise not_found(path)
        first, width = _tile_index(match[1]) * TILE_WIDTH, int(match[2] or TILE_WIDTH)
        wanted = range(first, first + width)
        if wanted.stop > len(self.leaves) or self.hidden & set(wanted):
            raise not_found(path)
        return wanted


def _tile_index(text: str) -> int:
    return int(text.replace("x", "").replace("/", ""))


def not_found(path: str) -> NotFound:
    return NotFound(f"{path}: HTTP 404", 404)


class RekorV2Log(MisbehavingLog):
    """A Rekor v2 shard: checkpoint, hash tiles, bundles."""

    api = LogApi.REKOR_V2
    host = "log2031-1.example.org"

    def __init__(self, leaves: Sequence[bytes] = (), prefix: str = "") -> None:
        super().__init__(leaves)
        self.prefix = prefix
        self.extra_signatures: list[str] = []
        self.freeze_line = "Log frozen — Thu Jan  1 00:00:00 UTC 2032"

    @property
    def log_key(self) -> PrivateKey:
        return ed25519_key(5)

    def source(self) -> RekorV2Source:
        key = tile_log_key(self.host, spki_of(self.log_key))
        return RekorV2Source(LogIdentity("v2", self.api, self.host, self.host, key.spki), self, key)

    def answer(self, path: str, query: dict[str, str], document: Any) -> bytes:
        if not path.startswith(self.prefix):
            raise not_found(path)
        path = path.removeprefix(self.prefix)
        if path == "checkpoint":
            key_id = tile_log_key(self.host, spki_of(self.signing_key)).key_id
            raw = self.note(self.host, self.host, key_id, self.size, [self.freeze_line] if self.final else [])
            text, _, signatures = raw.rpartition(b"\n\n")
            return text + b"\n\n" + "".join(self.extra_signatures).encode() + signatures
        if path.startswith("tile/entries/"):
            entries = [self.entry(i) for i in self.bundle_range(path, "entries")]
            return b"".join(len(body).to_bytes(2, "big") + body for body in entries)
        return self.hash_tile(path)


class RekorV1Log(MisbehavingLog):
    """A Rekor v1 log with one active tree and, before it, inactive ones that only count for the virtual index."""

    api = LogApi.REKOR_V1
    host = "rekor.example.org"
    tree_id = "1193050959916656506"

    def __init__(self, leaves: Sequence[bytes] = (), offset: int = 0) -> None:
        super().__init__(leaves)
        self.offset = offset
        self.vanished = False
        self.active = True
        self.shuffle = True
        self.timestamps = True
        self.integrated: dict[int, int] = {}

    def integrated_at(self, index: int) -> int:
        """When the log claims to have taken an entry in, in seconds; `integrated` overrides it."""
        return self.integrated.get(index, 1_700_000_000 + index)

    def source(self) -> RekorV1Source:
        key = rekor_v1_key(self.host, spki_of(self.log_key))
        identity = LogIdentity("v1", self.api, self.host, f"{self.host} - {self.tree_id}", key.spki)
        return RekorV1Source(identity, self, key, tree_id=self.tree_id)

    def tree(self, size: int) -> dict[str, Any]:
        return {
            "rootHash": self.oracle().root(size).hex(),
            "treeSize": size,
            "signedTreeHead": self.head_note(size).decode(),
            "treeID": self.tree_id,
        }

    def head_note(self, size: int) -> bytes:
        key_id = sha256(spki_of(self.signing_key)).digest()[:4]
        return self.note(f"{self.host} - {self.tree_id}", self.host, key_id, size)

    def answer(self, path: str, query: dict[str, str], document: Any) -> bytes:
        match path:
            case "api/v1/log":
                return json.dumps(self.log_info()).encode()
            case "api/v1/log/proof":
                return self._proof(int(query["firstSize"]), int(query["lastSize"]), query["treeID"])
            case "api/v1/log/entries/retrieve":
                return self._retrieve(document["logIndexes"])
        raise not_found(path)

    def log_info(self) -> dict[str, Any]:
        old = {"rootHash": "00" * 32, "treeSize": self.offset, "signedTreeHead": self._old_head("17"), "treeID": "17"}
        inactive = [old] if self.offset else []
        if self.active and not self.vanished:
            return {**self.tree(self.size), "inactiveShards": inactive}
        if not self.vanished:
            inactive = [*inactive, self.tree(self.size)]
        new = {"rootHash": sha256(b"").hexdigest(), "treeSize": 0, "signedTreeHead": "", "treeID": "99"}
        return {**new, "inactiveShards": inactive}

    def _old_head(self, tree_id: str) -> str:
        """The signed head of an inactive tree of which only the size is known here."""
        text = f"{self.host} - {tree_id}\n{self.offset}\n{b64(bytes(32))}\n"
        key_id = sha256(spki_of(self.log_key)).digest()[:4]
        return f"{text}\n— {self.host} {b64(key_id + sign(self.log_key, text.encode()))}\n"

    def _proof(self, first: int, last: int, tree_id: str) -> bytes:
        if last > len(self.leaves) or first > last or tree_id != self.tree_id:
            body = b'{"code":400,"message":"the tree size requested was greater than what is currently observable"}'
            raise Refused("HTTP 400", 400, body)
        hashes = [node.hex() for node in self.oracle().consistency_proof(first, last)]
        return json.dumps({"rootHash": self.oracle().root(len(self.leaves)).hex(), "hashes": hashes}).encode()

    def _retrieve(self, indexes: list[int]) -> bytes:
        if len(indexes) > 10:
            raise Refused("HTTP 422", 422, b'{"code":422,"message":"more than max allowed 10 entries in request"}')
        local = [i - self.offset for i in indexes]
        found = [self._entry(i) for i in local if 0 <= i < len(self.leaves) and i not in self.hidden]
        return json.dumps(found[::-1] if self.shuffle else found).encode()

    def _entry(self, index: int) -> dict[str, Any]:
        body, size = self.entry(index), len(self.leaves)
        hashed = sha256(b"\x00" + body).hexdigest()
        uuid = f"{int(self.tree_id):016x}{hashed}"
        proof = {
            "logIndex": index,
            "treeSize": size,
            "rootHash": self.oracle().root(size).hex(),
            "hashes": [node.hex() for node in self.oracle().inclusion_proof(index, size)],
            "checkpoint": self.head_note(size).decode(),
        }
        entry = {
            "body": b64(body),
            "integratedTime": self.integrated_at(index),
            "logID": sha256(spki_of(self.log_key)).hexdigest(),
            "logIndex": self.offset + index,
            "verification": {"inclusionProof": proof, "signedEntryTimestamp": self._timestamp(index, body)},
        }
        return {uuid: entry}

    def _timestamp(self, index: int, body: bytes) -> str:
        """SPEC rekor verify.go: RFC 8785 of four fields, which for these values is their plain JSON in this order."""
        if not self.timestamps:
            return ""
        log_id = sha256(spki_of(self.log_key)).hexdigest()
        told = f'{{"body":"{b64(body)}","integratedTime":{self.integrated_at(index)},"logID":"{log_id}",'
        return b64(sign(self.log_key, f'{told}"logIndex":{self.offset + index}}}'.encode()))


def ct_leaf(index: int) -> CtLeaf:
    """A precertificate leaf whose TBS is only bytes: what is in it is the decoder's business."""
    return CtLeaf(1_700_000_000_000 + index, EntryType.PRECERT, sha256(b"issuer").digest(), b"tbs %d" % index, b"")


def merkle_tree_leaf(leaf: CtLeaf) -> bytes:
    return b"\x00\x00" + leaf_timestamped_entry(leaf)


class CtRfc6962Log(MisbehavingLog):
    """An RFC 6962 log that caps its answers and cuts them at multiples of its cap, as CTFE does."""

    api = LogApi.CT_RFC6962
    leaf = staticmethod(lambda number: merkle_tree_leaf(ct_leaf(number)))
    name = "ct.example.org/2031"

    def __init__(self, leaves: Sequence[bytes] = (), cap: int = 32) -> None:
        super().__init__(leaves)
        self.cap = cap
        self.entry_and_proof = True

    def source(self) -> CtRfc6962Source:
        return CtRfc6962Source(LogIdentity("ct", self.api, self.name, self.name, spki_of(self.log_key)), self)

    def sth(self, size: int) -> bytes:
        root = self.oracle().root(size)
        signature = sign(self.signing_key, tree_head_message(size, self.timestamp, root))
        blob = b"\x04\x03" + len(signature).to_bytes(2, "big") + signature
        return json.dumps(
            {
                "tree_size": size,
                "timestamp": self.timestamp,
                "sha256_root_hash": b64(root),
                "tree_head_signature": b64(blob),
            }
        ).encode()

    def answer(self, path: str, query: dict[str, str], document: Any) -> bytes:
        tree = self.oracle()
        match path:
            case "ct/v1/get-sth":
                return self.sth(self.size)
            case "ct/v1/get-sth-consistency":
                nodes = tree.consistency_proof(int(query["first"]), int(query["second"]))
                return json.dumps({"consistency": [b64(node) for node in nodes]}).encode()
            case "ct/v1/get-entries":
                return self._entries(int(query["start"]), int(query["end"]) + 1)
            case "ct/v1/get-entry-and-proof" if self.entry_and_proof:
                index, size = int(query["leaf_index"]), int(query["tree_size"])
                path_nodes = [b64(node) for node in tree.inclusion_proof(index, size)]
                entry = {"leaf_input": b64(self.entry(index)), "extra_data": "", "audit_path": path_nodes}
                return json.dumps(entry).encode()
            case "ct/v1/get-proof-by-hash":
                return self._proof_by_hash(query["hash"], int(query["tree_size"]))
        raise not_found(path)

    def _entries(self, start: int, end: int) -> bytes:
        end = min(end, (start // self.cap + 1) * self.cap, len(self.leaves))
        if start >= end:
            raise Refused("HTTP 400: need tree size", 400)
        found = [
            {"leaf_input": b64(self.entry(i)), "extra_data": b64(b"chain")}
            for i in range(start, end)
            if i not in self.hidden
        ]
        return json.dumps({"entries": found}).encode()

    def _proof_by_hash(self, wanted: str, size: int) -> bytes:
        hashes = [b64(sha256(b"\x00" + leaf).digest()) for leaf in self.leaves[:size]]
        if wanted not in hashes:
            raise not_found("ct/v1/get-proof-by-hash")
        index = hashes.index(wanted)
        nodes = [b64(node) for node in self.oracle().inclusion_proof(index, size)]
        return json.dumps({"leaf_index": index, "audit_path": nodes}).encode()


class CtStaticLog(MisbehavingLog):
    """A static CT log: the leaves are made here, `append` takes what `merkle_tree_leaf(ct_leaf(i))` gives."""

    api = LogApi.CT_STATIC
    leaf = staticmethod(lambda number: merkle_tree_leaf(ct_leaf(number)))
    origin = "static-ct.example.org/2031"

    def source(self) -> CtStaticSource:
        key = static_ct_key(self.origin, spki_of(self.log_key))
        return CtStaticSource(LogIdentity("static", self.api, self.origin, self.origin, key.spki), self, key)

    def answer(self, path: str, query: dict[str, str], document: Any) -> bytes:
        if path == "checkpoint":
            root = self.oracle().root(self.size)
            signature = sign(self.signing_key, tree_head_message(self.size, self.timestamp, root))
            blob = self.timestamp.to_bytes(8, "big") + b"\x04\x03" + len(signature).to_bytes(2, "big") + signature
            key_id = static_ct_key(self.origin, spki_of(self.signing_key)).key_id
            line = f"— {self.origin} {b64(key_id + blob)}\n"
            return self.note_text(self.origin, self.size) + b"\n" + line.encode()
        if path.startswith("tile/data/"):
            return b"".join(self._tile_leaf(self.entry(i)) for i in self.bundle_range(path, "data"))
        return self.hash_tile(path)

    @staticmethod
    def _tile_leaf(leaf: bytes) -> bytes:
        precertificate = b"precertificate"
        fingerprints = sha256(b"issuer").digest()
        return (
            leaf[2:]
            + len(precertificate).to_bytes(3, "big")
            + precertificate
            + len(fingerprints).to_bytes(2, "big")
            + fingerprints
        )
